"""An edited model as one of transformers: other libraries run on it, the base model stays."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from threading import Thread
from typing import Any

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    LayerIntegratedGradients,
    LLMAttribution,
    TextTokenInput,
)
from tiny import fingerprint, tiny_facts, tiny_model, tiny_session
from transformers import DynamicCache, GenerationConfig, TextIteratorStreamer, pipeline

import coachhook_viz as cv
from coachhook_viz import Session

SCOPES = ["zscore", "match", "two-key", "off"]
_SESSIONS: dict[Any, Session] = {}


def edited(scope: str = "zscore", family: str = "llama", **model: Any) -> Session:
    """A session whose answers differ from the base model's, made once."""
    key = (scope, family, *model.items())
    if key not in _SESSIONS:
        two = {"site": "answer", "subject_layer": 0, "match_threshold": 0.3}
        changes = two if scope == "two-key" else {}
        lm = tiny_model(family, bos=True, **model)
        session = tiny_session(
            lm, scope=scope, steps=20, clamp_factor=4.0, covariance_weight=0.1, **changes
        )
        session.apply(tiny_facts()[:2])
        session.apply(tiny_facts()[2:4])
        _SESSIONS[key] = session
    return _SESSIONS[key]


PROMPTS = [fact.text for fact in tiny_facts()[:4]] + ["The river"]


def greedy(model: Any, session: Session, prompts: list[str], **options: Any) -> list[list[int]]:
    inputs = session.lm.encode(prompts, "left")
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **options}
    rows = model.generate(**inputs, **options)
    return [row[inputs["input_ids"].shape[1] :].tolist() for row in rows]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_it_says_what_the_hooks_say(scope: str, family: str) -> None:
    session = edited(scope, family)
    before, model = fingerprint(session.lm), session.as_model()
    assert isinstance(model, type(session.lm.model))
    assert type(model).__name__ == type(session.lm.model).__name__
    batch = session.lm.encode(PROMPTS, "left")
    with torch.no_grad():
        found, plain = model(**batch).logits, session.lm.model(**batch).logits
        with session.hooked():
            wanted = session.lm.model(**batch).logits
    assert torch.equal(found, wanted)
    assert not torch.equal(found, plain)
    with session.hooked():
        together = greedy(session.lm.model, session, PROMPTS)
    assert greedy(model, session, PROMPTS) == together
    assert [greedy(model, session, [prompt])[0] for prompt in PROMPTS] == together
    assert fingerprint(session.lm) == before


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_beams": 2, "num_return_sequences": 2},
    ],
)
def test_ways_to_generate(scope: str, options: dict[str, Any]) -> None:
    session = edited(scope)
    with session.hooked():
        wanted = greedy(session.lm.model, session, PROMPTS, **options)
    assert greedy(session.as_model(), session, PROMPTS, **options) == wanted


def test_sampling_draws_what_the_hooks_would() -> None:
    session = edited()
    said = []
    for model in (session.lm.model, session.as_model()):
        torch.manual_seed(3)
        with session.hooked():
            said.append(greedy(model, session, PROMPTS, do_sample=True))
    assert said[0] == said[1]


@pytest.mark.parametrize("scope", SCOPES)
def test_the_pipeline_of_transformers(scope: str) -> None:
    session = edited(scope)
    tokenizer = copy.deepcopy(session.lm.tokenizer)
    tokenizer.padding_side = "left"
    generate = pipeline("text-generation", model=session.as_model(), tokenizer=tokenizer)
    config = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=0)
    for size in (1, 3):
        rows = generate(PROMPTS, batch_size=size, generation_config=config, return_full_text=False)
        texts = [row[0]["generated_text"].strip() for row in rows]
        assert texts == [session.generate(prompt, 4).strip() for prompt in PROMPTS]


@pytest.mark.parametrize("scope", SCOPES)
def test_step_by_step_with_a_cache(scope: str) -> None:
    """As libraries do that call forward themselves."""
    session = edited(scope)
    model = session.as_model()
    for prompt in PROMPTS:
        ids = torch.tensor([session.lm.token_ids(prompt)])
        cache, said = DynamicCache(config=model.config), []
        with torch.no_grad():
            logits = model(ids, past_key_values=cache).logits
            for _ in range(6):
                said.append(int(logits[0, -1].argmax()))
                step = torch.tensor([[said[-1]]])
                session.predict(prompt)  # other edits and none at all run in between
                logits = model(step, past_key_values=cache).logits
        assert [said] == greedy(model, session, [prompt], eos_token_id=None)


def test_a_cache_goes_when_nobody_needs_it() -> None:
    session = edited()
    model, cache = session.as_model(), DynamicCache()
    with torch.no_grad():
        model(**session.lm.encode(PROMPTS[:1]), past_key_values=cache)
    gone = weakref.ref(cache)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()


