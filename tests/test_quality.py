from __future__ import annotations

import pytest
import torch
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, Neighbor, Session
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import continuation, tokenize
from coachhook_viz.measure.quality import quality, top_tokens


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
    asked = [(tokenize(session.lm, p), ids) for p, ids in zip(prompts, texts, strict=True)]
    found = top_tokens(session.lm, session.state, asked)
    session.go_to(2)
    assert [top.tolist() for top in found] == texts


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
    asked = [continuation(lm, neighbor.prompt, "Lima red")]
    tops = [top_tokens(lm, state, asked)[0] for state in (session.state, bare)]
    assert two["value"].tolist()[-1] == (tops[0] == tops[1]).float().mean()


def test_nothing_in_force_is_perfectly_local(session: Session) -> None:
    frame = quality(session.lm, EditState.of(session.lm, session.config), tiny_facts())
    assert (frame[frame["metric"] == "locality"]["value"] == 1).all()


def test_a_fact_with_neither_paraphrase_nor_neighbour_has_just_reliability() -> None:
    lm = tiny_model()
    fact = Fact("The river of {} is", "Peru", "red")
    frame = quality(lm, tiny_session(lm).state, [fact])
    assert frame["metric"].tolist() == ["reliability"]
    assert quality(lm, tiny_session(lm).state, []).empty


def test_batches_change_nothing(session: Session, monkeypatch) -> None:
    from coachhook_viz.measure import quality as module

    whole = quality(session.lm, session.state, tiny_facts())
    monkeypatch.setattr(module, "_BATCH_ROWS", 1)
    assert quality(session.lm, session.state, tiny_facts()).equals(whole)


def test_an_answer_of_no_tokens_names_it(session: Session) -> None:
    fact = Fact("The river of {} is", "Peru", "red", neighbors=(Neighbor("Peru is", " "),))
    with pytest.raises(ValueError, match="cannot be told apart"):
        quality(session.lm, session.state, [fact])
    assert not any(m._forward_hooks for m in session.lm.model.modules())
    assert torch.is_grad_enabled()
