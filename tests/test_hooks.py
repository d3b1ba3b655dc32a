from __future__ import annotations

import copy
import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, LAYERS, WORDS, fingerprint, tiny_facts, tiny_model, tiny_session
from torch import Tensor
from transformers import DynamicCache

from coachhook_viz import LanguageModel, Session
from coachhook_viz.editing.editor import edit_round
from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import EditCancelled, Watch

_SESSIONS: dict[Any, Session] = {}


def edited(
    scope: str = "zscore",
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    layers: tuple[int, ...] = LAYERS,
) -> Session:
    """A session with two rounds on a tiny model, made once."""
    key = (scope, family, dtype, layers)
    if key not in _SESSIONS:
        lm = tiny_model(family, lead="He ", dtype=dtype)
        session = tiny_session(lm, scope=scope, layers=layers)
        session.apply(tiny_facts()[:3])
        session.apply(tiny_facts()[3:])
        _SESSIONS[key] = session
    return _SESSIONS[key]


@torch.no_grad()
def logits(lm: LanguageModel, ids: list[int], left: int = 0, right: int = 0) -> Tensor:
    padded = torch.tensor([[5] * left + ids + [6] * right])
    mask = torch.tensor([[0] * left + [1] * len(ids) + [0] * right])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    out = lm.model(input_ids=padded, attention_mask=mask, position_ids=positions, use_cache=False)
    return out.logits[0, left : left + len(ids)]


