"""Panels without a browser: each button is one public call, and nothing is lost."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from tiny import fingerprint, tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import Fact, Session
from coachhook_viz.editing.progress import Progress
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel
from coachhook_viz.panels.words import word

HOSTILE = "<img src=x onerror=alert(1)>"


def new_session(**changes: Any) -> Session:
    return tiny_session(tiny_model(lead="He "), **changes)


@pytest.fixture
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def playground(session: Session) -> Iterator[cv.panels.Playground]:
    playground = cv.playground(session)
    assert playground.wait(30)
    yield playground
    playground.close()


def settle(panel: Panel) -> None:
    """Wait for what follows each key, and for the worker."""
    if panel._timer is not None:
        panel._timer.join(5)
    assert panel.desk.worker.wait(30)


def texts(grid: Grid, column: int) -> list[str]:
    return [line[column].get("text", "") for line in grid.cells]


def calls(session: Session, monkeypatch, *names: str) -> list[tuple[str, tuple[Any, ...]]]:
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


def test_apply_writes_the_staged_facts_off_the_main_thread(playground) -> None:
    session, facts = playground.session, tiny_facts()[2:4]
    playground.facts.stage(facts)
    assert playground.rounds._apply.description == "Apply 2"
    threads: list[threading.Thread] = []
    session.subscribe(lambda event: threads.append(threading.current_thread()))
    playground.rounds._apply.click()
    assert playground.wait(30)
    assert session.rounds[-1].facts == tuple(facts)
    assert threads[0] is not threading.main_thread()
    assert playground.desk.staged == ()
    assert playground.rounds._apply.disabled
    assert "round 2 of 2" in playground._header.value


def test_each_button_of_rounds_is_one_public_call(playground, monkeypatch) -> None:
    session, rounds = playground.session, playground.rounds
    made = calls(session, monkeypatch, "go_to", "mute", "unmute", "branch", "switch", "label")
    rounds._undo.click()
    rounds._redo.click()
    rounds._line.selected = [0, 0]
    rounds._line.selected = [0, 1]
    playground.desk.select(None, fact=1)
    rounds._mute.click()
    assert rounds._mute.description == "Unmute fact"
    rounds._mute.click()
    rounds._branch.value = "what if"
    rounds._begin.click()
    rounds._switch.value = "main"
    rounds._label.value = "first"
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
    assert "“first”" in rounds._about.value


class Held:
    """A session whose next round waits at a step until it is let go."""

    def __init__(self, session: Session, monkeypatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        apply = session.apply

        def slow(facts: Any, progress: Any, cancel: Any, *, source: object = None) -> Any:
            def held(said: Any) -> None:
                self.reached.set()
                while not self.go.wait(0.01) and not cancel():
                    pass
                progress(said)

            return apply(facts, held, cancel, source=source)

        monkeypatch.setattr(session, "apply", slow)


def test_while_a_round_runs_clashing_buttons_rest_and_cancel_works(playground, monkeypatch) -> None:
    session, rounds = playground.session, playground.rounds
    held = Held(session, monkeypatch)
    untouched = fingerprint(session.lm)
    playground.facts.stage(tiny_facts()[2:3])
    rounds._apply.click()
    rounds._apply.click()  # a double click is one round
    assert held.reached.wait(10)
    resting = (rounds._apply, rounds._undo, rounds._begin, playground.facts._stage)
    assert all(button.disabled for button in resting)
    assert not rounds._cancel.disabled
    rounds._line.selected = [0, 0]
    assert "being edited" in rounds._alert.value
    assert session.position == 1
    assert rounds._line.selected == [0, 1]  # so that the same click is heard again
    started = time.monotonic()
    rounds._cancel.click()
    assert playground.wait(30)
    assert time.monotonic() - started < 20  # it ends, rather than in how many seconds
    assert len(session.rounds) == 1
    assert "nothing has changed" in rounds._about.value
    assert playground.desk.staged == tuple(tiny_facts()[2:3])
    assert fingerprint(session.lm) == untouched
    assert not rounds._apply.disabled


def test_a_panel_closed_mid_round_leaves_the_round_alone(session: Session, monkeypatch) -> None:
    held = Held(session, monkeypatch)
    rounds, other = cv.panels.Rounds(session), cv.panels.Facts(session)
    other.stage(tiny_facts()[2:3])
    rounds._apply.click()
    assert held.reached.wait(10)
    worker = rounds.desk.worker
    rounds.close()
    held.go.set()
    assert worker.wait(30)
    assert len(session.rounds) == 2
    assert len(other._list.cells) == 3


def test_two_playgrounds_on_one_session_agree(playground) -> None:
    second = cv.playground(playground.session)
    playground.facts.stage(tiny_facts()[2:3])
    assert second.rounds._apply.description == "Apply 1"
    second.rounds._apply.click()
    assert playground.wait(30)
    assert len(playground.facts._list.cells) == 3
    assert playground._header.value == second._header.value
    second.ask.ask("The river of Peru is")
    assert playground.wait(30)
    assert playground.ask._prompt.value == playground.scope._prompt.value == "The river of Peru is"
    second.close()
    playground.rounds._undo.click()
    assert playground.wait(30)


def test_ask_shows_both_answers_and_marks_what_differs() -> None:
    session = new_session(scope="off", steps=20)
    session.apply(tiny_facts()[:2])
    prompt = tiny_facts()[0].text
    ask = cv.panels.Ask(session, prompt)
    settle(ask)
    for bars, edited in zip(ask._bars, (False, True), strict=True):
        frame = session.predict(prompt, edited=edited)
        assert texts(bars, 0) == [f"{p:.2f}" for p in frame["probability"]]
        assert [float(line[0]["bar"]) for line in bars.cells] == frame["probability"].tolist()
    before = session.generate(prompt, 16, edited=False)
    after = session.generate(prompt, 16)
    assert before != after
    assert ask._said[0].value == f"… {before}"
    assert "<mark>" in ask._said[1].value
    assert ask._said[1].value.replace("<mark>", "").replace("</mark>", "") == f"… {after}"


def test_nothing_in_force_says_so(playground) -> None:
    playground.rounds._undo.click()
    assert playground.wait(30)
    assert "0 rounds" in playground.ask._heads[1].value
    assert "No round is in force" in playground.scope._why.value
    assert "hooks off" in playground._header.value


def test_scope_shows_the_reading_and_who_reached_a_cell(playground) -> None:
    session, scope = playground.session, playground.scope
    fact = tiny_facts()[0]
    scope._prompt.value = fact.text
    settle(scope)
    read = session.scope(fact.text)
    assert scope._grid.columns == list(read.tokens)
    assert scope._grid.marked == read.subject_last
    framed = [[cell.get("framed", False) for cell in line] for line in scope._grid.cells]
    assert framed == read.in_scope.tolist()
    token = read.subject_last
    scope._grid.selected = [1, token]
    terms = read.contributions[1, :, token].abs()
    shares = (terms / terms.sum()).sort(descending=True).values
    shown = [line[0]["bar"] for line in scope._reach.cells]
    assert torch.allclose(torch.tensor(shown, dtype=shares.dtype), shares)
    assert scope._reach.rows[0].startswith(fact.subject)
    assert playground.desk.selection.layer == read.layers[1]


def test_the_slider_redraws_at_once_and_then_asks_the_model(playground) -> None:
    session, scope = playground.session, playground.scope
    fact = tiny_facts()[0]
    scope.look(fact.text)
    settle(scope)
    layer, token = session.config.layers[0], scope._reading.subject_last
    scope._grid.selected = [0, token]
    before = session.alphas if hasattr(session, "alphas") else session.state.alphas
    scope._alpha.value = scope._alpha.max  # above what any token reaches
    assert not any(cell.get("framed") for cell in scope._grid.cells[0])
    settle(scope)
    state = session.state.judged(alphas={layer: scope._alpha.max})
    says = session.predict(fact.text, top=1, state=state)["token"].iloc[0].strip()
    assert f"would say “{says}”" in scope._would.value
    assert session.state.alphas == before
    assert f"alphas={{{layer}: {scope._alpha.max}}}" in scope.code()
    scope._reset.click()
    settle(scope)
    assert scope._alpha.value == pytest.approx(before[layer], abs=0.01)
    assert "would say" not in scope._would.value
    shown = round(before[layer], 2)  # the page rounds to a step of the slider, and says so
    scope._alpha.value = shown
    assert "alphas" not in scope.code()
    scope._alpha.value = shown + 0.01  # one key of a person
    assert f"alphas={{{layer}: " in scope.code()


@pytest.mark.parametrize("kind", ["match", "off"])
def test_scope_switches_the_rule(playground, kind: str) -> None:
    session, scope = playground.session, playground.scope
    scope.look(tiny_facts()[0].text)
    scope._kind.value = kind
    settle(scope)
    read = session.scope(tiny_facts()[0].text, state=session.state.judged(kind))
    framed = [[cell.get("framed", False) for cell in line] for line in scope._grid.cells]
    assert framed == read.in_scope.tolist()
    assert scope._alpha.disabled == (kind == "off")
    assert session.config.scope == "zscore"


def test_scope_checks_prompts_at_once_and_says_why_not(playground) -> None:
    scope = playground.scope
    playground.desk.select(None, fact=0)
    scope._of_fact.click()
    settle(scope)
    fact = playground.session.facts[0]
    prompts = [fact.text, *fact.paraphrases, *(n.prompt for n in fact.neighbors)]
    assert texts(scope._table, 0)[: len(prompts)] == prompts
    assert texts(scope._table, 1)[: len(prompts)] == ["edit", "paraphrase", *["neighbour"] * 2]
    for line in scope._table.cells:
        prompt, kind, fired = (line[column].get("text", "") for column in (0, 1, 3))
        fires = bool(playground.session.scope(prompt).in_scope.any())
        assert ("fired" in fired) == fires
        meant = kind in ("edit", "paraphrase")
        assert line[3]["kind"] == ("missed" if fires != meant else "holds")
        before, now = (
            word(playground.session.predict(prompt, top=1, edited=edited)["token"].iloc[0])
            for edited in (False, True)
        )
        assert line[4]["text"] == (now if now == before else f"{before} → {now}")
        assert line[4].get("kind", "") == ("" if meant else "holds" if now == before else "missed")
    scope._several.value = "red\n\n"
    scope._check.click()
    settle(scope)
    assert texts(scope._table, 0) == ["red"]
    assert "no z-score can exceed" in texts(scope._table, 5)[0]
    scope._table.selected = [0, 0]
    assert playground.ask._prompt.value == "red"
    settle(scope)
    with scope.desk.drawing:  # so that what follows is not yet in the table
        scope.check(["blue", "green"])
        scope._table.selected = []
        scope._table.selected = [0, 1]
        assert scope._prompt.value == "red"


def test_facts_say_what_the_model_says_while_one_types(playground) -> None:
    facts = playground.facts
    facts._fields["prompt"].value = "The river of {} is"
    facts._fields["subject"].value = "Peru"
    settle(facts)
    says = playground.session.predict("The river of Peru is", top=1)["token"].iloc[0].strip()
    assert "last token “Peru”" in facts._feedback.value
    assert says in facts._feedback.value
    assert all(not wrong.value for wrong in facts._wrong.values())


def test_facts_name_the_field_that_is_wrong(playground) -> None:
    facts = playground.facts
    facts._fields["prompt"].value = "The river of Peru is"
    facts._fields["subject"].value = "Peru"
    facts._stage.click()
    assert "write exactly one" in facts._wrong["prompt"].value
    assert "empty" in facts._wrong["target"].value
    assert playground.desk.staged == ()
    assert facts._fields["subject"].value == "Peru"


def test_a_conflict_is_said(playground) -> None:
    facts, fact = playground.facts, tiny_facts()[0]
    facts.fill(Fact(fact.prompt, fact.subject, "Lima"))
    settle(facts)
    assert "Conflict" in facts._feedback.value
    assert "Oslo" in facts._feedback.value


def test_staged_facts_are_typed_over_in_the_table_and_taken_back(playground) -> None:
    facts = playground.facts
    facts.stage(tiny_facts()[2:4])
    facts._table._hear(facts._table, {"typed": [0, 2, "Lima"]}, [])
    assert playground.desk.staged[0].target == "Lima"
    facts._table._hear(facts._table, {"typed": [0, 0, "no slot"]}, [])
    assert "write exactly one" in facts._alert.value
    assert playground.desk.staged[0].prompt == tiny_facts()[2].prompt
    facts._list.selected = [1, 1]
    picked: list[list[int]] = []  # when the others hear of it: a click from then on is new
    playground.desk.subscribe(lambda event: picked.append(list(facts._list.selected)))
    facts._back.click()
    assert picked == [[]]
    assert facts.fact == tiny_facts()[3]
    assert len(playground.desk.staged) == 1


def test_enter_stages_and_what_a_fact_brings_along_is_seen(playground) -> None:
    facts = playground.facts
    facts.fill(tiny_facts()[2])
    facts._fields["target"]._handle_custom_msg({"event": "submit"}, [])
    assert playground.desk.staged == (tiny_facts()[2],)
    bare = Fact("The river of {} is", "Peru", "red")
    facts.stage([bare, replace(bare, subject="Quito", truth="blue")])
    assert len(playground.desk.staged) == 3
    facts._list.selected = [1, 1]
    facts._back.click()
    assert not facts._more.value
    facts._list.selected = [1, 1]
    facts._back.click()
    assert facts._more.value


def test_each_rule_has_a_slider_of_its_own_and_a_late_move_of_the_other_is_nothing(
    playground,
) -> None:
    scope = playground.scope
    settle(scope)
    scope.judge(dict.fromkeys(playground.session.config.layers, 2.2))
    settle(scope)
    for kind, shown, hidden in (
        ("match", scope._tau, scope._alpha),
        ("zscore", scope._alpha, scope._tau),
    ):
        scope._kind.value = kind
        settle(scope)
        assert (shown.layout.display, hidden.layout.display) == ("", "none")
        before = scope.code()
        hidden.value += 0.01  # of before: the page had not yet heard of the other rule
        settle(scope)
        assert scope.code() == before
    assert scope._alpha.value == 2.2
    assert scope._tau.value == pytest.approx(playground.session.config.match_threshold + 0.01)
    scope.look(tiny_facts()[1].text)
    settle(scope)
    assert scope._tau.value == playground.session.config.match_threshold


def test_what_was_read_before_the_slider_moved_does_not_move_it_back(playground) -> None:
    scope = playground.scope
    settle(scope)
    asked, old = scope._asked, scope._reading
    scope._alpha.value = 1.5
    scope._show(old, asked)  # by the worker, which had begun before
    assert scope._alpha.value == 1.5
    settle(scope)
    assert scope._alpha.value == 1.5


def test_a_rule_that_is_taken_back_at_once_is_not_shown(playground, monkeypatch) -> None:
    session, scope = playground.session, playground.scope
    settle(scope)
    read = session.scope

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        reading = read(*args, **kwargs)
        scope._kind.value = "zscore"
        return reading

    monkeypatch.setattr(session, "scope", meanwhile)
    scope._kind.value = "match"
    settle(scope)
    assert scope._reading.kind == "zscore"


@pytest.mark.parametrize("name", ["ask", "scope"])
def test_a_key_that_is_taken_back_at_once_stays_away(playground, name: str) -> None:
    panel = getattr(playground, name)
    settle(panel)
    prompt = panel._prompt.value
    panel._prompt.value = f"{prompt} x"
    panel._prompt.value = prompt
    settle(panel)
    assert panel._prompt.value == playground.desk.selection.prompt == prompt


def test_another_prompt_is_looked_at_where_its_subject_ends(playground) -> None:
    scope, (first, second) = playground.scope, tiny_facts()[:2]
    for fact in (first, second):
        scope.look(fact.text)
        settle(scope)
        place = scope._reading.subject_last
        assert scope._grid.selected[1] == place
        assert playground.desk.selection.token == place
    scope.look("nothing is known of this")
    settle(scope)
    assert scope._grid.selected == []


def test_a_round_says_how_many_of_its_facts_hold(playground) -> None:
    settle(playground.rounds)
    held = sum(s["reliability"] == 1 for s in playground.desk.scores.values())
    assert f"2 facts, {held} of 2 hold" in playground.rounds._about.value


def test_facts_from_gallery_file_and_paste(playground) -> None:
    facts = playground.facts
    relation = cv.bundled_facts()[0].relation
    facts._gallery.value = relation
    assert len(playground.desk.staged) == 5
    assert {fact.relation for fact in playground.desk.staged} == {relation}
    facts.desk.stage([], None)
    facts._pasted.value = "prompt,subject,target\nThe river of {} is,Peru,red\nbad,,\n"
    facts._read.click()
    assert [str(fact) for fact in playground.desk.staged] == ["The river of Peru is → red"]
    assert "1 fact staged" in facts._found.value
    assert "1 of 2 records left out" in facts._found.value
    facts._pasted.value = "[not json"
    facts._read.click()
    assert "✗" in facts._found.value
    assert len(playground.desk.staged) == 1
    content = b'[{"prompt": "{} is old", "subject": "Quito", "target": "new"}]'
    file = {"name": "facts.json", "type": "", "size": len(content), "content": memoryview(content)}
    facts._upload.value = ({**file, "last_modified": datetime.now(tz=UTC)},)
    assert [fact.subject for fact in playground.desk.staged] == ["Peru", "Quito"]


def test_a_long_file_with_repeats_is_taken_and_listed_in_part(playground) -> None:
    facts = playground.facts
    lines = [f"The river of {{}} is,Peru {i},red" for i in range(300)]
    facts._pasted.value = "\n".join(
        ["prompt,subject,target", *lines, "The river of {} is,Peru 3,blue"]
    )
    facts._read.click()
    assert len(playground.desk.staged) == 300
    assert playground.desk.staged[3].target == "red"
    assert "300 facts staged" in facts._found.value
    assert "1 fact left out" in facts._found.value
    assert len(facts._list.cells) == 201
    assert "102 more facts" in texts(facts._list, 1)[-1]
    facts._list.selected = [200, 1]
    assert facts._back.disabled


@pytest.mark.parametrize(
    "text", [HOSTILE, "x" * 10_000, "🙂 emoji", "مرحبا", "two\nlines", "{} and {}", "$x^2$ &amp;"]
)
def test_hostile_text_is_text_or_refused_and_nothing_is_lost(playground, text: str) -> None:
    facts = playground.facts
    before = playground.desk.staged
    for name in ("prompt", "subject", "target", "truth", "paraphrases", "neighbors"):
        facts.fill(Fact("The river of {} is", "Peru", "red"))
        facts._fields[name].value = text
        settle(facts)
        facts._stage.click()
        settle(facts)
    playground.ask.ask(text)
    playground.scope.look(text)
    playground.scope.check([text])
    playground.rounds._branch.value = text
    playground.rounds._begin.click()
    playground.save("")
    settle(playground.scope)
    for widget in walk(playground):
        if type(widget).__name__ == "HTML":
            assert "<img" not in widget.value
    assert playground.desk.staged[: len(before)] == before
    assert playground.session.position == 1


def walk(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def test_settings_change_rounds_to_come_or_say_why_not(playground) -> None:
    rounds, session = playground.rounds, playground.session
    names = texts(rounds._settings, 0)
    steps, weight = names.index("steps"), names.index("covariance_weight")
    threads: list[threading.Thread] = []
    session.subscribe(lambda event: threads.append(threading.current_thread()))
    rounds._settings._hear(rounds._settings, {"typed": [steps, 1, "3"]}, [])
    settle(rounds)
    assert session.config.steps == 3
    assert threads[0] is not threading.main_thread()  # other layers need moments: seconds
    rounds._settings._hear(rounds._settings, {"typed": [weight, 1, "10"]}, [])
    settle(rounds)
    assert "hang on it" in rounds._alert.value
    rounds._settings._hear(rounds._settings, {"typed": [steps, 1, "many"]}, [])
    assert "not a number" in rounds._alert.value
    assert texts(rounds._settings, 1)[steps] == "3"


def test_saved_and_opened_again(playground, tmp_path) -> None:
    session = playground.session
    session.mute(1)
    playground._folder.value = str(tmp_path / "kept")
    playground._save.click()
    assert "Saved" in playground._said.value
    session.undo()
    playground._load.click()
    assert playground.wait(30)
    assert playground.wait(30)
    assert playground.session is not session
    assert (playground.session.position, playground.session.muted) == (1, {1})
    assert "round 1 of 1" in playground._header.value
    playground.load(tmp_path / "nothing")
    assert playground.wait(30)
    assert "no session is saved there" in playground._said.value


@pytest.mark.parametrize("name", ["Facts", "Rounds", "Ask", "Scope"])
def test_each_panel_stands_alone_with_a_twin_and_its_code(session: Session, name: str) -> None:
    panel = getattr(cv.panels, name)(session)
    if hasattr(panel, "_prompt"):
        panel._prompt.value = tiny_facts()[0].text
        settle(panel)
    shown = panel.static()._repr_html_()
    assert "<img" in shown or "<table" in shown
    assert "<script" not in shown
    compile(panel.code(), name, "exec")
    panel.close()
    session.undo()
    gc.collect()


def test_code_of_the_playground_gives_what_it_shows(playground) -> None:
    playground.ask.ask(tiny_facts()[0].text)
    playground.facts.stage(tiny_facts()[2:3])
    assert playground.wait(30)
    names: dict[str, Any] = {"cv": cv, "lm": playground.session.lm, "session": new_session()}
    code = playground.code().partition("session = cv.Session(lm)")[2]
    exec(compile(code, "playground", "exec"), names)  # noqa: S102
    assert names["facts"] == list(playground.desk.staged)
    for layer in playground.session.config.layers:
        made, shown = (s.delta_weight(layer) for s in (names["session"], playground.session))
        assert torch.equal(made, shown)


def test_while_the_model_is_loaded_its_stage_is_said(monkeypatch) -> None:
    from coachhook_viz.panels import playground as module

    said: list[str] = []

    def load(job: Any) -> Session:
        job.progress(Progress("moments", 3, 18))
        said.append(playground._header.value)
        return new_session()

    started = threading.Event()
    monkeypatch.setattr(module, "_new_session", lambda job: (started.wait(10), load(job))[1])
    playground = cv.playground()
    started.set()
    assert playground.wait(30)
    assert "collecting second moments, 3 of 18" in said[0]
    assert "round 0 of 0" in playground._header.value
    playground.close()


def test_a_model_that_cannot_be_loaded_is_said(monkeypatch) -> None:
    from coachhook_viz.panels import playground as module

    def fail(job: Any) -> Any:
        raise OSError("no network, and no cached model")

    monkeypatch.setattr(module, "_new_session", fail)
    playground = cv.playground()
    assert playground.wait(30)
    assert "no cached model" in playground._waiting.empty
    assert "no model" in playground._header.value


def test_a_cell_says_only_what_it_has() -> None:
    grid = Grid(label="one")
    grid.show([[Cell("0", shade=0.0, bar=0.0, framed=False)]])
    assert grid.cells == [[{"text": "0", "shade": 0.0, "bar": 0.0}]]
