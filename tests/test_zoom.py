"""Large tables in blocks, and the part of one that a click opens."""

from __future__ import annotations

import numpy as np
import pytest

from coachhook_viz.panels.zoom import Zoom, blocks, means


def zoomed(rows: int, columns: int) -> Zoom:
    zoom = Zoom(4, 3, 12)
    zoom.fit(rows, columns)
    return zoom


@pytest.mark.parametrize(("count", "most"), [(1, 4), (4, 4), (5, 4), (9, 4), (1000, 40), (41, 40)])
def test_blocks_are_all_places_in_their_order(count: int, most: int) -> None:
    found = blocks(range(count), most)
    assert [place for part in found for place in part] == list(range(count))
    assert len(found) <= most
    assert len({len(part) for part in found[:-1]}) <= 1
    assert blocks(range(0), most) == []


def test_means_are_those_of_numpy_and_of_what_is_there() -> None:
    generator = np.random.default_rng(0)
    values = generator.random((23, 17))
    values[generator.random((23, 17)) < 0.4] = np.nan
    values[8:12, 3:6] = np.nan
    rows, columns = blocks(range(4, 23), 5), blocks(range(3, 17), 5)
    found, counts = means(values, rows, columns)
    assert found.shape == counts.shape == (len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            part = values[row.start : row.stop, column.start : column.stop]
            assert counts[i, j] == np.isfinite(part).sum()
            if counts[i, j]:
                assert found[i, j] == pytest.approx(np.nanmean(part))
            else:
                assert np.isnan(found[i, j])
    assert (counts == 0).any()


def test_a_small_table_is_shown_as_it_is() -> None:
    zoom = zoomed(6, 2)
    assert zoom.rows == [range(i, i + 1) for i in range(6)]
    assert zoom.columns == [range(1), range(1, 2)]
    assert not zoom.binned
    assert zoom.whole
    assert zoom.out.hidden
    for place in ([0, 0], [5, 1]):
        assert zoom.shown(place) == zoom.place(place) == place
    assert zoom.shown([]) == []
    zoom.fit(0, 0)
    assert (zoom.rows, zoom.columns, zoom.binned) == ([], [], False)


def test_a_click_opens_a_block_with_what_stands_around_it() -> None:
    zoom = zoomed(10, 7)
    assert zoom.binned
    assert zoom.lengths == (3, 3)
    assert zoom.rows == [range(3), range(3, 6), range(6, 9), range(9, 10)]
    assert zoom.shown([9, 6]) == [3, 2]
    zoom.into([3, 2])  # a corner: the window ends where the table does
    assert not zoom.binned
    assert not zoom.whole
    assert not zoom.out.hidden
    assert zoom.rows == [range(i, i + 1) for i in (6, 7, 8, 9)]
    assert zoom.columns == [range(i, i + 1) for i in (4, 5, 6)]
    assert zoom.place([0, 2]) == [6, 6]
    assert zoom.shown([6, 6]) == [0, 2]
    assert zoom.shown([5, 6]) == []
    zoom.fit(10, 7)  # the same table, measured again
    assert not zoom.whole
    zoom.reset()
    assert zoom.whole
    assert zoom.out.hidden
    zoom.into([1, 1])
    zoom.fit(10, 8)  # another one
    assert zoom.whole


def test_a_block_that_is_too_large_opens_in_blocks() -> None:
    zoom = zoomed(1000, 100)
    seen = set()
    zoom.into([2, 1])
    assert zoom.binned
    assert (zoom.rows[0].start, zoom.rows[-1].stop) == (500, 750)
    assert (zoom.columns[0].start, zoom.columns[-1].stop) == (34, 68)
    for _ in range(10):
        if not zoom.binned:
            break
        seen.add((zoom.rows[0].start, zoom.rows[-1].stop))
        zoom.into([0, 0])
    assert not zoom.binned
    assert zoom.place([0, 0]) == [500, 34]
    assert len(seen) > 1
