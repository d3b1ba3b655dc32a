from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

import coachhook_viz as cv
from coachhook_viz.__main__ import main
from coachhook_viz.models import bundled


def test_model_fetches_the_default_model(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "folder", lambda: tmp_path)
    assert main(["model"]) == 0
    assert f"smollm2-135m is ready in {tmp_path}" in capsys.readouterr().out


def test_a_model_that_cannot_be_had_is_one_line_not_a_traceback(monkeypatch, capsys) -> None:
    def fail() -> Path:
        raise bundled.ModelNotFound("no index here")

    monkeypatch.setattr(bundled, "folder", fail)
    assert main(["model"]) == 1
    assert capsys.readouterr().err == "no index here\n"


def test_demo_on_a_tiny_model(monkeypatch, capsys, tmp_path: Path) -> None:
    lm = tiny_model(lead="He ")
    session = cv.Session(lm, tiny_config(), tiny_moments(lm))
    monkeypatch.setattr(cv, "load_model", lambda: lm)
    monkeypatch.setattr(cv, "Session", lambda lm: session)
    monkeypatch.setattr(cv, "bundled_facts", lambda: tiny_facts())
    path = tmp_path / "demo.html"
    assert main(["demo", "--rounds", "2", "--size", "2", "--report", str(path)]) == 0
    said = capsys.readouterr().out
    for fact in tiny_facts()[:4]:
        assert f"{fact.text} → {fact.target}" in said
    assert "Round 2" in said
    assert "reliability" in said
    assert "z-scores, at most" in said
    assert session.position == 2
    assert path.resolve().as_uri() in said
    assert path.is_file()


def test_no_command_is_an_error(capsys) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "model" in capsys.readouterr().err
