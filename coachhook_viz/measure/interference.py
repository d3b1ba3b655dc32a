"""How much edits act on each other's keys, and what could be known of that beforehand.

interference     the edit × edit matrix, as it is and as it was to be expected
rank_correlation     how well the expectation ranks what came
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.state import EditState


def interference(
    state: EditState, base_keys: Mapping[int, Tensor], preserved: Mapping[int, Tensor]
) -> pd.DataFrame:
    """Edit × edit, for every pair of facts in force.

    Parameters
    ----------
    state : EditState
    base_keys : mapping of int to Tensor
        By layer, the keys (d_key, facts) of `state.facts` in the unedited model.
    preserved : mapping of int to Tensor
        By layer, ``P0 = (λ C0)⁻¹`` (d_key, d_key).

    Returns
    -------
    DataFrame
        layer : int
        fact, by : int
            How much `by` acts on the key of `fact`.
        actual : float
            ``‖r_j (a_j · k_i)‖ / ‖r_i (a_i · k_i)‖``, i the fact, j the other; 1 on the diagonal.
        overlap : float
            The whitened overlap of their keys, ``|k_iᵀ P0 k_j| / k_iᵀ P0 k_i``.
        predicted : float
            The same with what each round will preserve, ``|k_iᵀ P_j k_j| / |k_iᵀ P_i k_i|``, where
            ``P_j = (λ C0 + Σ K Kᵀ)⁻¹`` over the rounds up to that of j: an edit spares the keys of
            its own and of earlier rounds, later ones it cannot know. Both are known before
            editing, from the unedited model's keys and the order of the rounds.
    """
    ids = np.array(state.fact_ids)
    count = len(ids)
    frames = []
    for layer, at in state.layers.items():
        if not count:
            break
        keys = torch.cat([f.keys for f in at.factors], dim=1)
        directions = torch.cat([f.directions for f in at.factors], dim=1)
        sizes = torch.cat([f.residuals for f in at.factors], dim=1).norm(dim=0)
        acts = (keys.T @ directions).abs() * sizes  # (fact, by)
        actual = acts / acts.diagonal()[:, None]
        base = base_keys[layer]
        whitened = base.T @ preserved[layer] @ base  # (facts, facts)
        overlap = whitened.abs() / whitened.diagonal()[:, None]
        spared = _spare(whitened, [len(round_.facts) for round_ in state.rounds]).abs()
        predicted = spared / spared.diagonal()[:, None]
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "fact": ids.repeat(count),
                    "by": np.tile(ids, count),
                    "actual": actual.flatten().cpu().numpy(),
                    "overlap": overlap.flatten().cpu().numpy(),
                    "predicted": predicted.flatten().cpu().numpy(),
                }
            )
        )
    columns = ["layer", "fact", "by", "actual", "overlap", "predicted"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _spare(whitened: Tensor, sizes: Sequence[int]) -> Tensor:
    """``k_iᵀ P_j k_j`` for all pairs, from ``k_iᵀ P0 k_j`` alone (Woodbury), rounds in order."""
    spared = torch.empty_like(whitened)
    stop = 0
    for size in sizes:
        start, stop = stop, stop + size
        past = whitened[:stop, :stop].clone()
        past.diagonal().add_(1)
        known = torch.linalg.solve(past, whitened[:stop, start:stop])
        spared[:, start:stop] = whitened[:, start:stop] - whitened[:, :stop] @ known
    return spared


def rank_correlation(frame: pd.DataFrame, by: str = "predicted") -> pd.DataFrame:
    """Spearman's ρ between actual interference and what was known before, diagonal left out.

    Parameters
    ----------
    frame : DataFrame
        What `Session.interference` gives.
    by : {"predicted", "overlap"}

    Returns
    -------
    DataFrame
        layer : int or NA
            NA: of the means over the layers.
        rho : float
        pairs : int
    """
    pairs = frame[frame["fact"] != frame["by"]]
    means = pairs.groupby(["fact", "by"])[["actual", by]].mean()
    parts = [(layer, part) for layer, part in pairs.groupby("layer")] + [(pd.NA, means)]
    rows = [
        (layer, part["actual"].rank().corr(part[by].rank()), len(part)) for layer, part in parts
    ]
    return pd.DataFrame(rows, columns=["layer", "rho", "pairs"]).astype({"layer": "Int64"})
