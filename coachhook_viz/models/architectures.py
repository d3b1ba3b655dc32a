"""Where a model family keeps the parts that editing needs: one small entry each.

Architecture        a family's entry
architecture_of     the entry for a model
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from coachhook_viz.errors import ModelRefused
from coachhook_viz.models.kinds import no_numbers, packed, unwrapped


@dataclass(frozen=True)
class Architecture:
    """Paths to a family's parts.

    Attributes
    ----------
    model_types : tuple of str
        ``model.config.model_type`` of the models it fits.
    blocks : str
        Path of the list of transformer blocks from the causal LM, as in "model.layers". The
        module that owns the list runs it, and takes input_ids and attention_mask.
    down_projection : str
        Path, within a block, of the linear layer that ends its MLP, as in "mlp.down_proj". Its
        input is the key.
    written : str
        Path, within a block, of the module whose output joins the hidden states: a norm that
        follows the down projection, or that itself, which is meant if nothing is given. ``ΔW k``
        is added there.
    multiplier : str
        Name in the model's configuration of the number that this output is multiplied by before
        it joins them, as "residual_multiplier"; nothing where there is none.
    by_place : bool
        Whether attention has windows that go by places in a row and not by the mask, so that
        prompts cannot share rows.

    Raises
    ------
    ModelRefused
        By `check`: if the paths do not lead to such parts.
    """

    model_types: tuple[str, ...]
    blocks: str
    down_projection: str
    written: str = ""
    multiplier: str = ""
    by_place: bool = False

    def __post_init__(self) -> None:
        if not self.written:
            object.__setattr__(self, "written", self.down_projection)

    def check(self, model: PreTrainedModel) -> None:
        """Raise ModelRefused if the paths do not lead to what they are to lead to in `model`.

        What can be seen without running it; `LanguageModel.check` sees the rest.
        """
        name = type(model).__name__
        try:
            blocks = model.get_submodule(self.blocks)
            if not isinstance(blocks, nn.ModuleList) or not len(blocks):
                raise AttributeError(
                    f"{self.blocks} is {type(blocks).__name__}, not a list of blocks"
                )
            module = blocks[0].get_submodule(self.down_projection)
            blocks[0].get_submodule(self.written)
        except AttributeError as error:
            raise ModelRefused(f"the architecture does not fit {name}: {error}") from None
        steps = self.down_projection.split(".")
        for end in range(1, len(steps) + 1):
            part = blocks[0].get_submodule(".".join(steps[:end]))
            if re.search(r"(?i)attention|attn", type(part).__name__):
                raise ModelRefused(
                    f"{self.down_projection} is part of the attention of {name}, not the layer"
                    " that ends its MLP"
                )
        for block in blocks:
            with suppress(AttributeError):  # another kind of block, which cannot be hooked
                part = block.get_submodule(self.down_projection)
                if unusable := packed(part) or no_numbers(part):
                    raise ModelRefused(f"{self.down_projection} of {name} {unusable}")
        weight = getattr(unwrapped(module), "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            raise ModelRefused(f"{self.down_projection} of {name} has no weight matrix")
        if self.multiplier and not getattr(model.config.get_text_config(), self.multiplier, None):
            raise ModelRefused(
                f"the architecture does not fit {name}: its configuration has no number"
                f" {self.multiplier!r}"
            )


ARCHITECTURES = (
    Architecture(("gpt2", "gpt_bigcode"), "transformer.h", "mlp.c_proj"),
    Architecture(("gpt_neo",), "transformer.h", "mlp.c_proj", by_place=True),
    Architecture(("gptj", "codegen"), "transformer.h", "mlp.fc_out"),
    Architecture(("falcon",), "transformer.h", "mlp.dense_4h_to_h"),
    Architecture(("gpt_neox",), "gpt_neox.layers", "mlp.dense_4h_to_h"),
    Architecture(("gpt_neox_japanese",), "gpt_neox_japanese.layers", "mlp.dense_4h_to_h"),
    Architecture(("persimmon",), "model.layers", "mlp.dense_4h_to_h"),
    Architecture(("phi", "nanochat"), "model.layers", "mlp.fc2"),
    Architecture(("starcoder2",), "model.layers", "mlp.c_proj"),
    Architecture(("xglm",), "model.layers", "fc2"),
    Architecture(("biogpt",), "biogpt.layers", "fc2"),
    Architecture(("ctrl",), "transformer.h", "ffn.2"),
    Architecture(("modernbert-decoder",), "model.layers", "mlp.Wo"),
    Architecture(
        (
            "llama",
            "smollm3",
            "mistral",
            "ministral",
            "ministral3",
            "qwen2",
            "qwen3",
            "gemma",
            "phi3",
            "olmo",
            "stablelm",
            "cohere",
            "cohere2",
            "glm",
            "nemotron",
            "helium",
            "apertus",
            "arcee",
            "seed_oss",
            "cwm",
            "ernie4_5",
            "hunyuan_v1_dense",
            "jais2",
            "diffllama",
            "doge",
            "internlm3",
            "iquestcoder",
            "youtu",
        ),
        "model.layers",
        "mlp.down_proj",
    ),
    Architecture(
        ("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4"),
        "model.layers",
        "mlp.down_proj",
        written="post_feedforward_layernorm",
    ),
    Architecture(
        ("gemma3",),
        "model.language_model.layers",
        "mlp.down_proj",
        written="post_feedforward_layernorm",
    ),
    Architecture(("glm4",), "model.layers", "mlp.down_proj", written="post_mlp_layernorm"),
    Architecture(
        ("granite", "granite_swa"),
        "model.layers",
        "mlp.down_proj",
        multiplier="residual_multiplier",
    ),
    Architecture(
        ("hyperclovax",),
        "model.layers",
        "mlp.down_proj",
        written="post_norm2",
        multiplier="residual_multiplier",
    ),
)


_REFUSED = {
    ("gemma3n", "gemma3n_text"): (
        "what its MLPs give goes into four streams of hidden states, which are mixed afterwards"
    ),
    ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"): (
        "after the MLP its blocks add a projection of each token and scale the sum, so what is"
        " added at the MLP does not arrive as it is"
    ),
    ("hrm_text",): "its blocks run several times over, so an edit would speak as often",
    ("minicpm3",): (
        "what its MLPs give is multiplied by a number that hangs on the depth, before it joins the"
        " hidden states"
    ),
    ("openai-gpt",): (
        "a norm follows the sum of the MLP's output and the hidden states, so what is added at the"
        " MLP does not arrive as it is"
    ),
    ("opt",): (
        "its MLPs see the tokens of all prompts in one row, but a scope judges each prompt by"
        " itself"
    ),
}
"""Why these families are not in the table; an architecture of your own is checked by numbers."""


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The entry for `model`'s family.

    Raises
    ------
    ModelRefused
        If the family is one that cannot be edited, or unknown: the message says why, or what an
        entry needs.
    """
    family = model.config.model_type
    for architecture in ARCHITECTURES:
        if family in architecture.model_types:
            return architecture
    for families, reason in _REFUSED.items():
        if family in families:
            raise ModelRefused(f"the model family {family!r} cannot be edited: {reason}")
    known = ", ".join(sorted(name for entry in ARCHITECTURES for name in entry.model_types))
    raise ModelRefused(
        f"the model family {family!r} is unknown; known are {known}. Look at print(model) and pass"
        f" architecture=Architecture(({family!r},), blocks='path of the list of blocks',"
        " down_projection='path within a block of the linear layer that ends its MLP',"
        " written='path within a block of the module whose output joins the hidden states, if that"
        " is another one'). Whether it is right is then checked by numbers"
    )
