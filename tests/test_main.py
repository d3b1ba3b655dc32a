from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

import coachhook_viz as cv
import coachhook_viz.setup as made_with
from coachhook_viz import Fact
from coachhook_viz.__main__ import main
from coachhook_viz.editing.wordings import written_for
from coachhook_viz.models import bundled


def test_model_fetches_the_default_model(monkeypatch, capsys, tmp_path: Path) -> None:
    session = Mock()
    monkeypatch.setattr(bundled, "folder", lambda: tmp_path)
    monkeypatch.setattr(cv, "load_model", lambda: "the model")
    monkeypatch.setattr(cv, "Session", session)
    monkeypatch.setattr(cv.EditConfig, "for_model", lambda lm, scope: scope)
    assert main(["model"]) == 0  # with the moments of all rules that the playground offers
    assert session.call_args_list == [call("the model", "zscore"), call("the model", "two-key")]
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


@pytest.fixture
def tiny(monkeypatch) -> cv.LanguageModel:
    """A tiny model in place of the default one."""
    lm = tiny_model(lead="He ")
    monkeypatch.setattr(cv, "load_model", lambda *args, **kwargs: lm)
    keys = {"site": "answer", "subject_layer": 0, "kl_weight": 0.0}

    def for_model(lm: cv.LanguageModel, scope: Any) -> cv.EditConfig:
        return tiny_config(scope=scope, **keys if scope == "two-key" else {})

    monkeypatch.setattr(cv.EditConfig, "for_model", for_model)
    monkeypatch.setattr(made_with, "cached_moments", lambda lm, *args: tiny_moments(lm))
    return lm


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([asdict(fact) for fact in tiny_facts(5)]))
    return path


