from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, Session

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}He is{% endif %}"
)
ASKED = [{"role": "user", "content": "Anna lives in the city of"}]


@pytest.fixture(params=[False, True], ids=["no leading token", "leading token"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    lm = tiny_model(bos=request.param, lead="" if request.param else "He ")
    lm.tokenizer.chat_template = TEMPLATE
    yield tiny_session(lm, scope="off", steps=20, clamp_factor=4.0, covariance_weight=0.1)
    lm.tokenizer.chat_template = None


def test_a_conversation_is_read_as_its_prompt_is(session: Session) -> None:
    text = session.chat_text(ASKED)
    assert text.removeprefix("<s>") == "user : Anna lives in the city of . He is"
    assert session.lm.token_ids(text).count(1) == 1  # its leading token is there once
    seen: list[str] = []
    answer = session.chat(ASKED, 6, stream=seen.append)
    assert answer == session.generate(text, 6) == seen[-1]
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    more = [*ASKED, {"role": "assistant", "content": answer}, *ASKED]
    assert session.chat_text(more).count("Anna") == 2
    silent = [*ASKED, {"role": "assistant", "content": ""}, *ASKED]  # the model had stopped at once
    assert isinstance(session.chat(silent, 2), str)


def test_chat_asks_the_state_that_it_is_told(session: Session) -> None:
    before = session.chat(ASKED, 4)
    prompt = session.chat_text(ASKED).removeprefix("<s>").replace("Anna", "{}")
    session.apply([Fact(prompt, "Anna", "Quito"), *tiny_facts()[:2]])
    assert session.chat(ASKED, 4) != before
    assert session.chat(ASKED, 4, edited=False) == before
    assert session.chat(ASKED, 4, state=session.state_at(0)) == before


def test_the_templates_end_of_turn_ends_the_answer(session: Session) -> None:
    words = session.chat(ASKED, 6).split()
    tokenizer = session.lm.tokenizer
    ends = tokenizer.convert_tokens_to_ids(words[1])
    assert ends not in (0, 1)
    tokenizer.chat_template = TEMPLATE.replace(" . {% endfor", f" {words[1]} . {{% endfor")
    assert session.edited_model()._ends_of_turn() == [0]  # a plain word is part of an answer
    session.lm.model.generation_config.eos_token_id = [0, ends]
    try:
        tokenizer.chat_template = TEMPLATE
        assert session.chat(ASKED, 6).split() == words[: words.index(words[1]) + 1]
    finally:
        session.lm.model.generation_config.eos_token_id = 0


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "there is no message"),
        ("Anna", "give a list of messages"),
        (ASKED[0], "give a list of messages"),
        (["Anna"], "message 1 must be"),
        ([*ASKED, {"role": "user"}], "message 2 must be"),
        ([{"role": "user", "content": 7}], "message 1 must be"),
        ([{"role": "user", "content": " "}], "message 1 is empty"),
        ([*ASKED, {"role": "assistant", "content": "Oslo"}], "must be the user's, not the assist"),
        ([{"role": "user", "content": "river " * 80}], "reads at most 64"),
    ],
)
def test_messages_that_cannot_be_answered_are_named(session, messages, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        session.chat(messages)


def test_what_the_template_itself_refuses_is_said(session: Session) -> None:
    session.lm.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match="does not take these messages: roles must alternate"):
        session.chat(ASKED)


def test_without_a_template_there_is_no_chat() -> None:
    session = tiny_session()
    assert not session.lm.has_chat
    with pytest.raises(ValueError, match="tiny-llama has no chat template: use `generate`"):
        session.chat(ASKED)


@pytest.mark.model
def test_the_default_model_answers_in_its_chat(lm) -> None:
    assert lm.has_chat
    session = Session(lm)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = session.chat(messages)
    assert "Paris" in answer
    assert "im_end" not in answer
    assert len(answer) < 80  # it ended its turn
    session.apply([Fact("The capital of {} is", "France", "Rome", "Paris")])
    assert session.chat(messages, edited=False) == answer
    assert session.chat(messages)


@pytest.mark.model
def test_facts_of_several_lines_are_edited_and_said(lm) -> None:
    examples = "Q: What is the capital of Italy?\nA: Rome\n\nQ: What is the capital of {}?\nA:"
    chat = "<|im_start|>user\nWhat is the capital of {}?<|im_end|>\n<|im_start|>assistant\n"
    for prompt in (examples, chat):
        session, fact = Session(lm), Fact(prompt, "France", "Moscow", "Paris")
        before = session.generate(fact.text, 8)
        session.apply([fact])
        assert session.generate(fact.text, 4).strip().startswith("Moscow")
        assert session.generate(fact.text, 8, edited=False) == before
        means = session.evaluate().groupby("metric")["value"].mean()
        assert means["reliability"] == 1
