"""Where a model comes from: the bundled default, a hub id, a folder, a file, an object.

load_model      any of them as a LanguageModel
is_local        whether a name is one that is loaded without the hub
without_bars    a context in which transformers draws no progress bars
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from coachhook_viz.errors import ModelNotFound, ModelRefused
from coachhook_viz.loading import collector_paused
from coachhook_viz.models import adapters, bundled
from coachhook_viz.models.architectures import Architecture
from coachhook_viz.models.language_model import LanguageModel

_UNREADABLE = (  # what is said of files that are cut short or hold something else
    SafetensorError, struct.error, TypeError, KeyError, AttributeError, IndexError,
)  # fmt: skip
_DTYPES = {
    "bf16": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16", "fp32": "float32",
    "f32": "float32",
}  # fmt: skip


def load_model(
    name: str | Path | PreTrainedModel = bundled.NAME,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    lead: str | None = None,
    architecture: Architecture | None = None,
    device_map: str | Mapping[str, Any] | None = None,
) -> LanguageModel:
    r"""Load a causal language model.

    Parameters
    ----------
    name : str, Path or PreTrainedModel
        "smollm2-135m", the bundled default, fetched once and offline afterwards; else a hub id, a
        local folder, a ``.gguf`` file or a folder with one (its weights are unpacked), or the
        folder of a LoRA adapter (put into the weights of its base model). Or a model object, which
        is used as it is.
    tokenizer : optional
        None: what comes with the model. A model object may need one.
    device : optional
        None: "cuda" where there is one, else "cpu"; a model object stays where it is.
    dtype : torch.dtype or str, optional
        None: float32 for the bundled default and for unpacked weights, else as the model was saved.
    lead : str, optional
        Text put before every prompt. None: "\n" for the bundled default, else nothing.
    architecture : Architecture, optional
        For a family that the package does not know.
    device_map : str or mapping, optional
        As transformers takes it, to spread the model over several devices, or to keep weights
        elsewhere until they are needed.

    Raises
    ------
    ModelNotFound
        If there is no such file or folder and the hub cannot give it; or the default cannot be
        fetched.
    ModelRefused
        If it is of a kind or family that cannot be edited, see `LanguageModel`; a ValueError.
    ValueError
        If an argument makes no sense, or the tokenizer is a slow one.
    """
    kind, where = _dtype(dtype), _device(device)
    if not isinstance(name, str | Path):
        return _given(name, tokenizer, where if device else None, kind, lead, architecture)
    text = str(Path(name).expanduser()) if str(name).startswith("~") else str(name)
    with without_bars():
        model, own = _loaded(text, tokenizer, kind, device_map)
    if device_map is None:
        nn.Module.to(model, where)
    default = text == bundled.NAME
    lead = (bundled.LEAD if default else "") if lead is None else lead
    return LanguageModel(model, own, text, lead, architecture)  # type: ignore[arg-type]


def is_local(name: str) -> bool:
    """Whether `load_model` finds a model of that name on this machine, without the hub."""
    return name == bundled.NAME or Path(name).expanduser().exists()


def _given(
    model: Any,
    tokenizer: Any,
    device: torch.device | None,
    dtype: torch.dtype | None,
    lead: str | None,
    architecture: Architecture | None,
) -> LanguageModel:
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"load_model takes a name, a folder, a file or a model, not {type(model).__name__}"
        )
    name = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    if tokenizer is None and isinstance(model, PreTrainedModel):
        try:
            if not name:
                raise OSError("it does not say where it comes from")
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the tokenizer of this {type(model).__name__} cannot be found ({error}): give it,"
                " load_model(model, tokenizer=...)"
            ) from None
    if device is not None or dtype is not None:
        model.to(device=device, dtype=dtype)
    name = name or type(model).__name__
    return LanguageModel(model, tokenizer, name, lead or "", architecture)  # type: ignore[arg-type]


def _loaded(
    name: str, tokenizer: Any, dtype: torch.dtype | None, device_map: Any
) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer of a name, folder or file."""
    path = Path(name)
    default = name == bundled.NAME
    if path.is_dir() and adapters.is_adapter(path):
        base = adapters.base_of(path)
        if Path(base).expanduser().resolve() == path.resolve():
            raise ModelRefused(f"{name}: the adapter names itself as its base model")
        own = tokenizer or (path if (path / "tokenizer_config.json").is_file() else None)
        own = AutoTokenizer.from_pretrained(own) if isinstance(own, Path) else own
        model, own = _loaded(base, own, dtype, device_map)
        adapters.merge(path, model)
        return model, own
    source: dict[str, Any] = {"pretrained_model_name_or_path": name}
    if (file := _gguf(path)) is not None:
        source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        dtype = dtype or torch.float32
    elif path.is_file():
        raise ModelNotFound(f"{name} is a file, and no .gguf one: give the folder that it is in")
    elif default:
        source = {"pretrained_model_name_or_path": str(bundled.folder()), "local_files_only": True}
    if not default and path.is_dir() and file is None and not (path / "config.json").is_file():
        raise ModelNotFound(f"{name} holds no model: it has no config.json, and no .gguf file")
    spread = {} if device_map is None else {"device_map": device_map}
    try:
        own = _tokenizer(name, source) if tokenizer is None else tokenizer
        with collector_paused():
            model = AutoModelForCausalLM.from_pretrained(**source, **spread, dtype=dtype or "auto")
    except OSError as error:
        raise ModelNotFound(
            f"no model {name!r}: it is neither a local folder with a model in it nor a hub id"
            f" that can be fetched from here. The bundled one is {bundled.NAME!r}. ({error})"
        ) from None
    except _UNREADABLE as error:
        if not path.exists():
            raise
        raise ModelNotFound(
            f"{name} cannot be read: it is damaged, or no model ({type(error).__name__}: {error})"
        ) from error
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ModelRefused(
            f"{name} is no causal language model, which goes on with a text: an encoder, an"
            " encoder-decoder, or something else"
        ) from None
    if file is not None:  # its weights are unpacked: nothing is quantised any more
        model.hf_quantizer = None  # type: ignore[assignment]
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model, own


def _tokenizer(name: str, source: Mapping[str, Any]) -> Any:
    try:
        return AutoTokenizer.from_pretrained(**source)
    except ValueError as error:
        if "backend tokenizer" not in str(error):
            raise
        raise ValueError(
            f"{name} has no tokenizer that can be read here (a tokenizer.json): give one,"
            " load_model(name, tokenizer=...)"
        ) from error


def _gguf(path: Path) -> Path | None:
    """The GGUF file that is meant, if it is one or the only model in its folder."""
    if path.is_file() and path.suffix.lower() == ".gguf":
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{path} holds several .gguf files: give one of them, {names}")
    return files[0] if files else None


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        found: Any = None if dtype == "auto" else dtype
    else:
        short = str(dtype).lower().removeprefix("torch.")
        found = getattr(torch, _DTYPES.get(short, short), None)
    if found is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        found = None
    if found is None and dtype not in (None, "auto"):
        raise ValueError(
            f"dtype={dtype!r}: use torch.float32, torch.bfloat16 or torch.float16, or its name"
        )
    return found  # type: ignore[no-any-return]


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = device.lower() if isinstance(device, str) else device
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise ValueError(
            f"device={device!r}: torch has no such device here; leave it out, or use 'cpu'"
        ) from None


@contextmanager
def without_bars() -> Iterator[None]:
    """Within the context transformers draws no progress bars."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
