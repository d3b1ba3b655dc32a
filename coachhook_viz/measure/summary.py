"""What the rows of metrics come to: means over facts with intervals, and harmonic means of them.

summary    one row a metric, of all prompts and by what the unedited model knew
SCORES     the metrics that a harmonic mean is taken of
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

_RESAMPLES = 2000
_SPLITS = {"all": None, "known": True, "unknown": False}
SCORES: Mapping[str, tuple[str, ...]] = {
    "Score": ("reliability", "generality", "locality", "same subject"),
    "S": ("ES", "PS", "NS"),
}
"""Harmonic means that `summary` adds where all of their metrics were measured; S is the papers'."""


def summary(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Means over the facts with bootstrap confidence intervals, by what the unedited model knew.

    A fact counts once, however many prompts it has: they, and its rows of several runs, are
    averaged first. The facts are resampled, the same ones for all metrics.

    Parameters
    ----------
    frame : DataFrame
        Of `Session.evaluate` with metrics, or several of them below each other; where they are of
        other sessions, `fact` has to mean the same in all.
    seed : int
        Of the 2000 resamples.

    Returns
    -------
    DataFrame
        metric : str
            Also "Score" and "S", the harmonic means of `SCORES`, where all they need is there.
        of : str
            "all" prompts, those whose answer was "known" to the unedited model, or was "unknown".
        mean, low, high : float
            The mean, and the 95 % percentile interval.
        facts : int
            How many facts have such a prompt.
        prompts : int
            How many rows there are.
    """
    rows = []
    for of, wanted in _SPLITS.items():
        part = frame if wanted is None else frame[(frame["known"] == wanted).fillna(False)]
        table = part.pivot_table("value", "fact", "metric", "mean", sort=False)
        generator = np.random.default_rng(seed)
        drawn = generator.integers(0, max(len(table), 1), (_RESAMPLES, len(table)))
        means = {name: _means(table[name].to_numpy(), drawn) for name in table}
        counts = part["metric"].value_counts().to_dict()
        for name, (mean, resampled) in means.items():
            sizes = (int(table[name].count()), counts[name])
            rows.append((name, of, mean, *_interval(resampled), *sizes))
        for name, parts in SCORES.items():
            if set(parts) <= set(means):
                mean = _harmonic(np.array([[means[p][0]] for p in parts]))[0]
                resampled = _harmonic(np.stack([means[p][1] for p in parts]))
                sizes = (
                    int(table[list(parts)].notna().any(axis=1).sum()),
                    sum(counts[p] for p in parts),
                )
                rows.append((name, of, mean, *_interval(resampled), *sizes))
    columns = ["metric", "of", "mean", "low", "high", "facts", "prompts"]
    return pd.DataFrame(rows, columns=columns)


_Numbers = npt.NDArray[np.float64]


def _means(values: _Numbers, drawn: npt.NDArray[np.int64]) -> tuple[float, _Numbers]:
    """The mean of `values` (facts,), and of each resample (resamples, facts); NaN is no value."""
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    counts = there[drawn].sum(1)
    with np.errstate(invalid="ignore"):  # a resample without any value has no mean
        return float(filled.sum() / there.sum()), filled[drawn].sum(1) / counts


def _interval(resampled: _Numbers) -> tuple[float, float]:
    low, high = np.quantile(resampled[~np.isnan(resampled)], [0.025, 0.975])
    return float(low), float(high)


def _harmonic(values: _Numbers) -> _Numbers:
    """Harmonic means (n,) of the columns of (parts, n); 0 where a part is 0."""
    with np.errstate(divide="ignore"):
        means: _Numbers = len(values) / (1 / values).sum(0)
    return means
