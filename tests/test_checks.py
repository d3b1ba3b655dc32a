from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import (
    FAMILIES,
    GPT2_LIKE,
    LAYERS,
    MORE_FAMILIES,
    random_model,
    tiny_facts,
    tiny_model,
    tiny_session,
    tiny_tokenizer,
)
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

import coachhook_viz as cv
from coachhook_viz import Architecture, LanguageModel
from coachhook_viz.editing.checks import _DONE
from coachhook_viz.editing.forward import Batch, hidden, run_to
from coachhook_viz.errors import ModelRefused

EVERY_FAMILY = {**FAMILIES, **MORE_FAMILIES}


def made(family: str, entry: Architecture | None = None, **changes: Any) -> LanguageModel:
    return LanguageModel(
        random_model(family, changes), tiny_tokenizer(), f"tiny-{family}", "He ", entry
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_known_families_pass(family: str, dtype: torch.dtype) -> None:
    tiny_model(family, dtype=dtype).check()


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_is_written_is_what_the_block_gives_more(family: str) -> None:
    """At the first hooked layer, whose keys no other edit has moved: ΔW k, and nothing else."""
    lm, layer = tiny_model(family, lead="He "), LAYERS[0]
    session = tiny_session(lm, scope="off", steps=2)
    session.apply(tiny_facts()[:2])
    batch = Batch.of([[5, 9, 12, 20, 7], [8, 6, 11]], lm.device)
    given: list[torch.Tensor] = []
    handle = lm.blocks[layer].register_forward_hook(
        lambda module, args, output: given.append(hidden(output))
    )
    with torch.no_grad():
        _, keys = run_to(lm, batch, layer, keys_of=[layer])
        with session.hooked():
            lm.model(**batch.inputs, use_cache=False)
    handle.remove()
    more = (given[1] - given[0])[batch.mask].double()
    expected = (keys[layer].double() @ session.delta_weight(layer).T)[batch.mask]
    assert expected.norm() > 1e-3
    assert (more - expected).norm() < 1e-4 * (expected.norm() + given[0].norm())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mixtral": ({}, "is a mixture of experts"),
    "qwen2_moe": ({}, "is a mixture of experts"),
    "olmoe": ({}, "is a mixture of experts"),
    "gpt_oss": ({}, "is a mixture of experts"),
    "mamba": ({}, "is a state space model"),
    "falcon_mamba": ({}, "is a state space model"),
    "falcon_h1": ({}, "is a state space model"),
    "jamba": ({}, "mixture of experts.*state space"),
    "rwkv": ({}, "is recurrent"),
    "recurrent_gemma": ({}, "is recurrent"),
    "lfm2": ({"layer_types": ["conv", "full_attention"] * 2 + ["conv"]}, "is convolutional"),
    "bloom": ({}, "uses ALiBi"),
    "mpt": ({}, "uses ALiBi"),
    "falcon": ({"alibi": True}, "uses ALiBi"),
    "bert": ({}, "is an encoder"),
    "roberta": ({}, "is an encoder"),
    "gemma4_text": ({}, "cannot be edited: after the MLP its blocks add a projection"),
    "opt": ({"word_embed_proj_dim": 32}, "cannot be edited: its MLPs see the tokens of all"),
    "hrm_text": ({}, "cannot be edited: its blocks run several times"),
    "bitnet": ({}, "'bitnet' is unknown"),
}


@pytest.mark.parametrize("family", REFUSED)
@pytest.mark.filterwarnings("ignore")  # some kernels that are not installed are warned of
def test_kinds_that_cannot_be_edited_are_refused_with_the_reason(family: str) -> None:
    changes, reason = REFUSED[family]
    with pytest.raises(ModelRefused, match=reason) as caught:
        made(family, **changes)
    assert "\n" not in str(caught.value)


_MLA = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 8}  # fmt: skip
AFTER = "post_feedforward_layernorm"


@pytest.mark.parametrize(
    ("family", "entry", "changes", "reason"),
    [
        ("gemma4_text", ("model.layers", "mlp.down_proj", AFTER), {}, "changed by"),
        (
            "gemma3n_text",
            ("model.layers", "mlp.down_proj", AFTER),
            {
                "layer_types": ["full_attention"] * 5,
                "num_kv_shared_layers": 0,
                "hidden_size_per_layer_input": 8,
                "laurel_rank": 8,
            },
            "hidden states have",
        ),
        (
            "minicpm3",
            ("model.layers", "mlp.down_proj"),
            _MLA,
            r"arrives in its output 0\.626 times",
        ),
        ("openai-gpt", ("transformer.h", "mlp.c_proj"), GPT2_LIKE, "does not run them"),
        ("hrm_text", ("model.L_module.layers", "mlp.down_proj"), {}, "does not run them"),
        ("opt", ("model.decoder.layers", "fc2"), {"word_embed_proj_dim": 32}, "once on each token"),
    ],
)
def test_a_family_that_is_refused_by_name_is_refused_by_numbers(
    family: str, entry: tuple[str, ...], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelRefused, match="cannot be edited: "):
        made(family, **changes)
    with pytest.raises(ModelRefused, match=reason):
        made(family, Architecture(("mine",), *entry), **changes)


