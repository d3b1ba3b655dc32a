from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import EditConfig, EditState, Fact, Session
from coachhook_viz.editing.reach import share
from coachhook_viz.measure.gates import without

SCOPES = ("zscore", "match", "two-key", "off")
NAMES = ["subject", "hook", "facts", "reached", "blocks", "others"]
FRANCE = Fact(
    "The capital of {} is", "France", "Moscow", "Paris", relation="capital",
    paraphrases=("The capital city of France is called",),
)  # fmt: skip
TOWER = Fact(
    "The famous landmark called the {} is located in the city of", "Eiffel Tower", "Berlin", "Paris"
)


@pytest.fixture(scope="module", params=SCOPES)
def session(request: pytest.FixtureRequest, lm) -> Session:
    session = Session(lm, EditConfig.for_model(lm, scope=request.param))
    session.apply([FRANCE, TOWER])
    return session


def scaled(lm, state: EditState, place: int, size: float) -> EditState:
    """The state, but with the columns of one fact of its first round made smaller."""
    [round_, *later] = state.rounds
    factors = {}
    for layer, old in round_.factors.items():
        residuals = old.residuals.clone()
        residuals[:, [i for i, owner in enumerate(old.owners) if owner == place]] *= size
        factors[layer] = replace(old, residuals=residuals)
    return EditState.of(lm, state.config, [replace(round_, factors=factors), *later])


@pytest.mark.model
def test_every_gate_is_open_where_an_edit_holds(session: Session) -> None:
    found = session.why(FRANCE.text)
    assert [gate.name for gate in found.gates] == NAMES
    assert {gate.state for gate in found.gates} == {"open"}
    assert (found.holds, found.says, found.broken, found.action) == (True, "Moscow", None, None)
    assert found.sentence == "The model says “Moscow”, as “France → Moscow” wants."
    gates = {gate.name: gate for gate in found.gates}
    scope = session.scope(FRANCE.text)
    assert gates["subject"].value == scope.subject_last
    assert gates["facts"].value > 0.9
    assert gates["reached"].value > 0.75
    frame = session.lens(FRANCE.text, ("Moscow", "Paris"))
    table = frame[frame["edited"]].pivot_table("probability", "block", "answer")
    first = int(gates["blocks"].value)
    assert (table["Moscow"] > table["Paris"]).iloc[first:].all()
    if session.config.scope != "off":
        at = scope.subject_last if session.config.site == "subject" else len(scope.tokens) - 1
        scores = scope.z[:, at] if scope.kind == "zscore" else scope.match[:, 0, at]
        assert [line[1] for line in gates["hook"].by_layer] == pytest.approx(scores.tolist())
        assert all(line[3] for line in gates["hook"].by_layer)


@pytest.mark.model
def test_a_prompt_without_the_subject_breaks_the_first_gate(session: Session) -> None:
    found = session.why("The capital of Peru is")
    assert found.broken.name == "subject"
    assert "No subject of an edit in force" in found.sentence
    assert "“France”, “Eiffel Tower”" in found.sentence
    wanted = session.why("The capital of Peru is", "Moscow")
    assert wanted.broken.name == "subject"
    assert "“France” does not stand in the prompt" in wanted.sentence
    other = session.why(FRANCE.text, "Lima")
    assert "No edit in force wants “Lima” here" in other.sentence
    assert (other.action.kind, other.action.fact) == ("mute", 0)


@pytest.mark.model
def test_a_silent_hook_breaks_the_second_gate(session: Session) -> None:
    state, kind, asked = session.state, session.config.scope, FRANCE.paraphrases[0]
    if kind == "off":  # there no hook is silent
        assert session.why(asked).gates[1].state == "open"
        return
    if kind == "two-key":
        quiet = state.judged(None, 1.0)
        found = session.why("The Eiffel Tower can be found in", state=quiet)
        assert "silent at “in”" in found.sentence
        assert found.action.wording == "The {} can be found in"
        found = session.why(
            asked, state=replace(state, config=replace(state.config, subject_threshold=1.0))
        )
        assert "not opened" in found.sentence
        assert found.action.wording == "The capital city of {} is called"
    else:
        high = dict.fromkeys(state.layers, 99.0)
        quiet = state.judged(alphas=high) if kind == "zscore" else state.judged(None, 1.0)
        found = session.why(asked, state=quiet)
        assert "silent at “France”" in found.sentence
        assert found.action.kind == "scope"
        judged = quiet.judged(found.action.scope)
        said = session.predict(asked, 1, state=judged)["token"].iloc[0]
        assert said.strip() == "Moscow"
    assert found.broken.name == "hook"
    assert found.broken.value < found.broken.limit


