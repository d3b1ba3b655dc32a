"""Measurements of a session's states, round after round; what was measured once is remembered.

OverRounds    quality, metrics, drift, interference, scope quality and what else of many states
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.editor import bare_keys
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState, Round, key_of
from coachhook_viz.facts import Fact
from coachhook_viz.measure.answers import Speaker
from coachhook_viz.measure.drift import Probes, neutral_texts, thresholds, weights
from coachhook_viz.measure.interference import interference
from coachhook_viz.measure.metrics import By, Metric, judged, table
from coachhook_viz.measure.quality import holds, quality
from coachhook_viz.measure.scope_quality import scope_quality
from coachhook_viz.measure.what_else import WhatElse
from coachhook_viz.models import LanguageModel


class OverRounds:
    """Measures states of one session, and only what it has not measured before.

    Results are kept by the state that they are of.

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
        self._unedited = Speaker(lm, EditState.of(lm, config))
        self._probes: Probes | None = None
        self._quality: dict[Hashable, dict[int, pd.DataFrame]] = {}
        self._judged: dict[tuple[Hashable, Metric, By], dict[int, pd.DataFrame]] = {}
        self._drifts: dict[Hashable, pd.DataFrame] = {}
        self._scopes: dict[tuple[Hashable, tuple[str, ...]], dict[int, pd.DataFrame]] = {}
        self._what_else = WhatElse(lm, EditState.of(lm, config), preserved)
        self._besides: dict[Hashable, pd.DataFrame] = {}
        self._keys: dict[int, dict[int, Tensor]] = {}
        self._pairs: tuple[object, pd.DataFrame] | None = None  # just the last: they are large

    def quality(
        self, rounds: Sequence[Round], wanted: Collection[int], watch: Watch
    ) -> pd.DataFrame:
        """`quality` of the facts `wanted` after each of `rounds` from their own on.

        Parameters
        ----------
        rounds : sequence of Round
            Those in force.
        wanted : collection of int
            Ids of facts.
        watch : Watch

        Returns
        -------
        DataFrame
            fact, edited, round : int; metric : str; value : float.
        """
        frames = []
        walk = _Walk(self._lm, self._config, rounds)
        edited: dict[int, int] = {}
        facts: dict[int, Fact] = {}
        for count, round_ in enumerate(rounds, 1):
            edited |= dict.fromkeys(round_.fact_ids, count)
            facts |= _chosen(round_, wanted)
            if facts:
                frame = self._score(
                    self._key(rounds[:count]), facts, partial(walk.state, count), watch
                )
                frame.insert(1, "edited", frame["fact"].map(edited))
                frame.insert(2, "round", count)
                frames.append(frame)
        columns = ["fact", "edited", "round", "metric", "value"]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)

    def score(self, state: EditState, facts: Mapping[int, Fact], watch: Watch) -> pd.DataFrame:
        """`quality` of any facts by id, in force or not."""
        return self._score(state.key, facts, lambda: state, watch)

    def _score(
        self,
        key: Hashable,
        facts: Mapping[int, Fact],
        state: Callable[[], EditState],
        watch: Watch,
    ) -> pd.DataFrame:
        known = self._quality.setdefault(key, {})
        new = {fact_id: fact for fact_id, fact in facts.items() if fact_id not in known}
        if new:
            frame = quality(self._lm, state(), list(new.values()), watch, self._unedited)
            frame["fact"] = frame["fact"].map(dict(enumerate(new)))
            known.update({int(str(i)): part for i, part in frame.groupby("fact", sort=False)})
        columns = pd.DataFrame(columns=["fact", "metric", "value"])
        parts = [known[fact_id] for fact_id in facts]
        return pd.concat(parts, ignore_index=True) if parts else columns

    def judged(
        self, state: EditState, metrics: Sequence[Metric], by: By, watch: Watch
    ) -> pd.DataFrame:
        """`metrics.judged` of the facts in force, metric after metric."""
        speaker = Speaker(self._lm, state)
        facts = dict(zip(state.fact_ids, state.facts, strict=True))
        frames = []
        for metric in metrics:
            counted = self._held(state.rounds, metric, by, watch) if metric.once_held else facts
            frames.append(self._judge(state.key, counted, lambda: speaker, metric, by, watch))
        return pd.concat(frames, ignore_index=True)

    def _held(
        self, rounds: Sequence[Round], metric: Metric, by: By, watch: Watch
    ) -> dict[int, Fact]:
        """Facts of all `rounds` but the last whose value was 1 right after their own."""
        walk = _Walk(self._lm, self._config, rounds)
        held: dict[int, Fact] = {}
        for count, round_ in enumerate(rounds[:-1], 1):
            facts = _chosen(round_, round_.fact_ids)

            def speaker(count: int = count) -> Speaker:
                return Speaker(self._lm, walk.state(count))

            key = self._key(rounds[:count])
            frame = self._judge(key, facts, speaker, metric, by, watch)
            lowest = frame.groupby("fact")["value"].min()
            held |= {
                fact_id: fact for fact_id, fact in facts.items() if holds(lowest.get(fact_id, 0))
            }
        return held

    def _judge(
        self,
        key: Hashable,
        facts: Mapping[int, Fact],
        speaker: Callable[[], Speaker],
        metric: Metric,
        by: By,
        watch: Watch,
    ) -> pd.DataFrame:
        only = "tokens" if metric.by_generation is None else by
        known = self._judged.setdefault((key, metric, only), {})
        new = {fact_id: fact for fact_id, fact in facts.items() if fact_id not in known}
        if new:
            frame = judged(metric, new, speaker(), self._unedited, by, watch)
            known.update({fact_id: frame[frame["fact"] == fact_id] for fact_id in new})
        parts = [known[fact_id] for fact_id in facts]
        return pd.concat(parts, ignore_index=True) if parts else table([])

    def drift(self, rounds: Sequence[Round], watch: Watch) -> pd.DataFrame:
        """`weights`, `Probes.measure` and `thresholds` after none, one, … all of `rounds`."""
        walk = _Walk(self._lm, self._config, rounds)
        if self._probes is None:
            self._probes = Probes(self._lm, walk.state(0), neutral_texts())
        frames = [thresholds(self._config, rounds)]
        for count in range(len(rounds) + 1):
            watch("drift", count, len(rounds) + 1)
            key = self._key(rounds[:count])
            if key not in self._drifts:
                state = walk.state(count)
                self._drifts[key] = pd.concat(
                    [_whole(weights(self._lm, state)), _whole(self._probes.measure(state))]
                )
            frames.append(self._drifts[key].assign(round=count))
        return pd.concat(map(_whole, frames), ignore_index=True)

    def interference(
        self, state: EditState, wanted: Sequence[int], rounds: Sequence[Round], watch: Watch
    ) -> pd.DataFrame:
        """`interference` among the facts `wanted`; `rounds` are those of `state`, none muted."""
        key = (state.key, tuple(wanted))
        if self._pairs is None or self._pairs[0] != key:
            base = self._base_keys(rounds, watch)
            self._pairs = key, interference(state, wanted, rounds, base, self._preserved)
        return self._pairs[1].copy()

    def _key(self, rounds: Sequence[Round]) -> Hashable:
        """`EditState.key` after `rounds`."""
        return key_of(self._config, rounds)

    def _base_keys(self, rounds: Sequence[Round], watch: Watch) -> dict[int, Tensor]:
        """By layer, the keys (d_key, facts) of the rounds' facts in the unedited model."""
        facts = {i: f for r in rounds for i, f in zip(r.fact_ids, r.facts, strict=True)}
        new = [fact_id for fact_id in facts if fact_id not in self._keys]
        if new:
            watch("keys", 0, 1)
            keys = bare_keys(self._lm, self._config, [facts[fact_id] for fact_id in new])
            for place, fact_id in enumerate(new):
                self._keys[fact_id] = {layer: found[:, place] for layer, found in keys.items()}
        return {
            layer: torch.stack([self._keys[fact_id][layer] for fact_id in facts], dim=1)
            for layer in (self._config.keyed_layers if facts else ())
        }

    def what_else(
        self, state: EditState, wanted: Sequence[int], budget: int, watch: Watch
    ) -> pd.DataFrame:
        """`WhatElse.measure` of the facts `wanted` that are in force."""
        key = (state.key, tuple(wanted), budget)
        if key not in self._besides:
            facts = dict(zip(state.fact_ids, state.facts, strict=True))
            chosen = {fact_id: facts[fact_id] for fact_id in wanted}
            self._besides[key] = self._what_else.measure(state, chosen, budget, watch)
        return self._besides[key].copy()

    def scope_quality(
        self, state: EditState, wanted: Collection[int], others: Sequence[str], watch: Watch
    ) -> pd.DataFrame:
        """`scope_quality` of the facts `wanted` that are in force."""
        known = self._scopes.setdefault((state.key, tuple(others)), {})
        facts = {i: f for round_ in state.rounds for i, f in _chosen(round_, wanted).items()}
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


def _chosen(round_: Round, wanted: Collection[int]) -> dict[int, Fact]:
    pairs = zip(round_.fact_ids, round_.facts, strict=True)
    return {fact_id: fact for fact_id, fact in pairs if fact_id in wanted}


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """With all columns of `OverRounds.drift`."""
    columns = ["round", "layer", "metric", "value", "fact", "probe"]
    types = {"layer": "Int64", "fact": "Int64", "probe": "Int64"}
    return frame.reindex(columns=columns).astype(types)


class _Walk:
    """The states after each of some rounds, one at a time: each holds a dense ΔW a layer."""

    def __init__(self, lm: LanguageModel, config: EditConfig, rounds: Sequence[Round]) -> None:
        self._rounds = rounds
        self._state = EditState.of(lm, config)

    def state(self, count: int) -> EditState:
        """After `count` rounds, which never falls from one call to the next."""
        for round_ in self._rounds[len(self._state.rounds) : count]:
            self._state = self._state.then(round_)
        return self._state
