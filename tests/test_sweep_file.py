"""A sweep in a file, and the command line that runs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

import coachhook_viz as cv
from coachhook_viz import cluster, sweeping, trials
from coachhook_viz.__main__ import main
from coachhook_viz.sweep_file import read
from coachhook_viz.warned import warn

SWEEP = """
facts = "facts.json"
folder = "results"
rounds = 2
seeds = [0]

[settings.MEMIT]
method = "memit"
steps = 3

[settings.Mine]
method = { name = "alphaedit", weight = 2.0 }
steps = 3
layers = [1, 2]
"""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> cv.LanguageModel:
    lm = tiny_model(lead="He ")
    monkeypatch.setattr(cv, "load_model", lambda name, lead: lm)
    monkeypatch.setattr(cv.EditConfig, "for_model", lambda lm, **changes: tiny_config(**changes))
    monkeypatch.setattr(cluster, "workers_here", lambda bytes_needed: 1)
    for module in (sweeping, trials):
        monkeypatch.setattr(module, "cached_moments", lambda lm, *rest: tiny_moments(lm))
    return lm


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "facts.json").write_text(json.dumps([asdict(fact) for fact in tiny_facts(4)]))
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    return path


def test_a_file_is_one_sweep(tiny: cv.LanguageModel, file: Path, capsys: Any) -> None:
    assert main(["sweep", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"{file.parent / 'results'}: 2 trials are finished." in said
    method = cv.methods.AlphaEdit(weight=2.0)
    configs = {
        "MEMIT": tiny_config(method="memit", steps=3),
        "Mine": tiny_config(method=method, steps=3, layers=(1, 2)),
    }
    folder = file.parent / "results"
    frame = cv.sweep(tiny, tiny_facts(4), configs, folder=folder, rounds=2, seeds=[0])
    read_back = pd.read_parquet(folder / "trials").sort_values(["setting", "round", "metric"])
    assert len(frame) == len(read_back)
    end = frame[(frame["round"] == 2) & (frame["metric"] == "locality")]
    for name, mean in end.groupby("setting")["value"].mean().items():
        assert f"  {name}: " in said
        assert f"locality {mean:.3f} (" in said


def test_a_warning_is_said_and_ends_nothing(
    tiny: cv.LanguageModel, file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = cv.sweep

    def warned(*args: Any, **options: Any) -> pd.DataFrame:
        warn("the tokens are few", cv.MomentsWarning)
        return sweep(*args, **options)

    monkeypatch.setattr(cv, "sweep", warned)
    assert main(["sweep", str(file)]) == 0
    captured = capsys.readouterr()
    assert "the tokens are few" in captured.err
    assert "2 trials are finished" in captured.out


def test_failed_trials_end_it_with_1_after_all_others(
    tiny: cv.LanguageModel, file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = trials.compare

    def fail(lm: Any, facts: Any, settings: Any, *rest: Any, **options: Any) -> pd.DataFrame:
        return 1 / 0 if "Mine" in settings else compare(lm, facts, settings, *rest, **options)

    monkeypatch.setattr(trials, "compare", fail)
    assert main(["sweep", str(file)]) == 1
    captured = capsys.readouterr()
    assert "MEMIT: reliability" in captured.out
    assert captured.err.count("Mine, shuffled, seed 0: ZeroDivisionError: division by zero") == 1
    assert "Traceback" not in captured.err
    monkeypatch.setattr(trials, "compare", lambda *args, **options: 1 / 0)
    file.write_text(SWEEP.replace("results", "none"))
    assert main(["sweep", str(file)]) == 1
    assert "0 trials are finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [0]", "seeds = [", "it is not TOML"),
        ('folder = "results"', "", "it has no 'folder'"),
        ("seeds = [0]", "seed = [0]", "there is no 'seed'; there are facts, folder, settings"),
        ("seeds = [0]", "seeds = 3", "seeds is 3: it must be a list"),
        ("seeds = [0]", "columns = 3", "columns is 3: it must be a table"),
        ("rounds = 2", "rounds = true", "rounds is True: it must be a whole number"),
        ("rounds = 2", "rounds = 9", "from 1 to the number of facts, 4"),
        ("[settings.MEMIT]", "[settings]", r"write [settings.method] above its lines"),
        ("facts.json", "absent.json", "absent.json"),
        ("steps = 3\nlayers", "speed = 3\nlayers", "the setting 'Mine': "),
        ("steps = 3\nlayers", "steps = 0\nlayers", "the setting 'Mine': steps is 0"),
        ('name = "alphaedit"', 'name = "beta"', "there is no 'beta'"),
        ('name = "alphaedit", ', "", "its method has no name"),
        ('name = "alphaedit", ', 'name = "alphaedit", wait = 1, ', "AlphaEdit has no setting wait"),
        ('folder = "results"', 'folder = ""', "folder is empty"),
        ('folder = "results"', 'folder = "facts.json"', "it is a file; choose a folder"),
    ],
)
def test_no_file_is_a_traceback(
    tiny: cv.LanguageModel, file: Path, capsys: Any, old: str, new: str, said: str
) -> None:
    assert old in SWEEP
    file.write_text(SWEEP.replace(old, new))
    assert main(["sweep", str(file)]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert not (file.parent / "results").exists()


def test_a_mark_that_editors_of_windows_put_first_is_passed_over(file: Path) -> None:
    file.write_text(SWEEP, "utf-8-sig")
    assert read(file).path == file
    file.write_bytes(SWEEP.encode("utf-16"))
    with pytest.raises(cv.SweepError, match="no text in UTF-8"):
        read(file)


def test_paths_are_seen_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "sweep.toml"
    path.write_text('model = "model"\nlead = "a"\nscheduler = "tcp://a:1"\n' + SWEEP)
    said = read(path)
    assert (said.model, said.lead) == (str(tmp_path / "model"), "a")
    assert (said.facts, said.scheduler) == (tmp_path / "facts.json", "tcp://a:1")
    path.write_text('model = "some/hub-id"\n' + SWEEP)
    assert read(path).model == "some/hub-id"
