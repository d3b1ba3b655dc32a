"""Tiny random models of every known family, for tests of the arithmetic."""

from __future__ import annotations

import warnings
from functools import cache
from itertools import islice, permutations
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from coachhook_viz import EditConfig, Fact, LanguageModel, Neighbor, Session

WORDS = (
    "The the of is in a city capital language currency France Italy Spain Peru Rome Paris Lima"
    " Madrid Oslo Quito Anna Bruno Carla Diego Emma Fabio speaks lives works plays was born near"
    " river guitar piano tennis and or not very old new green He She left today . , ! ? red blue"
).split()
LAYERS = (1, 2, 3)
GPT2_LIKE = {"n_embd": 32, "n_head": 4, "n_layer": 5, "n_positions": 64}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2_LIKE,
    "gptj": {**GPT2_LIKE, "rotary_dim": 4},
    "gpt_neox": {**SMALL, "num_key_value_heads": 4},
    "llama": SMALL,
    "smollm3": {**SMALL, "pad_token_id": 0},
    "mistral": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL,
    "gemma": SMALL,
    "phi": {**SMALL, "num_key_value_heads": 4},
    "phi3": {**SMALL, "pad_token_id": 0},
}
_PLAIN = {**SMALL, "pad_token_id": 0}
MORE_FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": _PLAIN,
    "arcee": _PLAIN,
    "biogpt": _PLAIN,
    "codegen": {**GPT2_LIKE, "n_ctx": 64, "rotary_dim": 4},
    "cohere": _PLAIN,
    "cohere2": _PLAIN,
    "ctrl": {**GPT2_LIKE, "dff": 64},
    "cwm": _PLAIN,
    "diffllama": _PLAIN,
    "doge": _PLAIN,
    "ernie4_5": _PLAIN,
    "exaone4": _PLAIN,
    "falcon": {name: value for name, value in _PLAIN.items() if name != "head_dim"},
    "gemma2": _PLAIN,
    "gemma3_text": _PLAIN,
    "glm": _PLAIN,
    "glm4": _PLAIN,
    "gpt_bigcode": GPT2_LIKE,
    "gpt_neo": {
        "hidden_size": 32,
        "num_heads": 4,
        "num_layers": 5,
        "attention_types": [[["global", "local"], 2], [["global"], 1]],
        "window_size": 8,
        "max_position_embeddings": 64,
    },
    "gpt_neox_japanese": {**_PLAIN, "intermediate_multiple_size": 2},
    "granite": {**_PLAIN, "residual_multiplier": 0.22},
    "granite_swa": {
        **_PLAIN, "residual_multiplier": 0.22, "layer_types": ["full_attention"] * 5,
    },
    "helium": _PLAIN,
    "hunyuan_v1_dense": _PLAIN,
    "hyperclovax": {**_PLAIN, "residual_multiplier": 0.22},
    "internlm3": _PLAIN,
    "iquestcoder": _PLAIN,
    "jais2": _PLAIN,
    "ministral": _PLAIN,
    "ministral3": _PLAIN,
    "modernbert-decoder": _PLAIN,
    "nanochat": _PLAIN,
    "nemotron": _PLAIN,
    "olmo": _PLAIN,
    "olmo2": _PLAIN,
    "olmo3": _PLAIN,
    "persimmon": {**_PLAIN, "num_key_value_heads": 4},
    "seed_oss": _PLAIN,
    "stablelm": _PLAIN,
    "starcoder2": _PLAIN,
    "xglm": {
        "d_model": 32,
        "ffn_dim": 64,
        "num_layers": 5,
        "attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "youtu": {
        **_PLAIN, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    },
}  # fmt: skip
"""Their norms' weights are not 1: what joins the hidden states after a norm is told apart."""


