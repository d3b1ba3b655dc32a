from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import fingerprint, tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import Fact, FactError, Neighbor, Probe, Session
from coachhook_viz.editing.state import EditState
from coachhook_viz.measure.answers import Speaker
from coachhook_viz.measure.drawing import drawn
from coachhook_viz.measure.judges import Asked, fluency, keeps_writing, prefers, writes
from coachhook_viz.measure.metrics import (
    ALL,
    SURE,
    Metric,
    chosen,
    edit_prompt,
    judged,
    paraphrases,
    same_subject,
)
from coachhook_viz.measure.quality import METRICS, quality
from coachhook_viz.reading import bundled_probes


@pytest.fixture(scope="module")
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    return session


def speakers(session: Session) -> tuple[Speaker, Speaker]:
    """The edited and the unedited model."""
    lm = session.lm
    return Speaker(lm, session.state), Speaker(lm, EditState.of(lm, session.config))


def said(session: Session, prompt: str, count: int = 1, edited: bool = True) -> list[str]:
    """What the model says next, greedily, a word a token."""
    with session.hooked(edited):
        output = session.lm.generate(
            **session.lm.encode([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
        )
    return session.lm.tokenizer.convert_ids_to_tokens(output[0, -count:].tolist())


def word_but(*words: str) -> str:
    return next(word for word in ("red", "blue", "green", "old") if word not in words)


def shares(session: Session, prompt: str, edited: bool = True) -> dict[str, float]:
    """Probability of each next word."""
    with session.hooked(edited), torch.no_grad():
        logits = session.lm.model(**session.lm.encode([prompt])).logits[0, -1]
    words = session.lm.tokenizer.convert_ids_to_tokens(range(len(logits)))
    return dict(zip(words, logits.softmax(-1).tolist(), strict=True))


def values(session: Session, metric: str, fact: Fact, by: str = "tokens") -> list[float]:
    return judged(ALL[metric], {0: fact}, *speakers(session), by)["value"].tolist()


def test_the_first_three_are_those_of_evaluate_without_names(session: Session) -> None:
    plain = session.evaluate()
    assert plain.columns.tolist() == ["fact", "round", "metric", "value"]
    named = session.evaluate(metrics=METRICS)
    assert named.columns.tolist() == [
        "fact", "round", "metric", "prompt", "said", "known", "value",
    ]  # fmt: skip
    means = named.groupby(["fact", "metric"])["value"].mean().sort_index()
    assert means.equals(plain.set_index(["fact", "metric"])["value"].sort_index())
    assert len(named[named["metric"] == "locality"]) == 12  # one row a prompt
    assert session.evaluate(1, metrics="reliability")["fact"].tolist() == [0, 1, 2]


def test_same_subject_is_kept_where_the_next_token_is_the_unedited_models(
    session: Session,
) -> None:
    prompts = [prompt for fact in tiny_facts() for prompt in (fact.text, *fact.paraphrases)]
    expected = [float(said(session, p) == said(session, p, edited=False)) for p in prompts]
    assert set(expected) == {0.0, 1.0}
    answered = [(prompt, "Lima red") for prompt in prompts]  # the answer counts for `known` only
    for probes in (prompts, answered):
        fact = Fact("The river of {} is", "Peru", "red", probes=probes)
        assert values(session, "same subject", fact) == expected


def test_portability_and_further_paraphrases_want_their_answers(session: Session) -> None:
    prompt = "Today Anna"
    [word] = said(session, prompt)
    other = word_but(word)
    probes = (
        Probe(prompt, word, "portability"),
        Probe(prompt + " .", f"{other} {other}", "portability"),
        Probe(prompt, None, "paraphrase"),
        Probe("Today Bruno", other, "paraphrase"),
    )
    fact = Fact("The river of {} is", "Peru", word, paraphrases=("Peru is",), probes=probes)
    assert values(session, "portability", fact)[0] == 1.0
    asked = paraphrases(fact)
    assert [probe.answer for probe in asked] == [word, word, other]
    found = values(session, "generality", fact)
    assert found[1] == 1.0
    assert found[0] == float(said(session, "Peru is") == [word])
    frame = quality(session.lm, session.state, [fact]).set_index("metric")["value"]
    assert frame["generality"] == pytest.approx(sum(found) / 3)


def test_by_generation_the_whole_answer_has_to_be_written(session: Session) -> None:
    """Teacher forcing gives the second token its first one, and so flatters."""
    prompt = "The new language of {} is"
    text = prompt.format("Anna")
    first, second = said(session, text, 2)
    wrong = word_but(first)
    forced = next(
        (word, after)
        for word in ("red", "blue", "green", "old", "Oslo")
        if word != first and (after := said(session, f"{text} {word}")[0])
    )
    facts = [
        Fact(prompt, "Anna", f"{first} {second}"),
        Fact(prompt, "Anna", first),
        Fact(prompt, "Anna", wrong),
        Fact(prompt, "Anna", " ".join(forced)),
    ]
    assert [values(session, "reliability", f, "generation") for f in facts] == [
        [1.0], [1.0], [0.0], [0.0],
    ]  # fmt: skip
    assert [values(session, "reliability", f) for f in facts] == [[1.0], [1.0], [0.0], [0.5]]


class Scripted(Speaker):
    """Writes what a test says."""

    def __init__(self, lm: cv.LanguageModel, text: str) -> None:
        super().__init__(lm, EditState.of(lm, tiny_session(lm).config))
        self.text = text

    def texts(self, asked, watch=None, among=1):
        return [self.text for _ in asked]


@pytest.mark.parametrize(
    ("text", "answer", "value"),
    [
        (" Rome . He left", "Rome", 1),
        (" rome , of", "Rome", 1),
        ("\n Rome", "Rome", 1),
        (" Romeo", "Rome", 0),
        (" the Rome", "Rome", 0),
        ("", "Rome", 0),
        (" red  blue.", "red blue", 1),
        (" red", "red blue", 0),
    ],
)
def test_an_answer_is_written_where_it_begins_the_text_and_ends_there(text, answer, value) -> None:
    lm = tiny_model()
    one = Asked(tiny_facts()[0], Probe("The city of", answer))
    [verdict] = writes([one], Scripted(lm, text), Scripted(lm, ""))
    assert (verdict.value, verdict.said) == (value, text)


@pytest.mark.parametrize(
    ("text", "was", "answer", "value"),
    [
        (" Rome, and", " Rome . He", None, 1),
        (" Rome, and", " rome. He", "Rome", 1),
        (" Rome is old", " Rome is green", "Rome is", 1),
        (" Rome is old", " Rome is green", "It is so", 0),
        (" Oslo", " Rome", None, 0),
        ("", " Rome", None, 0),
        ("", "", None, 1),
    ],
)
def test_writing_is_kept_over_as_many_words_as_the_answer_has(text, was, answer, value) -> None:
    lm = tiny_model()
    one = Asked(tiny_facts()[0], Probe("The city of", answer))
    [verdict] = keeps_writing([one], Scripted(lm, text), Scripted(lm, was))
    assert verdict.value == value


def test_locality_by_generation_runs_the_two_models(session: Session) -> None:
    prompts = [prompt for fact in tiny_facts() for prompt in (fact.text, *fact.paraphrases)]
    fact = Fact("The river of {} is", "Peru", "red", neighbors=[(p, None) for p in prompts])
    texts = [[session.generate(p, 4, edited=e).split() for e in (True, False)] for p in prompts]
    expected = [float(one[:1] == other[:1]) for one, other in texts]
    assert set(expected) == {0.0, 1.0}
    assert values(session, "locality", fact, "generation") == expected


def test_scores_by_probability(session: Session) -> None:
    """P of a whole answer is the geometric mean of its tokens' probabilities."""
    prompt, near = "The new language of Anna is", "The new language of Carla is"
    here, there = shares(session, prompt), shares(session, near)
    truth = math.sqrt(here["Lima"] * shares(session, f"{prompt} Lima")["red"])
    fact = Fact(
        "The new language of {} is",
        "Anna",
        "Oslo",
        "Lima red",
        paraphrases=(near,),
        neighbors=(Neighbor(near, "Quito"), Neighbor(near), Neighbor(prompt, "oslo")),
    )
    expected = {
        "E": here["Oslo"] - truth,
        "P": there["Oslo"] - math.sqrt(there["Lima"] * shares(session, f"{near} Lima")["red"]),
        "N": there["Quito"] - there["Oslo"],  # the other two have no answer, or the target's
    }
    for name, difference in expected.items():
        assert values(session, f"{name}M", fact) == [pytest.approx(difference, abs=1e-6)]
        assert values(session, f"{name}S", fact) == [float(difference > 0)]
    unknown = replace(fact, truth=None)
    assert [values(session, name, unknown) for name in ("ES", "PM")] == [[], []]
    assert len(values(session, "NS", unknown)) == 1
    assert prefers([], *speakers(session)) == []


def test_fluency_is_the_weighted_entropy_of_pairs_and_triples() -> None:
    """Of "a b a b a": pairs 2 and 2, triples 2 and 1."""
    triples = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert fluency("a b a b a") == pytest.approx(100 * (2 / 3 * 1 + 4 / 3 * triples) / 2)
    assert fluency("a, b") == pytest.approx(100 * (2 / 3 * 1 + 0) / 2)  # a comma is a word
    assert fluency("a a a a a a") == fluency("a") == fluency("") == 0


def test_a_texts_draws_are_its_prompts_own(session: Session) -> None:
    prompts = [fact.text for fact in tiny_facts()]
    together = speakers(session)[0].texts([(prompt, 12) for prompt in prompts], among=5)
    alone = [speakers(session)[0].texts([(prompt, 12)], among=5)[0] for prompt in prompts]
    assert together == alone
    greedy = speakers(session)[0].texts([(prompt, 12) for prompt in prompts])
    assert greedy != together
    assert greedy == [session.generate(prompt, 12) for prompt in prompts]


def test_draws_follow_the_probabilities() -> None:
    scores = torch.tensor([[math.log(0.6), math.log(0.3), math.log(0.1), -9.0]])
    counts = torch.zeros(4)
    for i in range(2000):
        counts += drawn([str(i)], 2)(torch.zeros(1, 1), scores).isfinite()[0]
    assert counts[2:].tolist() == [0, 0]
    assert counts[0] / 2000 == pytest.approx(2 / 3, abs=0.03)
    assert drawn(["a"], 1)(torch.zeros(1, 1), scores) is scores


def test_fluency_fits_into_the_context_window(session: Session) -> None:
    frame = session.evaluate(metrics="fluency")
    texts = dict(zip(frame["prompt"], frame["said"], strict=True))
    for prompt, value in zip(frame["prompt"], frame["value"], strict=True):
        assert value == fluency(prompt + texts[prompt])
        assert len(session.lm.token_ids(prompt + texts[prompt])) <= session.lm.context_window


def test_known_is_whether_the_unedited_model_has_the_answer(session: Session) -> None:
    prompt = "The new language of {} is"
    text, aside = prompt.format("Anna"), "Today Anna"
    truth, other = said(session, text, 2, edited=False)
    [next_] = said(session, aside, edited=False)
    fact = Fact(
        prompt, "Anna", word_but(truth), f"{truth} {other}",
        paraphrases=(aside,),
        neighbors=(Neighbor(aside, next_), Neighbor(aside + " .", word_but(next_)), aside),
        probes=(Probe(aside, next_), Probe(aside + " .")),
    )  # fmt: skip

    def known(metric: str, by: str = "tokens", fact: Fact = fact) -> list[object]:
        return judged(ALL[metric], {0: fact}, *speakers(session), by)["known"].tolist()

    sure = [max(shares(session, p, edited=False).values()) >= SURE for p in (aside, aside + " .")]
    near = said(session, aside + " .", edited=False) == [word_but(next_)]
    for by in ("tokens", "generation"):
        assert known("reliability", by) == [True]
        assert known("generality", by) == [said(session, aside, 2, False) == [truth, other]]
        assert known("locality", by) == [True, near, sure[0]]
        assert known("same subject", by) == [True, sure[1]]
    assert known("ES") == [True]
    assert pd.isna(known("reliability", fact=replace(fact, truth=None))[0])
    wrong = replace(fact, truth=word_but(truth, fact.target))
    assert known("reliability", fact=wrong) == [False]


def test_retention_is_of_facts_that_took_and_of_rounds_before() -> None:
    session = tiny_session(tiny_model(lead="He "), steps=40, learning_rate=1.0, clamp_factor=4.0,
                           weight_decay=0.0)  # fmt: skip
    for start in (0, 2, 4):
        session.apply(tiny_facts()[start : start + 2])
    frame = session.evaluate(metrics=["reliability", "retention"])
    own = session.quality()
    own = own[(own["metric"] == "reliability") & (own["edited"] == own["round"])]
    took = set(own.loc[(own["value"] == 1) & (own["edited"] < 3), "fact"])
    kept = frame[frame["metric"] == "retention"].set_index("fact")["value"]
    assert took
    assert set(kept.index) == took
    now = frame[frame["metric"] == "reliability"].set_index("fact")["value"]
    assert kept.to_dict() == now[sorted(took)].to_dict()
    assert session.evaluate(1, metrics="retention").empty
    written = session.evaluate(metrics="retention", by="generation")
    assert set(written["fact"]) <= took


def test_what_was_judged_once_is_not_run_again(session: Session, monkeypatch) -> None:
    from coachhook_viz.measure import over_rounds

    names = [*ALL]
    first = session.evaluate(metrics=names, by="generation")
    monkeypatch.setattr(over_rounds, "judged", None)
    pd.testing.assert_frame_equal(session.evaluate(metrics=names, by="generation"), first)
    with pytest.raises(TypeError):
        session.evaluate(1, metrics="locality", by="generation")


def test_a_metric_of_ones_own(session: Session) -> None:
    mine = Metric("mine", lambda fact: [*edit_prompt(fact), *same_subject(fact)], ALL["ES"].judge)
    found = session.evaluate(metrics=[mine, "reliability"])
    assert found["metric"].unique().tolist() == ["mine", "reliability"]


@pytest.mark.parametrize(
    ("metrics", "match"),
    [
        ("truth", "there is no metric 'truth'; there are reliability, generality"),
        (["ES", "PS", "ES"], "two metrics have the name 'ES'"),
        ([], "no metric is named; there are reliability"),
    ],
)
def test_what_is_no_metric_is_refused(metrics, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        chosen(metrics)


def test_another_way_of_judging_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="by is 'hand': it must be one of tokens, generation"):
        session.evaluate(by="hand")
    plain = session.evaluate(by="generation")
    assert plain["metric"].unique().tolist() == list(METRICS)


def test_a_probe_without_tokens_is_named_before_anything_runs(session: Session) -> None:
    facts = [tiny_facts()[0], replace(tiny_facts()[1], probes=(Probe("Peru is", " "),))]
    untouched = fingerprint(session.lm)
    with pytest.raises(FactError, match=r"fact 2 .*, probes: ' ' cannot be told apart") as caught:
        judged(ALL["same subject"], dict(enumerate(facts)), *speakers(session))
    assert [problem.index for problem in caught.value.problems] == [1]
    assert fingerprint(session.lm) == untouched
    with pytest.raises(FactError, match="probes: number 1: it is empty"):
        session.apply([replace(facts[0], probes=("",))])


def test_bundled_probes_stand_in_where_a_fact_has_none() -> None:
    fact = cv.bundled_facts("capital")[0]
    assert same_subject(fact) == list(bundled_probes(fact))
    own = (Probe("a"), Probe("b", "c", "portability"))
    assert same_subject(replace(fact, probes=own)) == [Probe("a")]
    assert same_subject(replace(fact, probes=own[1:])) == list(bundled_probes(fact))
    assert same_subject(replace(fact, relation="x")) == list(
        bundled_probes(fact)
    )  # its prompt says
    assert same_subject(replace(fact, relation="x", prompt="Somebody gave {} a")) == []


def test_nothing_in_force_gives_an_empty_frame(session: Session) -> None:
    frame = session.evaluate(0, metrics=[*ALL])
    assert frame.empty
    assert frame.columns.tolist() == session.evaluate(metrics="ES").columns.tolist()
