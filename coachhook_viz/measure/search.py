"""The search behind `guide`: which facts, which layers, and settings tried one after the other.

mixed           facts of different relations first
chosen_facts    facts that the model knows, to try settings with
windows         layers to try, by where the causal trace finds the subject
Search          tries settings, and says which did best
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from statistics import harmonic_mean
from typing import Any

import pandas as pd
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.editor import check, edit_round
from coachhook_viz.editing.inverses import inverse
from coachhook_viz.editing.progress import CancelCallback, Progress, Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact, FactError
from coachhook_viz.measure.answers import Speaker
from coachhook_viz.measure.known import known_facts
from coachhook_viz.measure.quality import METRICS, quality
from coachhook_viz.models import LanguageModel
from coachhook_viz.texts import alike

_MOST_FACTS = 12
_ASKED_AT_ONCE = 40
_WEIGHTS = (300.0, 1000.0, 4000.0, 15000.0)
# each beside the one that the model starts with: the default model's, as it is and in larger steps
# (Gemma 3 270M needs them), published for GPT-2 XL and for Llama 3
_OPTIMISERS: tuple[dict[str, Any], ...] = (
    {
        "steps": 20, "learning_rate": 0.8, "weight_decay": 0.0, "clamp_factor": 1.5,
        "stop_loss": 0.02,
    },
    {
        "steps": 25, "learning_rate": 2.5, "weight_decay": 0.0, "clamp_factor": 1.5,
        "stop_loss": 0.02,
    },
    {
        "steps": 20, "learning_rate": 0.5, "weight_decay": 0.5, "clamp_factor": 0.75,
        "stop_loss": 0.05,
    },
    {
        "steps": 25, "learning_rate": 0.1, "weight_decay": 0.5, "clamp_factor": 0.75,
        "stop_loss": 0.05,
    },
)  # fmt: skip
_SHOWN = (
    "layers", "covariance_weight", "steps", "learning_rate", "weight_decay", "clamp_factor",
    "stop_loss",
)  # fmt: skip


def mixed(facts: Sequence[Fact]) -> list[Fact]:
    """The same facts, one of each relation in turn."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in facts:
        by_relation.setdefault(fact.relation or fact.prompt, []).append(fact)
    turns = zip_longest(*by_relation.values())
    return [fact for fact in chain(*turns) if fact is not None]


def chosen_facts(
    lm: LanguageModel, start: EditConfig, facts: Sequence[Fact], watch: Watch
) -> list[Fact]:
    """The first 12 facts that the model knows, with another target, and can be edited together.

    Raises
    ------
    ValueError
        If there is none.
    """
    chosen: list[Fact] = []
    for first in range(0, len(facts), _ASKED_AT_ONCE):
        watch("known", first, len(facts))
        for fact in known_facts(lm, facts[first : first + _ASKED_AT_ONCE]):
            if alike(fact.target) == alike(str(fact.truth)):
                continue
            try:
                check(lm, start, [*chosen, fact])
            except FactError:
                continue
            chosen.append(fact)
            if len(chosen) == _MOST_FACTS:
                return chosen
    if not chosen:
        raise ValueError(
            f"{lm.name} knows none of these {len(facts)} facts: give facts whose truth it says"
            " right after their prompt, and whose target is something else"
        )
    return chosen


