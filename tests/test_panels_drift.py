"""The Drift panel without a browser: what it shows is what one public call gives."""

from __future__ import annotations

import threading
from dataclasses import replace
from html import unescape
from typing import Any

import pandas as pd
import pytest
from hands import Hands
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.measure.quality import forgetting, readings
from coachhook_viz.panels.curves import PLOTS, table
from coachhook_viz.panels.retention import Retention
from coachhook_viz.panels.zoom import Zoom

HOSTILE = "<img src=x onerror=alert(1)>"


def two_rounds(facts: Any = None) -> Session:
    strong = {"steps": 25, "learning_rate": 1.0, "clamp_factor": 10.0, "weight_decay": 0.0}
    session = tiny_session(
        tiny_model(lead="He "), **strong, kl_weight=0.0, covariance_weight=3.0
    )  # one fact takes
    facts = tiny_facts() if facts is None else facts
    session.apply(facts[:3])
    session.apply(facts[3:])
    return session


def shown(session: Session) -> cv.panels.Drift:
    panel = cv.panels.Drift(session)
    settle(panel)
    return panel


def settle(panel: Any) -> None:
    assert panel.desk.worker.wait(30)
    assert not panel._alert.html


def titles(panel: Any, monkeypatch: Any) -> list[str]:
    """What the worker is asked for from now on, but for the desk's own scoring."""
    asked: list[str] = []
    submit = panel.desk.worker.submit

    def recorded(title: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("key") != "score":
            asked.append(title)
        return submit(title, *args, **kwargs)

    monkeypatch.setattr(panel.desk.worker, "submit", recorded)
    return asked


def calls(session: Session, monkeypatch: Any, *names: str) -> list[str]:
    made: list[str] = []
    for name in names:
        method = getattr(session, name)

        def call(*args: Any, name: str = name, method: Any = method, **kwargs: Any) -> Any:
            made.append(name)
            return method(*args, **kwargs)

        monkeypatch.setattr(session, name, call)
    return made


@pytest.fixture
def session() -> Session:
    return two_rounds()


@pytest.mark.parametrize("metric", ["target_probability", "reliability", "generality", "locality"])
def test_cells_are_the_scores_of_each_fact_after_each_round(session: Session, metric: str) -> None:
    panel = shown(session)
    panel._metric.value = metric
    scores = session.quality()
    scores = scores[scores["metric"] == metric].set_index(["fact", "round"])["value"]
    assert panel._grid.columns == ["r1", "r2"]
    assert panel._grid.rows[1] == "Bruno Diego → red blue"
    for fact, line in enumerate(panel._grid.cells):
        for round_, cell in enumerate(line, 1):
            if (fact, round_) in scores.index:
                assert cell["shade"] == scores[fact, round_]
                assert cell["text"].endswith(f"{scores[fact, round_]:.2f}")
            else:
                assert cell["kind"] == "none"
                assert "came in round 2" in cell["detail"]


def test_marks_say_without_colour_whether_a_fact_holds(session: Session) -> None:
    scores = session.quality()
    kept = scores[(scores["round"] == 2) & (scores["metric"] == "reliability")]
    reliability = kept.set_index("fact")["value"]
    panel = shown(session)
    for fact, line in enumerate(panel._grid.cells):
        value = reliability[fact]
        kind = "holds" if value == 1 else "partly" if value else "missed"
        assert line[1]["kind"] == kind
        assert line[1]["text"].startswith({"holds": "", "partly": "◐", "missed": "○"}[kind])
    assert len(set(reliability)) > 1


def test_boxes_are_the_means_at_the_end(session: Session) -> None:
    means = readings(session.quality()).set_index(["metric", "reading"])
    boxes = shown(session)._boxes.html
    for metric in ("reliability", "generality", "locality"):
        line = means.loc[metric, "end"]
        assert f"<span>{metric}</span><b>{line['mean']:.2f}</b>" in boxes
        assert f"{line['low']:.2f}–{line['high']:.2f}" in boxes


def test_the_forgotten_are_told_with_round_and_culprit() -> None:
    facts = tiny_facts(2)
    scores = pd.DataFrame(
        [
            (0, 1, 1, "reliability", 1.0),
            (0, 1, 2, "reliability", 0.0),
            (1, 2, 2, "reliability", 0.5),
        ],
        columns=["fact", "edited", "round", "metric", "value"],
    )
    lost = pd.DataFrame(
        [(0, 1, 2, 1, False)], columns=["fact", "edited", "round", "by", "regained"]
    )
    known = Retention(
        dict(enumerate(facts)), scores, readings(scores), lost, {1: "No z-score."}, "2 of 9 facts"
    )
    story = unescape(str(known.story()))
    assert "0</b> of 1 learned fact still hold" in story
    assert "Anna → Oslo</b> was forgotten after round 2, where Bruno Diego → red blue acts" in story
    assert "Bruno Diego → red blue</b> took only in part. No z-score." in story
    assert "2 of 9 facts" in story


def test_measure_is_the_public_calls_and_makes_the_one_plotly_widget(
    session: Session, monkeypatch: Any
) -> None:
    panel = shown(session)
    assert panel._curves.figure is None
    assert "takes some seconds" in panel._hint.html
    made = calls(session, monkeypatch, "quality", "forgotten", "drift")
    panel._running.button.click()
    assert not panel._running.cancel.hidden
    settle(panel)
    assert sorted(set(made)) == ["drift", "forgotten", "quality"]
    assert panel._running.cancel.hidden
    assert panel._running.button.disabled  # nothing is left to measure
    figure, drift = panel._curves.figure, session.drift()
    assert list(figure.data[0].y) == forgetting(session.quality())["share"].tolist()
    for name in PLOTS:
        panel._picture.value = name
        assert panel._curves.figure is figure
        assert figure.layout.yaxis.title.text == PLOTS[name].label
    panel._picture.value = "size of ΔW"
    norms = drift[(drift["metric"] == "relative_norm") & (drift["layer"] == 2)]
    assert [trace.name for trace in figure.data] == ["layer 1", "layer 2", "layer 3"]
    assert list(figure.data[1].y) == norms["value"].tolist()
    assert f"{norms['value'].iloc[-1]:.4g}" in panel._curves.numbers.html


def test_what_was_measured_of_other_rounds_is_not_shown(session: Session) -> None:
    panel = shown(session)
    panel._running.button.click()
    settle(panel)
    session.undo()
    settle(panel)
    assert panel._curves.layout.display == "none"
    assert len(panel._grid.cells) == 3
    assert panel._grid.columns == ["r1"]
    session.undo()
    settle(panel)
    assert panel._grid.cells == []
    assert panel._boxes.html == panel._story.html == ""
    assert panel._running.button.disabled


def test_a_click_says_what_the_model_says_at_that_round(session: Session) -> None:
    panel = shown(session)
    panel._grid.selected = [0, 0]
    settle(panel)
    says = session.predict(tiny_facts()[0].text, top=3, state=session.state_at(1))
    here = session.quality()
    here = here[(here["fact"] == 0) & (here["round"] == 1)].set_index("metric")["value"]
    assert says["token"].iloc[0].strip() in panel._said.html
    assert "after round 1" in panel._said.html
    assert f"{here['target_probability']:.3f}, rank {here['target_rank']:.0f}" in panel._said.html
    assert panel.desk.selection.fact == 0
    assert panel.desk.selection.round == 1
    assert panel.desk.selection.prompt == tiny_facts()[0].text
    assert "state=session.state_at(1)" in panel.code()


def test_it_follows_what_others_select(session: Session) -> None:
    panel = shown(session)
    panel.desk.select("another", fact=4, round=2, prompt="The river is")
    settle(panel)
    assert panel._grid.selected == [4, 1]
    assert panel.desk.selection.prompt == "The river is"
    panel.desk.select("another", round=0)
    assert panel._grid.selected == []


def test_many_facts_wait_to_be_asked_for(session: Session, monkeypatch: Any) -> None:
    monkeypatch.setattr("coachhook_viz.panels.drift._CHEAP", 3)
    panel = cv.panels.Drift(session)
    settle(panel)
    assert panel._grid.cells == []
    assert "Measure" in panel._grid.empty
    panel._running.button.click()
    settle(panel)
    assert len(panel._grid.cells) == 6


def test_cancel_keeps_what_was_shown(session: Session, monkeypatch: Any) -> None:
    panel = shown(session)
    before = panel._grid.cells

    def drift(progress: Any, cancel: Any) -> None:
        panel._running.cancel.click()
        assert cancel()

    monkeypatch.setattr(session, "drift", drift)
    panel._running.button.click()
    settle(panel)
    assert panel._drift is None
    assert panel._grid.cells == before
    assert not panel._running.button.disabled
    assert panel._running.said.html == ""


def test_an_error_is_said_in_the_panel(session: Session, monkeypatch: Any) -> None:
    panel = shown(session)

    def drift(progress: Any, cancel: Any) -> None:
        raise RuntimeError(f"no room for {HOSTILE}")

    monkeypatch.setattr(session, "drift", drift)
    panel._running.button.click()
    assert panel.desk.worker.wait(30)
    assert "No room for &lt;img" in panel._alert.html


def test_hostile_text_is_text() -> None:
    facts = [replace(fact, target=HOSTILE) for fact in tiny_facts()]
    panel = shown(two_rounds(facts))
    panel._grid.selected = [0, 0]
    settle(panel)
    assert HOSTILE in panel._grid.rows[0]
    for text in (panel._said.html, panel._story.html, panel.static()._repr_html_()):
        assert "<img src=x" not in text
    assert "&lt;img" in panel._said.html
    assert "<img" not in str(table(pd.DataFrame({HOSTILE: [1.0]}, index=[HOSTILE]), HOSTILE))


def test_static_and_code_stand_for_what_is_shown(session: Session) -> None:
    panel = cv.panels.Drift(tiny_session(tiny_model(lead="He ")))
    assert "Nothing measured" in panel.static()._repr_html_()
    panel = shown(session)
    panel._running.button.click()
    settle(panel)
    page = panel.static()._repr_html_()
    assert page.count("<img") >= 3
    assert "<script" not in page
    names = {"session": session, "cv": cv}
    exec(panel.code(), names)  # noqa: S102
    pd.testing.assert_frame_equal(names["drift"], session.drift())


def test_a_hidden_lens_computes_nothing_until_it_is_shown(
    session: Session, monkeypatch: Any
) -> None:
    panel = shown(session)
    panel.visible = False
    asked = titles(panel, monkeypatch)
    session.undo()
    session.mute(0)
    panel.desk.select("another", fact=1, round=1)
    settle(panel)
    assert asked == []
    assert panel._grid.columns == ["r1", "r2"]
    panel.visible = True
    settle(panel)
    assert asked == ["scoring facts over the rounds", "asking"]
    assert panel._grid.columns == ["r1"]
    assert panel._grid.rows[0] == "Bruno Diego → red blue"
    assert panel._grid.selected == [0, 0]


def test_what_is_measured_unasked_stops_when_nobody_sees_it(
    session: Session, monkeypatch: Any
) -> None:
    begun, hidden, stopped, quality = threading.Event(), threading.Event(), [], session.quality

    def slow(budget: Any, progress: Any, cancel: Any) -> Any:
        begun.set()
        assert hidden.wait(10)
        stopped.append(cancel())
        return quality(budget, progress, cancel)

    monkeypatch.setattr(session, "quality", slow)
    panel = cv.panels.Drift(session)
    assert begun.wait(10)
    panel.visible = False
    hidden.set()
    settle(panel)
    assert stopped[0]
    assert panel._grid.cells == []
    panel.visible = True
    settle(panel)
    assert len(panel._grid.cells) == 6


def test_what_was_measured_while_the_rounds_changed_is_not_kept(
    session: Session, monkeypatch: Any
) -> None:
    quality = session.quality

    def changed(budget: Any, progress: Any, cancel: Any) -> Any:
        monkeypatch.undo()
        session.undo()
        return quality(budget, progress, cancel)

    monkeypatch.setattr(session, "quality", changed)
    panel = shown(session)
    session.redo()
    settle(panel)
    assert len(panel._grid.cells) == 6


def test_a_measurement_that_was_asked_for_goes_on_unseen(
    session: Session, monkeypatch: Any
) -> None:
    panel = shown(session)
    drift = session.drift

    def slow(progress: Any, cancel: Any) -> Any:
        panel.visible = False
        return drift(progress, cancel)

    monkeypatch.setattr(session, "drift", slow)
    panel._running.button.click()
    settle(panel)
    assert panel._drift is not None


def test_a_seen_state_is_shown_at_once(session: Session, monkeypatch: Any) -> None:
    panel = shown(session)
    panel._running.button.click()
    session.undo()
    settle(panel)
    session.redo()
    settle(panel)
    panel._running.button.click()
    settle(panel)
    asked = titles(panel, monkeypatch)
    session.undo()
    assert panel._grid.columns == ["r1"]
    session.redo()
    assert panel._grid.columns == ["r1", "r2"]
    assert panel._curves.figure.layout.yaxis.title.text == PLOTS["share forgotten"].label
    assert panel._curves.layout.display is None
    assert asked == []
    other = cv.panels.Drift(session)  # another view of the session
    assert len(other._grid.cells) == 6
    assert asked == []


def test_the_mark_follows_its_fact(session: Session) -> None:
    panel = shown(session)
    panel.desk.select("another", fact=4, round=2)
    assert panel._grid.selected == [4, 1]
    session.mute(1)
    settle(panel)
    assert panel._grid.selected == [3, 1]
    assert panel._grid.rows[3].startswith("Emma")
    session.unmute(1)
    settle(panel)
    assert panel._grid.selected == [4, 1]
    session.mute(4)
    settle(panel)
    assert panel._grid.selected == []
    assert "Click a cell" in panel._said.html
    assert panel.desk.selection.fact == 4


def test_an_empty_place_says_what_will_stand_there_and_why_it_is_empty(monkeypatch) -> None:
    session = tiny_session(tiny_model(lead="He "))
    panel = shown(session)
    here = "each row here is a fact and each column a round"
    assert panel._grid.empty == f"After you apply facts, {here}."
    assert panel._key.hidden
    assert panel._metric.hidden
    assert panel._running.buttons.hidden
    with monkeypatch.context() as patch:
        patch.setattr(panel, "run", lambda *args, **options: None)
        session.apply(tiny_facts(1))
    assert panel._grid.empty == f"Once it is measured, {here}."
    panel.refresh()
    settle(panel)
    assert not panel._key.hidden
    session.mute(0)
    settle(panel)
    assert "the only fact muted: nothing to measure" in panel._grid.empty
    assert "no round" not in panel._grid.empty
    session.undo()
    settle(panel)
    assert "Before round 1: nothing to measure" in panel._grid.empty
    assert here in panel._grid.empty


def test_scores_under_another_rule_than_the_one_looked_at_say_so(session: Session) -> None:
    panel = shown(session)
    assert panel._basis.hidden
    panel.desk.judge(None, rule="match")
    assert not panel._basis.hidden
    assert "zscore scope" in panel._basis.html
    panel.desk.judge(None, rule="zscore")
    assert panel._basis.hidden
    panel.desk.judge(None, hooks=False)
    assert not panel._basis.hidden


def test_many_rounds_are_told_shortly(session: Session) -> None:
    known, metric = shown(session)._retention, "target_probability"
    assert known is not None
    last = known.scores[known.scores["round"] == 2].assign(edited=1)
    scores = pd.concat([last.assign(round=round_) for round_ in range(1, 9)])
    zoom = Zoom(40, 25, 1250)
    zoom.fit(6, 8)
    cells = replace(known, scores=scores).cells(metric, zoom)
    value = last[(last["fact"] == 0) & (last["metric"] == metric)]["value"].item()
    assert cells[0][7].text.lstrip("◐○") == f"{value:.2f}".removeprefix("0")


def test_many_scores_stand_in_blocks_that_a_click_opens(session: Session, monkeypatch) -> None:
    monkeypatch.setattr("coachhook_viz.panels.drift._BLOCKS", (3, 1, 6))
    panel = shown(session)
    hands, grid, out = Hands(panel), panel._grid, panel._zoom.out
    scores = session.quality()
    wanted = scores[scores["metric"] == "target_probability"].groupby(scores["fact"] // 2)["value"]
    assert grid.picks == "block"
    assert (grid.rows, grid.columns) == (["2 facts, 0–1", "2 facts, 2–3", "2 facts, 4–5"], ["r1…"])
    assert [line[0]["shade"] for line in grid.cells] == pytest.approx(wanted.mean().tolist())
    for line, number in zip(grid.cells, wanted.count(), strict=True):
        assert f"of {number} scores" in line[0]["detail"]
        assert "after r1 to r2:" in line[0]["detail"]
    assert "the mean of 2 facts × 2 rounds" in panel._key.html
    assert out.hidden

    hands.say(grid, {"press": [2, 0]})
    assert grid.picks == "cell"
    assert len(grid.rows) == 3  # the two of the block, and the one before
    assert grid.rows[0].startswith(session.facts[3].subject)
    assert not out.hidden
    hands.at(grid, 2, 0)
    assert (panel.desk.selection.fact, panel.desk.selection.round) == (
        5,
        panel._zoom.place([0, 0])[1] + 1,
    )
    assert grid.selected == [2, 0]

    panel.desk.select(None, fact=0, round=1)  # elsewhere: it is not in the part that is open
    assert grid.picks == "block"
    assert grid.selected == [0, 0]
    hands.say(grid, {"press": [0, 0]})
    assert grid.selected == [0, 0]
    hands.press(out)
    assert grid.picks == "block"
    panel._metric.value = "truth_probability"  # none has a truth
    assert {line[0]["kind"] for line in grid.cells} == {"none"}
