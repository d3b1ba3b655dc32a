from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from coachhook_viz.editing.scope import ceiling, threshold, z_scores

# multiples of 1e-3: of norms thirty orders of magnitude apart no float64 keeps the differences
some_norm = st.floats(0.0, 1e3, width=32).map(lambda norm: round(norm, 3))
norm_lists = st.lists(some_norm, min_size=2, max_size=12)


def whole(norms: Tensor, mask: Tensor | None = None) -> Tensor:
    """z-scores by the published rule: every token against the whole sequence."""
    mask = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
    last = torch.full(norms.shape, norms.shape[1] - 1)
    return z_scores(norms, mask, last)


@given(norm_lists)
def test_z_scores_are_the_textbook_ones(values: list[float]) -> None:
    norms = torch.tensor([values], dtype=torch.float64)
    std = norms.std()
    z = whole(norms)
    if std > 1e-4 * norms.mean():
        torch.testing.assert_close(z, (norms - norms.mean()) / std, atol=1e-6, rtol=1e-6)
        assert z.max() <= ceiling(len(values)) + 1e-6


@given(norm_lists, st.integers(0, 4), st.integers(0, 4))
def test_pads_never_count(values: list[float], left: int, right: int) -> None:
    alone = whole(torch.tensor([values]))
    padded = torch.tensor([[7e3] * left + values + [7e3] * right])
    mask = torch.tensor([[False] * left + [True] * len(values) + [False] * right])
    z = whole(padded, mask)
    torch.testing.assert_close(z[mask], alone[0], atol=1e-9, rtol=1e-9)
    assert (z[~mask] == -math.inf).all()


@given(norm_lists, st.data())
def test_cached_steps_judge_as_one_pass_with_horizons(
    values: list[float], data: st.DataObject
) -> None:
    """Prompt first, then token by token, equals one pass that knows where the prompt ended."""
    prompt = data.draw(st.integers(1, len(values)))
    norms = torch.tensor([values])
    mask = torch.ones_like(norms, dtype=torch.bool)
    positions = torch.arange(len(values))[None]
    once = z_scores(norms, mask, positions.clamp_min(prompt - 1))
    steps = [whole(norms[:, :prompt])]
    for end in range(prompt + 1, len(values) + 1):
        horizon = torch.tensor([[end - 1]])
        steps.append(z_scores(norms[:, :end], mask[:, :end], horizon))
    torch.testing.assert_close(torch.cat(steps, 1), once, atol=1e-9, rtol=1e-9)


@given(hnp.arrays("float32", 5, elements=st.floats(0.0, 10.0, width=32)), st.floats(0.1, 100))
def test_z_scores_have_no_unit(values, scale: float) -> None:
    norms = torch.from_numpy(values)[None].double()
    if norms.std() > 1e-3:
        torch.testing.assert_close(whole(norms * scale), whole(norms), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [2.0] * 7, [1e-30] * 3])
def test_where_nothing_stands_out_z_is_zero(values: list[float]) -> None:
    assert (whole(torch.tensor([values])) == 0).all()


def test_ceiling_is_reached_by_one_outlier() -> None:
    z = whole(torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]]))
    assert float(z.max()) == pytest.approx(ceiling(6)) == pytest.approx(5 / math.sqrt(6))
    assert ceiling(6) < 2.2 < ceiling(7)


@given(st.floats(0, 3), st.lists(st.floats(0, 3), min_size=1, max_size=5))
def test_threshold_never_rises_and_lets_every_prompt_in(alpha: float, peaks: list[float]) -> None:
    new = threshold(alpha, torch.tensor(peaks, dtype=torch.float64), 1e-3)
    assert new <= alpha
    assert all(peak >= new for peak in peaks)
    assert new == alpha or new == pytest.approx(min(peaks) - 1e-3)
