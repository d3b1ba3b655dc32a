"""The playground without a browser: all panels on one session, and nothing is lost."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hands import HOSTILE, Hands, Held, new_session, nodes, settle, submitted, whole
from ipywidgets.widgets import widget
from test_two_key import facts as worded
from test_two_key import two_key_session
from tiny import tiny_facts

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.autosave import kept_in
from coachhook_viz.editing.progress import Progress
from coachhook_viz.models import bundled
from coachhook_viz.panels import panel as panels
from coachhook_viz.panels import playground as module
from coachhook_viz.panels.controls import Field, Text
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.playground import LENSES, Playground
from coachhook_viz.panels.scope import WHY
from coachhook_viz.panels.view import View

FACT = tiny_facts()[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(panels, "_MOMENT", 0.01)
    monkeypatch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path / "sessions"))


@pytest.fixture
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def playground(session: Session) -> Iterator[Playground]:
    playground = cv.playground(session)
    whole(playground)
    yield playground
    whole(playground)
    playground.close()


def said(playground: Playground) -> str:
    """All words of all panels."""
    return "".join(
        node.html for panel in playground._panels for node in nodes(panel) if isinstance(node, Text)
    )


# One screen


def test_what_is_applied_is_seen_everywhere(playground: Playground) -> None:
    session = playground.session
    threads: list[threading.Thread] = []
    session.subscribe(lambda event: threads.append(threading.current_thread()))
    playground.facts.fill(tiny_facts()[2])
    playground.facts.apply_now()
    whole(playground)
    assert threads[0] is not threading.main_thread()
    assert session.rounds[-1].facts == (tiny_facts()[2],)
    assert playground.bar._facts.html.startswith("3 facts")
    assert playground.ask._prompt.value == tiny_facts()[2].text
    assert playground.scope._reading.prompt == tiny_facts()[2].text
    assert playground.ask._heads[1].html == "after round 2"
    assert playground.facts._list.chosen == ["f2"]


def test_two_playgrounds_on_one_session_agree(playground: Playground) -> None:
    second = cv.playground(playground.session)
    playground.facts.stage(tiny_facts()[2:3])
    assert second.facts._apply.label == "Apply 1"
    Hands(second.facts).press(second.facts._apply)
    whole(playground)
    whole(second)
    assert len(playground.facts._list.rows) == 3
    assert playground.bar._facts.html == second.bar._facts.html
    second.ask.ask("The river of Peru is")
    whole(playground)
    assert playground.ask._prompt.value == playground.scope._prompt.value == "The river of Peru is"
    second.close()
    playground.session.undo()
    whole(playground)
    assert playground.bar._facts.html.startswith("2 facts")


def test_nothing_in_force_says_so(playground: Playground) -> None:
    Hands(playground.bar).press(playground.bar._undo)
    whole(playground)
    assert playground.ask._heads[1].html == "before round 1"
    assert "before round 1" in playground.scope._grid.empty


def test_a_panel_that_draws_waits_for_no_other(playground: Playground) -> None:
    view, field, done = playground.facts.view, playground.facts._search, threading.Event()

    def draw() -> None:
        field.value = "Anna"
        done.set()

    with view.together():  # as where a change makes the others draw, and one of them is busy
        threading.Thread(target=draw, daemon=True).start()
        assert done.wait(10)


def test_undo_and_redo_of_what_was_seen_cost_nothing(playground: Playground, monkeypatch) -> None:
    titles = submitted(playground.desk, monkeypatch)
    playground.session.undo()
    whole(playground)
    assert sorted(titles) == ["asking", "writing on"]  # the new state, in what is seen
    for change in (playground.session.redo, playground.session.undo) * 2:
        change()
        whole(playground)
    assert len(titles) == 2


@pytest.mark.parametrize("lens", [lens for lens in LENSES if lens != "rounds"])
def test_a_lens_that_is_not_shown_costs_nothing(
    playground: Playground, monkeypatch, lens: str
) -> None:
    playground.look_through(lens)
    whole(playground)
    playground.look_through("rounds")  # which computes nothing
    whole(playground)
    titles = submitted(playground.desk, monkeypatch)
    panel = getattr(playground, lens)
    keys = set(panel._jobs)
    playground.session.mute(0)
    playground.desk.select(None, prompt="The river of Peru is", fact=1)
    playground.session.unmute(0)
    playground.session.undo()
    whole(playground)
    assert not panel.visible
    assert all(playground.desk.worker.find(key) is None for key in keys)
    assert set(titles) <= {"asking", "writing on", "scoring 1 fact"}


def test_another_lens_is_shown_and_its_tab_says_so(playground: Playground) -> None:
    tabs = playground._tabs
    assert [value for _, value, _ in tabs.options] == list(LENSES)
    for lens in ("drift", "scope"):
        playground.look_through(lens)
        assert tabs.value == lens
        assert playground.lens is getattr(playground, lens)
        assert [name for name in LENSES if getattr(playground, name).visible] == [lens]
    Hands(tabs._view).set(tabs, value="compare")
    assert playground.lens is playground.compare
    with pytest.raises(ValueError, match="no lens 'history'; there are scope, layers"):
        playground.look_through("history")
    assert playground.lens is playground.compare


def test_presenting_is_a_class_and_the_arrows_go_through_the_rounds(
    playground: Playground,
) -> None:
    session, hands = playground.session, Hands(playground._top)
    playground.present()
    assert "cv-present" in playground._dom_classes
    assert playground.bar._present.value
    Hands(playground.bar).set(playground.bar._present, value=False)
    assert "cv-present" not in playground._dom_classes
    for step, position in ((-1, 0), (-1, 0), (1, 1), (1, 1), (7, 1)):
        hands.say(playground._stage, {"step": step})
        assert session.position == position
    other = cv.playground(session, presentation=True)
    assert "cv-present" in other._dom_classes
    assert other.bar._present.value
    other.close()


def test_arrows_rest_while_a_round_is_written(playground: Playground, monkeypatch) -> None:
    held = Held(playground.session, monkeypatch)
    playground.facts.stage(tiny_facts()[2:3])
    playground.facts.apply()
    held.wait()
    Hands(playground._top).say(playground._stage, {"step": -1})
    assert playground.session.position == 1
    held.go.set()
    whole(playground)
    assert len(playground.session.rounds) == 2


# Closing


def test_close_frees_all_widgets_and_leaves_everybody(session: Session) -> None:
    first = cv.playground(session)  # the desk, the worker and the autosave stay with the session
    whole(first)
    first.close()
    desk = first.desk
    before = len(widget._instances)
    playground = cv.playground(session, presentation=True)
    for lens in LENSES:
        playground.look_through(lens)
        whole(playground)
    panels_of = list(playground._panels)
    playground.close()
    assert len(widget._instances) == before
    assert desk._emitter._subscribers == []
    assert desk.worker._listeners == []
    assert desk.autosave._callbacks == []
    assert all(not panel.view._nodes for panel in panels_of)
    session.undo()
    gc.collect()
    playground.close()  # twice is once


@pytest.mark.parametrize("name", ["Facts", "Rounds", "Ask", "Scope"])
def test_each_panel_stands_alone_and_closes(session: Session, name: str) -> None:
    before = len(widget._instances)
    panel = getattr(cv.panels, name)(session)
    settle(panel)
    assert panel.heading.title == panel.title
    assert panel.view.root.role == "region"
    compile(panel.code(), name, "exec")
    panel.close()
    assert len(widget._instances) == before
    assert panel.desk._emitter._subscribers == []
    session.undo()
    settle(panel)


def test_a_panel_closed_mid_round_leaves_the_round_alone(session: Session, monkeypatch) -> None:
    held = Held(session, monkeypatch)
    rounds, other = cv.panels.Rounds(session), cv.panels.Facts(session)
    other.stage(tiny_facts()[2:3])
    Hands(rounds).press(rounds._apply)
    held.wait()
    rounds.close()
    held.go.set()
    settle(other)
    assert len(session.rounds) == 2
    assert len(other._list.rows) == 3
    other.close()


def test_a_playground_closed_mid_round_leaves_the_round_alone(
    session: Session, monkeypatch
) -> None:
    held = Held(session, monkeypatch)
    playground = cv.playground(session)
    playground.facts.fill(tiny_facts()[2])
    playground.facts.apply_now()
    held.wait()
    playground.close()
    held.go.set()
    assert playground.desk.worker.wait(30)
    assert len(session.rounds) == 2


# What it hands out


def test_the_data_is_one_row_a_fact(playground: Playground) -> None:
    session = playground.session
    session.apply(tiny_facts()[2:3])
    session.mute(1)
    session.undo()
    frame = playground.data()
    assert frame["fact"].tolist() == [0, 1, 2]
    assert frame["round"].tolist() == [1, 1, 2]
    assert frame["state"].tolist() == ["in force", "muted", "undone"]
    assert frame["prompt"].tolist() == [fact.text for fact in tiny_facts()[:3]]
    scores = session.evaluate()
    wanted = scores.query("fact == 0 and metric == 'reliability'")["value"].item()
    assert frame["reliability"][0] == wanted
    assert frame["reliability"][1:].isna().all()
    session.undo()
    assert len(playground.data()) == 3  # none in force


def test_the_data_of_no_round_has_its_columns() -> None:
    playground = cv.playground(new_session())
    whole(playground)
    frame = playground.data()
    assert len(frame) == 0
    assert frame.columns.tolist() == ["fact", "round", "prompt", "subject", "target", "state"]
    playground.close()


def test_code_of_the_playground_gives_what_it_shows(playground: Playground, monkeypatch) -> None:
    session = playground.session
    playground.ask.ask(FACT.text)
    session.mute(1)
    whole(playground)
    monkeypatch.setattr(cv, "load_model", lambda *args, **kwargs: session.lm)
    names: dict[str, Any] = {"moments": session.moments}
    for lens in LENSES:
        playground.look_through(lens)
        compile(playground.code(), lens, "exec")
    playground.look_through("scope")
    exec(compile(playground.code(), "playground", "exec"), names)  # noqa: S102
    assert names["session"].state.key == session.state.key
    assert repr(FACT.text) in playground.code()


def test_without_a_kernel_its_last_picture_is_there(playground: Playground) -> None:
    playground.ask.ask(FACT.text)
    whole(playground)
    drawn = playground._drawn()
    assert "last picture of a playground." in drawn
    assert FACT.target in drawn
    assert "<h4>Scope</h4>" in drawn
    assert "<h4>Drift</h4>" not in drawn  # it is not shown
    assert "<script" not in drawn
    shown = playground.static()._repr_html_()
    assert "<img src='data:image/png" in shown
    assert "<script" not in shown


def test_the_picture_is_renewed_beside_the_widget_once_all_is_quiet(
    playground: Playground, monkeypatch
) -> None:
    shown: list[str] = []

    def display(html: Any, display_id: str) -> None:
        shown.append(html.data)

    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("IPython.display.update_display", display)
    monkeypatch.setattr(module, "_TWIN", 0.01)
    playground._show_twin()
    assert shown == []  # it is in no cell yet: the picture would be in somebody else's
    playground._repr_mimebundle_()
    playground._show_twin()  # nothing new
    assert len(shown) == 1
    playground.session.undo()
    whole(playground)
    playground._timer.join(5)
    assert "before round 1" in shown[-1]


def test_hostile_text_is_text_in_every_panel_and_picture(playground: Playground) -> None:
    session = playground.session
    fact = cv.Fact(f"The {HOSTILE} of {{}} is", HOSTILE, HOSTILE)
    session.apply([fact])
    session.label(session.rounds[-1].number, HOSTILE[:40])
    session.branch(HOSTILE)
    playground.facts.stage([fact])
    playground.facts._list.chosen = ["f2"]
    for field in (node for panel in playground._panels for node in nodes(panel)):
        if isinstance(field, Field):
            field.value = HOSTILE
    Hands(playground.bar).press(playground.bar._open)
    for lens in LENSES:
        playground.look_through(lens)
        whole(playground)
        assert "<img src=x" not in playground._drawn()
    assert "<img src=x" not in said(playground)
    assert "&lt;img src=x" in said(playground)
    assert "<img src=x" not in playground.static()._repr_html_()
    compile(playground.code(), "playground", "exec")


# Kept and opened


def test_saved_and_opened_again(playground: Playground, tmp_path: Path) -> None:
    session, hands = playground.session, Hands(playground.bar)
    session.mute(1)
    hands.type(playground.bar._folder, str(tmp_path / "kept"))
    hands.press(playground.bar._save)
    assert f"Saved to {tmp_path / 'kept'}" in playground.bar._note.html
    session.undo()
    before = len(widget._instances)
    hands.press(playground.bar._open)
    whole(playground)
    whole(playground)
    assert playground.session is not session
    assert (playground.session.position, playground.session.muted) == (1, {1})
    assert "1 muted" in playground.bar._facts.html
    assert "Opened" in playground.bar._note.html
    assert len(widget._instances) == before
    playground.session.apply(tiny_facts()[2:3])
    assert playground.bar._note.html == ""  # it is another by now
    playground.desk.autosave.wait(10)
    assert len(Session.load(tmp_path / "kept", session.lm, session.moments).rounds) == 2


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("nothing", "no session is saved there"), ("", "give the folder a name"), ("file", "file")],
)
def test_what_cannot_be_opened_or_saved_is_said_and_nothing_is_lost(
    playground: Playground, tmp_path: Path, folder: str, reason: str
) -> None:
    (tmp_path / "file").write_text("no session")
    session, hands = playground.session, Hands(playground.bar)
    hands.type(playground.bar._folder, str(tmp_path / folder) if folder else "")
    hands.press(playground.bar._open)
    whole(playground)
    assert reason in playground.bar._alert.html.lower()[:1] + playground.bar._alert.html[1:]
    assert playground.session is session
    assert session.position == 1
    if folder != "nothing":
        hands.press(playground.bar._save)
        assert playground.bar._alert.html
        assert "Saved" not in playground.bar._note.html


def test_every_round_is_kept_and_offered_again(
    session: Session, monkeypatch, tmp_path: Path
) -> None:
    first = cv.playground(session)
    whole(first)
    assert first.desk.autosave.wait(10)
    first.close()
    go = threading.Event()

    def load(job: Any) -> Session:
        assert go.wait(10)
        return new_session()

    monkeypatch.setattr(module, "_new_session", load)
    monkeypatch.setattr(bundled, "NAME", "another model")
    second = cv.playground()
    go.set()
    whole_of(second)
    assert second._offers.options == []
    second.close()
    monkeypatch.setattr(bundled, "NAME", session.lm.name)
    for wait in (False, True):
        go.clear()
        second = cv.playground()
        offered(second)
        (go_on, afresh) = second._offers.options
        assert go_on.startswith("Go on: 1 round, 2 facts, ")
        assert afresh == "Start afresh"
        if wait:
            go.set()
            whole(second)
            assert second.session.rounds == ()
        Hands(second._top).pick(second._offers, go_on)
        go.set()
        whole_of(second)
        whole(second)
        assert second.session.state.key == session.state.key
        assert second._offers.options == []
        assert second._said.html == ""
        second.close()


def offered(playground: Playground) -> None:
    """Wait until the playground, whose model is being loaded, has something to go on with."""
    for _ in range(1000):
        if playground._offers.options:
            return
        time.sleep(0.01)
    raise AssertionError("nothing is offered")


@pytest.mark.parametrize("act", ["Open", "Go on", "Start afresh"])
def test_no_other_session_is_opened_while_a_round_is_written(
    playground: Playground, monkeypatch, tmp_path: Path, act: str
) -> None:
    session = playground.session
    playground.save(tmp_path / "kept")
    held, hands = Held(session, monkeypatch), Hands(playground._top)
    playground.desk.applying.begin(tiny_facts()[2:3])
    held.wait()
    if act == "Open":
        hands = Hands(playground.bar)
        hands.type(playground.bar._folder, str(tmp_path / "kept"))
        hands.press(playground.bar._open)
    else:
        playground._offer(kept_in(tmp_path / "kept"))
        hands.pick(playground._offers, playground._offers.options[act == "Start afresh"])
        assert len(playground._offers.options) == 2  # for later
    assert "Editing 1 fact: wait for it, or cancel it" in playground.bar._alert.html
    held.go.set()
    whole(playground)
    assert playground.session is session
    assert len(session.rounds) == 2


def test_another_folder_for_a_session_that_is_kept_already(
    playground: Playground, tmp_path: Path
) -> None:
    session = playground.session
    other = cv.playground(session, folder=tmp_path / "mine")
    assert other.desk.autosave.wait(10)
    assert len(Session.load(tmp_path / "mine", session.lm, session.moments).rounds) == 1
    session.apply(tiny_facts()[2:3])
    assert other.desk.autosave.wait(10)
    assert len(Session.load(tmp_path / "mine", session.lm, session.moments).rounds) == 2
    other.close()


def test_that_it_is_kept_elsewhere_than_was_asked_for_is_said(
    session: Session, tmp_path: Path
) -> None:
    session.save(tmp_path / "theirs")
    other = new_session()
    playground = cv.playground(other, folder=tmp_path / "theirs")
    other.apply(tiny_facts()[2:3])
    assert playground.desk.autosave.wait(10)
    whole(playground)
    said = playground.bar._note.html
    assert "holds another session" in said
    assert str(tmp_path / "sessions") in said
    playground.close()


def test_a_session_that_another_is_opened_in_place_of_is_freed(tmp_path: Path) -> None:
    session = new_session()
    session.apply(tiny_facts()[:1])
    playground = cv.playground(session)
    whole(playground)
    playground.save(tmp_path / "kept")
    old = weakref.ref(session)
    del session
    playground.load(tmp_path / "kept")
    whole_of(playground)
    whole(playground)
    gc.collect()
    assert old() is None
    playground.close()


def test_an_earlier_session_is_chosen_from_a_list(playground: Playground) -> None:
    assert playground.desk.autosave.wait(10)
    other = cv.playground(new_session())
    whole(other)
    hands = Hands(other.bar)
    hands.set(other.bar._more, value=True)
    assert not other.bar._earlier.hidden
    (_, (text, folder)) = other.bar._earlier.options
    assert text.startswith("1 round, 2 facts, ")
    hands.set(other.bar._earlier, value=folder)
    whole(other)
    whole(other)
    assert other.session.state.key == playground.session.state.key
    other.close()


def test_starting_afresh_keeps_what_was(playground: Playground) -> None:
    hands = Hands(playground._top)
    playground._offer_afresh()
    assert "Still the session of before: 1 round, 2 facts." in playground._said.html
    old = playground.session
    hands.pick(playground._offers, "Start afresh")
    whole(playground)
    assert playground.session.rounds == ()
    assert playground.session.config == old.config
    assert len(old.rounds) == 1
    playground.session.apply(tiny_facts()[2:3])
    assert playground.desk.autosave.wait(10)
    from coachhook_viz.autosave import recent

    assert [kept.rounds for kept in recent()] == [1, 1]


def test_rounds_are_kept_where_one_wants_them(session: Session, tmp_path: Path) -> None:
    playground = cv.playground(session, folder=tmp_path / "mine")
    whole(playground)
    assert playground.desk.autosave.wait(10)
    assert Session.load(tmp_path / "mine", session.lm, session.moments).position == 1
    playground.close()


# Two keys


def test_a_playground_of_edits_with_two_keys(tmp_path: Path, monkeypatch) -> None:
    session = two_key_session()
    playground = cv.playground(session)
    whole(playground)
    hands = Hands(playground.bar)
    known = session.config
    plain = replace(known, scope="match", site="subject", subject_layer=None, layers=(1, 2))
    of = {"match": plain, "two-key": known}
    for rule in of:  # the session's own, written elsewhere, as long as there is no round
        with monkeypatch.context() as patched:
            patched.setattr(cv.EditConfig, "for_model", lambda lm, scope: of[scope])
            hands.set(playground.bar._rule, value=rule)
            whole(playground)
        assert session.config == of[rule]
        assert playground.bar._rule.value == playground.scope._kind.value == rule
        assert WHY[rule] in playground.scope._grid.empty
        assert [value for _, value, _ in playground.bar._rule.options][:2] == ["two-key", "zscore"]
    hands.set(playground.bar._rule, value="match")  # what it was before, not what is known
    whole(playground)
    assert session.config == plain
    hands.set(playground.bar._rule, value="two-key")
    whole(playground)
    assert session.config == known
    with monkeypatch.context() as patched:
        broken = Mock(side_effect=ValueError("no"))
        patched.setattr(cv.EditConfig, "for_model", broken)
        hands.set(playground.bar._rule, value="zscore")
        whole(playground)
    assert broken.called
    assert playground.bar._rule.value == session.config.scope == "two-key"
    assert playground.bar._alert.html == "No"
    hands.set(playground.bar._rule, value="two-key")
    playground.bar.alert()
    playground.desk.applying.begin(worded()[:2])
    whole(playground)
    fact = session.facts[0]
    playground.ask.ask(fact.text)
    whole(playground)
    reading = session.scope(fact.text)
    assert reading.explain() in playground.scope._why.html
    assert "is seen at token" in reading.explain()
    for rule in ("zscore", "match", "off", "two-key"):
        hands.set(playground.bar._rule, value=rule)
        whole(playground)
        assert playground.scope._reading.kind == rule
        assert not playground.bar._alert.html
        assert not playground.scope._alert.html
    for lens in LENSES:
        playground.look_through(lens)
        whole(playground)
    names: dict[str, Any] = {"session": session}
    exec(compile(playground.ask.code(), "ask", "exec"), names)  # noqa: S102
    playground.save(tmp_path / "kept")
    playground.load(tmp_path / "kept")
    whole_of(playground)
    whole(playground)
    assert playground.session.state.key == session.state.key
    playground.close()


def test_two_keys_are_refused_while_the_first_round_is_written_at_the_subject(monkeypatch) -> None:
    session = new_session()
    playground = cv.playground(session)
    whole(playground)
    held = Held(session, monkeypatch)
    playground.desk.applying.begin(tiny_facts()[:1])
    held.wait()
    Hands(playground.bar).set(playground.bar._rule, value="two-key")
    assert "wait for it, or cancel it" in playground.bar._alert.html
    assert playground.bar._rule.value == playground.desk.rule == session.config.scope
    held.go.set()
    whole(playground)
    assert len(session.rounds) == 1
    playground.close()


# The model


def test_while_the_model_is_loaded_its_stage_is_said(monkeypatch) -> None:
    told: list[str] = []
    started = threading.Event()

    def load(job: Any) -> Session:
        assert started.wait(10)
        job.progress(Progress("moments", 3, 18))
        told.append(playground._said.html)
        return new_session()

    monkeypatch.setattr(module, "_new_session", load)
    playground = cv.playground()
    assert "Loading the default model" in playground._said.html
    assert playground.session is None
    assert len(playground.data()) == 0
    compile(playground.code(), "playground", "exec")
    playground.save("nowhere")
    playground.load("nowhere")
    started.set()
    whole_of(playground)
    assert told == ["Collecting second moments, 3 of 18…"]
    assert playground._said.html == ""
    assert playground.bar._facts.html.startswith("0 facts")
    playground.close()


def whole_of(playground: Playground) -> None:
    assert playground.wait(30)
    if playground._panels:
        whole(playground)


def test_a_model_that_cannot_be_loaded_is_said(monkeypatch) -> None:
    def fail(job: Any) -> Any:
        raise OSError(f"no network, and no cached model in {HOSTILE}")

    monkeypatch.setattr(module, "_new_session", fail)
    playground = cv.playground()
    whole_of(playground)
    assert "no cached model" in playground._said.html
    assert "<img" not in playground._said.html
    with pytest.raises(ValueError, match="no lens"):
        playground.look_through("scope")
    playground.present()
    playground.close()


def test_a_cell_says_only_what_it_has() -> None:
    grid = Grid(label="one")
    View(grid)
    grid.show([[Cell("0", shade=0.0, bar=0.0, framed=False)]])
    assert grid.cells == [[{"text": "0", "shade": 0.0, "bar": 0.0}]]
