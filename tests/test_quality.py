from __future__ import annotations

import weakref

import pandas as pd
import pytest
import torch
from tiny import fingerprint, tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, Neighbor, Session
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.editing.tokens import tokenize
from coachhook_viz.measure.answers import Question, ask
from coachhook_viz.measure.quality import forgetting, forgotten, quality, readings


@pytest.fixture(scope="module")
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    return session


def greedy(session: Session, prompt: str, count: int, edited: bool) -> list[int]:
    """Top tokens of cached decoding."""
    with session.hooked(edited):
        output = session.lm.generate(
            **session.lm.encode([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
        )
    return output[0, -count:].tolist()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_top_tokens_are_those_of_cached_decoding(session: Session, position: int) -> None:
    """Feed greedy text back as the answer: each top token must be the one decoding chose."""
    session.go_to(position)
    prompts = [fact.text for fact in tiny_facts()] + ["Today Anna"]
    texts = [greedy(session, prompt, 4, edited=True) for prompt in prompts]
    asked = [
        Question(tuple(tokenize(session.lm, prompt)), tuple(ids))
        for prompt, ids in zip(prompts, texts, strict=True)
    ]
    found = ask(session.lm, session.state, asked)
    session.go_to(2)
    assert [list(answer.top) for answer in found] == texts


def test_values_are_shares_of_tokens(session: Session) -> None:
    """Targets made of what the edited model says and of what it does not."""
    lm = session.lm
    prompt, paraphrase = "The new language of {} is", "Today Anna works in"
    said = [greedy(session, text, 2, True) for text in (prompt.format("Anna"), paraphrase)]
    other = next(token for token in range(5, 50) if token not in said[0] + said[1])
    words = lm.tokenizer.convert_ids_to_tokens
    half = " ".join(words([said[0][0], other]))
    facts = [
        Fact(prompt, "Anna", half),
        Fact(prompt, "Anna", " ".join(words(said[0]))),
        Fact(prompt, "Anna", words(other), paraphrases=(paraphrase, prompt.format("Anna"))),
        Fact(prompt, "Anna", words(said[1][0]), paraphrases=(paraphrase,)),
    ]
    frame = quality(lm, session.state, facts).set_index(["fact", "metric"])["value"]
    assert [frame[i, "reliability"] for i in range(3)] == [0.5, 1.0, 0.0]
    assert frame[2, "generality"] == 0.0
    assert frame[3, "generality"] == 1.0


def test_locality_is_what_stayed_as_the_unedited_model_has_it(session: Session) -> None:
    lm, bare = session.lm, EditState.of(session.lm, session.config)
    prompts = [prompt for fact in tiny_facts() for prompt in (fact.text, *fact.paraphrases)]
    frame = quality(
        lm,
        session.state,
        [Fact("The river of {} is", "Peru", "red", neighbors=((p, None),)) for p in prompts],
    )
    found = frame[frame["metric"] == "locality"]["value"].tolist()
    same = [greedy(session, p, 1, True) == greedy(session, p, 1, False) for p in prompts]
    assert found == same
    assert len(set(same)) == 2
    neighbor = Neighbor(prompts[0], "Lima red")
    two = quality(
        lm, session.state, [Fact("The river of {} is", "Peru", "red", neighbors=(neighbor,))]
    )
    asked = [Question.of(lm, neighbor.prompt, "Lima red")]
    tops = [ask(lm, state, asked)[0].top for state in (session.state, bare)]
    assert two["value"].tolist()[-1] == sum(a == b for a, b in zip(*tops, strict=True)) / 2


def test_nothing_in_force_is_perfectly_local(session: Session) -> None:
    frame = quality(session.lm, EditState.of(session.lm, session.config), tiny_facts())
    assert (frame[frame["metric"] == "locality"]["value"] == 1).all()


def test_a_fact_with_neither_paraphrase_nor_neighbour_has_just_reliability() -> None:
    lm = tiny_model()
    fact = Fact("The river of {} is", "Peru", "red")
    frame = quality(lm, tiny_session(lm).state, [fact])
    assert frame["metric"].tolist() == ["reliability", "target_probability", "target_rank"]
    assert quality(lm, tiny_session(lm).state, []).empty


def test_batches_change_nothing(session: Session, monkeypatch) -> None:
    from coachhook_viz.measure import answers as module

    whole = quality(session.lm, session.state, tiny_facts())
    monkeypatch.setattr(module, "_BATCH_ROWS", 1)
    one_by_one = quality(session.lm, session.state, tiny_facts())
    pd.testing.assert_frame_equal(one_by_one, whole)  # but for the rounding of other batches


def test_an_answer_of_no_tokens_names_it(session: Session) -> None:
    fact = Fact("The river of {} is", "Peru", "red", neighbors=(Neighbor("Peru is", " "),))
    untouched = fingerprint(session.lm)
    with pytest.raises(ValueError, match="cannot be told apart"):
        quality(session.lm, session.state, [fact])
    assert fingerprint(session.lm) == untouched
    assert torch.is_grad_enabled()


def test_probabilities_and_ranks_are_of_the_first_tokens(session: Session) -> None:
    fact = Fact("The river of {} is", "Peru", "red blue", truth="Lima")
    frame = quality(session.lm, session.state, [fact]).set_index("metric")["value"]
    with session.hooked(), torch.no_grad():
        logits = session.lm.model(**session.lm.encode([fact.text])).logits[0, -1]
    order = logits.argsort(descending=True).tolist()
    for name, word in (("target", "red"), ("truth", "Lima")):
        token = session.lm.tokenizer.convert_tokens_to_ids(word)
        assert frame[f"{name}_rank"] == order.index(token) + 1
        expected = float(logits.softmax(-1)[token])
        assert frame[f"{name}_probability"] == pytest.approx(expected, rel=1e-4)


def test_every_fact_is_scored_after_its_own_round_and_each_later_one(session: Session) -> None:
    frame = session.quality()
    seen = frame[["fact", "edited", "round"]].drop_duplicates().to_numpy().tolist()
    assert seen == [[i, 1, 1] for i in range(3)] + [[i, 1 if i < 3 else 2, 2] for i in range(6)]
    for position in (1, 2):
        own = session.evaluate(position)
        here = frame[frame["round"] == position].merge(own, on=["fact", "round", "metric"])
        assert len(here) == len(own)
        assert (here["value_x"] == here["value_y"]).all()


def test_only_what_is_new_is_run(session: Session, monkeypatch) -> None:
    from coachhook_viz.measure import over_rounds

    first = session.quality()
    monkeypatch.setattr(over_rounds, "quality", None)
    assert session.quality().equals(first)
    session.undo()
    assert set(session.quality()["round"]) == {1}
    session.redo()
    session.mute(0)
    with pytest.raises(TypeError):
        session.quality()  # another state
    session.unmute(0)


def test_states_are_built_one_at_a_time_and_only_to_be_measured(monkeypatch) -> None:
    session = tiny_session(tiny_model(lead="He "), steps=2, context_templates=(("{}",),))
    for fact in tiny_facts():
        session.apply([fact])
    made: list[weakref.ref[EditState]] = []
    held: list[int] = []
    real = EditState.then

    def then(self: EditState, *rounds: Round) -> EditState:
        state = real(self, *rounds)
        if state is not self:
            made.append(weakref.ref(state))
            held.append(sum(one() is not None for one in made))
        return state

    monkeypatch.setattr(EditState, "then", then)
    for measure in (session.quality, session.drift):
        held.clear()
        measure()
        assert len(held) == 6
        assert max(held) == 2  # a state and the one that it is made from
        made.clear()
        measure()
        assert not made


def history(values: dict[int, list[float]], edited: dict[int, int]) -> pd.DataFrame:
    """A frame of reliabilities: by fact, its values from its own round on."""
    rows = [
        (fact, edited[fact], edited[fact] + later, "reliability", value)
        for fact, series in values.items()
        for later, value in enumerate(series)
    ]
    return pd.DataFrame(rows, columns=["fact", "edited", "round", "metric", "value"])


def test_three_readings_are_kept_apart() -> None:
    frame = history({0: [1, 0, 0.5], 1: [0, 1], 2: [1]}, {0: 1, 1: 2, 2: 3})
    found = readings(frame).set_index("reading")
    assert found["mean"]["own round"] == pytest.approx(2 / 3)
    assert found["mean"]["retained"] == pytest.approx((0.25 + 1) / 2)
    assert found["mean"]["end"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["facts"].to_dict() == {"own round": 3, "retained": 2, "end": 3}
    assert (found["low"] <= found["mean"]).all()
    assert (found["high"] >= found["mean"]).all()
    assert readings(history({0: [1]}, {0: 1}))["reading"].tolist() == ["own round", "end"]


def test_bootstrap_interval_has_the_right_width() -> None:
    """400 coin tosses: mean 0.5 ± 1.96 · 0.025."""
    values = {i: [float(i % 2)] for i in range(400)}
    found = readings(history(values, dict.fromkeys(values, 1))).iloc[0]
    assert found["low"] == pytest.approx(0.451, abs=0.006)
    assert found["high"] == pytest.approx(0.549, abs=0.006)


def test_forgotten_facts_are_named_with_round_and_culprit() -> None:
    frame = history(
        {0: [1, 1, 0], 1: [1, 0, 1], 2: [1, 1], 3: [1, 1], 4: [1], 5: [0, 0]},
        {0: 1, 1: 1, 2: 2, 3: 2, 4: 3, 5: 2},
    )
    pairs = [(1, 2, 0.2), (1, 3, 0.6), (1, 4, 0.9), (0, 1, 0.9)]
    acts = pd.DataFrame(
        [(layer, *pair) for layer in (1, 2) for pair in pairs],
        columns=["layer", "fact", "by", "actual"],
    )
    found = forgotten(frame, acts)
    assert found["fact"].tolist() == [0, 1]
    assert found["round"].tolist() == [3, 2]
    assert pd.isna(found["by"][0])  # fact 4 was not measured against it
    assert found["by"][1] == 3
    assert found["regained"].tolist() == [False, True]
    shares = forgetting(frame).set_index("round")
    assert shares["taken"].to_dict() == {1: 2, 2: 4, 3: 5}
    assert shares["lost"].to_dict() == {1: 0, 2: 1, 3: 1}
    assert shares["share"][3] == pytest.approx(0.2)
    assert forgotten(frame.iloc[:0], acts).empty


def test_a_session_names_its_forgotten_facts(session: Session) -> None:
    found = session.forgotten()
    expected = forgotten(session.quality(), session.interference())
    assert found.equals(expected)
