"""C0: what the hooked layers have to preserve, measured once over a corpus.

collect_moments   the uncentred second moment of each layer's keys, over any texts
tokens_needed     how many tokens of text that takes
corpus            the text shipped with the package
cached_moments    moments over it, kept in the user's cache by the model's fingerprint
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain, islice
from operator import index
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.inverses import usable
from coachhook_viz.editing.progress import CancelCallback, ProgressCallback, Watch
from coachhook_viz.errors import MomentsWarning as MomentsWarning
from coachhook_viz.models import LanguageModel
from coachhook_viz.models.cache import cache_dir, in_turn
from coachhook_viz.warned import warn

_BATCH_TOKENS = 2048
_PART_TOKENS = 1 << 16  # after which what is collected is kept
_TOKENS_A_DIMENSION = 10


def corpus() -> list[str]:
    """The texts shipped with the package, sampled from the bundled model (tools/)."""
    text = resources.files("coachhook_viz.data").joinpath("corpus.txt").read_text("utf-8")
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def tokens_needed(lm: LanguageModel) -> int:
    """How many tokens of text a second moment takes: ten for each dimension of the keys."""
    return _TOKENS_A_DIMENSION * lm.d_key


def collect_moments(
    lm: LanguageModel,
    texts: Iterable[str] | None = None,
    layers: Sequence[int] | None = None,
    *,
    folder: str | Path | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> dict[int, Tensor]:
    """Mean of ``k kᵀ`` over every token of `texts`: C0, for `Session(lm, config, moments)`.

    Parameters
    ----------
    lm : LanguageModel
        Its lead is put before each text. Forward passes stop at the last of `layers`.
    texts : iterable of str, optional
        What the model usually reads, an encyclopedia say, at least `tokens_needed` tokens of it;
        read in parts, so that it may be long. Texts longer than the context window are cut to it.
        None: the shipped corpus, some 25,000 tokens.
    layers : sequence of int, optional
        None: those of `EditConfig.for_model`.
    folder : str or Path, optional
        Where what is collected so far is kept. Called again with the same model, layers and texts
        it goes on from there; with longer texts that begin with the same ones too.
    progress, cancel : callables, optional
        As in `Session.apply`, stage "moments", in tokens.

    Returns
    -------
    dict
        Layer to C0 (d_key, d_key), float64, on the model's device.

    Raises
    ------
    ValueError
        If the texts hold no token, or are one text, or `lm` has no such layer.
    EditCancelled
        If `cancel` answered True.

    Warns
    -----
    MomentsWarning
        If there are fewer tokens than `tokens_needed`.
    """
    if isinstance(texts, str):
        raise ValueError("texts is one text: give a list of texts")
    if not isinstance(texts, Iterable | None):
        raise ValueError(f"texts is {texts!r}: give a list of texts")
    try:
        layers = EditConfig.for_model(lm).keyed_layers if layers is None else layers
        layers = sorted({index(layer) for layer in layers})
    except TypeError:
        raise ValueError(f"layers is {layers!r}: give whole numbers, as [3, 4]") from None
    if not layers or layers[0] < 0 or layers[-1] >= lm.n_layers:
        raise ValueError(f"layers {layers}: {lm.name} has blocks 0 to {lm.n_layers - 1} only")
    file = None if folder is None else Path(folder).expanduser() / _file_name(lm, layers)
    return _collect(lm, layers, corpus() if texts is None else texts, Watch(progress, cancel), file)


@dataclass
class _Sums:
    """What is collected of the first `texts` texts, which `hash` has seen."""

    sums: dict[int, Tensor]
    tokens: int = 0
    texts: int = 0
    hash: Any = field(default_factory=hashlib.sha256)


def _collect(
    lm: LanguageModel,
    layers: Sequence[int],
    texts: Iterable[str],
    watch: Watch | None,
    file: Path | None = None,
) -> dict[int, Tensor]:
    zero = {
        layer: torch.zeros(width, width, dtype=torch.float64, device=lm.device)
        for layer in layers
        for width in [lm.weight(layer).shape[1]]
    }
    rest, found = iter(texts), _Sums(zero)
    if file is not None:
        rest, found = _resumed(lm, file, rest, found)
    needed = tokens_needed(lm)
    while part := _part(lm, rest):
        last = sum(len(ids) for _, ids in part) < _PART_TOKENS
        total = found.tokens + sum(len(ids) for _, ids in part)
        sequences = sorted((ids for _, ids in part), key=len)
        while sequences:
            count = max(1, _BATCH_TOKENS // max(len(sequences[-1]), 1))
            sequences, chosen = sequences[:-count], sequences[-count:]
            if watch is not None:
                watch("moments", found.tokens, total if last else max(needed, total))
            if any(chosen):
                _add(lm, layers, chosen, found.sums)
            found.tokens += sum(map(len, chosen))
        for text, _ in part:
            _see(found.hash, text)
        found.texts += len(part)
        if file is not None:
            _keep(file, found)
    if not found.tokens:
        raise ValueError("no token in the texts that second moments are to be collected over")
    if found.tokens < needed:
        warn(
            f"{found.tokens} tokens are few for a second moment of width {lm.d_key}: directions"
            " that they hardly use count as free to change. Give more text to"
            f" cv.collect_moments, at least {needed} tokens, ten for each dimension of the keys",
            MomentsWarning,
            stacklevel=3,
        )
    return {layer: total / found.tokens for layer, total in found.sums.items()}


def _part(lm: LanguageModel, texts: Iterator[str]) -> list[tuple[str, list[int]]]:
    """The next texts with their token ids, some `_PART_TOKENS` of them; none at the end."""
    part: list[tuple[str, list[int]]] = []
    size = 0
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"texts must be texts, not {type(text).__name__}")
        part.append((text, lm.token_ids(text)[: lm.context_window]))
        size += len(part[-1][1])
        if size >= _PART_TOKENS:
            break
    return part


def _add(
    lm: LanguageModel,
    layers: Sequence[int],
    sequences: Sequence[Sequence[int]],
    sums: Mapping[int, Tensor],
) -> None:
    batch = Batch.of(sequences, lm.device)
    with attached(lm, {}):
        _, keys = run_to(lm, batch, max(layers), keys_of=layers)
    for layer in layers:
        real = keys[layer][batch.mask].float()  # (tokens, d_key)
        sums[layer].add_(real.T @ real)


def _file_name(lm: LanguageModel, layers: Sequence[int]) -> str:
    parts = [lm.fingerprint, lm.architecture.down_projection, lm.lead, repr(list(layers))]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"moments-{digest[:16]}.safetensors"


def _keep(file: Path, found: _Sums) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    tensors = {str(layer): total.cpu() for layer, total in found.sums.items()}
    said = {"tokens": str(found.tokens), "texts": str(found.texts), "hash": found.hash.hexdigest()}
    save_file(tensors, temporary, metadata=said)
    temporary.replace(file)


def _resumed(
    lm: LanguageModel, file: Path, texts: Iterator[str], fresh: _Sums
) -> tuple[Iterator[str], _Sums]:
    """The texts that are left and what is known of the others; all and nothing if they differ."""
    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata()
            sums = {int(name): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        known = _Sums(
            {layer: total.to(lm.device) for layer, total in sums.items()},
            int(said["tokens"]),
            int(said["texts"]),
        )
        usable = all(known.sums[at].shape == fresh.sums[at].shape for at in fresh.sums)
    except Exception:  # absent, cut short or not ours: collected anew either way
        return texts, fresh
    read = list(islice(texts, known.texts))
    for text in read:
        _see(known.hash, text)
    if usable and len(read) == known.texts and known.hash.hexdigest() == said["hash"]:
        return texts, known
    return chain(read, texts), fresh


def _see(seen: Any, text: object) -> None:
    seen.update(hashlib.sha256(str(text).encode()).digest())


def cached_moments(
    lm: LanguageModel, layers: Sequence[int], watch: Watch | None = None
) -> dict[int, Tensor]:
    """C0 of `layers` over the shipped corpus, from the user's cache or collected into it.

    Returns
    -------
    dict
        Layer to C0 (d_key, d_key), float64, on the model's device.

    Warns
    -----
    MomentsWarning
        As `collect_moments`; and if the cache cannot be written to, so that they will have to be
        collected again.
    """
    texts = corpus()
    tokens = repr([lm.token_ids(text) for text in texts])  # with lead and special tokens
    parts = [lm.fingerprint, lm.architecture.down_projection, tokens]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    folder = cache_dir() / "moments"
    files = {layer: folder / f"{digest[:16]}-layer{layer}.safetensors" for layer in layers}

    def look() -> dict[int, Tensor]:
        found = {layer: _read(lm, layer, file) for layer, file in files.items()}
        return {layer: moment for layer, moment in found.items() if moment is not None}

    known = look()
    missing = [layer for layer in layers if layer not in known]
    if not missing:
        return {layer: known[layer] for layer in layers}
    try:
        with in_turn(folder / f"{digest[:16]}.lock", "collects the same second moments"):
            known |= look()
            missing = [layer for layer in layers if layer not in known]
            if missing:
                known |= _collect(lm, missing, texts, watch)
            for layer in missing:
                temporary = files[layer].with_suffix(f".{os.getpid()}.tmp")
                save_file({"moment": known[layer].cpu()}, temporary)
                temporary.replace(files[layer])
    except OSError as error:
        warn(
            f"second moments cannot be kept in {folder} ({error.strerror or error}), so they will"
            " be collected again. Set the variable COACHHOOK_VIZ_CACHE to a folder that can be"
            " written to",
            MomentsWarning,
            stacklevel=3,
        )
        missing = [layer for layer in layers if layer not in known]
        known |= _collect(lm, missing, texts, watch) if missing else {}
    return {layer: known[layer] for layer in layers}


def _read(lm: LanguageModel, layer: int, file: Path) -> Tensor | None:
    try:
        moment = load_file(file)["moment"]
    except Exception:  # absent, cut short or not ours: collected anew either way
        return None
    width = lm.weight(layer).shape[1]
    fits = moment.shape == (width, width) and usable(moment)
    return moment.to(lm.device) if fits else None


def check_moments(moments: Mapping[int, Tensor], lm: LanguageModel, layers: Sequence[int]) -> None:
    """Raise ValueError if `moments` lacks a hooked layer, or one's does not fit or is no moment."""
    for layer in layers:
        if layer not in moments:
            raise ValueError(f"moments has no C0 for layer {layer}; it has {sorted(moments)}")
        if tuple(moments[layer].shape) != (lm.d_key, lm.d_key):
            raise ValueError(
                f"moments[{layer}] is {tuple(moments[layer].shape)}, the model needs"
                f" {(lm.d_key, lm.d_key)}"
            )
        if not usable(moments[layer]):
            raise ValueError(f"moments[{layer}] holds values that are not finite, or is zero")
