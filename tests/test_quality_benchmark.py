"""The benchmark of quality draws, orders and names facts as it says."""

from __future__ import annotations

import pytest
import quality
from test_two_key import TWO_KEYS
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments


def test_draws_and_orders() -> None:
    assert quality.drawn(20, 5, 0, 0) == [0, 1, 2, 3, 4]
    shuffled = quality.drawn(20, 5, 0, 1)
    assert sorted(shuffled) == [0, 1, 2, 3, 4]
    assert shuffled not in ([0, 1, 2, 3, 4], quality.drawn(20, 5, 0, 2))
    other = quality.drawn(20, 5, 1, 0)
    assert other == sorted(other)
    assert sorted(quality.drawn(20, 5, 1, 3)) == other != [0, 1, 2, 3, 4]
    assert quality.drawn(3, 5, 1, 0) == [0, 1, 2]


@pytest.mark.parametrize("changes", [{}, TWO_KEYS], ids=["zscore", "two-key"])
def test_rows_name_the_facts_of_the_whole_list(monkeypatch, changes) -> None:
    def moments(lm, layers):
        return {layer: moment for layer, moment in tiny_moments(lm).items() if layer in layers}

    monkeypatch.setattr(quality, "cached_moments", moments)
    facts, config = tiny_facts(), tiny_config(steps=2, **changes)
    frame = quality.run(tiny_model(lead="He "), facts, [4, 1, 3], 2, config)
    prompts = frame[frame["metric"] == "reliability"].set_index("fact")["prompt"]
    assert set(prompts.items()) == {(place, facts[place].text) for place in (1, 3, 4)}
    lines = quality.lines("zscore", frame)
    assert any(line.startswith("| zscore | top kept | tokens |") for line in lines)
    assert any(line.startswith("| zscore | locality | generation |") for line in lines)
    assert all(line.count("|") == quality.HEADER.splitlines()[0].count("|") for line in lines)