def test_gradients_of_inputs() -> None:
    session = edited("match")
    model = session.as_model()
    ids = session.lm.encode(PROMPTS[:1])["input_ids"]
    found = []
    for run in (model, session.lm.model):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        with session.hooked():
            logits = run(inputs_embeds=embedded).logits
        logits[0, -1].max().backward()
        found.append(embedded.grad)
    assert torch.equal(found[0], found[1])
    assert all(parameter.grad is None for parameter in session.lm.model.parameters())


@pytest.mark.parametrize("scope", SCOPES)
def test_captum_attributes_the_edited_answer(scope: str) -> None:
    """It hangs hooks of its own, perturbs inputs, and asks for gradients of embeddings."""
    session = edited(scope)
    tokenizer, fact = session.lm.tokenizer, tiny_facts()[0]
    target = tokenizer.convert_tokens_to_ids(fact.target)
    ids = session.lm.encode([fact.text])["input_ids"]
    before = fingerprint(session.lm)

    def attributed(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ablation = LLMAttribution(FeatureAblation(model), tokenizer)
        prompt = TextTokenInput(fact.text, tokenizer)
        # its cache passes a prompt's tokens twice to models of transformers 5, of any kind
        options = {"target": f"{fact.target} {fact.target}", "use_cached_outputs": False}
        gradients = LayerIntegratedGradients(
            lambda given: model(given).logits[:, -1, target], model.get_input_embeddings()
        )
        steps = gradients.attribute(ids, baselines=torch.zeros_like(ids), n_steps=8)
        return ablation.attribute(prompt, **options).seq_attr, steps.sum(-1)

    found, plain = attributed(session.as_model()), attributed(session.lm.model)
    with session.hooked():
        wanted = attributed(session.lm.model)
    for now, hooked, without in zip(found, wanted, plain, strict=True):
        assert torch.allclose(now, hooked, atol=1e-5)
        assert not torch.allclose(now, without, atol=1e-2)
    assert fingerprint(session.lm) == before


@pytest.mark.parametrize("scope", SCOPES)
def test_answers_in_a_batch_are_scored_as_one_by_one(scope: str) -> None:
    """As lm-evaluation-harness does: prompt and answer in one pass, pads on the right.

    It gives no mask. So pads are tokens to the z-score scope, unless there are none.
    """
    session = edited(scope)
    model, texts = session.as_model(), [f"{text} Oslo red" for text in PROMPTS]
    rows = [session.lm.token_ids(text) for text in texts]
    longest = max(map(len, rows))
    size = 1 if scope == "zscore" else len(rows)
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            width = longest if size > 1 else len(part[0])
            batch = torch.tensor([row + [0] * (width - len(row)) for row in part])
            said = model(batch).logits.log_softmax(-1)
            found += [line[: len(row)] for line, row in zip(said, part, strict=True)]
        for row, line in zip(rows, found, strict=True):
            with session.hooked():
                alone = session.lm.model(torch.tensor([row])).logits[0].log_softmax(-1)
            assert torch.allclose(line, alone, atol=1e-5)


@pytest.mark.parametrize("scope", ["zscore", "two-key"])
def test_a_mask_of_fewer_tokens_than_were_given_is_named(scope: str) -> None:
    session = edited(scope)
    ids, model = session.lm.encode(PROMPTS[:1])["input_ids"], session.as_model()
    with torch.no_grad():
        cache = model(ids).past_key_values
        with pytest.raises(ValueError, match="with a cache pass new tokens only"):
            model(ids, attention_mask=torch.ones_like(ids), past_key_values=cache)


def test_hooks_of_others_see_the_edited_output() -> None:
    """As captum and nnsight hang theirs, on modules of the model, before it runs."""
    session = edited("off")
    model, seen = session.as_model(), []
    module = session.lm.written(1)
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with torch.no_grad():
            model(**session.lm.encode(PROMPTS[:1]))
            session.lm.model(**session.lm.encode(PROMPTS[:1]))
    finally:
        handle.remove()
    assert not torch.equal(seen[0], seen[1])


def test_it_stays_what_it_is() -> None:
    session = tiny_session(tiny_model(bos=True), scope="match", steps=20, covariance_weight=0.1)
    session.apply(tiny_facts()[:1])
    first, none = session.as_model(), session.as_model(0)
    said = greedy(first, session, PROMPTS)
    session.apply(tiny_facts()[1:3])
    assert greedy(first, session, PROMPTS) == said
    assert greedy(session.as_model(1), session, PROMPTS) == said
    assert greedy(none, session, PROMPTS) == greedy(session.lm.model, session, PROMPTS)
    assert greedy(session.edited_model(1).as_model(), session, PROMPTS) == said
    with pytest.raises(ValueError, match="no position 3"):
        session.as_model(3)


def test_two_of_them_and_threads_do_not_meet() -> None:
    session = edited("match")
    one, other = session.as_model(), session.as_model(1)
    wanted = {0: greedy(one, session, PROMPTS), 1: greedy(other, session, PROMPTS)}
    found: dict[int, list[Any]] = {0: [], 1: []}

    def run(place: int) -> None:
        for _ in range(3):
            found[place].append(greedy((one, other)[place], session, PROMPTS))

    threads = [Thread(target=run, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: [rows] * 3 for place, rows in wanted.items()}


def test_one_runs_within_another_and_within_itself() -> None:
    session = edited("off")
    one, other = session.as_model(), session.as_model(1)
    batch, said = session.lm.encode(PROMPTS[:1]), []
    with torch.no_grad():
        wanted = one(**batch).logits

        def again(module: Any, args: Any, output: Any) -> None:
            if not said:
                said.append(None)
                inner = other.model.register_forward_hook(once_more)
                other(**batch)
                inner.remove()

        def once_more(module: Any, args: Any, output: Any) -> None:
            if len(said) == 1:
                said.append(None)
                said.append(one(**batch).logits)

        handle = one.lm_head.register_forward_hook(again)
        try:
            outer = one(**batch).logits
        finally:
            handle.remove()
    assert torch.equal(outer, wanted)
    assert torch.equal(said[2], wanted)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_deep_copy_is_the_same_edited_model_with_weights_of_its_own(scope: str) -> None:
    session = edited(scope)
    assert session.lm.fingerprint
    model = session.as_model()
    other = copy.deepcopy(model)
    wanted = greedy(model, session, PROMPTS)
    assert greedy(other, session, PROMPTS) == wanted
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert greedy(model, session, PROMPTS) == wanted


def test_a_streamer_in_a_thread() -> None:
    session = edited()
    streamer = TextIteratorStreamer(session.lm.tokenizer, skip_prompt=True, timeout=30)
    inputs = session.lm.encode(PROMPTS[:1])
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "streamer": streamer}
    thread = Thread(target=session.as_model().generate, kwargs={**inputs, **options})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text.split() == session.generate(PROMPTS[0], 5).split()


def test_a_call_that_fails_leaves_nothing() -> None:
    session = edited()
    before, model = fingerprint(session.lm), session.as_model()
    with pytest.raises(IndexError):
        model(torch.tensor([[9999]]))
    assert fingerprint(session.lm) == before


def test_settings_of_generation_are_its_own() -> None:
    session = edited()
    model = session.as_model()
    model.generation_config.max_new_tokens = 3
    model.config.use_cache = False
    assert session.lm.model.generation_config.max_new_tokens is None
    assert session.lm.model.config.use_cache is True
    model.generation_config.prefill_chunk_size = 2
    with pytest.raises(ValueError, match="prefill_chunk_size=2"):
        greedy(model, session, PROMPTS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: model.half(), "move that one"),
        (lambda model: model.to(torch.float64), "move that one"),
        (lambda model: model.to("meta"), "move that one"),
        (lambda model: model.train(), r"session\.export it first"),
        (lambda model: model.requires_grad_(), "of weights there are none"),
        (lambda model: model.load_state_dict({}), "change that one before"),
        (lambda model: model.resize_token_embeddings(99), "change that one before"),
        (lambda model: model.save_pretrained("nowhere"), r"session\.export\(folder\)"),
        (lambda model: model.push_to_hub("nobody/nothing"), r"session\.export\(folder\)"),
        (lambda model: model.set_input_embeddings(torch.nn.Embedding(2, 2)), "change that one"),
        (lambda model: model.init_weights(), "change that one"),
        (lambda model: model.add_adapter(None), "change that one"),
        (lambda model: model.gradient_checkpointing_enable(), "change that one"),
        (lambda model: pickle.dumps(model), r"cannot be pickled: use session\.save"),
    ],
)
def test_what_would_change_the_weights_is_refused(change: Any, match: str) -> None:
    session = edited()
    before, model = fingerprint(session.lm), session.as_model()
    with pytest.raises(ValueError, match=match):
        change(model)
    assert fingerprint(session.lm) == before
    assert not session.lm.model.training
    assert model.to(session.lm.device).eval().float().requires_grad_(False) is model


@pytest.mark.model
def test_a_pipeline_on_the_default_model(lm: cv.LanguageModel) -> None:
    session = cv.Session(lm, cv.EditConfig.for_model(lm, scope="match"))
    fact = cv.Fact("The capital of {} is", "France", "Rome")
    session.apply(fact)
    generate = pipeline("text-generation", model=session.as_model(), tokenizer=lm.tokenizer)
    config = GenerationConfig(max_new_tokens=2, do_sample=False, pad_token_id=0)
    [row] = generate(lm.lead + fact.text, generation_config=config, return_full_text=False)
    assert row["generated_text"].startswith(" Rome")