@cache
def tiny_model(
    family: str = "llama",
    *,
    bos: bool = False,
    eos: bool = False,
    lead: str = "",
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> LanguageModel:
    """A random model with weights large enough for its answers to vary."""
    model = random_model(family, {**changes}).to(dtype)
    return LanguageModel(model, tiny_tokenizer(bos=bos, eos=eos), f"tiny-{family}", lead)


def random_model(family: str, changes: dict[str, Any] | None = None) -> PreTrainedModel:
    """The model itself, of any family that transformers has."""
    given = {**FAMILIES, **MORE_FAMILIES}.get(family, _PLAIN)
    config = CONFIG_MAPPING[family](
        **{**given, **(changes or {})},
        vocab_size=len(WORDS) + 2,
        bos_token_id=1,
        eos_token_id=0,
        initializer_range=0.25,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if family not in FAMILIES:
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += torch.rand_like(parameter)
    return model


def tiny_tokenizer(*, bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """One token a word, with a leading token or none, and an end token or none."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos or eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{'<s> ' * bos}$A{' <unk>' * eos}", special_tokens=[("<s>", 1), ("<unk>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<unk>", bos_token="<s>"
    )


def tiny_config(**changes: Any) -> EditConfig:
    """Settings that suit the tiny models: few steps, several contexts, a low threshold."""
    defaults: dict[str, Any] = {
        "layers": LAYERS,
        "covariance_weight": 30.0,
        "alpha": 1.3,
        "steps": 6,
        "context_templates": (("{}",), ("He left today . {}", "The river is old . {}")),
    }
    return EditConfig(**{**defaults, **changes})


def fingerprint(lm: LanguageModel) -> tuple[Any, ...]:
    """All that an editing run could leave behind on a model."""
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in m.__dict__)
        for m in lm.model.modules()
    ]
    return (*hooks, *(float(p.double().sum()) for p in lm.model.parameters()))


@cache
def tiny_moments(lm: LanguageModel) -> dict[int, torch.Tensor]:
    """A well-conditioned C0 for each layer."""
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(5, 4 * lm.d_key, lm.d_key, generator=generator, dtype=torch.float64)
    return {layer: x.T @ x / len(x) for layer, x in enumerate(samples)}


def tiny_session(lm: LanguageModel | None = None, **changes: Any) -> Session:
    """A session on a tiny model, nothing edited yet."""
    lm = tiny_model() if lm is None else lm
    return Session(lm, tiny_config(**changes), tiny_moments(lm))


def tiny_facts(count: int = 6) -> list[Fact]:
    """Facts of different lengths, subjects first, in the middle and of two words."""
    people = ["Anna", "Bruno", "Carla", "Diego", "Emma", "Fabio"]
    forms = [
        ("{} lives in the old city of", "Oslo", "Today {} works in"),
        ("The new language of {} is", "red blue", "{} speaks"),
        ("He and {} was not born near the river of", "Quito", "Near {} is"),
    ]
    facts = []
    for i in range(count):
        prompt, target, paraphrase = forms[i % 3]
        name = people[i % 6] + (" " + people[(i + 2) % 6] if i % 2 else "")
        other = people[(i + 3) % 6]
        facts.append(
            Fact(
                prompt,
                name,
                target,
                paraphrases=(paraphrase.format(name),),
                neighbors=(Neighbor(prompt.format(other), "Lima"), Neighbor(f"{other} is a")),
            )
        )
    return facts


def many_facts(count: int) -> list[Fact]:
    """So many facts of subjects of three words, in three forms."""
    people = [word for word in WORDS if word[0].isupper()]
    forms = [
        ("{} lives in the old city of", "Oslo"),
        ("The new language of {} is", "red blue"),
        ("He and {} was near", "Quito"),
    ]
    facts = []
    for i, words in enumerate(islice(permutations(people, 3), count)):
        (prompt, target), name = forms[i % 3], " ".join(words)
        near = (Neighbor(f"{people[i % len(people)]} is a"),)
        facts.append(Fact(prompt, name, target, paraphrases=(f"{name} is",), neighbors=near))
    return facts


def many_rounds(facts: int, rounds: int) -> Session:
    """A session of so many facts in so many rounds, each written in three steps."""
    session, size = tiny_session(tiny_model(lead="He "), scope="match", steps=3), facts // rounds
    made = many_facts(facts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three steps are not enough for all of them
        for start in range(0, facts, size):
            session.apply(made[start : start + size])
    return session
