"""Other code around the edited model: compilers, checkpoints, caches, parts by hand, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny import fingerprint, random_model, tiny_facts, tiny_session, tiny_tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig

from coachhook_viz import LanguageModel, Session, WaitingWarning
from coachhook_viz.editing import hooks

PROMPTS = [fact.text for fact in tiny_facts()]


def edited(scope: str = "zscore", family: str = "llama") -> Session:
    """Two rounds on a model of its own, since its callers change it."""
    lm = LanguageModel(random_model(family), tiny_tokenizer(), f"tiny-{family}", "He ")
    session = tiny_session(lm, scope=scope)
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    return session


def answers(session: Session, call: Callable[..., Any]) -> Tensor:
    with torch.no_grad():
        out = call(**session.lm.encode(PROMPTS[:1]), use_cache=False)
    logits: Tensor = getattr(out, "logits", out)
    return logits


def whole(session: Session) -> Callable[..., Any]:
    return torch.compile(session.lm.model, backend="eager")


def function(session: Session) -> Callable[..., Any]:
    def logits(**inputs: Any) -> Tensor:
        return session.lm.model(**inputs).logits

    return torch.compile(logits, backend="aot_eager")


def blocks_in_place(session: Session) -> Callable[..., Any]:
    for block in session.lm.blocks:
        block.compile(backend="eager")
    return session.lm.model


def one_block(session: Session) -> Callable[..., Any]:
    session.lm.blocks[2] = torch.compile(session.lm.blocks[2], backend="eager")
    return session.lm.model


@pytest.fixture
def _compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
@pytest.mark.parametrize(
    ("way", "scope"),
    [
        (whole, "zscore"),
        (function, "match"),
        (blocks_in_place, "off"),
        (one_block, "match"),
    ],
)
def test_what_was_compiled_before_is_edited_and_then_is_not(way: Any, scope: str) -> None:
    session = edited(scope)
    expected = {}
    for position in (0, 1, 2):
        session.go_to(position)
        with session.hooked():
            expected[position] = answers(session, session.lm.model)
    compiled = way(session)
    for position in (0, 1, 2):
        torch.testing.assert_close(answers(session, compiled), expected[0], atol=2e-4, rtol=2e-4)
        session.go_to(position)
        with session.hooked():
            found = answers(session, compiled)
        torch.testing.assert_close(found, expected[position], atol=2e-4, rtol=2e-4)
    assert (expected[2] - expected[0]).abs().max() > 0.05


def mlps_in_place(lm: LanguageModel) -> None:
    for block in lm.blocks:
        block.mlp.compile(backend="eager")


def calls(lm: LanguageModel) -> None:
    for block in lm.blocks:
        block.mlp.forward = torch.compile(block.mlp.forward, backend="eager")


@pytest.mark.usefixtures("_compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("way", "scope"),
    [
        (mlps_in_place, "zscore"),
        (calls, "match"),
        (lambda lm: lm.decoder.compile(backend="eager"), "off"),
    ],
)
def test_a_model_with_compiled_parts_is_edited_and_asked_as_any(way: Any, scope: str) -> None:
    expected = edited(scope)
    lm = LanguageModel(random_model("llama"), tiny_tokenizer(), "compiled", "He ")
    way(lm)
    answers(expected, lm.model)  # it is compiled by now
    session = tiny_session(lm, scope=scope)
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    for layer in session.config.layers:
        torch.testing.assert_close(session.delta_weight(layer), expected.delta_weight(layer))
    prompt = PROMPTS[0]
    assert session.generate(prompt, 4) == expected.generate(prompt, 4)
    assert str(session.scope(prompt)) == str(expected.scope(prompt))
    assert session.lens(prompt)["rank"].tolist() == expected.lens(prompt)["rank"].tolist()


def gradients(session: Session, passes: int, inside: bool = True) -> list[Tensor]:
    """Of the embeddings, for the sum of several passes' losses."""
    lm = session.lm
    embeddings = lm.model.get_input_embeddings().weight
    embeddings.requires_grad_(True).grad = None
    with session.hooked():
        loss = torch.zeros(())
        for prompt in PROMPTS[:passes]:
            inputs = lm.encode([prompt])
            loss = loss + lm.model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    embeddings.requires_grad_(False)
    assert embeddings.grad is not None
    return [embeddings.grad.clone()]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neo"])