def windows(
    lm: LanguageModel,
    start: EditConfig,
    blocks: pd.DataFrame,
    moments: Mapping[int, Tensor] | None,
) -> list[tuple[int, ...]]:
    """Layers to try: where one would begin, and where the trace says that a subject's fact is.

    Those that end where restoring brings back most, where it last brings back nearly as much, and
    half as much. Each is moved as far as it must be to have no massive activation in it.

    Raises
    ------
    ValueError
        If no block can be hooked.
    """
    massive = set(blocks.loc[blocks["massive"], "block"])
    free = {
        layer
        for layer in range(lm.n_layers - 1)  # after the last one nothing would take it up
        if layer not in massive and (moments is None or layer in moments)
    }
    if not free:
        raise ValueError(
            f"{lm.name} has no block to hook: one token carries most of the key energy of each"
            + ("" if moments is None else ", or moments has no C0 for it")
        )
    runs: list[tuple[int, ...]] = []
    for width in range(len(start.layers), 0, -1):
        wide = [tuple(range(first, first + width)) for first in sorted(free)]
        runs = runs or [run for run in wide if free.issuperset(run)]
    last = lm.n_layers - 1
    ends = [last // 4, last // 2, 3 * last // 4]
    recovery = blocks.set_index("block")["recovery"].dropna()
    if recovery.max() > 0:
        late = [recovery.index[recovery >= share * recovery.max()].max() for share in (0.9, 0.5)]
        ends = [int(str(end)) for end in (recovery.idxmax(), *late)]
    found = [min(runs, key=lambda run: (abs(run[-1] - end), run[-1])) for end in ends]
    guess = start.layers
    if not free.issuperset(guess):
        guess = min(runs, key=lambda run: (abs(run[-1] - guess[-1]), run[-1]))
    return list(dict.fromkeys([guess, *found]))


class Search:
    """Settings, each tried on the same facts from the unedited model.

    Attributes
    ----------
    tried : list of (EditConfig, dict)
        Those so far, and their scores.
    total : int
        How many there will be.

    Parameters
    ----------
    lm : LanguageModel
    start : EditConfig
        What all of them are but for what is searched, with its context templates.
    facts : sequence of Fact
    moments : mapping of int to Tensor
    budget : int
        The most to try.
    progress, cancel : callables
    """

    def __init__(
        self,
        lm: LanguageModel,
        start: EditConfig,
        facts: Sequence[Fact],
        moments: Mapping[int, Tensor],
        budget: int,
        progress: Callable[[Progress], object],
        cancel: CancelCallback | None,
    ) -> None:
        self.tried: list[tuple[EditConfig, dict[str, float]]] = []
        self.total = budget
        self._lm = lm
        self._start = start
        self._facts = facts
        self._moments = moments
        self._inverses: dict[int, Tensor] = {}  # C0⁻¹
        self._progress = progress
        self._cancel = cancel
        self._unedited = Speaker(lm, EditState.of(lm, start))

    def run(self, windows: Sequence[tuple[int, ...]]) -> None:
        """Windows × weights, then at the best of them the other optimisers × weights."""
        weights = list(dict.fromkeys([self._start.covariance_weight, *_WEIGHTS]))
        now = {name: getattr(self._start, name) for name in _OPTIMISERS[0]}
        others = [settings for settings in _OPTIMISERS if settings != now]
        self.total = min(self.total, len(weights) * (len(windows) + len(others)))
        for layers in windows:
            self._try([replace(self._start, layers=layers, covariance_weight=w) for w in weights])
        best = self.best
        for settings in others:
            self._try([replace(best, **settings, covariance_weight=w) for w in weights])

    @property
    def best(self) -> EditConfig:
        """The first of those with the highest score; of equal ones, with the highest mean."""
        return max(self.tried, key=lambda one: (one[1]["score"], _mean(one[1])))[0]

    @property
    def frame(self) -> pd.DataFrame:
        """`Guide.frame`."""
        best = self.best
        rows = [
            {"setting": number}
            | {name: getattr(config, name) for name in _SHOWN}
            | scores
            | {"chosen": config is best}
            for number, (config, scores) in enumerate(self.tried, start=1)
        ]
        return pd.DataFrame(rows)

    def _try(self, configs: Sequence[EditConfig]) -> None:
        for config in configs[: self.total - len(self.tried)]:
            self.tried.append((config, self._scores(config)))

    def _scores(self, config: EditConfig) -> dict[str, float]:
        started = time.perf_counter()
        place = f"{len(self.tried) + 1} of {self.total}"
        watch = Watch(lambda said: self._progress(replace(said, setting=place)), self._cancel)
        state = EditState.of(self._lm, config)
        preserved = {at: self._inverse(at) / config.covariance_weight for at in config.layers}
        try:
            round_ = edit_round(self._lm, state, self._facts, preserved, watch)
        except FactError:  # the optimisation left the range of numbers
            scores = dict.fromkeys(METRICS, float("nan")) | {"score": 0.0}
        else:
            frame = quality(self._lm, state.then(round_), self._facts, watch, self._unedited)
            means = frame.groupby("metric")["value"].mean()
            scores = {metric: float(means.get(metric, float("nan"))) for metric in METRICS}
            scores["score"] = harmonic_mean(_given(scores))
        return scores | {"seconds": time.perf_counter() - started}

    def _inverse(self, layer: int) -> Tensor:
        if layer not in self._inverses:
            moment = self._moments[layer].to(self._lm.device)
            self._inverses[layer] = inverse(moment, 1.0)
        return self._inverses[layer]


def _given(scores: Mapping[str, float]) -> list[float]:
    """The metrics that there are: not every fact has paraphrases and neighbours."""
    return [scores[metric] for metric in METRICS if scores[metric] == scores[metric]]


def _mean(scores: Mapping[str, float]) -> float:
    return sum(_given(scores)) / len(METRICS)
