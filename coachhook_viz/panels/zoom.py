"""A table too large to be drawn cell by cell: all of it in blocks, or a part of it in full.

Zoom      which rows and columns of the table stand in which row and column of a grid
blocks    places in runs of one length
means     mean and number of the values in each block
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coachhook_viz.panels.controls import Button


def blocks(places: range, most: int) -> list[range]:
    """`places` in at most `most` runs of one length; the last may be shorter."""
    length = -(-len(places) // most) if places else 1
    return [places[start : start + length] for start in range(0, len(places), length)]


def means(
    values: NDArray[np.float64], rows: Sequence[range], columns: Sequence[range]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean of each block's values, NaN where it has none, and how many it has.

    Parameters
    ----------
    values : array
        (all rows, all columns), NaN where there is nothing.
    rows, columns : sequence of range
        Blocks, one after the other, at least one of each.
    """
    part = values[rows[0].start : rows[-1].stop, columns[0].start : columns[-1].stop]
    there = ~np.isnan(part)
    sums, counts = np.where(there, part, 0.0), there.astype(np.int64)
    for axis, runs in enumerate((rows, columns)):
        starts = [run.start - runs[0].start for run in runs]
        sums, counts = (np.add.reduceat(one, starts, axis) for one in (sums, counts))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts


class Zoom:
    """Which part of a large table a grid shows.

    A table of at most `cells` cells is shown as it is. A larger one is shown in blocks, each the
    mean of what stands in it; a click into a block opens it, together with as much of what stands
    around it as has room.

    Parameters
    ----------
    rows, columns : int
        Most of them in a grid that is in blocks, or a part of a table.
    cells : int
        Most cells of a table that is shown as it is.

    Attributes
    ----------
    rows, columns : list of range
        The table's places that stand in each row and column of the grid.
    out : Button
        Back to all; hidden where all is shown.
    """

    def __init__(self, rows: int, columns: int, cells: int) -> None:
        self._most = rows, columns
        self._cells = cells
        self._size = 0, 0
        self._window = range(0), range(0)
        self.rows: list[range] = []
        self.columns: list[range] = []
        self.out = Button("Zoom out", "quiet", hidden=True, tip="all of it, in blocks")

    @property
    def binned(self) -> bool:
        """Whether a cell of the grid stands for several of the table."""
        return any(len(part) > 1 for part in (*self.rows, *self.columns))

    @property
    def lengths(self) -> tuple[int, int]:
        """How many rows and columns of the table a block has; the last ones may have fewer."""
        return max(map(len, self.rows), default=1), max(map(len, self.columns), default=1)

    @property
    def whole(self) -> bool:
        """Whether the whole table is shown, in blocks or as it is."""
        return tuple(map(len, self._window)) == self._size

    def fit(self, rows: int, columns: int) -> None:
        """Show a table of that size: the same part as before, if the size is the same."""
        if (rows, columns) != self._size:
            self._size = rows, columns
            self.reset()

    def reset(self) -> None:
        """Show all."""
        self._show(range(self._size[0]), range(self._size[1]))

    def into(self, at: Sequence[int]) -> None:
        """Open the block that stands in this row and column of the grid."""
        parts = self.rows[at[0]], self.columns[at[1]]
        self._show(*map(_around, parts, self._most, self._size))

    def shown(self, place: Sequence[int]) -> list[int]:
        """Row and column of the grid where a place of the table stands; empty where it does not."""
        found = [
            next((i for i, part in enumerate(parts) if one in part), None)
            for one, parts in zip(place, (self.rows, self.columns), strict=False)
        ]
        return [] if None in found else [i for i in found if i is not None]

    def place(self, at: Sequence[int]) -> list[int]:
        """Row and column of the table that stand in those of the grid; of a block the first."""
        return [self.rows[at[0]].start, self.columns[at[1]].start]

    def _show(self, rows: range, columns: range) -> None:
        self._window = rows, columns
        few = len(rows) * len(columns) <= self._cells
        most = (len(rows), len(columns)) if few else self._most
        self.rows, self.columns = (blocks(*pair) for pair in zip(self._window, most, strict=True))
        self.out.hidden = self.whole


def _around(part: range, most: int, size: int) -> range:
    """A run with as many of its neighbours as make `most`."""
    if len(part) >= most:
        return part
    start = min(max(part.start - (most - len(part)) // 2, 0), max(size - most, 0))
    return range(start, min(start + most, size))
