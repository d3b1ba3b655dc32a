"""How much edits act on each other's keys, and what could be known of that beforehand.

interference         the edit × edit matrix, as it is and as it was to be expected
rank_correlation     how well the expectation ranks what came
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.scope import MATCH_THRESHOLD
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.editing.state import EditState, Factors, Round


def interference(
    state: EditState,
    wanted: Collection[int],
    rounds: Sequence[Round],
    base_keys: Mapping[int, Tensor],
    preserved: Mapping[int, Tensor],
) -> pd.DataFrame:
    """Edit × edit, for every pair of some facts in force.

    Parameters
    ----------
    state : EditState
    wanted : collection of int
        Ids of the facts; those that are not in force are left out.
    rounds : sequence of Round
        Those of `state` with all their facts: later rounds preserve the keys of muted ones too.
    base_keys : mapping of int to Tensor
        By layer, the keys (d_key, facts) of all facts of `rounds` in the unedited model.
    preserved : mapping of int to Tensor
        By layer, P0 (d_key, d_key), in CoachHooK ``(λ C0)⁻¹``.

    Returns
    -------
    DataFrame
        layer : int
        fact, by : int
            How much `by` acts on the key of `fact`.
        actual : float
            ``‖r_j (a_j · k_i)‖ / ‖r_i (a_i · k_i)‖``, i the fact, j the other; 1 on the diagonal.
            k_i is the key of the fact's prompt, r_j (a_j · k_i) the sum over the columns of j.
            Under the two-key scope it is 0 unless j takes both keys of the fact for its own.
        overlap : float
            The whitened overlap of their keys, ``|k_iᵀ P0 k_j| / k_iᵀ P0 k_i``.
        predicted : float
            The same with what each round will preserve, ``|k_iᵀ P_j k_j| / |k_iᵀ P_i k_i|``, where
            ``P_j = (λ C0 + Σ K Kᵀ)⁻¹`` over the rounds up to that of j: an edit spares the keys of
            its own and of earlier rounds, later ones it cannot know. Both are known before
            editing, from the unedited model's keys and the order of the rounds. A method that
            carries nothing spares the keys of its own round only. Under the two-key scope no edit
            has to spare another: it is the overlap, or 0 as above.
    """
    chosen = set(wanted)
    columns = [place for place, fact_id in enumerate(state.fact_ids) if fact_id in chosen]
    ids = [state.fact_ids[column] for column in columns]
    method = state.config.method
    sizes = [len(round_.facts) for round_ in rounds]
    ends = [stop for size, stop in zip(sizes, accumulate(sizes), strict=True) for _ in range(size)]
    place_of = {i: place for place, i in enumerate(i for r in rounds for i in r.fact_ids)}
    places = [place_of[fact_id] for fact_id in ids]
    gates = _opens(state) if ids and SCOPES[state.config.scope].by_fact else None
    asked = state.config.match_threshold or MATCH_THRESHOLD  # under the two-key scope τ_r
    frames = []
    for layer, at in state.layers.items():
        if not ids:
            break
        acts = _acts(at.columns)[columns][:, columns]  # (fact, by)
        if gates is not None:
            speaks = gates & (_recalls(at.columns) >= asked)
            acts = acts * speaks[columns][:, columns].fill_diagonal_(True)
        actual = acts / acts.diagonal()[:, None]
        base = base_keys[layer]
        whitened = base.T @ preserved[layer] @ base  # (all facts, all facts)
        overlap = whitened[places][:, places]
        if gates is None and method.carries:
            spared = _spare(whitened, ends, places)
        elif gates is None:
            rhos = [method.rho(size) for size in sizes]
            spared = _spare_own(whitened, sizes, rhos)[places][:, places]
        else:
            near = _relative(overlap) >= asked
            spared = overlap * (near & gates[columns][:, columns]).fill_diagonal_(True)
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "fact": np.repeat(ids, len(ids)),
                    "by": np.tile(ids, len(ids)),
                    "actual": actual.flatten().cpu().numpy(),
                    "overlap": _relative(overlap).flatten().cpu().numpy(),
                    "predicted": _relative(spared).flatten().cpu().numpy(),
                }
            )
        )
    names = ["layer", "fact", "by", "actual", "overlap", "predicted"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=names)


def _acts(at: Factors) -> Tensor:
    """(fact, by): ``‖Σ_c r_c (a_c · k)‖`` over the columns of `by`, at the key k of a prompt."""
    owners = torch.tensor(at.owners)
    firsts = [at.owners.index(fact) for fact in range(1 + max(at.owners))]
    along = at.directions.T @ at.keys[:, firsts]  # (columns, facts)
    if len(firsts) == len(owners):
        acts: Tensor = along.abs() * at.residuals.norm(dim=0)[:, None]
        return acts.T
    by_fact = [owners == fact for fact in range(len(firsts))]
    return torch.stack([(at.residuals[:, own] @ along[own]).norm(dim=0) for own in by_fact], dim=1)


def _recalls(at: Factors) -> Tensor:
    """(fact, by): how well `by` takes the key of a fact's prompt for its own relation's."""
    firsts = [at.owners.index(fact) for fact in range(1 + max(at.owners))]
    matches: Tensor = at.by_fact(at.directions.T @ at.keys[:, firsts]) / at.own_matches[:, None]
    return matches.T


def _opens(state: EditState) -> Tensor:
    """(fact, by) bool: whether `by` takes the subject of a fact for its own."""
    subjects = [round_.subjects for round_ in state.rounds if round_.subjects is not None]
    units = torch.cat([keys.unit_directions for keys in subjects], dim=1)
    matches: Tensor = torch.cat([keys.keys for keys in subjects], dim=1).T @ units
    return matches >= state.config.subject_threshold


def _relative(products: Tensor) -> Tensor:
    """Sizes (fact, by) in units of each fact's own."""
    return products.abs() / products.diagonal().abs()[:, None]


def _spare(whitened: Tensor, ends: Sequence[int], places: Sequence[int]) -> Tensor:
    """``k_iᵀ P_j k_j`` for the facts at `places`, from ``k_iᵀ P0 k_j`` of all in their order.

    By Woodbury it is ``W_ij − W_i (I + W)⁻¹ W_j`` with W over the facts before the end of j's
    round, ``ends[j]``. One Cholesky factor serves all: its first rows are those of the first facts.
    """
    factor = torch.linalg.cholesky(whitened + torch.eye(len(whitened)).to(whitened))
    known = torch.linalg.solve_triangular(factor, whitened[:, places], upper=False)
    rows = torch.arange(len(whitened), device=whitened.device)
    before = rows[:, None] < rows.new_tensor([ends[place] for place in places])
    spared: Tensor = whitened[places][:, places] - known.T @ (known * before)
    return spared


def _spare_own(whitened: Tensor, sizes: Sequence[int], rhos: Sequence[float]) -> Tensor:
    """``k_iᵀ a_j`` of all facts, where a round of so many spares the keys of its own facts only.

    ``a_j`` of the round with the columns t is that of ``W_t (ρ I + W_tt)⁻¹``.
    """
    spared = torch.empty_like(whitened)
    for own, rho in zip(torch.arange(len(whitened)).split(list(sizes)), rhos, strict=True):
        core = whitened[own][:, own] + rho * torch.eye(len(own)).to(whitened)
        spared[:, own] = torch.linalg.solve(core, whitened[:, own], left=False)
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
