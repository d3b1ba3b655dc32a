"""C0: what the hooked layers have to preserve, measured once over a corpus.

collect           the uncentred second moment of each layer's keys
corpus            the text shipped with the package
cached_moments    `collect`, kept in the user's cache by the model's fingerprint
inverse           (λ C0)⁻¹, also where C0 is singular
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.errors import MomentsWarning as MomentsWarning
from coachhook_viz.models import LanguageModel
from coachhook_viz.models.cache import cache_dir

_BATCH_TOKENS = 2048
_TOKENS_A_DIMENSION = 10
_SINGULAR = 1e-13  # smallest pivot of a usable C0, relative to its largest
_RIDGE = 1e-4  # of the mean diagonal, where C0 is singular


def corpus() -> list[str]:
    """The texts shipped with the package, sampled from the bundled model (tools/)."""
    text = resources.files("coachhook_viz.data").joinpath("corpus.txt").read_text("utf-8")
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def collect(
    lm: LanguageModel, layers: Sequence[int], texts: Iterable[str], watch: Watch | None = None
) -> dict[int, Tensor]:
    """Mean of ``k kᵀ`` over every token of `texts`.

    Parameters
    ----------
    lm : LanguageModel
        Its lead is put before each text. Forward passes stop at the last of `layers`.
    layers : sequence of int
    texts : iterable of str
        Texts longer than the context window are cut to it.
    watch : Watch, optional
        Called before each batch, stage "moments".

    Returns
    -------
    dict
        Layer to C0 (d_key, d_key), float64.

    Raises
    ------
    ValueError
        If the texts hold no token.

    Warns
    -----
    MomentsWarning
        If there are fewer than ten tokens for each dimension of the keys.
    """
    sequences = sorted((lm.token_ids(t)[: lm.context_window] for t in texts), key=len)
    total = sum(map(len, sequences))
    if not total:
        raise ValueError("no token in the texts that second moments are to be collected over")
    if total < _TOKENS_A_DIMENSION * lm.d_key:
        warnings.warn(
            f"{total} tokens are few for a second moment of width {lm.d_key}: directions that they"
            " hardly use count as free to change. Give more text, at least"
            f" {_TOKENS_A_DIMENSION} tokens for each dimension of the keys, or your own moments",
            MomentsWarning,
            stacklevel=2,
        )
    sums = {
        layer: torch.zeros(lm.d_key, lm.d_key, dtype=torch.float64, device=lm.device)
        for layer in layers
    }
    done = 0
    while sequences:
        longest = len(sequences[-1])
        count = max(1, _BATCH_TOKENS // max(longest, 1))
        sequences, chosen = sequences[:-count], sequences[-count:]
        if watch is not None:
            watch("moments", done, total)
        batch = Batch.of(chosen, lm.device)
        with attached(lm, {}):
            _, keys = run_to(lm, batch, max(layers), keys_of=layers)
        for layer in layers:
            real = keys[layer][batch.mask].float()  # (tokens, d_key)
            sums[layer] += real.T @ real
        done += sum(map(len, chosen))
    return {layer: moment / total for layer, moment in sums.items()}


def cached_moments(
    lm: LanguageModel, layers: Sequence[int], watch: Watch | None = None
) -> dict[int, Tensor]:
    """C0 of `layers` over the shipped corpus, from the user's cache or collected into it.

    Returns
    -------
    dict
        Layer to C0 (d_key, d_key), float64, on the model's device.
    """
    texts = corpus()
    tokens = repr([lm.token_ids(text) for text in texts])  # with lead and special tokens
    parts = [lm.fingerprint, lm.architecture.down_projection, tokens]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    folder = cache_dir() / "moments"
    files = {layer: folder / f"{digest[:16]}-layer{layer}.safetensors" for layer in layers}
    known = {layer: moment for layer in layers if (moment := _read(lm, files[layer])) is not None}
    missing = [layer for layer in layers if layer not in known]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for layer, moment in collect(lm, missing, texts, watch).items():
            temporary = files[layer].with_suffix(f".{os.getpid()}.tmp")
            save_file({"moment": moment.cpu()}, temporary)
            temporary.replace(files[layer])
            known[layer] = moment
    return {layer: known[layer] for layer in layers}


def _read(lm: LanguageModel, file: Path) -> Tensor | None:
    try:
        moment = load_file(file)["moment"]
    except Exception:  # absent, cut short or not ours: collected anew either way
        return None
    usable = moment.shape == (lm.d_key, lm.d_key) and _usable(moment)
    return moment.to(lm.device) if usable else None


def _usable(moment: Tensor) -> bool:
    """Whether all values are finite, which their sum shows fast, and the diagonal is not zero."""
    return bool(moment.sum().isfinite()) and bool(moment.diagonal().sum() > 0)


def inverse(moment: Tensor, covariance_weight: float) -> Tensor:
    """``(λ C0)⁻¹`` in float64.

    Raises
    ------
    ValueError
        If `moment` is not a square, finite, non-zero matrix.

    Warns
    -----
    MomentsWarning
        If C0 is singular; a ridge of 1e-4 of its mean diagonal is then added.
    """
    if moment.dim() != 2 or moment.shape[0] != moment.shape[1]:
        raise ValueError(f"C0 must be (d_key, d_key), not {tuple(moment.shape)}")
    weighted = covariance_weight * moment.double()
    scale = weighted.diagonal().mean()
    if not _usable(weighted):
        raise ValueError("C0 holds values that are not finite, or is zero")
    factor, failed = torch.linalg.cholesky_ex(weighted)
    pivots = factor.diagonal().square()
    if int(failed) or pivots.min() < _SINGULAR * pivots.max():
        warnings.warn(
            f"C0 is singular: {_RIDGE:g} of its mean diagonal was added to it, so directions that"
            " the corpus never used still resist change",
            MomentsWarning,
            stacklevel=2,
        )
        ridge = _RIDGE * scale * torch.eye(len(weighted), dtype=torch.float64, device=scale.device)
        factor = torch.linalg.cholesky(weighted + ridge)
    return torch.cholesky_inverse(factor)


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
        if not _usable(moments[layer]):
            raise ValueError(f"moments[{layer}] holds values that are not finite, or is zero")