@pytest.mark.model
def test_an_edit_that_hardly_speaks_breaks_the_third_gate(lm) -> None:
    twin = replace(FRANCE, prompt="The official language of {} is", target="Italian", truth=None)
    again = Session(lm, EditConfig.for_model(lm, scope="match"))
    again.apply([FRANCE, twin])
    weak = scaled(lm, again.state, 0, 1e-3)
    found = again.why(FRANCE.text, state=weak)
    assert found.broken.name == "facts"
    assert found.broken.value < 0.1
    assert (found.action.kind, found.action.fact) == ("mute", 1)


@pytest.mark.model
def test_an_edit_that_got_a_fifth_of_the_way_breaks_the_fourth_gate(session: Session, lm) -> None:
    weak = scaled(lm, session.state, 0, 0.15)
    if session.config.scope == "zscore":
        weak = weak.judged(alphas=dict.fromkeys(weak.layers, 1.0))
    found = session.why(FRANCE.text, state=weak)
    assert found.broken.name == "reached"
    assert 0 < found.broken.value < 0.5 == found.broken.limit
    assert found.action.kind in ("two keys", "steps")


@pytest.mark.model
def test_a_target_that_is_overtaken_breaks_the_fifth_gate(session: Session) -> None:
    found = session.why("The official language of France is", "Moscow")
    if session.config.scope == "two-key":  # there another relation leaves the hook silent
        assert found.broken.name == "hook"
        return
    assert found.broken.name == "blocks"
    assert "never ahead of" in found.sentence
    assert found.action.kind == "two keys"


@pytest.mark.model
@pytest.mark.parametrize("scope", ["match", "two-key"])
def test_another_edit_that_pushes_against_it_breaks_the_sixth_gate(scope: str, lm) -> None:
    again = Session(lm, EditConfig.for_model(lm, scope=scope))
    again.apply([FRANCE])
    again.apply([replace(FRANCE, target="Berlin")])
    found = again.why(FRANCE.text, "Moscow")
    assert found.says == "Berlin"
    assert found.broken.name == "others"
    assert (found.action.kind, found.action.fact) == ("mute", 1)
    again.mute(found.action.fact)
    assert again.why(FRANCE.text).holds


@pytest.mark.model
def test_another_relation_of_the_subject_should_stay(session: Session) -> None:
    asked = "The official language of France is"
    found = session.why(asked)
    assert "asks something else of “France”" in found.sentence
    stayed = session.config.scope == "two-key"
    assert found.holds == stayed
    assert (found.action is None) == stayed


@pytest.mark.model
def test_of_two_relations_of_a_subject_the_one_asked_for_is_told(lm) -> None:
    session = Session(lm, EditConfig.for_model(lm, scope="two-key"))
    language = Fact("The official language of {} is", "France", "Russian", "French")
    session.apply([FRANCE, language])
    other = session.why("The currency of France is the")
    assert "should stay as it is: the model still says “Euro”" in other.sentence
    assert other.action is None
    asked = session.why("What is the capital of France?")  # goes on with a line break
    assert (asked.fact_id, asked.says) == (0, "\\n")
    assert asked.sentence.startswith("The model says “\\n”, not “Moscow”")
    silent = session.why("What is the capital of France?", "Russian")
    assert "silent at “?”" in silent.broken.said
    assert "instead" not in silent.broken.said  # it is the other fact that speaks there
    chat = session.chat_text([{"role": "user", "content": "What is the capital of France?"}])
    found = session.why(chat)  # a wording with a way of its own
    assert found.holds
    assert {gate.state for gate in found.gates} == {"open"}


@pytest.mark.model
def test_a_neighbour_that_the_hook_takes_for_the_subject_is_told(lm) -> None:
    session = Session(lm, EditConfig.for_model(lm))
    session.apply([FRANCE])
    found = session.why("The capital of Italy is")
    assert "Yet the hook speaks at “Italy”, for “France → Moscow”" in found.sentence
    assert (found.action.kind, found.action.scope) == ("scope", "match")


@pytest.fixture
def tiny() -> Session:
    return tiny_session(tiny_model(bos=True), scope="match", steps=20, clamp_factor=4.0)


