"""The Scope panel without a browser: what it shows is what one public call gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hands import HOSTILE, Hands, new_session, nodes, settle, submitted, texts
from tiny import tiny_facts

from coachhook_viz import Session
from coachhook_viz.panels import panel as module
from coachhook_viz.panels.ask import Ask
from coachhook_viz.panels.controls import Text
from coachhook_viz.panels.scope import Scope
from coachhook_viz.panels.words import word

FIRST, SECOND = tiny_facts()[:2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOMENT", 0.01)


@pytest.fixture
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def scope(session: Session) -> Iterator[Scope]:
    scope = Scope(session, FIRST.text)
    settle(scope)
    yield scope
    settle(scope)
    scope.close()


def framed(scope: Scope) -> list[list[bool]]:
    return [[cell.get("framed", False) for cell in line] for line in scope._grid.cells]


def says(session: Session, prompt: str, **judged: Any) -> str:
    state = session.state.judged(**judged)
    return word(session.predict(prompt, top=1, state=state)["token"].iloc[0])


def test_it_shows_the_reading_and_why(scope: Scope) -> None:
    read = scope.session.scope(FIRST.text)
    assert scope._grid.columns == list(read.tokens)
    assert scope._grid.rows == list(read.layer_names)
    assert scope._grid.marked == read.subject_last
    assert framed(scope) == read.in_scope.tolist()
    assert scope._why.html == read.explain()
    assert not scope._key.hidden
    assert f"The model says “{says(scope.session, FIRST.text)}”" in scope._would.html


def test_a_cell_says_which_edits_reach_it(scope: Scope) -> None:
    read = scope.session.scope(FIRST.text)
    token = read.subject_last
    assert token is not None
    Hands(scope).at(scope._grid, 1, token)
    terms = read.contributions[1, :, token].abs()
    shares = (terms / terms.sum()).sort(descending=True).values
    shown = [line[0]["bar"] for line in scope._reach.cells]
    assert torch.allclose(torch.tensor(shown, dtype=shares.dtype), shares)
    assert scope._reach.rows[0].startswith(FIRST.subject)
    assert (scope.desk.selection.layer, scope.desk.selection.token) == (read.layers[1], token)
    best = float(read.match[1, :, token].max())
    assert f"best: {best:.2f}" in scope._match.html


def test_many_edits_are_told_as_a_few_and_the_others() -> None:
    session = new_session()
    session.apply(tiny_facts())
    scope = Scope(session, FIRST.text)
    settle(scope)
    assert len(scope._reach.rows) == 5
    assert scope._reach.rows[-1] == "2 others"
    assert sum(line[0]["bar"] for line in scope._reach.cells) == pytest.approx(1)
    scope.close()


def test_another_prompt_is_looked_at_where_its_subject_ends(scope: Scope) -> None:
    for fact in (SECOND, FIRST):
        scope.look(fact.text)
        settle(scope)
        place = scope._reading.subject_last
        assert scope._grid.selected[1] == place
        assert scope.desk.selection.token == place
    scope.look("nothing is known of this")
    settle(scope)
    assert scope._grid.selected == []


def test_it_follows_a_cell_that_is_picked_elsewhere(scope: Scope) -> None:
    layer = scope.session.config.layers[2]
    scope.desk.select(None, layer=layer, token=1)
    assert scope._grid.selected == [2, 1]
    scope.desk.select(None, token=999)
    assert scope._grid.selected == [2, 1]


# Thresholds


def test_the_slider_redraws_at_once_and_then_asks_the_model(scope: Scope) -> None:
    session, hands = scope.session, Hands(scope)
    layer, before = session.config.layers[0], session.state.alphas
    hands.at(scope._grid, 0, scope._reading.subject_last)
    hands.set(scope._alpha, value=scope._alpha.max)  # above what any token reaches
    assert not any(framed(scope)[0])
    settle(scope)
    said = says(session, FIRST.text, alphas={layer: scope._alpha.max})
    assert f"would say “{said}”" in scope._would.html
    assert hands.written(scope._alpha) == []  # it is in the person's hand
    assert session.state.alphas == before
    assert f"alphas={{{layer}: {scope._alpha.max}}}" in scope.code()
    hands.press(scope._reset)
    settle(scope)
    assert scope._alpha.value == pytest.approx(before[layer])
    assert "would say" not in scope._would.html
    shown = round(before[layer], 2)  # the page rounds to a step of the slider, and says so
    hands.set(scope._alpha, value=shown)
    assert "alphas" not in scope.code()
    hands.set(scope._alpha, value=shown + 0.01)  # one key of a person
    assert f"alphas={{{layer}: " in scope.code()


def test_each_rule_has_a_slider_of_its_own_and_a_late_move_of_the_other_is_nothing(
    scope: Scope,
) -> None:
    hands = Hands(scope)
    for kind, shown, hidden in (
        ("match", scope._tau, scope._alpha),
        ("zscore", scope._alpha, scope._tau),
    ):
        hands.set(scope._kind, value=kind)
        settle(scope)
        assert (shown.hidden, hidden.hidden) == (False, True)
        before = scope.code()
        hands.set(hidden, value=hidden.value + 0.1)  # of before: the page had not heard of it
        settle(scope)
        assert scope.code() == before


def test_tau_is_moved_for_a_look(scope: Scope) -> None:
    session, hands = scope.session, Hands(scope)
    scope.judge(match_threshold=0.99, scope="match")
    settle(scope)
    assert scope.desk.rule == "match"
    assert scope._tau.value == 0.99
    hands.set(scope._tau, value=0.2)
    read = session.scope(FIRST.text, state=session.state.judged("match", 0.2))
    assert framed(scope) == read.in_scope.tolist()  # at once
    settle(scope)
    assert framed(scope) == read.in_scope.tolist()
    said = says(session, FIRST.text, scope="match", match_threshold=0.2)
    assert f"would say “{said}”" in scope._would.html
    names: dict[str, Any] = {"session": session}
    exec(compile(scope.code(), "scope", "exec"), names)  # noqa: S102
    assert names["state"].key == scope.state.key
    scope.judge()
    settle(scope)
    assert scope._tau.value == session.config.match_threshold


def test_what_was_read_before_the_slider_moved_does_not_move_it_back(scope: Scope) -> None:
    hands = Hands(scope)
    with scope.desk.drawing:  # a reading is on its way
        scope.desk.judge(None, "off")
        scope.desk.judge(None, "zscore")
        hands.set(scope._alpha, value=1.5)
    settle(scope)
    assert scope._alpha.value == 1.5
    assert "1.5" in scope.code()


def test_a_rule_that_is_taken_back_at_once_is_not_shown(scope: Scope, monkeypatch) -> None:
    session, hands = scope.session, Hands(scope)
    read = session.scope

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        reading = read(*args, **kwargs)
        hands.set(scope._kind, value="zscore")
        return reading

    monkeypatch.setattr(session, "scope", meanwhile)
    hands.set(scope._kind, value="match")
    settle(scope)
    assert scope._reading.kind == "zscore"
    assert scope._kind.value == "zscore"


@pytest.mark.parametrize("kind", ["match", "off"])
def test_another_rule_is_a_look_that_all_share(scope: Scope, kind: Any) -> None:
    session, ask = scope.session, Ask(scope.session)
    Hands(scope).set(scope._kind, value=kind)
    settle(scope, ask)
    state = session.state.judged(kind)
    assert framed(scope) == session.scope(FIRST.text, state=state).in_scope.tolist()
    assert scope._alpha.disabled == (kind == "off")
    assert texts(ask._bars[1]) == [
        f"{p:.2f}" for p in session.predict(FIRST.text, 4, state=state)["probability"]
    ]
    assert session.config.scope == "zscore"
    assert f"scope={kind!r}" in scope.code()
    assert "With this the model would say" in scope._would.html
    ask.close()


def test_a_rule_before_any_round_is_the_sessions_own() -> None:
    session = new_session()
    scope = Scope(session, FIRST.text)
    Hands(scope).set(scope._kind, value="match")
    settle(scope)
    assert session.config.scope == "match"
    assert scope.desk.rule == scope._kind.value == "match"
    session.apply(tiny_facts()[:1])
    settle(scope)
    assert scope._reading.kind == "match"
    assert "scope=" not in scope.code()
    scope.close()


# Nothing to read


def test_an_empty_place_says_what_will_stand_there() -> None:
    session = new_session()
    scope = Scope(session)
    assert scope._grid.empty.startswith("Type a prompt.")
    scope.look(FIRST.text)
    assert scope._grid.empty.startswith("No round yet. After Apply")
    session.apply([FIRST])
    settle(scope)
    assert scope._grid.cells
    session.mute(0)
    assert scope._grid.empty == "The hook is silent: after round 1, the only fact muted."
    session.undo()
    assert scope._grid.empty == "The hook is silent: before round 1."
    session.redo()
    session.unmute(0)
    scope.desk.judge(None, hooks=False)
    assert scope._grid.empty == "The hook is silent: hooks off."
    settle(scope)
    assert scope._grid.cells == []  # and no late reading
    assert scope._key.hidden
    assert scope._lasting.hidden
    assert scope.static()._repr_html_() == "<div><p>Nothing looked at yet.</p></div>"
    scope.close()


def test_while_nobody_sees_it_it_costs_nothing(scope: Scope, monkeypatch) -> None:
    scope.visible = False
    titles = submitted(scope.desk, monkeypatch)
    scope.desk.judge(None, "match")
    scope.desk.select(None, prompt=SECOND.text)
    scope.desk.select(None, layer=scope.session.config.layers[0], token=0)
    settle(scope)
    assert titles == []
    scope.visible = True
    settle(scope)
    assert titles == ["reading the scope", "asking"]
    assert scope._reading.prompt == SECOND.text
    assert scope._reading.kind == "match"
    assert scope._prompt.value == SECOND.text


def test_a_state_that_was_seen_costs_nothing(scope: Scope, monkeypatch) -> None:
    before = framed(scope)
    titles = submitted(scope.desk, monkeypatch)
    scope.session.undo()
    settle(scope)
    scope.session.redo()
    settle(scope)
    assert framed(scope) == before
    assert scope._would.html
    assert titles == []
    scope.desk.judge(None, "match")
    settle(scope)
    assert titles == ["reading the scope", "asking"]
    for rule in ("zscore", "match"):
        scope.desk.judge(None, rule)
        settle(scope)
    assert titles == ["reading the scope", "asking"]
    assert scope._reading.kind == "match"


# Several prompts


def test_it_checks_the_prompts_of_a_fact_and_says_why_not(scope: Scope) -> None:
    session, hands = scope.session, Hands(scope)
    hands.press(scope._of_fact)
    assert "Select a fact first" in scope._alert.html
    scope.desk.select(None, fact=0)
    hands.press(scope._of_fact)
    settle(scope)
    assert scope._alert.html == ""
    prompts = [FIRST.text, *FIRST.paraphrases, *(n.prompt for n in FIRST.neighbors)]
    assert texts(scope._table, 0)[: len(prompts)] == prompts
    assert texts(scope._table, 1)[: len(prompts)] == ["edit", "paraphrase", *["neighbour"] * 2]
    for line in scope._table.cells:
        prompt, kind, fired = (line[column].get("text", "") for column in (0, 1, 3))
        fires = bool(session.scope(prompt).in_scope.any())
        assert ("fired" in fired) == fires
        meant = kind in ("edit", "paraphrase")
        assert line[3]["kind"] == ("missed" if fires != meant else "holds")
        before, now = (
            word(session.predict(prompt, top=1, edited=edited)["token"].iloc[0])
            for edited in (False, True)
        )
        assert line[4]["text"] == (now if now == before else f"{before} → {now}")
        assert line[4].get("kind", "") == ("" if meant else "holds" if now == before else "missed")


def test_prompts_of_ones_own_are_checked_and_picked(scope: Scope) -> None:
    hands = Hands(scope)
    hands.type(scope._several, "red\n\n  \n")
    hands.press(scope._check)
    settle(scope)
    assert texts(scope._table, 0) == ["red"]
    assert "no z-score can exceed" in texts(scope._table, 5)[0]
    assert hands.written(scope._several) == []
    hands.at(scope._table, 0, 0)
    assert scope.desk.selection.prompt == scope._prompt.value == "red"
    hands.type(scope._several, "blue\nred")
    hands.press(scope._check)
    settle(scope)
    assert scope._table.selected == [1, 0]  # it is red that is selected
    hands.type(scope._several, "")
    hands.press(scope._check)
    settle(scope)
    assert scope._table.cells == []


def test_prompts_with_line_breaks_are_checked_as_they_are() -> None:
    from coachhook_viz import Fact

    fact = Fact("red is\n{} is old .\nblue is", "Quito", "new", paraphrases=("Near\nQuito is",))
    session = new_session()
    session.apply([fact])
    scope = Scope(session, fact.text)
    hands = Hands(scope)
    scope.desk.select(None, fact=0)
    hands.press(scope._of_fact)
    settle(scope)
    shown = texts(scope._table, 0)
    assert shown[:2] == [fact.text, fact.paraphrases[0]]
    hands.press(scope._check)  # as they stand in the field now
    settle(scope)
    assert texts(scope._table, 0) == shown
    assert texts(scope._table, 1)[:2] == ["edit", "paraphrase"]
    scope.close()


# All of it


@pytest.mark.parametrize("text", [HOSTILE, "x" * 10_000, "🙂", "two\nlines", "{} and {}", "$x^2$"])
def test_hostile_text_is_text(scope: Scope, text: str) -> None:
    hands = Hands(scope)
    hands.type(scope._prompt, text)
    hands.enter(scope._prompt)
    hands.type(scope._several, text)
    hands.press(scope._check)
    settle(scope)
    for node in nodes(scope):
        if isinstance(node, Text):
            assert "<img" not in node.html
    assert "<img" not in str(scope.picture())
    compile(scope.code(), "scope", "exec")


def test_what_is_shown_without_a_kernel(scope: Scope) -> None:
    shown = scope.static()._repr_html_()
    assert "<img" in shown
    assert "<script" not in shown
    compile(scope.code(), "scope", "exec")
    picture = str(scope.picture())
    assert all(word(token) in picture for token in scope._reading.tokens)


def test_within_a_playground_it_brings_no_field_of_its_own(session: Session) -> None:
    scope = Scope(session, alone=False)
    assert scope._prompt.hidden
    assert scope._kind.hidden
    scope.close()
