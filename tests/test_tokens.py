from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_facts, tiny_model, tiny_session
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from coachhook_viz import Fact, FactError, LanguageModel
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.tokens import (
    FirstTokenWarning,
    continuation,
    length_batches,
    prepare,
    readable,
    sample_contexts,
    subject_last_token,
    tokenize,
)

BARE = (("{}",),)


def test_subject_is_found_by_place_not_by_text() -> None:
    lm = tiny_model()
    fact = Fact("Anna and {} lives in", "Anna", "Oslo")
    [tokens] = prepare(lm, [fact], BARE)
    assert tokens.bare.subject_last == 2


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("lead", ["", "He "])
def test_lead_and_leading_token_shift_everything(bos: bool, lead: str) -> None:
    lm = tiny_model(bos=bos, lead=lead)
    fact = Fact("The language of {} is", "Anna Bruno", "red blue")
    [tokens] = prepare(lm, [fact], (("{}",), ("He left today . {}",)))
    ahead = bos + bool(lead)
    assert tokens.bare.subject_last == ahead + 4
    assert tokens.groups[1][0].subject_last == ahead + 4 + 4
    words = lm.tokenizer.convert_ids_to_tokens(tokens.target)
    assert words == ["red", "blue"]
    assert lm.tokenizer.convert_ids_to_tokens(tokens.essence.ids)[ahead:] == [
        "Anna", "Bruno", "is", "a",
    ]  # fmt: skip


@pytest.mark.parametrize("bos", [False, True])
def test_an_end_token_is_no_part_of_prompts_or_targets(bos: bool) -> None:
    """Else every target "cannot be told apart" from its prompt."""
    lm, plain = (tiny_model(bos=bos, eos=eos, lead="He ") for eos in (True, False))
    templates = (("{}",), ("He left today . {}",))
    assert prepare(lm, tiny_facts(), templates) == prepare(plain, tiny_facts(), templates)
    assert tokenize(lm, "Anna is") == tokenize(plain, "Anna is")
    session, other = tiny_session(lm, steps=2), tiny_session(plain, steps=2)
    for one in (session, other):
        one.apply(tiny_facts()[:2])
    assert session.evaluate().equals(other.evaluate())
    assert session.scope("Anna is").tokens == other.scope("Anna is").tokens


def test_context_braces_and_subject_braces_do_not_mix() -> None:
    lm = tiny_model()
    [tokens] = prepare(lm, [Fact("The {} is", "Anna", "Oslo")], (("{}",), ("{ left } . {}",)))
    assert len(tokens.groups[1][0].ids) == 4 + 3


def test_subject_without_a_token_and_too_long_prompts_are_named() -> None:
    lm = tiny_model(max_position_embeddings=16)
    lm.tokenizer.backend_tokenizer.normalizer = None
    long = Fact("{} " + "is " * 20 + "in", "Anna", "Oslo")
    with pytest.raises(FactError, match=r"fact 2 .*prompt: 2\d tokens .* at most 16") as caught:
        prepare(lm, [Fact("The {} is", "Anna", "Oslo"), long], BARE)
    assert [(p.index, p.field) for p in caught.value.problems] == [(1, "prompt")]
    assert subject_last_token(lm, "The  is", 4, 4) is None


