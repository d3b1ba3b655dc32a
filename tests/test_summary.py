from __future__ import annotations

import pandas as pd
import pytest

from coachhook_viz.measure.summary import SCORES, summary


def frame(rows: list[tuple[int, str, bool | None, float]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=["fact", "metric", "known", "value"])
    return found.astype({"known": "boolean"})


def test_a_fact_counts_once_and_splits_by_what_was_known() -> None:
    found = summary(
        frame(
            [
                (0, "generality", True, 1.0),
                (0, "generality", True, 0.0),
                (0, "generality", False, 0.0),
                (1, "generality", False, 1.0),
                (2, "generality", None, 1.0),
            ]
        )
    ).set_index("of")
    assert found["mean"].to_dict() == pytest.approx(
        {"all": (1 / 3 + 1 + 1) / 3, "known": 0.5, "unknown": 0.5}
    )
    assert found["facts"].to_dict() == {"all": 3, "known": 1, "unknown": 2}
    assert found["prompts"].to_dict() == {"all": 5, "known": 2, "unknown": 2}
    assert (found.loc["known", "low"], found.loc["known", "high"]) == (0.5, 0.5)
    assert (found.loc["unknown", "low"], found.loc["unknown", "high"]) == (0, 1)


def test_intervals_are_over_facts_not_prompts() -> None:
    """400 facts of ten prompts each, half of them 1: mean 0.5 ± 1.96 · 0.025."""
    rows = [(i, "ES", True, float(i % 2)) for i in range(400) for _ in range(10)]
    found = summary(frame(rows)).iloc[0]
    assert found["low"] == pytest.approx(0.451, abs=0.006)
    assert found["high"] == pytest.approx(0.549, abs=0.006)
    assert summary(frame(rows)).equals(summary(frame(rows)))


def test_scores_are_harmonic_means_where_all_parts_are_there() -> None:
    rows = [(i, name, True, 1.0) for i in range(4) for name in SCORES["S"][:2]]
    rows += [(i, "NS", True, float(i == 0)) for i in range(4)]
    found = summary(frame(rows)).set_index(["metric", "of"])
    assert found.loc[("S", "all"), "mean"] == pytest.approx(3 / (1 + 1 + 4))
    assert found.loc[("S", "all"), "prompts"] == 12
    assert found.loc[("S", "all"), "low"] == 0  # no fact with a good neighbour was drawn
    assert found.loc[("S", "all"), "high"] > 0.5
    assert "Score" not in found.index.get_level_values(0)
    assert ("S", "unknown") not in found.index
    assert "S" not in set(summary(frame(rows[:8]))["metric"])


def test_a_fact_without_the_metric_is_no_zero() -> None:
    rows = [(0, "ES", True, 1.0), (1, "ES", True, 1.0), (0, "PS", True, 1.0)]
    found = summary(frame(rows)).set_index(["metric", "of"])
    assert found["facts"].to_dict()[("PS", "all")] == 1
    assert found.loc[("PS", "all"), "low"] == 1
    assert summary(frame([])).empty