token_lists = st.lists(st.integers(2, len(WORDS) + 1), min_size=2, max_size=14)


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
@given(ids=token_lists, left=st.integers(0, 5), right=st.integers(0, 5))
def test_padding_changes_nothing(scope: str, ids: list[int], left: int, right: int) -> None:
    session = edited(scope)
    with session.hooked():
        alone = logits(session.lm, ids)
        padded = logits(session.lm, ids, left, right)
    torch.testing.assert_close(padded, alone, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("scope", ["zscore", "match"])
@given(sequences=st.lists(token_lists, min_size=2, max_size=5))
def test_batch_composition_changes_nothing(scope: str, sequences: list[list[int]]) -> None:
    session = edited(scope)
    batch = Batch.of(sequences, session.lm.device)
    with session.hooked(), torch.no_grad():
        together = session.lm.model(**batch.inputs, use_cache=False).logits
        for row, ids in enumerate(sequences):
            alone = logits(session.lm, ids)
            torch.testing.assert_close(together[row, : len(ids)], alone, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
@given(ids=token_lists, data=st.data())
def test_cached_decoding_equals_one_pass_that_knows_the_prompt(
    scope: str, ids: list[int], data: st.DataObject
) -> None:
    """Token by token with a cache, as generating does, against the single teacher-forced pass."""
    session = edited(scope)
    prompt = data.draw(st.integers(1, len(ids)))
    with session.hooked(), torch.no_grad():
        cache = DynamicCache()
        parts = [ids[:prompt], *([token] for token in ids[prompt:])]
        steps = [
            session.lm.model(input_ids=torch.tensor([part]), past_key_values=cache).logits[0]
            for part in parts
        ]
    hook_layers = session.state.hook_layers(session.lm.dtype)
    with attached(session.lm, hook_layers) as attachment:
        attachment.prompt_lengths = torch.tensor([prompt])
        once = logits(session.lm, ids)
    torch.testing.assert_close(torch.cat(steps), once, atol=2e-4, rtol=2e-4)


@given(ids=token_lists)
def test_a_new_token_is_judged_alike_with_and_without_a_cache(ids: list[int]) -> None:
    """At a single hooked layer nothing upstream differs, so the new token's decision is one."""
    session = edited(layers=(2,))
    spoke: list[bool] = []
    module = session.lm.down_projection(2)

    def keep(_: object, args: object, output: Tensor) -> None:
        before.append(output[0, -1])

    def compare(_: object, args: object, output: Tensor) -> None:
        spoke.append(not torch.equal(output[0, -1], before.pop()))

    before: list[Tensor] = []
    first = module.register_forward_hook(keep)
    with session.hooked(), torch.no_grad():
        last = module.register_forward_hook(compare)
        session.lm.model(input_ids=torch.tensor([ids]), use_cache=False)
        cache = DynamicCache()
        session.lm.model(input_ids=torch.tensor([ids[:-1]]), past_key_values=cache)
        session.lm.model(input_ids=torch.tensor([ids[-1:]]), past_key_values=cache)
    first.remove()
    last.remove()
    assert spoke[2] == spoke[0]


def test_generate_batched_left_padded_and_by_beams() -> None:
    session = edited()
    lm = session.lm
    prompts = [fact.text for fact in tiny_facts()]
    lm.tokenizer.padding_side = "left"
    batch = lm.tokenizer([lm.lead + p for p in prompts], padding=True, return_tensors="pt")
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    for beams in (1, 3):
        with session.hooked():
            together = lm.model.generate(**batch, num_beams=beams, pad_token_id=0, **options)
            for row, prompt in enumerate(prompts):
                single = lm.model.generate(
                    **lm.encode([prompt]), num_beams=beams, pad_token_id=0, **options
                )
                assert together[row, -8:].tolist() == single[0, -8:].tolist()


def test_a_cropped_cache_keeps_the_norms_of_the_tokens_it_keeps() -> None:
    session = edited(layers=(2,))
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    hook_layers = session.state.hook_layers(session.lm.dtype)
    with torch.no_grad(), attached(session.lm, hook_layers) as attachment:
        norms = []
        for first, rest in ((8, 3), (5, 0)):
            cache = DynamicCache()
            session.lm.model(input_ids=ids[:, :first], past_key_values=cache)
            cache.crop(-rest) if rest else None
            session.lm.model(input_ids=ids[:, 5:6], past_key_values=cache)
            norms.append(attachment._sequences[cache].norms[2])
    assert norms[0].shape == (1, 6)
    torch.testing.assert_close(norms[0][:, :5], norms[1][:, :5])


def test_a_foreign_cache_is_refused_and_a_cache_gets_its_own_methods_back() -> None:
    session = edited()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    with torch.no_grad(), session.hooked():
        cache = DynamicCache()
        session.lm.model(input_ids=ids, past_key_values=cache)
    foreign = DynamicCache()
    with torch.no_grad():
        session.lm.model(input_ids=ids, past_key_values=foreign)
        with session.hooked(), pytest.raises(ValueError, match="not run under these hooks"):
            session.lm.model(input_ids=ids[:, :1], past_key_values=foreign)
    assert "reorder_cache" not in cache.__dict__


def test_copies_of_a_prompts_cache_go_on_each_for_itself() -> None:
    """As one reuses a prompt: each copy decodes as one pass over prompt and continuation would."""
    session = edited()
    lm, prompt, ways = session.lm, [5, 6, 7, 8], ([9, 10, 11], [12, 13], [14])
    with torch.no_grad(), session.hooked():
        cache = DynamicCache()
        lm.model(input_ids=torch.tensor([prompt, prompt[::-1]]), past_key_values=cache)
        copies = [copy.deepcopy(cache) for _ in ways]
        copies[0].reorder_cache(torch.tensor([1, 0]))  # touches neither the others nor the first
        copies[0].reorder_cache(torch.tensor([1, 0]))
        copies[2].batch_select_indices(torch.tensor([0]))
        found = [
            lm.model(
                input_ids=torch.tensor([way] * (1 if copied is copies[2] else 2)),
                past_key_values=copied,
            ).logits[0]
            for way, copied in zip(ways, copies, strict=True)
        ]
        for way, logits_ in zip(ways, found, strict=True):
            fresh = DynamicCache()
            lm.model(input_ids=torch.tensor([prompt]), past_key_values=fresh)
            expected = lm.model(input_ids=torch.tensor([way]), past_key_values=fresh).logits[0]
            torch.testing.assert_close(logits_, expected, atol=2e-4, rtol=2e-4)
        assert cache.get_seq_length() == 4
    assert not any("reorder_cache" in one.__dict__ for one in (cache, *copies))


def test_prepared_masks_are_refused_by_the_z_score_scope() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), edited().hooked(), pytest.raises(ValueError, match="attention_mask"):
        edited().lm.model(input_ids=ids, attention_mask=mask)
    with torch.no_grad(), edited("match").hooked():
        edited("match").lm.model(input_ids=ids, attention_mask=mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_add_delta_weight_times_key(family: str) -> None:
    """Under scope "off" the hooked model is the model with W0 + ΔW written into it."""
    session = edited("off", family)
    ids = [5, 9, 12, 20, 7]
    with session.hooked():
        hooked = logits(session.lm, ids)
    saved = {layer: session.lm.weight(layer).clone() for layer in LAYERS}
    try:
        for layer in LAYERS:
            session.lm.weight(layer).add_(session.delta_weight(layer).float())
        torch.testing.assert_close(hooked, logits(session.lm, ids), atol=2e-3, rtol=2e-3)
    finally:
        for layer, weight in saved.items():
            session.lm.weight(layer).copy_(weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma"])
def test_every_edit_prompt_is_in_scope_at_every_layer(family: str, dtype: torch.dtype) -> None:
    """Right after its round; a later round may take an edit out of scope again."""
    session = edited("zscore", family, dtype)
    for position, round_ in enumerate(session.rounds, start=1):
        session.go_to(position)
        for fact in round_.facts:
            scope = session.scope(fact.text)
            assert scope.in_scope.any(1).all(), scope.explain()


def test_no_delta_weight_no_change_and_no_trace() -> None:
    lm = tiny_model(lead="He ")
    session = tiny_session(lm)
    before, untouched = logits(lm, [4, 5, 6]), fingerprint(lm)
    with session.hooked():
        assert torch.equal(logits(lm, [4, 5, 6]), before)
    assert fingerprint(lm) == untouched


@settings(max_examples=40)
@given(stop=st.integers(0, 8), error=st.sampled_from([EditCancelled, KeyboardInterrupt, OSError]))
def test_whatever_stops_a_round_leaves_the_model_and_the_session(stop: int, error: type) -> None:
    session = edited()
    before = fingerprint(session.lm)
    state, rounds, steps = session.state, session.rounds, []
    others = [replace(fact, target="Rome") for fact in tiny_facts()[:2]]

    def progress(message: object) -> None:
        steps.append(message)
        if len(steps) > stop:
            raise error("stopped")

    with pytest.raises(error):
        session.apply(others, progress=progress)
    assert fingerprint(session.lm) == before
    assert session.state is state
    assert session.rounds == rounds


def test_an_exception_inside_a_forward_pass_leaves_no_hook(monkeypatch) -> None:
    session = edited()
    before = fingerprint(session.lm)
    preserved = session._setup.preserved.after(session.rounds)
    calls = 0
    act = session.lm.blocks[4].mlp.act_fn.forward

    def fail(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise MemoryError("full")
        return act(x)

    with monkeypatch.context() as patch:
        patch.setitem(session.lm.blocks[4].mlp.act_fn.__dict__, "forward", fail)
        with pytest.raises(MemoryError):
            edit_round(session.lm, session.state, tiny_facts()[:2], preserved, Watch())
    assert fingerprint(session.lm) == before
    gc.collect()


def test_threads_that_ask_one_model_wait_for_each_other() -> None:
    """Two sessions on one model, asked at once: each hears its own answers."""
    lm = tiny_model(lead="He ")
    sessions = [tiny_session(lm, scope=scope) for scope in ("off", "match")]
    for session, facts in zip(sessions, (tiny_facts()[:3], tiny_facts()[3:]), strict=True):
        session.apply(facts)
    prompts = [fact.text for fact in tiny_facts()]

    def ask(session: Session) -> list[str]:
        return [session.generate(prompt, 3) for prompt in prompts]

    alone = [ask(session) for session in sessions]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, sessions * 4))
    assert together == alone * 4
    assert alone[0] != alone[1]