def test_first_token_subject_is_warned_about_unless_there_is_a_lead() -> None:
    fact = Fact("{} lives in", "Anna", "Oslo")
    with pytest.warns(FirstTokenWarning, match="'Anna' is the prompt's first token"):
        prepare(tiny_model(), [fact], BARE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(tiny_model(lead="He "), [fact], BARE)


@pytest.mark.model
def test_offsets_on_the_real_tokenizer(lm) -> None:
    for subject in ("France", "Zürich", "日本", "Anna 🙂", "New York"):
        text = f"The capital of {subject}'s neighbour is"
        ids = tokenize(lm, text)
        last = subject_last_token(lm, text, 15, 15 + len(subject))
        assert last is not None
        head = lm.tokenizer.decode(ids[: last + 1])
        assert head == f"\nThe capital of {subject}"
        assert len(lm.tokenizer.decode(ids[:last])) < len(head)
    before, answer = continuation(lm, "The capital of France is", "Rome")
    assert lm.tokenizer.decode(answer) == " Rome"
    assert continuation(lm, "The capital of France is", " Rome ") == (before, answer)


@pytest.mark.parametrize("bos", [False, True])
def test_an_answer_after_a_line_break_is_found_by_its_place(bos: bool) -> None:
    lm = tiny_model(bos=bos, eos=True, lead="He ")
    for prompt in ("Anna is", "Anna is\n", "Anna\nis\t"):
        before, answer = continuation(lm, prompt, " red blue ")
        assert before == tokenize(lm, "Anna is")
        assert lm.tokenizer.convert_ids_to_tokens(answer) == ["red", "blue"]
    with pytest.raises(ValueError, match="cannot be told apart"):
        continuation(lm, "Anna is\n", "")


@pytest.mark.model
def test_an_answer_after_a_line_break_has_no_space_before_it(lm) -> None:
    for prompt in ("A:\n", "A:\n\n", "A:\n\n\n", "A:\t", "<|im_start|>assistant\n"):
        before, answer = continuation(lm, prompt, " Moscow")
        assert before == tokenize(lm, prompt)
        assert lm.tokenizer.decode(answer) == "Moscow"
    assert lm.tokenizer.decode(continuation(lm, "Q: a?\nA:", "Rome")[1]) == " Rome"


@pytest.mark.model
@pytest.mark.parametrize(
    ("prompt", "answer", "wanted"),
    [
        ("中国的首都是", "纽约", "纽约"),
        ("日本の首都は", "パリ", "パリ"),
        ("เมืองหลวงของไทยคือ", "ลอนดอน", "ลอนดอน"),
        ("It lies in Rome", " , Italy", ", Italy"),
        ('The song is called "', "Hey Jude", "Hey Jude"),
        ("The song is called", '"Hey Jude"', ' "Hey Jude"'),
    ],
)
def test_an_answer_is_learned_as_one_writes_it(lm, prompt, answer, wanted) -> None:
    before, after = continuation(lm, prompt, answer)
    assert before == tokenize(lm, prompt)
    assert lm.tokenizer.decode(after) == wanted
    assert lm.tokenizer.decode(before + after) == f"{lm.lead}{prompt}{wanted}"


def test_a_token_that_holds_the_end_of_the_prompt_is_no_answer() -> None:
    """The answer's own tokens follow then, as the model would write them."""
    lm = tiny_model()
    before, after = continuation(lm, "red", ".")
    assert lm.tokenizer.convert_ids_to_tokens([*before, *after]) == ["red", "."]
    vocabulary = {"<unk>": 0, "中": 1, "国": 2, "中国": 3, "人": 4}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("中", "国")], unk_token="<unk>"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    other = LanguageModel(lm.model, fast, "chinese")
    assert continuation(other, "人", "中国") == ([4], [3])
    assert continuation(other, "人中", "国") == ([4, 1], [2])


@pytest.mark.model
def test_parts_of_a_character_can_be_read(lm) -> None:
    text = "中国的首都是 a 👩‍👩‍👧 ไทย"
    tokens = readable(lm, ids := tokenize(lm, text))
    assert not any("\ufffd" in token for token in tokens)
    plain = [lm.tokenizer.decode([token]) for token in ids]
    assert [t for t, p in zip(tokens, plain, strict=True) if "\ufffd" not in p] == [
        p for p in plain if "\ufffd" not in p
    ]
    parts = [t for t, p in zip(tokens, plain, strict=True) if "\ufffd" in p]
    assert parts
    assert all(re.fullmatch(r".+ \(\d/\d\)", part) for part in parts)
    first = next(i for i, p in enumerate(plain) if "\ufffd" in p)
    assert re.fullmatch(r"(<0x[0-9A-F]{2}>)+", readable(lm, [ids[first]])[0])


@pytest.mark.model
def test_contexts_are_sampled_once_and_the_same(lm) -> None:
    state = torch.get_rng_state()
    first, second = (sample_contexts(lm, Watch()) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert first[0] == ("{}",)
    assert len(first[1]) == 5
    assert all(template.endswith(". {}") and template.count("{}") == 1 for template in first[1])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9), st.integers(0, 40))
def test_length_batches_split_optimally(lengths: list[int], overhead: int) -> None:
    def cost(batches: list[list[int]]) -> int:
        return sum(len(b) * max(lengths[i] for i in b) + overhead for b in batches)

    batches = length_batches(lengths, overhead)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for cuts in range(len(order)):
        for places in itertools.combinations(range(1, len(order)), cuts):
            edges = [0, *places, len(order)]
            other = [order[a:b] for a, b in itertools.pairwise(edges)]
            assert cost(batches) <= cost(other)
        if cuts > 3:
            break


def test_every_tiny_fact_prepares() -> None:
    with pytest.warns(FirstTokenWarning):
        assert len(prepare(tiny_model(), tiny_facts(), BARE)) == 6
