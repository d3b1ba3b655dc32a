from __future__ import annotations

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import EditCancelled
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.measure.replies import continuations, replies


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
def test_replies_are_what_one_prompt_at_a_time_gives(scope: str) -> None:
    session = tiny_session(tiny_model(lead="He "), scope=scope)
    session.apply(tiny_facts())
    prompts = [
        prompt
        for fact in tiny_facts()
        for prompt in (fact.text, *fact.paraphrases, *(n.prompt for n in fact.neighbors))
    ]
    found = replies(session.lm, session.state, prompts, top=3)
    assert set(found) == set(prompts)
    for prompt, reply in found.items():
        frame = session.predict(prompt, top=3)
        assert list(reply.tokens) == frame["token"].tolist()
        assert reply.probabilities == pytest.approx(frame["probability"].tolist(), abs=1e-5)
        assert reply.spoke == bool(session.scope(prompt).in_scope.any())
    if scope == "zscore":
        assert {reply.spoke for reply in found.values()} == {True, False}


def test_replies_of_the_unedited_model_and_none_at_all() -> None:
    session = tiny_session(tiny_model(lead="He "))
    base = EditState.of(session.lm, session.config)
    [reply] = replies(session.lm, base, ["The city of"] * 2).values()
    assert list(reply.tokens) == session.predict("The city of")["token"].tolist()
    assert not reply.spoke
    assert replies(session.lm, base, []) == {}


def test_replies_can_be_stopped() -> None:
    session = tiny_session(tiny_model(lead="He "))
    with pytest.raises(EditCancelled):
        replies(session.lm, session.state, ["The city"], watch=Watch(None, lambda: True))


def test_continuations_are_what_generate_gives() -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts())
    prompts = [fact.text for fact in tiny_facts()]
    found = continuations(session.lm, session.state, prompts, 5)
    assert found == {prompt: session.generate(prompt, 5) for prompt in prompts}
