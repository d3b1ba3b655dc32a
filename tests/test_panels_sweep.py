"""The Sweep panel without a browser: what it shows is what one public call gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hands import Hands, whole
from test_panels_drift import HOSTILE, settle, two_rounds
from tiny import tiny_config, tiny_moments

import coachhook_viz as cv
from coachhook_viz import Session, cluster, trials
from coachhook_viz.measure.quality import METRICS
from coachhook_viz.panels import sweep as module
from coachhook_viz.panels.sweep import Sweep
from coachhook_viz.sweeping import at_the_end


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Session:
    monkeypatch.setattr(cluster, "workers_here", lambda bytes_needed: 1)
    monkeypatch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path / "sessions"))
    session = two_rounds()
    session.configure(steps=3)  # what is edited anew need not be edited well
    return session


def told(panel: Sweep) -> list[list[str]]:
    return [[cell.get("text", "") for cell in line] for line in panel._grid.cells]


def added(panel: Sweep, field: str, values: str) -> Sweep:
    panel._varied.value = field
    panel._values.value = values
    panel._add.click()
    return panel


def run(panel: Sweep) -> None:
    panel._running.button.click()
    settle(panel)


def swept(session: Session, folder: Path, configs: dict[str, Any], **options: Any) -> Any:
    return cv.sweep(
        session.lm, session.state.facts, configs, folder=folder, moments=session.moments, **options
    )


def test_the_table_is_one_sweep(session: Session, tmp_path: Path) -> None:
    panel = Sweep(session)
    assert panel._running.button.disabled
    added(panel, "covariance_weight", "3, 300")
    names = ["as it is", "covariance weight λ 3", "covariance weight λ 300"]
    assert [line[0] for line in told(panel)] == names
    panel._seeds.value = "0, 1"
    run(panel)
    weights = (session.config.covariance_weight, 3.0, 300.0)
    configs = {
        name: replace(session.config, covariance_weight=weight)
        for name, weight in zip(names, weights, strict=True)
    }
    frame = swept(session, tmp_path / "own", configs, rounds=2, seeds=[0, 1])
    expected = []
    for name in names:
        for seed in (0, 1):
            part = frame[(frame["setting"] == name) & (frame["seed"] == seed)]
            ends = at_the_end(part).set_index("metric")
            scores = [
                "{mean:.2f}  ({low:.2f}–{high:.2f})".format(**ends.loc[metric])
                for metric in METRICS
            ]
            last = part[(part["metric"] == "perplexity") & (part["round"] == 2)]
            expected.append([f"{name}, seed {seed}", *scores, f"{last['value'].iloc[0]:.2f}"])
    assert told(panel) == expected
    assert "6 facts" in panel._note.html
    assert "<img" in panel._picture.html
    pictured = panel.static()._repr_html_()
    assert "<img" in pictured
    assert "<td style=''>covariance weight λ 300, seed 1</td>" in pictured
    space = {"cv": cv, "session": session}
    code = panel.code().replace(repr(str(panel._found.folder)), repr(str(tmp_path / "code")))
    exec(code, space)  # noqa: S102
    measured = frame["metric"] != "seconds"
    assert space["frame"][measured].equals(frame[measured])


def test_a_trial_opens_as_a_session(session: Session) -> None:
    playground = cv.playground(session)
    whole(playground)
    panel = playground.sweep
    playground.look_through("sweep")
    added(panel, "method", "rome")
    panel._seeds.value = "4"
    panel._rounds.value = "3"
    run(panel)
    trial = panel._found.trials[1]
    assert panel._open.hidden
    Hands(panel).set(panel._grid, selected=[1, 0])
    assert not panel._open.hidden
    panel._open.click()
    whole(playground)
    opened = playground.session
    assert opened is not session
    assert opened.config == trial.config
    order = [session.state.facts[place] for place in trial.places(6)]
    assert [fact for round_ in opened.rounds for fact in round_.facts] == order
    assert trial.setting == "method rome"
    kept = pd.read_parquet(panel._found.folder / "trials" / f"{trial.id}.parquet")
    end = kept.query("metric == 'locality' and round == 3")
    now = opened.quality().query("metric == 'locality'")
    assert now[now["round"] == 6]["value"].mean() == pytest.approx(end["value"].mean())
    assert "Opened a trial" in playground.bar._note.html
    playground.close()


def test_a_session_of_a_trial_is_its_edits(session: Session) -> None:
    facts, moments = session.state.facts, session.moments
    trial = trials.Trial("as it is", session.config)
    other = trials.edited(session.lm, trial, facts, 2, moments)
    again = session.rerun()
    for layer in session.config.layers:
        assert torch.equal(other.delta_weight(layer), again.delta_weight(layer))


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("covariance_weight", "30, many", "'many' cannot be read: write values as 30, 300, 3000."),
        ("covariance_weight", "-1", "covariance_weight is -1.0: it must be positive"),
        ("steps", "1.5", "'1.5' cannot be read"),
        ("layers", "2 3, 7", "has blocks 0 to 4 only"),
        ("method", HOSTILE, "use one of"),
        ("method", " , ", "Write values, as memit, alphaedit, rome."),
    ],
)
def test_what_cannot_be_a_setting_is_said_beside_it(
    session: Session, field: str, values: str, said: str
) -> None:
    panel = added(Sweep(session), field, values)
    assert said in panel._values.error
    assert panel._values.value == values
    assert panel._grid.cells == []
    panel._varied.value = "clamp_factor"
    assert (panel._values.error, panel._values.placeholder) == ("", "0.75, 1.5")


def test_bad_rounds_and_seeds_run_nothing(session: Session) -> None:
    panel = added(Sweep(session), "steps", "2")
    for rounds, seeds in (("7", "a"), ("none", "1, 1")):
        panel._rounds.value, panel._seeds.value = rounds, seeds
        run(panel)
        assert panel._rounds.error == "Write a whole number from 1 to 6."
        assert "different whole numbers" in panel._seeds.error
        assert panel._found is None
    panel._rounds.value = "2"
    assert panel._rounds.error == panel._seeds.error == ""


def test_a_cancelled_sweep_says_that_what_is_finished_is_kept(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = added(Sweep(session), "steps", "2")
    compare = trials.compare

    def cancel(lm: Any, facts: Any, settings: Any, *rest: Any, **options: Any) -> Any:
        if "steps 2" in settings:
            panel._running.stop()
        return compare(lm, facts, settings, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "compare", cancel)
        run(panel)
    assert panel._found is None
    assert "finished trials are kept" in panel._ended.html
    run(panel)
    assert "Mean over" in panel._note.html


def test_failures_are_said_and_a_change_forgets_the_results(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = added(Sweep(session), "steps", "2")
    compare = trials.compare

    def fail(lm: Any, facts: Any, settings: Any, *rest: Any, **options: Any) -> Any:
        return 1 / 0 if "steps 2" in settings else compare(lm, facts, settings, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "compare", fail)
        run(panel)
    assert told(panel)[1][:2] == ["steps 2", "failed"]
    assert "steps 2, given: ZeroDivisionError: division by zero" in panel._ended.html
    run(panel)
    assert panel._ended.html == ""
    assert "failed" not in told(panel)[1]
    session.undo()
    settle(panel)
    assert panel._found is None
    assert panel._picture.html == ""
    assert [line[0] for line in told(panel)] == ["as it is", "steps 2"]
    panel._clear.click()
    assert panel._grid.cells == []
    monkeypatch.setattr(module, "sweep", lambda *args, **options: refuse())
    added(panel, "steps", "2")._running.button.click()
    assert panel.desk.worker.wait(30)
    assert "pip install" in panel._alert.html


def refuse() -> None:
    raise cv.SweepError("a sweep needs pyarrow: pip install 'coachhook_viz[sweep]'")


def test_without_a_fact_it_says_what_will_be_here() -> None:
    lm = two_rounds().lm
    panel = Sweep(Session(lm, tiny_config(), tiny_moments(lm)))
    assert "each row here is a setting" in panel._grid.empty
    assert "Nothing swept yet" in panel.static()._repr_html_()
    compile(panel.code(), "sweep", "exec")
