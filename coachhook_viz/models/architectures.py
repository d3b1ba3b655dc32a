"""Where a model family keeps the parts that editing needs: one small entry each.

Architecture        a family's entry
architecture_of     the entry for a model
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


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
        Path, within a block, of the linear layer that ends its MLP, as in "mlp.down_proj".
    """

    model_types: tuple[str, ...]
    blocks: str
    down_projection: str

    def check(self, model: PreTrainedModel) -> None:
        """Raise ValueError if the paths do not lead to blocks and a down projection in `model`."""
        try:
            blocks = model.get_submodule(self.blocks)
            if not isinstance(blocks, nn.ModuleList) or not len(blocks):
                raise AttributeError(
                    f"{self.blocks} is {type(blocks).__name__}, not a list of blocks"
                )
            weight = blocks[0].get_submodule(self.down_projection).weight
        except AttributeError as error:
            raise ValueError(
                f"the architecture does not fit {type(model).__name__}: {error}"
            ) from None
        if getattr(weight, "dim", int)() != 2:
            raise ValueError(
                f"{self.down_projection} of {type(model).__name__} has no weight matrix"
            )


ARCHITECTURES = (
    Architecture(("gpt2",), "transformer.h", "mlp.c_proj"),
    Architecture(("gptj",), "transformer.h", "mlp.fc_out"),
    Architecture(("gpt_neox",), "gpt_neox.layers", "mlp.dense_4h_to_h"),
    Architecture(("phi",), "model.layers", "mlp.fc2"),
    Architecture(
        (
            "llama",
            "smollm3",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",  # later ones normalise what the MLP adds, so ΔW k would not add up
            "phi3",
        ),
        "model.layers",
        "mlp.down_proj",
    ),
)


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The entry for `model`'s family.

    Raises
    ------
    ValueError
        If the family is unknown; the message says what an entry needs.
    """
    family = model.config.model_type
    for architecture in ARCHITECTURES:
        if family in architecture.model_types:
            return architecture
    known = ", ".join(name for entry in ARCHITECTURES for name in entry.model_types)
    raise ValueError(
        f"the model family {family!r} is unknown; known are {known}. Look at print(model) and pass"
        f" architecture=Architecture(({family!r},), blocks='path of the list of blocks, e.g."
        " model.layers', down_projection='path within a block of the linear layer that ends its"
        " MLP, e.g. mlp.down_proj')"
    )