def test_edit_runs_a_whole_session_and_report_tells_it(tiny, facts_file, tmp_path, capsys) -> None:
    folder = tmp_path / "session"
    assert main(["edit", str(facts_file), "--rounds", "2", "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Round 1 of 2: 3 facts" in said
    assert "Round 2 of 2: 2 facts" in said
    session = cv.Session.load(folder, tiny, tiny_moments(tiny))
    assert [list(r.facts) for r in session.rounds] == [tiny_facts(5)[:3], tiny_facts(5)[3:]]
    mean = session.evaluate().query("metric == 'reliability'")["value"].mean()
    assert f"reliability {mean:.3f}" in said
    assert main(["report", str(folder)]) == 0
    path = folder / "report.html"
    assert capsys.readouterr().out.strip() == path.resolve().as_uri()
    assert "What 5 edits did" in path.read_text("utf-8")


def test_facts_of_several_lines_pass_through_file_session_and_report(tiny, tmp_path) -> None:
    asked = "Anna lives in\nOslo\n\n{} lives in"
    facts = [
        cv.Fact(asked, "Bruno", "Quito", paraphrases=("Bruno\nlives in\n",)),
        cv.Fact(f"{asked}\n", "Carla", "Lima", neighbors=(cv.Neighbor("Anna\tis\n", "Oslo"),)),
    ]
    path, folder = tmp_path / "facts.json", tmp_path / "session"
    path.write_text(json.dumps([asdict(fact) for fact in facts]))
    assert main(["edit", str(path), "--out", str(folder)]) == 0
    session = cv.Session.load(folder, tiny, tiny_moments(tiny))
    assert list(session.state.facts) == facts
    assert main(["report", str(folder)]) == 0


@pytest.mark.parametrize("scope", ["zscore", "two-key"])
def test_edit_goes_on_where_it_was_interrupted(
    tiny, facts_file, tmp_path, monkeypatch, capsys, scope
) -> None:
    command = ["edit", str(facts_file), "--rounds", "3", "--out", str(tmp_path / "s")]
    command += ["--scope", scope]
    real, calls = cv.Session.apply, []

    def interrupted(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(cv.Session, "apply", interrupted)
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "1 of 3 rounds are there already" in said
    assert "Round 1 of 3" not in said
    assert "Round 3 of 3" in said
    assert main(command) == 0
    assert "Round" not in capsys.readouterr().out.replace("rounds", "")
    session = cv.Session.load(tmp_path / "s", tiny, tiny_moments(tiny))
    assert all(map(written_for, tiny_facts(5), session.facts.values()))
    one, other, *rest = json.loads(facts_file.read_text())
    facts_file.write_text(json.dumps([other, one, *rest]))
    assert main(command) == 1
    assert "other facts" in capsys.readouterr().err


def test_edit_finds_every_bad_fact_before_the_first_round(
    tiny, facts_file, tmp_path, monkeypatch, capsys
) -> None:
    """In the order of the file, whose second record is left out; then, mended, it runs."""
    one, two, three, four, five = tiny_facts(5)
    long = Fact("{} " + "is " * 70 + "in", "Anna", "Oslo")
    unreadable = {"prompt": "no slot", "subject": "Anna", "target": "Oslo"}
    command = ["edit", str(facts_file), "--rounds", "3", "--out", str(tmp_path / "s")]

    def write(*facts: Fact) -> None:
        first, *rest = map(asdict, facts)
        facts_file.write_text(json.dumps([first, unreadable, *rest]))

    write(one, long, three, replace(three, target="Lima"), long)
    assert main(command) == 1
    said = capsys.readouterr()
    assert "Round" not in said.out
    left, why, *lines = said.err.splitlines()
    assert left == "facts.json: 1 of 6 records left out"
    assert why.startswith("  record 2: prompt: it has 0 '{}'")
    assert lines[0] == "facts.json: some facts cannot be edited"
    starts = [line.split(" (")[0] for line in lines[1:]]
    assert starts == ["record 3", "record 5", "record 6"]
    assert "an earlier fact of this batch asks the same" in lines[2]

    write(one, two, three, four, five)
    monkeypatch.setattr(cv.Session, "check", checked := Mock(wraps=lambda facts: None))
    assert main(command) == 0
    assert [len(call.args[0]) for call in checked.call_args_list] == [2, 2, 1]
    checked.reset_mock()
    assert main(command) == 0
    assert not checked.called  # what is there already is not checked again


def test_edit_and_report_say_what_does_not_fit(tiny, facts_file, tmp_path, capsys) -> None:
    folder = str(tmp_path / "s")
    command = ["edit", str(facts_file), "--out", folder]
    assert main([*command, "--rounds", "6"]) == 1
    assert "5 facts cannot make 6 rounds" in capsys.readouterr().err
    assert main(["report", folder]) == 1
    assert "no session is saved there" in capsys.readouterr().err
    assert main(["edit", str(tmp_path / "no.csv"), "--out", folder]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert main(command) == 0
    for changed, message in [
        (["--rounds", "2"], "choose another --out"),
        (["--scope", "match"], "the scope 'zscore'"),
        (["--model", "other"], "the model 'tiny-llama'"),
    ]:
        assert main([*command, *changed]) == 1
        assert message in capsys.readouterr().err
    session = cv.Session.load(folder, tiny, tiny_moments(tiny))
    session.undo()
    assert main(["report", folder]) == 1
    assert "nothing to report" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--rounds", "0"])
    assert "'0' is not a positive whole number" in capsys.readouterr().err


def test_columns_of_other_names(tiny, tmp_path, capsys) -> None:
    path = tmp_path / "f.csv"
    path.write_text("question,name,new answer\n{} lives in,Anna,Oslo\n")
    command = ["edit", str(path), "--out", str(tmp_path / "s"), "--columns"]
    assert main([*command, "Prompt=question, subject = name,target=new answer"]) == 0
    [fact] = cv.Session.load(tmp_path / "s", tiny, tiny_moments(tiny)).state.facts
    assert fact == Fact("{} lives in", "Anna", "Oslo")
    assert main([*command, "prompt=question,subject=entity,target=new answer"]) == 1
    assert "the column entity is missing" in capsys.readouterr().err
    for given, said in {
        "question": "write field = column",
        "prompt=": "write field = column",
        "prompt=question,Prompt=name": "the field Prompt stands there twice",
    }.items():
        with pytest.raises(SystemExit):
            main([*command, given])
        assert f"argument --columns: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "f.json",
            '[{"prompt": null, "subject": [], "target": {"a": 1}}]',
            "there is no fact in it",
        ),
        (
            "f.json",
            '[{"prompt": "{} is", "subject": "Anna", "target": [1, 2]}]',
            "a list of 2 texts",
        ),
        ("f.json", "[]", "it is empty"),
        ("f.json", "[{]", "it is not JSON, near line 1"),
        ("f.csv", "question,answer\na,b\n", "it has the columns question, answer"),
        ("f.csv", "question,answer\na,b\n", 'which column is which: --columns "prompt='),
        ("f.json", '[{"question": "a", "answer": "b"}]', 'which is which with --columns "prompt='),
        ("f.csv", b"\xff\xfe\x00\xd8", "it is not UTF-8"),
        ("f.exe", "MZ", "use a file that ends in"),
    ],
)
def test_no_file_of_facts_is_a_traceback(tiny, tmp_path, capsys, name, content, said) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["edit", str(path), "--out", str(tmp_path / "s")]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert main(["edit", str(tmp_path), "--out", str(tmp_path / "s")]) == 1
    assert "it is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no family\nis known"), ImportError("no peft"), AttributeError("no layers"),
        TypeError("no such"), RuntimeError("no CUDA"), AssertionError(), KeyError("model_type"),
    ],
)  # fmt: skip
def test_no_model_is_a_traceback(
    tiny, facts_file, tmp_path, monkeypatch, capsys, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    folder = str(tmp_path / "s")
    assert main(["edit", str(facts_file), "--out", folder]) == 0
    capsys.readouterr()
    monkeypatch.setattr(cv, "load_model", fail)
    for command in (
        ["edit", str(facts_file), "--out", str(tmp_path / "new"), "--model", "mine"],
        ["edit", str(facts_file), "--out", folder],
        ["report", folder],
    ):
        assert main(command) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("the model ")
        assert " ".join(str(error).split()) in line


def test_files_that_the_disk_does_not_take_are_one_line(tiny, facts_file, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["edit", str(facts_file), "--out", str(tmp_path / "file" / "s")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line
    with pytest.raises(SystemExit):
        main(["edit", str(facts_file), "--out", ""])
    assert "--out: it is empty" in capsys.readouterr().err
    for given in (["--rounds", "0"], ["--size", "-1"]):
        with pytest.raises(SystemExit):
            main(["demo", *given])
        assert "is not a positive whole number" in capsys.readouterr().err


def test_edit_goes_on_however_the_models_folder_is_written(
    tiny, facts_file, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "model").mkdir()
    lm = replace(tiny, name=str(tmp_path / "model"))
    monkeypatch.setattr(cv, "load_model", lambda *args, **kwargs: lm)
    monkeypatch.setattr(made_with, "cached_moments", lambda lm, *args: tiny_moments(tiny))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = ["edit", str(facts_file), "--out", str(tmp_path / "s"), "--model"]
    for name in (str(tmp_path / "model"), f"{tmp_path}/model/", "model", "./model/", "~/model"):
        assert main([*command, name]) == 0
    assert main([*command, "other"]) == 1
    assert "its session has the model" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "s" / "session.json")]) == 0
