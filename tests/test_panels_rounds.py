"""Rounds and the bar without a browser: each button is one public call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hands import HOSTILE, Hands, Held, kinds, new_session, nodes, settle, texts, whole
from tiny import fingerprint, tiny_config, tiny_facts

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.panels import panel as module
from coachhook_viz.panels.bar import Bar
from coachhook_viz.panels.controls import Text
from coachhook_viz.panels.playground import Playground
from coachhook_viz.panels.rounds import Rounds, _known_good


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOMENT", 0.01)


@pytest.fixture
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def rounds(session: Session) -> Iterator[Rounds]:
    rounds = Rounds(session)
    settle(rounds)
    yield rounds
    settle(rounds)
    rounds.close()


@pytest.fixture
def playground(session: Session) -> Iterator[Playground]:
    playground = cv.playground(session)
    whole(playground)
    yield playground
    whole(playground)
    playground.close()


@pytest.fixture
def bar(playground: Playground) -> Bar:
    assert playground.bar is not None
    return playground.bar


def calls(session: Session, monkeypatch: Any, *names: str) -> list[tuple[str, tuple[Any, ...]]]:
    """The public calls that reach `session` from now on."""
    made: list[tuple[str, tuple[Any, ...]]] = []

    def recorded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append((name, args))
            return method(*args, **kwargs)

        return call

    for name in names:
        monkeypatch.setattr(session, name, recorded(name, getattr(session, name)))
    return made


# Rounds


def test_each_button_is_one_public_call(rounds: Rounds, monkeypatch) -> None:
    session, hands = rounds.session, Hands(rounds)
    made = calls(session, monkeypatch, "go_to", "mute", "unmute", "branch", "switch", "label")
    hands.press(rounds._undo)
    hands.press(rounds._redo)
    hands.at(rounds._line, 0, 0)
    hands.at(rounds._line, 0, 1)
    rounds.desk.select(None, fact=1)
    hands.press(rounds._mute)
    assert rounds._mute.label == "Unmute fact"
    hands.press(rounds._mute)
    hands.type(rounds._branch, "what if")
    hands.press(rounds._begin)
    assert hands.written(rounds._branch) == [{"over": "what if", "value": ""}]
    hands.set(rounds._switch, value="main")
    hands.type(rounds._label, "first")
    settle(rounds)
    number = session.rounds[0].number
    assert made == [
        ("go_to", (0,)),
        ("go_to", (1,)),
        ("go_to", (0,)),
        ("go_to", (1,)),
        ("mute", (1,)),
        ("unmute", (1,)),
        ("branch", ("what if",)),
        ("switch", ("main",)),
        ("label", (number, "first", "")),
    ]
    assert "“first”" in rounds._about.html
    assert "“first”" in rounds._line.cells[0][1]["detail"]


def test_a_name_is_typed_key_by_key(rounds: Rounds) -> None:
    hands, name = Hands(rounds), "capitals and rivers"
    for stop in range(1, len(name) + 1):
        hands.type(rounds._label, name[:stop])
        if stop % 6 == 0:
            settle(rounds)
    settle(rounds)
    assert hands.written(rounds._label) == []
    assert rounds.session.labels[rounds.session.rounds[0].number].name == name
    rounds.session.undo()
    assert rounds._label.value == ""
    settle(rounds)
    rounds.session.redo()
    assert rounds._label.value == name


def test_a_name_is_the_rounds_that_was_in_force_when_it_was_typed(rounds: Rounds) -> None:
    hands = Hands(rounds)
    hands.type(rounds._label, "first")
    rounds.session.undo()  # within the moment in which keys are waited for
    settle(rounds)
    assert rounds.session.labels[rounds.session.rounds[0].number].name == "first"


def test_a_name_while_a_round_is_written_harms_nobody(rounds: Rounds, monkeypatch) -> None:
    held, hands = Held(rounds.session, monkeypatch), Hands(rounds)
    rounds.desk.applying.begin(tiny_facts()[2:3])
    held.wait()
    hands.type(rounds._label, "too soon")
    rounds._timer.join(5)
    assert "wait for it, or cancel it" in rounds._alert.html
    held.go.set()
    settle(rounds)
    assert len(rounds.session.rounds) == 2


def test_apply_writes_what_is_staged_as_one_round_off_the_main_thread(rounds: Rounds) -> None:
    session = rounds.session
    assert rounds._apply.disabled
    rounds.desk.stage(tiny_facts()[2:4], None)
    assert rounds._apply.label == "Apply 2"
    threads: list[threading.Thread] = []
    session.subscribe(lambda event: threads.append(threading.current_thread()))
    Hands(rounds).press(rounds._apply)
    settle(rounds)
    assert session.rounds[-1].facts == tuple(tiny_facts()[2:4])
    assert threads[0] is not threading.main_thread()
    assert rounds.desk.staged == ()
    assert rounds._apply.disabled
    assert kinds_of(rounds) == ["", "", "now"]


def kinds_of(panel: Any) -> list[str]:
    return [cell.get("kind", "") for cell in panel._line.cells[0]]


def test_while_a_round_runs_clashing_buttons_rest_and_cancel_works(
    rounds: Rounds, monkeypatch
) -> None:
    session, hands = rounds.session, Hands(rounds)
    held = Held(session, monkeypatch)
    untouched = fingerprint(session.lm)
    rounds.desk.stage(tiny_facts()[2:3], None)
    hands.press(rounds._apply)
    hands.press(rounds._apply)  # a double click is one round
    held.wait()
    resting = (rounds._apply, rounds._undo, rounds._redo, rounds._begin, rounds._switch)
    assert all(node.disabled for node in resting)
    assert not rounds._cancel.disabled
    hands.at(rounds._line, 0, 0)
    assert "wait for it, or cancel it" in rounds._alert.html
    assert session.position == 1
    assert rounds._line.selected == [0, 1]  # so that the same click is heard again
    hands.press(rounds._cancel)
    settle(rounds)
    assert len(session.rounds) == 1
    assert "Cancelled: nothing changed." in rounds._progress.html
    assert rounds.desk.staged == tuple(tiny_facts()[2:3])
    assert fingerprint(session.lm) == untouched
    assert not rounds._apply.disabled


def test_a_round_says_how_many_of_its_facts_hold(rounds: Rounds) -> None:
    held = sum(s["reliability"] == 1 for s in rounds.desk.scores.values())
    hold = "holds" if held == 1 else "hold"
    assert f"Round 1: 2 facts, {held} of 2 {hold}" in rounds._about.html
    rounds.session.undo()
    assert rounds._about.html == "No round is in force."
    assert kinds_of(rounds) == ["now", "undone"]


@pytest.mark.parametrize("scope", ["zscore", "two-key"])
def test_what_is_known_to_work_is_of_the_scope_that_is_edited_under(
    monkeypatch, scope: str
) -> None:
    keys = {"site": "answer", "subject_layer": 0, "kl_weight": 0.0}

    def for_model(lm: cv.LanguageModel, **changes: Any) -> cv.EditConfig:
        own = keys if changes["scope"] == "two-key" else {}
        return tiny_config(**changes, **own, steps=40 if own else 20)

    monkeypatch.setattr(cv.EditConfig, "for_model", for_model)
    session = new_session(scope=scope, **keys if scope == "two-key" else {})
    session.apply(tiny_facts()[:1])
    rounds = Rounds(session)
    settle(rounds)
    steps = texts(rounds._settings, 0).index("steps")
    assert texts(rounds._settings, 2)[steps] == ("40" if scope == "two-key" else "20")
    assert ("α" in rounds._about.html) == (scope == "zscore")  # the one rule that has it
    rounds.close()


def test_settings_change_rounds_to_come_or_say_why_not(rounds: Rounds) -> None:
    session, hands = rounds.session, Hands(rounds)
    names = texts(rounds._settings, 0)
    steps, weight, layers = map(names.index, ("steps", "covariance_weight", "layers"))
    threads: list[threading.Thread] = []
    session.subscribe(lambda event: threads.append(threading.current_thread()))
    hands.say(rounds._settings, {"typed": [steps, 1, "3"]})
    settle(rounds)
    assert session.config.steps == 3
    assert threads[0] is not threading.main_thread()  # other layers need moments: seconds
    for row, typed, said in (
        (weight, "10", "hang on it"),
        (steps, "many", "not a number"),
        (steps, "-1", "1 or more"),
        (layers, "1 99", "has blocks 0 to 4 only"),
        (layers, "1, 2", "hang on it"),
        (steps, HOSTILE, "not a number"),
    ):
        before = session.config
        hands.say(rounds._settings, {"typed": [row, 1, typed]})
        settle(rounds)
        assert rounds._alert.html
        assert said in rounds._alert.html
        assert "<img" not in rounds._alert.html
        assert session.config == before
    assert texts(rounds._settings, 1)[steps] == "3"
    hands.say(rounds._settings, {"typed": [steps, 1, "4"]})
    settle(rounds)
    assert rounds._alert.html == ""


@pytest.mark.parametrize("text", ["", "main", "x" * 10_000, "two\nlines", HOSTILE])
def test_a_branch_that_cannot_be_is_said_and_its_name_stays(rounds: Rounds, text: str) -> None:
    hands = Hands(rounds)
    hands.type(rounds._branch, text)
    hands.enter(rounds._branch)
    settle(rounds)
    assert "<img" not in "".join(node.html for node in nodes(rounds) if isinstance(node, Text))
    if text not in rounds.session.branches or text == "main":
        assert rounds._alert.html
        assert rounds.session.current_branch == "main"
        assert hands.written(rounds._branch) == []
    else:
        assert rounds._switch.value == text


def test_code_leads_to_what_is_in_force(rounds: Rounds, monkeypatch) -> None:
    session = rounds.session
    session.mute(0)
    session.apply(tiny_facts()[2:3])
    session.undo()
    names: dict[str, Any] = {}
    monkeypatch.setattr(cv, "load_model", lambda *args, **kwargs: session.lm)
    code = rounds.code()
    if "moments" in code:
        names["moments"] = session.moments
    exec(compile(code, "rounds", "exec"), names)  # noqa: S102
    assert names["session"].state.key == session.state.key
    assert names["session"].muted == session.muted


def test_what_is_shown_without_a_kernel(rounds: Rounds) -> None:
    assert "<table" in rounds.static()._repr_html_()
    assert "<table" in str(rounds.picture())
    empty = Rounds(new_session())
    assert "No round yet." in empty.static()._repr_html_()
    assert "After Apply" in empty._about.html
    empty.close()


# The bar


def test_the_bar_says_where_the_session_stands(bar: Bar) -> None:
    session = bar.session
    held = sum(s["reliability"] == 1 for s in bar.desk.scores.values())
    assert bar._model.html == session.lm.name
    assert f"2 facts, <span class='cv-good'>{held} hold" in bar._facts.html
    assert kinds_of(bar) == ["", "now"]
    session.mute(0)
    assert "1 fact" in bar._facts.html
    assert "1 muted" in bar._facts.html
    session.undo()
    assert bar._facts.html.startswith("0 facts")
    assert kinds_of(bar) == ["now", "undone"]
    session.branch("what if")
    assert bar._model.html == f"{session.lm.name} · what if"


def test_undo_redo_and_the_timeline_are_one_call_each(bar: Bar, monkeypatch) -> None:
    made, hands = calls(bar.session, monkeypatch, "go_to"), Hands(bar)
    assert bar._redo.disabled
    hands.press(bar._undo)
    assert bar._undo.disabled
    hands.press(bar._undo)
    hands.press(bar._redo)
    hands.at(bar._line, 0, 0)
    hands.at(bar._line, 0, 1)
    assert made == [("go_to", (0,)), ("go_to", (1,)), ("go_to", (0,)), ("go_to", (1,))]


def test_the_bar_during_a_round(playground: Playground, bar: Bar, monkeypatch) -> None:
    held, hands = Held(bar.session, monkeypatch), Hands(bar)
    assert bar._status.html == "idle"
    assert bar._cancel.hidden
    playground.facts.stage(tiny_facts()[2:3])
    playground.facts.apply()
    held.wait()
    assert "editing 1 fact…" in bar._status.html
    assert bar._undo.disabled
    hands.at(bar._line, 0, 0)
    assert "wait for it, or cancel it" in bar._alert.html
    assert bar._line.selected == [0, 1]
    assert not bar._cancel.hidden
    hands.press(bar._cancel)
    whole(playground)
    assert len(bar.session.rounds) == 1
    assert bar._status.html == "idle"
    assert playground.facts._ended.html == "Cancelled: nothing changed."


def test_nothing_is_undone_while_a_report_is_written(
    playground: Playground, bar: Bar, monkeypatch
) -> None:
    reached, go = threading.Event(), threading.Event()

    def render(session: Session, **told: Any) -> str:
        reached.set()
        assert go.wait(10)
        return f"<html>{session.position}</html>"

    monkeypatch.setattr("coachhook_viz.html_report.render", render)
    hands = Hands(bar)
    hands.press(bar._report)
    assert reached.wait(10)
    hands.press(bar._undo)
    hands.press(bar._report)
    playground.ask.ask("another prompt")  # nor does it begin again for that
    assert "Writing the report: wait for it, or cancel it" in bar._alert.html
    go.set()
    whole(playground)
    assert [data for _, data in hands.files] == [b"<html>1</html>"]


def test_hooks_and_rule_change_what_all_panels_look_at(playground: Playground, bar: Bar) -> None:
    session, hands, fact = bar.session, Hands(bar), tiny_facts()[0]
    playground.ask.ask(fact.text)
    hands.set(bar._hooks, value=False)
    assert bar._hooks.label == "Hooks off"
    whole(playground)
    assert playground.ask._heads[1].html == "hooks off"
    assert "hooks off" in playground.scope._grid.empty
    plain = session.predict(fact.text, 4, edited=False)["probability"]
    assert texts(playground.ask._bars[1]) == [f"{p:.2f}" for p in plain]
    assert set(kinds(playground.ask._bars[1])) == {"before"}
    hands.set(bar._hooks, value=True)
    hands.set(bar._rule, value="match")
    whole(playground)
    state = session.state.judged("match")
    assert playground.scope._reading.kind == "match"
    looked = session.predict(fact.text, 4, state=state)["probability"]
    assert texts(playground.ask._bars[1]) == [f"{p:.2f}" for p in looked]
    assert "edited under z-score" in bar._facts.html
    assert session.config.scope == "zscore"
    hands.set(bar._rule, value="zscore")
    assert "edited under" not in bar._facts.html


def test_all_that_can_be_handed_out(playground: Playground, bar: Bar) -> None:
    hands = Hands(bar)
    for button in (bar._report, bar._code, bar._data, bar._picture):
        hands.press(button)
    whole(playground)
    assert bar._alert.html == ""
    files = dict(hands.files)
    assert sorted(files) == ["facts.csv", "picture.png", "report.html", "session.py"]
    assert files["picture.png"].startswith(b"\x89PNG")
    assert files["session.py"].decode() == playground.code()
    assert files["report.html"].lstrip().lower().startswith(b"<!doctype html")
    assert tiny_facts()[0].text.encode() in files["facts.csv"]


def test_what_cannot_be_handed_out_is_said(bar: Bar, monkeypatch) -> None:
    from coachhook_viz import html_report

    def fail(*args: Any, **kwargs: Any) -> str:
        raise ValueError("there is no round to report on")

    monkeypatch.setattr(html_report, "render", fail)
    monkeypatch.setattr(bar._playground, "data", fail)
    hands = Hands(bar)
    for button in (bar._report, bar._data):
        hands.press(button)
        settle(bar)
        assert bar._alert.html == "There is no round to report on"
    assert hands.files == []


def test_a_save_that_fails_is_said(playground: Playground, bar: Bar) -> None:
    autosave = bar.desk.autosave
    assert autosave is not None
    autosave.wait(10)
    autosave.error = "The disk is full."
    bar._saved()
    assert bar._note.html == "Not saved. The disk is full."
    autosave.error = None
    bar._saved()
    assert bar._note.html == ""


def test_known_good_settings_are_those_of_the_kind_of_edit(lm: cv.LanguageModel) -> None:
    for scope in ("zscore", "two-key"):
        config = cv.EditConfig.for_model(lm, scope=scope)
        good = _known_good(lm, "coachhook", scope)
        assert good["layers"] == ", ".join(map(str, config.layers))
