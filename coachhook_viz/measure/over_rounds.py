"""Measurements of a session's states, round after round; what was measured once is remembered.

OverRounds    quality, drift, interference and scope quality of many states
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.editor import bare_keys
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact
from coachhook_viz.measure.answers import Unedited
from coachhook_viz.measure.drift import Probes, neutral_texts, thresholds, weights
from coachhook_viz.measure.interference import interference
from coachhook_viz.measure.quality import quality
from coachhook_viz.measure.scope_quality import scope_quality
from coachhook_viz.models import LanguageModel

_Key = tuple[tuple[int, tuple[int, ...]], ...]


class OverRounds:
    """Measures states of one session, and only what it has not measured before.

    Parameters
    ----------
    lm : LanguageModel
    config : EditConfig
    preserved : mapping of int to Tensor
        By layer, ``P0 = (λ C0)⁻¹`` (d_key, d_key).
    """

    def __init__(
        self, lm: LanguageModel, config: EditConfig, preserved: Mapping[int, Tensor]
    ) -> None:
        self._lm = lm
        self._config = config
        self._preserved = preserved
        self._unedited = Unedited(lm, config)
        self._probes: Probes | None = None
        self._quality: dict[_Key, dict[int, pd.DataFrame]] = {}
        self._shifts: dict[_Key, pd.DataFrame] = {}
        self._scopes: dict[tuple[_Key, tuple[str, ...]], dict[int, pd.DataFrame]] = {}
        self._keys: dict[int, dict[int, Tensor]] = {}

    def quality(
        self, states: Mapping[int, EditState], wanted: Collection[int], watch: Watch
    ) -> pd.DataFrame:
        """`quality` of the facts `wanted` under each state that has them.

        Parameters
        ----------
        states : mapping of int to EditState
            By the number of rounds in force, ascending.
        wanted : collection of int
            Ids of facts.
        watch : Watch

        Returns
        -------
        DataFrame
            fact, edited, round : int; metric : str; value : float.
        """
        frames = []
        for count, state in states.items():
            facts = _chosen(state, wanted)
            if facts:
                edited = {i: place for place, r in enumerate(state.rounds, 1) for i in r.fact_ids}
                frame = self.score(state, facts, watch)
                frame.insert(1, "edited", frame["fact"].map(edited))
                frame.insert(2, "round", count)
                frames.append(frame)
        columns = ["fact", "edited", "round", "metric", "value"]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)

    def score(self, state: EditState, facts: Mapping[int, Fact], watch: Watch) -> pd.DataFrame:
        """`quality` of any facts by id, in force or not."""
        known = self._quality.setdefault(_key(state), {})
        new = {fact_id: fact for fact_id, fact in facts.items() if fact_id not in known}
        if new:
            frame = quality(self._lm, state, list(new.values()), watch, self._unedited)
            frame["fact"] = frame["fact"].map(dict(enumerate(new)))
            known.update({int(str(i)): part for i, part in frame.groupby("fact", sort=False)})
        columns = pd.DataFrame(columns=["fact", "metric", "value"])
        parts = [known[fact_id] for fact_id in facts]
        return pd.concat(parts, ignore_index=True) if parts else columns

    def drift(self, states: Sequence[EditState], watch: Watch) -> pd.DataFrame:
        """`weights`, `thresholds` and `Probes.measure` of each state, one below the other."""
        if self._probes is None:
            self._probes = Probes(self._lm, states[0], neutral_texts())
        frames = [weights(self._lm, states), thresholds(states)]
        for place, state in enumerate(states):
            watch("drift", place, len(states))
            key = _key(state)
            if key not in self._shifts:
                self._shifts[key] = self._probes.measure(state)
            frames.append(self._shifts[key].assign(round=place))
        whole = [
            frame.reindex(columns=["round", "layer", "metric", "value", "fact", "probe"]).astype(
                {"layer": "Int64", "fact": "Int64", "probe": "Int64"}
            )
            for frame in frames
        ]
        return pd.concat(whole, ignore_index=True)

    def interference(self, state: EditState, wanted: Collection[int], watch: Watch) -> pd.DataFrame:
        """`interference` among the facts `wanted` that are in force."""
        facts = dict(zip(state.fact_ids, state.facts, strict=True))
        new = [fact_id for fact_id in facts if fact_id not in self._keys]
        if new:
            watch("keys", 0, 1)
            keys = bare_keys(self._lm, self._config, [facts[fact_id] for fact_id in new])
            for place, fact_id in enumerate(new):
                self._keys[fact_id] = {layer: found[:, place] for layer, found in keys.items()}
        base = {
            layer: torch.stack([self._keys[fact_id][layer] for fact_id in facts], dim=1)
            for layer in (state.layers if facts else ())
        }
        frame = interference(state, base, self._preserved)
        return frame[frame["fact"].isin(wanted) & frame["by"].isin(wanted)].reset_index(drop=True)

    def scope_quality(
        self, state: EditState, wanted: Collection[int], others: Sequence[str], watch: Watch
    ) -> pd.DataFrame:
        """`scope_quality` of the facts `wanted` that are in force."""
        known = self._scopes.setdefault((_key(state), tuple(others)), {})
        facts = _chosen(state, wanted)
        new = {fact_id: fact for fact_id, fact in facts.items() if fact_id not in known}
        frame = scope_quality(self._lm, state, new, others, watch)
        known.update({int(str(i)): part for i, part in frame.groupby("fact", sort=False)})
        parts = [known[fact_id] for fact_id in facts]
        return pd.concat(parts, ignore_index=True) if parts else frame


def sample(fact_ids: Sequence[int], budget: int | None) -> list[int]:
    """At most `budget` of the facts, in their order.

    Those whose hash is smallest: when facts are added, most of the sample stays.

    Raises
    ------
    ValueError
        If the budget is not positive.
    """
    if budget is not None and budget < 1:
        raise ValueError(f"budget is {budget}: it must be 1 or more facts, or None for all")
    if budget is None or len(fact_ids) <= budget:
        return list(fact_ids)
    drawn = set(sorted(fact_ids, key=_hash)[:budget])
    return [fact_id for fact_id in fact_ids if fact_id in drawn]


def _hash(fact_id: int) -> bytes:
    return hashlib.sha256(str(fact_id).encode()).digest()


def _chosen(state: EditState, wanted: Collection[int]) -> dict[int, Fact]:
    pairs = zip(state.fact_ids, state.facts, strict=True)
    return {fact_id: fact for fact_id, fact in pairs if fact_id in wanted}


def _key(state: EditState) -> _Key:
    return tuple((round_.number, round_.fact_ids) for round_ in state.rounds)
