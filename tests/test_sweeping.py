"""Sweeps: each trial is one `compare`, whoever runs it, and nothing that is finished is lost."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import Client, LocalCluster
from filelock import FileLock
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

import coachhook_viz as cv
from coachhook_viz import cluster, trials
from coachhook_viz.editing.progress import Progress
from coachhook_viz.store import sweeps
from coachhook_viz.sweeping import at_the_end

CONFIGS = {
    "CoachHooK": tiny_config(scope="off", steps=3),
    "MEMIT": tiny_config(method="memit", steps=3),
}
COLUMNS = ["setting", "order", "seed", "round", "fact", "metric", "value"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> cv.LanguageModel:
    """A tiny model in a folder, where other processes find it."""
    folder, made = tmp_path_factory.mktemp("model"), tiny_model(lead="He ")
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return cv.load_model(folder, lead="He ", device="cpu")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "workers_here", lambda bytes_needed: 1)


def swept(lm: cv.LanguageModel, folder: Path, configs: Any = None, **options: Any) -> pd.DataFrame:
    given: dict[str, Any] = {"rounds": 2, "moments": tiny_moments(tiny_model(lead="He "))}
    configs = CONFIGS if configs is None else configs
    return cv.sweep(lm, tiny_facts(4), configs, folder=folder, **{**given, **options})


def same(frame: pd.DataFrame, other: pd.DataFrame) -> bool:
    """To the bit, but for the time that it took."""
    first, second = (
        one[one["metric"] != "seconds"].reset_index(drop=True) for one in (frame, other)
    )
    return len(first) > 0 and first.equals(second)


def counted(monkeypatch: pytest.MonkeyPatch, fail: str = "") -> list[str]:
    """Settings of the trials that run from now on; those of `fail` fail."""
    ran: list[str] = []
    compare = trials.compare

    def count(lm: Any, facts: Any, settings: Any, *rest: Any, **options: Any) -> Any:
        ran.append(*settings)
        if fail in settings:
            raise RuntimeError(f"{fail} went wrong")
        return compare(lm, facts, settings, *rest, **options)

    monkeypatch.setattr(trials, "compare", count)
    return ran


# --- what a trial is ---


def test_a_trial_is_one_comparison_in_one_order(lm: cv.LanguageModel, tmp_path: Path) -> None:
    frame = swept(lm, tmp_path / "sweep", orders=["given", "reversed", "shuffled"], seeds=[5])
    assert list(frame.columns) == COLUMNS
    facts, moments = tiny_facts(4), tiny_moments(tiny_model(lead="He "))
    drawn = trials.Trial("any", CONFIGS["MEMIT"], "shuffled", 5).places(4)
    assert sorted(drawn) == [0, 1, 2, 3]
    assert drawn != [0, 1, 2, 3]
    orders = {"given": [0, 1, 2, 3], "reversed": [3, 2, 1, 0], "shuffled": drawn}
    assert list(frame["order"].unique()) == list(orders)
    for name, config in CONFIGS.items():
        for order, places in orders.items():
            part = frame[(frame["setting"] == name) & (frame["order"] == order)]
            ordered = [facts[place] for place in places]
            wanted = cv.compare(lm, ordered, {name: config}, rounds=2, moments=moments)
            wanted["fact"] = wanted["fact"].map(dict(enumerate(places))).astype("Int64")
            part = part.drop(columns=["order", "seed"])
            assert same(part, wanted)
    assert set(frame.loc[frame["order"] == "shuffled", "seed"]) == {5}
    assert frame.loc[frame["order"] != "shuffled", "seed"].isna().all()
    read = pd.read_parquet(tmp_path / "sweep" / "trials")
    assert len(read) == len(frame)


def test_seeds_alone_shuffle(lm: cv.LanguageModel) -> None:
    found = trials.trials_of(CONFIGS, None, [0, 1])
    assert [str(trial) for trial in found] == [
        f"{name}, shuffled, seed {seed}" for name in CONFIGS for seed in (0, 1)
    ]
    assert len({trial.id for trial in found}) == 4
    assert [trial.order for trial in trials.trials_of(CONFIGS, None, [])] == ["given", "given"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"orders": ["random"]}, r"use some of \('given', 'reversed', 'shuffled'\)"),
        ({"orders": []}, "use some of"),
        ({"orders": [["given"]]}, "use some of"),
        ({"orders": ["shuffled"]}, "give both"),
        ({"orders": ["given"], "seeds": [1]}, "give both"),
        ({"seeds": [1, 1]}, "each of them once"),
        ({"seeds": ["a"]}, "must be whole numbers"),
        ({"seeds": 3}, "must be whole numbers"),
        ({"rounds": 9}, "from 1 to the number of facts, 4"),
        ({"configs": {}}, "there is no setting"),
        ({"configs": [CONFIGS["MEMIT"]]}, "give EditConfigs by name"),
        ({"configs": {1: CONFIGS["MEMIT"]}}, "give text, as '1'"),
        ({"seeds": [-1]}, "0 or more"),
        ({"seeds": [1 << 64]}, "64 bits"),
        ({"orders": 3}, "use some of"),
        ({"folder": None}, "no folder is named"),
        ({"moments": {}}, "moments has no C0"),
        ({"folder": " "}, "no folder is named"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    lm: cv.LanguageModel, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    folder = options.pop("folder", tmp_path / "sweep")
    with pytest.raises(ValueError, match=said):
        swept(lm, folder, **options)
    assert not (tmp_path / "sweep").exists()


def test_facts_that_an_order_brings_together_are_refused(
    lm: cv.LanguageModel, tmp_path: Path
) -> None:
    facts = tiny_facts(3)
    facts.append(replace(facts[0], target="Lima"))
    moments = tiny_moments(tiny_model(lead="He "))
    seed = next(
        s
        for s in range(99)
        if {0, 3} == set(trials.Trial("", CONFIGS["MEMIT"], "shuffled", s).places(4)[:2])
    )
    options = {"rounds": 2, "moments": moments, "folder": tmp_path / "sweep"}
    with pytest.raises(cv.FactError) as caught:
        cv.sweep(lm, facts, CONFIGS, seeds=[seed], **options)
    assert {problem.index for problem in caught.value.problems} <= {0, 3}


def test_the_extra_is_named_where_it_is_missing(
    lm: cv.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cv.SweepError, match=r"pip install 'coachhook_viz\[sweep\]'"):
        swept(lm, tmp_path)


def test_means_at_the_end_have_intervals_over_facts(lm: cv.LanguageModel, tmp_path: Path) -> None:
    frame = swept(lm, tmp_path, seeds=[0, 1])
    found = at_the_end(frame)
    assert set(found["reading"]) == {"end"}
    assert set(found["facts"]) == {4}
    end = frame[(frame["round"] == 2) & (frame["metric"] == "locality")]
    means = end.groupby("setting")["value"].mean()
    shown = found[found["metric"] == "locality"].set_index("setting")["mean"]
    assert shown.to_dict() == pytest.approx(means.to_dict())
    assert (found["low"] <= found["mean"]).all()
    assert len(cv.figures.comparison(found).data)


# --- nothing that is finished is lost ---


def test_a_sweep_goes_on_where_it_was_and_takes_more_settings(
    lm: cv.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept(lm, tmp_path / "whole", seeds=[0, 1])
    told: list[Progress] = []
    with pytest.raises(cv.EditCancelled, match=r"trials, step 1 of 2.*call again to go on"):
        swept(
            lm,
            tmp_path / "sweep",
            seeds=[0],
            progress=told.append,
            cancel=lambda: (
                told[-1:] != []
                and (tmp_path / "sweep").is_dir()
                and len(list((tmp_path / "sweep" / "trials").glob("*"))) > 0
            ),
        )
    assert {(one.stage, one.step, one.total) for one in told} == {("trials", 0, 2)}
    ran = counted(monkeypatch)
    assert same(swept(lm, tmp_path / "sweep", seeds=[0, 1]), whole)
    assert sorted(ran) == ["CoachHooK", "MEMIT", "MEMIT"]
    ran.clear()
    assert swept(lm, tmp_path / "sweep", seeds=[0, 1]).equals(
        swept(lm, tmp_path / "sweep", seeds=[0, 1])
    )
    assert ran == []
    more = {**CONFIGS, "ROME": tiny_config(method="rome", layers=(2,), steps=3)}
    frame = swept(lm, tmp_path / "sweep", more, seeds=[1])
    assert ran == ["ROME"]
    assert set(frame["setting"]) == set(more)


def test_a_result_that_cannot_be_read_is_found_again(
    lm: cv.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept(lm, tmp_path)
    file = next((tmp_path / "trials").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    ran = counted(monkeypatch)
    assert same(swept(lm, tmp_path), whole)
    assert len(ran) == 1


def test_a_failed_trial_costs_no_other_and_is_tried_again(
    lm: cv.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        counted(patch, fail="CoachHooK")
        with pytest.warns(cv.FailedTrialWarning) as said:
            frame = swept(lm, tmp_path)
    assert "1 of 2 trials failed" in str(said[0].message)
    assert "CoachHooK, given: RuntimeError: CoachHooK went wrong" in str(said[0].message)
    assert set(frame["setting"]) == {"MEMIT"}
    (text,) = (tmp_path / "failed").iterdir()
    assert "RuntimeError: CoachHooK went wrong" in text.read_text("utf-8")
    ran = counted(monkeypatch)
    assert set(swept(lm, tmp_path)["setting"]) == set(CONFIGS)
    assert ran == ["CoachHooK"]
    assert list((tmp_path / "failed").iterdir()) == []


def test_a_full_disk_is_said_and_what_is_finished_stays(
    lm: cv.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept(lm, tmp_path / "whole")
    write, room = sweeps.replace_file, [2]  # what the sweep is of, and one result

    def full(path: Path, data: bytes) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "replace_file", full)
        with pytest.raises(cv.SweepError, match=r"No space left.*What is finished is kept"):
            swept(lm, tmp_path / "sweep")
    ran = counted(monkeypatch)
    assert same(swept(lm, tmp_path / "sweep"), whole)
    assert ran == ["MEMIT"]


def test_a_folder_of_another_sweep_stays_as_it_is(lm: cv.LanguageModel, tmp_path: Path) -> None:
    frame = swept(lm, tmp_path / "sweep")
    other = tiny_config(scope="off", steps=4)
    moments = {layer: 2 * moment for layer, moment in tiny_moments(tiny_model(lead="He ")).items()}
    for options, said in (
        ({"rounds": 1}, "into 2 rounds, not 1; choose another folder"),
        ({"configs": {"MEMIT": other}}, "its setting 'MEMIT' is another; give this one"),
        ({"moments": moments}, "other moments C0"),
    ):
        with pytest.raises(cv.SweepError, match=f"another sweep: .*{said}"):
            swept(lm, tmp_path / "sweep", **options)
    options = {"rounds": 2, "moments": tiny_moments(tiny_model(lead="He "))}
    with pytest.raises(cv.SweepError, match="its 4 facts are others"):
        cv.sweep(lm, tiny_facts(5), CONFIGS, folder=tmp_path / "sweep", **options)
    with pytest.raises(cv.SweepError, match="its model had the lead 'He '"):
        swept(replace(lm, lead="She "), tmp_path / "sweep")
    assert same(swept(lm, tmp_path / "sweep"), frame)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(cv.SweepError, match=r"holds other files, and no sweep.json"):
        swept(lm, tmp_path / "own")
    with (
        FileLock(tmp_path / "sweep" / "sweep.lock"),
        pytest.raises(cv.SweepError, match="another process"),
    ):
        swept(lm, tmp_path / "sweep")
    (tmp_path / "begun" / "trials").mkdir(parents=True)
    with (
        FileLock(tmp_path / "begun" / "sweep.lock"),
        pytest.raises(cv.SweepError, match="another process"),
    ):
        swept(lm, tmp_path / "begun")
    path = tmp_path / "sweep" / "sweep.json"
    whole = json.loads(path.read_text("utf-8"))
    wrong = [{**whole, name: "?"} for name in ("model", "facts", "rounds", "settings")]
    for damaged in ("{", "[1]", *map(json.dumps, wrong)):
        path.write_text(damaged)
        with pytest.raises(cv.SweepError, match=r"sweep.json: it is damaged"):
            swept(lm, tmp_path / "sweep")


def test_no_fact_and_no_model_are_said(lm: cv.LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no fact to edit"):
        cv.sweep(lm, [], CONFIGS, folder=tmp_path / "sweep")
    with pytest.raises(ValueError, match="not NoneType"):
        cv.sweep(None, tiny_facts(2), CONFIGS, folder=tmp_path / "sweep")  # type: ignore[arg-type]


# --- on a cluster ---


def test_an_unreachable_scheduler_is_said(
    lm: cv.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.3)
    for address in ("tcp://127.0.0.1:1", "nowhere://a"):
        with pytest.raises(cv.SweepError, match=f"no Dask scheduler answers at '{address}'"):
            swept(lm, tmp_path, client=address)
    with pytest.raises(cv.SweepError, match=r"give a dask.distributed Client, or an address"):
        swept(lm, tmp_path, client=5)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Three processes."""
    options = {"threads_per_worker": 1, "memory_limit": None, "silence_logs": 50}
    with (
        LocalCluster(n_workers=3, dashboard_address="127.0.0.1:0", **options) as three,
        Client(three) as client,
    ):
        yield client