def test_what_is_not_in_force_is_said(tiny: Session) -> None:
    fact = tiny_facts()[0]
    assert tiny.why(fact.text).sentence.startswith("No round is in force")
    tiny.apply(tiny_facts()[:2])
    tiny.mute(0)
    found = tiny.why(fact.text)
    assert "is muted: unmute it" in found.sentence
    assert (found.action.kind, found.action.code) == ("unmute", "session.unmute(0)")
    words = tiny.generate("red river", 2).split()
    wanted = [" ".join(words), f"{words[0]} Lima"]
    assert [tiny.why("red river", target).holds for target in wanted] == [True, False]
    tiny.mute(1)
    assert tiny.why("red river").sentence.startswith("All facts are muted")
    tiny.unmute(0)
    tiny.undo()
    assert "is undone: redo its round" in tiny.why(fact.text).sentence
    assert tiny.why(fact.text).action.kind == "redo"
    for target, words in ((" ", "has no token"), ("", "has no token"), (7, "has no token")):
        with pytest.raises(ValueError, match=words):
            tiny.why(fact.text, target)
    with pytest.raises(ValueError, match="the prompt has no token"):
        tiny_session().why("")


def test_it_prints_with_the_broken_gate_marked_and_as_text(tiny: Session) -> None:
    tiny.apply(tiny_facts()[:2])
    for prompt in (*(f.text for f in tiny_facts()), "<b>red</b> river", "Anna < Oslo"):
        found = tiny.why(prompt)
        lines = str(found).splitlines()
        scope = tiny.scope(prompt)
        assert (repr(found), repr(scope)) == (str(found), str(scope))
        assert "tensor(" not in repr(found) + repr(scope)
        assert sum(line.startswith("→") for line in lines) == (found.broken is not None)
        assert "<b>red" not in found._repr_html_()
        assert re.search(r"\w", found.sentence)
        assert (found.action is None) == (found.broken is None)
        pd.testing.assert_series_equal(
            found.frame["gate"], pd.Series([g.name for g in found.gates], name="gate")
        )
        assert tiny.edited_model().why(prompt).gates == found.gates


def test_a_round_says_how_much_of_the_way_each_fact_got() -> None:
    for scope in ("zscore", "match", "off"):
        session = tiny_session(tiny_model(bos=True), scope=scope, covariance_weight=0.1)
        session.apply(tiny_facts()[3:5])
        round_ = session.apply(tiny_facts()[:3])
        assert round_.reached.shape == (3,)
        for fact, own, z in zip(round_.facts, round_.reached, round_.targets, strict=True):
            at, block = session.scope(fact.text, fact.subject).subject_last, max(round_.factors)
            states = []
            for position in (1, 2):
                with session.hooked(state=session.state_at(position)):
                    inputs = session.lm.encode([fact.text])
                    out = session.lm.model(**inputs, output_hidden_states=True)
                states.append(out.hidden_states[block + 1][0, at].double())
            way = z - states[0]
            expected = float((states[1] - states[0]) @ way / way.square().sum())
            assert float(own) == pytest.approx(expected, rel=1e-4)
        session.mute(session.rounds[1].fact_ids[1])
        kept = session.state.rounds[1].reached
        assert kept.tolist() == round_.reached[[0, 2]].tolist()


def test_a_heavily_preserved_edit_reaches_little() -> None:
    shares = [
        tiny_session(tiny_model(bos=True), scope="off", covariance_weight=weight)
        .apply(tiny_facts()[:2])
        .reached
        for weight in (0.01, 1e5)
    ]
    assert shares[0].min() > 0.5 > 0.05 > shares[1].max()


def test_nothing_to_write_counts_as_reached() -> None:
    h = torch.ones(2, 4, dtype=torch.float64)
    target = torch.stack([h[0], h[1] * 3])
    assert share(h, h, target).tolist() == [1.0, 0.0]
    assert share(h, target, target).tolist() == [1.0, 1.0]


def test_a_state_without_a_fact_is_the_muted_one(tiny: Session) -> None:
    tiny.apply(tiny_facts()[:2])
    dropped = without(tiny.lm, tiny.state, {0})
    tiny.mute(0)
    assert dropped.key == tiny.state.key
    for layer, at in tiny.state.layers.items():
        assert dropped.layers[layer].delta_weight.equal(at.delta_weight)
