"""Models that cannot be edited, known by what they are made of, and why they cannot.

kind_refused    mixtures of experts, state spaces, recurrences, convolutions, ALiBi, encoders, and
                layers that torch quantized
packed          weights that are not plain numbers
no_numbers      weights that are nowhere
NO_NUMBERS      that in words
unwrapped       the layer that an adapter wraps
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

NO_NUMBERS = (
    "has no numbers: its parameters are on the meta device. Load the weights, for instance by"
    " load_model"
)
_RUNNING_STATE = "what it has read is in a running state, not in keys that can be cached and packed"
_EXPERTS = (
    r"Experts|Router|MoE\b|Moe(Block|Layer|MLP)?$|TopKGate",
    "is a mixture of experts: each token takes other weights, so no one down projection is there"
    " to edit",
)
_STATES = (
    (
        r"(?i)rwkv|recurrent|rglru|lstm|gru\b|deltanet|delta_?attention|lightning_?attention"
        r"|linear_?attention|retention",
        f"is recurrent: {_RUNNING_STATE}",
    ),
    (r"Mamba|SSM|StateSpace|Ssd|\.A_log$", f"is a state space model: {_RUNNING_STATE}"),
    (
        r"(?i)conv1d$|short_?conv|conv_?mixer",
        "is convolutional: a token mixes its neighbours by place, which packed prompts do not keep",
    ),
)


def kind_refused(model: PreTrainedModel) -> str | None:
    """Why a model of this kind cannot be edited, as the end of a sentence; None if it may be."""
    config: Any = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        return "is an encoder-decoder: editing needs a model that only goes on with a text"
    if model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    ):
        return "is an encoder, which reads a text both ways: editing needs one that goes on with it"
    if _by_distance(model):
        return (
            "uses ALiBi: its attention counts the places between tokens, which packed prompts do"
            " not keep"
        )
    if any(type(module).__module__.startswith("torch.ao.nn") for module in model.modules()):
        return (
            "has layers that torch quantized: what they compute hangs on whatever is run along with"
            " it, so give the model as it was before"
        )
    made_of = {_plain_name(module) for module in model.modules()}
    made_of |= {name for name, _ in model.named_parameters() if name.endswith(".A_log")}

    def has(kind: str) -> bool:
        return any(re.search(kind, name) for name in made_of)

    reasons = [_EXPERTS[1]] if has(_EXPERTS[0]) else []
    reasons += [why for kind, why in _STATES if has(kind)][:1]
    return "; it ".join(reasons) or None


def _plain_name(module: nn.Module) -> str:
    """A class's name; Conv1D of transformers is a linear layer, and nothing convolutional."""
    name = type(module).__name__
    return "Linear" if name == "Conv1D" else name


def _by_distance(model: PreTrainedModel) -> bool:
    """Whether attention adds a bias by distance."""
    config: Any = model.config
    told = getattr(config, "attn_config", None)  # MPT's
    return bool(
        getattr(config, "alibi", False)
        or getattr(told, "alibi", False)
        or hasattr(model, "build_alibi_tensor")
        or hasattr(model.base_model, "build_alibi_tensor")
        or hasattr(model.base_model, "build_mpt_alibi_tensor")
    )


def packed(module: nn.Module) -> str | None:
    """Why a linear layer's weights are no plain matrix, as the end of a sentence; or None."""
    module = unwrapped(module)
    here = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if not callable(getattr(module, "weight", None)) and all(
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.is_floating_point()
        and tensor.element_size() > 1
        for tensor in here
    ):
        return None
    return (
        "has packed weights (4 or 8 bits): editing needs plain ones. Load the model without"
        " quantization_config, or dequantize() it, for instance in dtype=torch.bfloat16"
    )


def no_numbers(module: nn.Module) -> str | None:
    """Why a linear layer's weights cannot be read, as the end of a sentence; or None.

    Those that accelerate brings in when they are needed are somewhere.
    """
    module = unwrapped(module)
    on_meta = [p for p in module.parameters(recurse=False) if p.device.type == "meta"]
    return NO_NUMBERS if on_meta and offloaded(module) is None else None


def offloaded(module: nn.Module) -> Any:
    """The hook by which accelerate brings a module's weights in, if they are elsewhere; or None."""
    hooks = [getattr(module, "_hf_hook", None)]
    hooks += getattr(hooks[0], "hooks", ())
    return next((hook for hook in hooks if getattr(hook, "offload", False)), None)


def unwrapped(module: nn.Module) -> nn.Module:
    """The layer that an adapter (LoRA) wraps; any other module itself."""
    while isinstance(base := getattr(module, "base_layer", None), nn.Module):
        module = base
    return module