def executing(dask_worker: Any) -> tuple[int, int]:
    return os.getpid(), len(dask_worker.state.executing)


def test_a_killed_process_costs_nothing_and_changes_no_bit(
    lm: cv.LanguageModel, client: Client, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> bool:
        """One that is in the middle of a trial, once a first one is finished."""
        if not killed and list((tmp_path / "three" / "trials").glob("*.parquet")):
            busy = [pid for pid, count in client.run(executing).values() if count]
            if busy:
                os.kill(busy[0], signal.SIGKILL)
                killed.append(busy[0])
        return False

    options = {"seeds": range(3), "rounds": 4}
    three = swept(lm, tmp_path / "three", client=client, cancel=kill, progress=print, **options)
    assert killed
    assert same(three, swept(lm, tmp_path / "one", **options))


def test_a_worker_without_the_model_and_a_cancel_lose_nothing(
    lm: cv.LanguageModel, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"MEMIT": CONFIGS["MEMIT"]}
    frame = swept(lm, tmp_path / "sweep", one)
    other = metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "9.9" if "coach" in name else other(name))
        with pytest.raises(cv.SweepError, match=r"worker tcp:.*version .* of this package, not"):
            swept(lm, tmp_path / "newer", client=client)
    absent = replace(lm, name="a model of mine")
    with pytest.raises(cv.SweepError, match=r"the worker tcp://.*'a model of mine' cannot be"):
        swept(absent, tmp_path / "sweep", client=client)
    begun: list[cv.Progress] = []

    def trials_begun() -> bool:
        return any(said.stage == "trials" for said in begun)

    with pytest.raises(cv.EditCancelled, match="call again to go on"):
        swept(lm, tmp_path / "sweep", client=client, progress=begun.append, cancel=trials_begun)
    assert same(swept(lm, tmp_path / "sweep", one), frame)
    assert client.status == "running"
    own = Client(client.scheduler_info()["address"], set_as_default=False)
    own.close()
    with pytest.raises(cv.SweepError, match="client is closed"):
        swept(lm, tmp_path / "sweep", client=own)


@pytest.mark.model
def test_two_processes_on_a_model_that_is_only_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lm, facts = cv.load_model(), cv.bundled_facts()[:1]
    configs = {str(steps): cv.EditConfig.for_model(lm, steps=steps) for steps in (1, 2)}
    assert 1.5e9 < trials.bytes_needed(lm, list(configs.values())) < 4e9
    monkeypatch.setattr(cluster, "workers_here", lambda bytes_needed: 2)
    held = replace(lm, name="a model of mine")  # it is in memory, and no hub knows it
    frame = cv.sweep(held, facts, configs, folder=tmp_path / "two")
    assert "Dask's dashboard: http://127.0.0.1:" in capsys.readouterr().out
    monkeypatch.setattr(cluster, "workers_here", lambda bytes_needed: 1)
    assert same(frame, cv.sweep(lm, facts, configs, folder=tmp_path / "one"))