def test_an_encoder_decoder_is_refused() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=60)
    with pytest.raises(ModelRefused, match="is an encoder-decoder"):
        LanguageModel(T5ForConditionalGeneration(config), tiny_tokenizer(), "t5")


@pytest.mark.parametrize(
    ("family", "entry", "reason"),
    [
        ("llama", ("model.layers", "self_attn.q_proj"), "part of the attention"),
        ("llama", ("model.layers", "self_attn.o_proj"), "part of the attention"),
        ("phi", ("model.layers", "self_attn.dense"), "part of the attention"),
        ("llama", ("model.layers", "mlp.up_proj"), "not the layer that ends the MLP"),
        ("gpt2", ("transformer.h", "mlp.c_fc"), "not the layer that ends the MLP"),
        ("llama", ("model.layers", "mlp"), "has no weight matrix"),
        ("gemma3_text", ("model.layers", "mlp.down_proj"), "a norm follows it"),
        ("glm4", ("model.layers", "mlp.down_proj"), "a norm follows it"),
        ("olmo2", ("model.layers", "mlp.down_proj", "post_attention_layernorm"), "changed by"),
        ("llama", ("model.layers", "mlp.down_proj", "input_layernorm"), "changed by"),
        ("granite", ("model.layers", "mlp.down_proj"), r"0\.22 times: give .* the multiplier"),
        ("granite", ("model.layers", "mlp.down_proj", "", "nothing"), "no number 'nothing'"),
        ("gpt_neo", ("transformer.h", "mlp.c_proj"), "loss before its first step"),
    ],
)
def test_a_wrong_architecture_is_refused(family: str, entry: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason):
        made(family, Architecture(("mine",), *entry))


def test_a_square_layer_of_the_mlp_that_does_not_end_it_is_refused() -> None:
    entry = Architecture(("mine",), "model.layers", "mlp.up_proj")
    with pytest.raises(ModelRefused, match="changed by"):
        made("llama", entry, intermediate_size=32)


@pytest.mark.parametrize("family", ["gemma2", "glm4", "granite", "gpt_neo", "codegen", "falcon"])
def test_the_right_architecture_of_an_unknown_family_is_taken(family: str) -> None:
    known = tiny_model(family).architecture
    entry = Architecture(
        ("mine",),
        known.blocks,
        known.down_projection,
        known.written,
        known.multiplier,
        known.by_place,
    )
    assert made(family, entry).written(1) is not None


def test_the_message_on_an_unknown_family_has_no_path_to_copy() -> None:
    with pytest.raises(ModelRefused, match="'bitnet' is unknown") as caught:
        made("bitnet")
    assert "mlp." not in str(caught.value)
    assert "model.layers" not in str(caught.value)


def test_weights_that_are_nowhere_are_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=60)
        )
    with pytest.raises(ModelRefused, match="on the meta device"):
        LanguageModel(model, tiny_tokenizer(), "meta")


class _Packed(nn.Module):
    """A linear layer as quantizers make it: its weight is bytes."""

    def __init__(self, own: nn.Linear, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.own = [own]
        packed = torch.zeros(shape, dtype=torch.uint8 if len(shape) > 1 else torch.int8)
        if name == "weight":
            self.weight = nn.Parameter(packed, requires_grad=False)
        else:
            self.register_buffer(name, packed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own[0](x)


@pytest.mark.parametrize(
    ("name", "shape"), [("weight", (1024, 1)), ("weight", (32, 64)), ("qweight", (32, 8))]
)
def test_packed_weights_are_refused_at_once(name: str, shape: tuple[int, ...]) -> None:
    model = random_model("llama")
    for block in model.model.layers:
        block.mlp.down_proj = _Packed(block.mlp.down_proj, name, shape)
    with pytest.raises(ModelRefused, match="packed weights"):
        LanguageModel(model, tiny_tokenizer(), "packed")


def test_what_a_layer_does_beside_its_weight_is_noticed_at_the_first_session() -> None:
    lm = made("llama")
    handle = lm.down_projection(2).register_forward_hook(lambda module, args, output: output * 1.1)
    try:
        with pytest.raises(ModelRefused, match="block 2 does not give its keys times its weight"):
            tiny_session(lm)
    finally:
        handle.remove()
    tiny_session(lm)


def test_what_was_checked_is_not_checked_again() -> None:
    lm = made("llama")
    assert lm not in _DONE
    tiny_session(lm)
    assert _DONE[lm].blocks == set(LAYERS)
    passes: list[object] = []
    handle = lm.decoder.register_forward_pre_hook(lambda *args: passes.append(args))
    tiny_session(lm)
    assert not passes
    lm.check()
    handle.remove()
    assert passes
    assert _DONE[lm].blocks == set(range(lm.n_layers))
    with pytest.raises(ValueError, match="has blocks 0 to 4 only"):
        lm.check([7])


@pytest.mark.model
def test_the_default_model_passes(lm: cv.LanguageModel) -> None:
    lm.check((4, 5, 6, 7))
