"""Adapters in a folder, as PEFT saves them: put into the weights of their base model.

is_adapter    whether a folder holds one
base_of       the name of its base model
CONFIG, WEIGHTS    what its files are called
merge         add a LoRA adapter to a model's weights
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coachhook_viz.errors import ModelRefused

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])(\.default)?\.weight")


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Name or folder of the model that the adapter in `folder` was made for."""
    base = _config(folder).get("base_model_name_or_path")
    if not base:
        raise ModelRefused(f"{folder}: its {CONFIG} does not name the adapter's base model")
    return str(base)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ModelRefused(f"{folder}: its {CONFIG} cannot be read")
    return config


def merge(folder: Path, model: PreTrainedModel) -> None:
    """Add the LoRA adapter in `folder` to the weights of `model`, ``W + scale · B A``.

    Raises
    ------
    ModelRefused
        If it is an adapter of another kind, or does not fit the model.
    """
    config = _config(folder)
    kind = config.get("peft_type")
    if kind != "LORA" or config.get("use_dora"):
        raise _other(folder, "DoRA" if config.get("use_dora") else str(kind))
    if not (folder / WEIGHTS).is_file():
        raise ModelRefused(f"{folder}: it has no {WEIGHTS}")
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        found = _FACTOR.fullmatch(name.removeprefix(_PREFIX))
        if found is None:
            raise _other(folder, f"one that also changes {name.removeprefix(_PREFIX)}")
        factors.setdefault(found[1], {})[found[2]] = _precise(tensor)
    for path, pair in factors.items():
        try:
            module: Any = model.get_submodule(path)
            weight = module.weight
            delta = _scale(config, path, len(pair["A"])) * (pair["B"] @ pair["A"])
            delta = delta.T if isinstance(module, Conv1D) else delta
            with torch.no_grad():
                weight.copy_(_precise(weight) + delta.to(weight.device))
        except (AttributeError, KeyError, RuntimeError) as error:
            raise ModelRefused(
                f"{folder}: the adapter does not fit {type(model).__name__} at {path} ({error})"
            ) from None


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scale(config: dict[str, Any], path: str, rank: int) -> float:
    patterns = (config.get("alpha_pattern") or {}).items()
    own = (value for key, value in patterns if re.match(rf"(.*\.)?({key})$", path))
    alpha = float(next(own, config.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _other(folder: Path, kind: str) -> ModelRefused:
    return ModelRefused(
        f"{folder}: the adapter is {kind}, and only LoRA is put into weights here. With peft:"
        " PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(other), then"
        " load_model(other)"
    )
