from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from coachhook_viz.editing.packing import Packing, share_rows, visible

CPU = torch.device("cpu")
SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 900)), min_size=1, max_size=80)


@given(SIZES)
def test_rows_are_even(sizes: list[tuple[int, int]]) -> None:
    tokens, cached = map(list, zip(*sizes, strict=True))
    rows = share_rows(tokens, cached)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    filled = [sum(tokens[i] for i in row) for row in rows]
    assert max(filled) - min(filled) <= max(tokens)


def test_many_short_sequences_hardly_need_a_pad() -> None:
    tokens = [9] * 6 + [7] * 30 + [2] * 24 + [1] * 10
    rows = share_rows(tokens, [10] * len(tokens))
    longest = max(sum(tokens[i] for i in row) for row in rows)
    assert longest * len(rows) < 1.03 * sum(tokens)


def test_long_prefixes_do_not_pile_up_in_a_row() -> None:
    rows = share_rows([2] * 40, [400] * 40)
    assert max(len(row) for row in rows) == 1


def test_tokens_go_to_cells_and_are_found_there() -> None:
    packing = Packing.of([[range(4, 7), range(2)], [range(2, 4)]], CPU)
    assert packing.tokens.tolist() == [[4, 5, 6, 0, 1], [2, 3, -1, -1, -1]]
    values = torch.arange(14).view(7, 2)
    assert packing.take(values, -9)[1].tolist() == [[4, 5], [6, 7], *[[-9, -9]] * 3]
    assert packing.places([3, 0]).tolist() == [6, 3]


def test_rows_without_a_token() -> None:
    packing = Packing.of([[], [range(3, 3)]], CPU)
    assert packing.take(torch.zeros(3, 4)).shape == (2, 0, 4)


def test_cells_see_their_own_sequence_only() -> None:
    owners, cached = torch.tensor([[0, 0, 1, -1]]), torch.tensor([[1, 0, -2]])
    assert visible(owners, cached)[0].int().tolist() == [
        [0, 1, 0, 1, 0, 0, 0],
        [0, 1, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