@pytest.mark.parametrize("scope", ["zscore", "match"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing_gives_the_same_gradients(
    family: str, scope: str, reentrant: bool
) -> None:
    session = edited(scope, family)
    model = session.lm.model
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain = gradients(session, 3)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    before = fingerprint(session.lm)
    torch.testing.assert_close(gradients(session, 3), plain, atol=1e-4, rtol=1e-4)
    assert fingerprint(session.lm) == before


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_checkpoints_run_again_outside_the_context_are_an_error() -> None:
    session = edited()
    session.lm.model.gradient_checkpointing_enable({"use_reentrant": False})
    session.lm.model.train()
    with pytest.raises(RuntimeError, match="call backward"):
        gradients(session, 1, inside=False)


@pytest.mark.parametrize("scope", ["zscore", "match"])
@pytest.mark.parametrize("after", [False, True])
def test_parts_run_by_hand_are_right_or_say_why_not(scope: str, after: bool) -> None:
    session = edited(scope)
    lm, states = session.lm, torch.randn(2, 7, 32)
    with torch.no_grad(), session.hooked():
        if after:
            lm.model(**lm.encode(PROMPTS[:1]))
        if scope == "zscore":
            for part in (lm.blocks[2].mlp, lm.down_projection(1)):
                with pytest.raises(RuntimeError, match="outside its model's decoder"):
                    part(torch.randn(2, 7, 64 if part is lm.down_projection(1) else 32))
            return
        by_hand = lm.blocks[2].mlp(states)
    mlp = lm.blocks[2].mlp
    with torch.no_grad():
        keys = mlp.act_fn(mlp.gate_proj(states)) * mlp.up_proj(states)
        delta = keys @ session.delta_weight(2).float().T
        units = session.state.layers[2].columns.unit_directions.float()
        inside = ((keys @ units).amax(-1) >= session.config.match_threshold)[..., None]
        expected = mlp.down_proj(keys) + torch.where(inside, delta, 0)
    torch.testing.assert_close(by_hand, expected, atol=1e-4, rtol=1e-4)


def test_a_stopped_pass_does_not_count_as_running() -> None:
    session = edited()
    with torch.no_grad(), session.hooked():
        handle = session.lm.blocks[3].register_forward_hook(lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.lm.model(**session.lm.encode(PROMPTS[:1]))
        handle.remove()
        with pytest.raises(RuntimeError, match="outside its model's decoder"):
            session.lm.blocks[2].mlp(torch.randn(1, 3, 32))


CACHES = ["static", "dynamic", *(["offloaded_static"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.filterwarnings("ignore")  # transformers' own, of caches on the CPU
def test_any_cache_generates_the_same(cache: str, scope: str, batch: int) -> None:
    session = edited(scope)
    lm = session.lm
    inputs = lm.encode(PROMPTS[:batch], padding_side="left")
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    options["pad_token_id"] = 0
    with session.hooked():
        expected = lm.model.generate(**inputs, **options)
        found = lm.model.generate(**inputs, **options, cache_implementation=cache)
    assert found.tolist() == expected.tolist()
    assert "generate" not in lm.model.__dict__
    assert "prepare_inputs_for_generation" not in lm.model.__dict__


@pytest.mark.parametrize("options", [{"use_cache": False}, {"prompt_lookup_num_tokens": 3}])
@pytest.mark.parametrize("scope", ["zscore", "match"])
def test_however_many_tokens_a_pass_has_they_are_judged_alike(
    scope: str, options: dict[str, Any]
) -> None:
    session = edited(scope)
    lm = session.lm
    rows = 1 if "prompt_lookup_num_tokens" in options else 4
    inputs = lm.encode([f"{p} . {p}" for p in PROMPTS[:rows]], padding_side="left")
    asked: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    asked |= {"pad_token_id": 0, "return_dict_in_generate": True, "output_logits": True}
    with session.hooked():
        expected = lm.model.generate(**inputs, **asked)
        found = lm.model.generate(**inputs, **asked, **options)
    assert found.sequences.tolist() == expected.sequences.tolist()
    apart = torch.stack(found.logits) - torch.stack(expected.logits)
    assert float(apart.abs().max()) < 1e-3


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("by", ["argument", "config", "model"])
def test_a_prompt_in_chunks_is_right_or_refused(size: int, by: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    for scope in ("zscore", "match", "off"):
        session = edited(scope)
        lm = session.lm
        inputs = lm.encode(PROMPTS[:4], padding_side="left")
        with session.hooked():
            expected = lm.model.generate(**inputs, **options)
        given: dict[str, Any] = {**options}
        if by == "argument":
            given["prefill_chunk_size"] = size
        elif by == "config":
            given = {"generation_config": GenerationConfig(**options, prefill_chunk_size=size)}
        else:
            lm.model.generation_config.prefill_chunk_size = size
        with session.hooked():
            if scope == "zscore":
                with pytest.raises(ValueError, match=r"prefill_chunk_size.*pieces"):
                    lm.model.generate(**inputs, **given)
            else:
                assert lm.model.generate(**inputs, **given).tolist() == expected.tolist()


def test_a_thread_that_waits_for_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_PATIENCE", 0.05)
    session, said = edited(), []

    def ask() -> None:
        with pytest.warns(WaitingWarning, match="for another thread"):
            said.append(session.generate(PROMPTS[0], 3))

    thread = threading.Thread(target=ask)
    with session.hooked():
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(20)
    assert said == [session.generate(PROMPTS[0], 3)]
