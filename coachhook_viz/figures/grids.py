"""Heat maps, side by side on one colour scale: what several pictures are drawn with.

HeatMap       what is to be seen
draw_grids    draws it with either backend
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.patches import Rectangle

from coachhook_viz.figures.style import (
    AFTER,
    FAINT,
    INK,
    LETTER,
    MAGNITUDE,
    PIXELS,
    Backend,
    Live,
    Picture,
    drawn,
    finish_axes,
    literal,
    plotly_figure,
)

_LONGEST = 34  # characters of a label
_CELL = (0.3, 0.22)  # inches
_CELL_WITH_TEXT = (0.56, 0.27)
_WIDEST, _TALLEST = 8.0, 4.4  # inches of all cells
_LINE = 0.17  # inches that a label, or a cell with a frame, needs
_GAP = 0.35  # inches between grids
_BAR = 0.95  # inches of the colour bar and its labels


@dataclass(frozen=True)
class HeatMap:
    """Values by rows and columns, None where there is none: such cells are hatched.

    Attributes
    ----------
    marked : sequence of (row, column)
        Cells that get a frame.
    texts : sequence of sequence of str, optional
        What stands in the cells. None: the values, where the cells are few.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    row_label: str
    column_label: str
    marked: Sequence[tuple[int, int]] = ()
    texts: Sequence[Sequence[str]] | None = None

    @property
    def few(self) -> bool:
        """Whether there is room for text in the cells."""
        return self.texts is not None or (len(self.columns) <= 7 and len(self.rows) <= 20)

    def cell_texts(self, bounds: tuple[float, float], log: bool) -> Sequence[Sequence[str]] | None:
        """What stands in the cells, if anything does."""
        if self.texts is not None or not self.few:
            return self.texts
        digits = max(0, 2 - math.floor(math.log10(bounds[1])))
        form = f".{2 if log else digits}{'g' if log else 'f'}"
        return [
            [
                "" if v is None else f"<{bounds[0]:g}" if log and v < bounds[0] else f"{v:{form}}"
                for v in row
            ]
            for row in self.values
        ]

    def absent(self) -> list[tuple[int, int, int]]:
        """Row, first and last column plus one of each run of cells without a value."""
        runs: list[tuple[int, int, int]] = []
        for i, row in enumerate(self.values):
            for j, value in enumerate(row):
                if value is None and runs and runs[-1][::2] == (i, j):
                    runs[-1] = (i, runs[-1][1], j + 1)
                elif value is None:
                    runs.append((i, j, j + 1))
        return runs


def marks_fit(rows: int) -> bool:
    """Whether cells of that many rows are large enough for frames."""
    return rows * _LINE <= _TALLEST


def draw_grids(
    title: str,
    subtitle: str,
    grids: Sequence[HeatMap],
    scale: str,
    bounds: tuple[float, float],
    backend: Backend,
    log: bool = False,
) -> go.Figure | Picture:
    """One figure of `grids`, which have the same rows and as many columns.

    Parameters
    ----------
    title, subtitle : str
        What is to be seen, and how to read it.
    grids : sequence of HeatMap
    scale : str
        What the colours mean.
    bounds : tuple of float
        Values of the palest and the darkest colour.
    backend : {"plotly", "matplotlib"}
    log : bool
        Colours by order of magnitude.
    """
    return drawn(backend, _plotly, _matplotlib, title, subtitle, grids, scale, bounds, log)


class _Layout:
    """Sizes in inches, the same for both backends."""

    def __init__(self, grids: Sequence[HeatMap]) -> None:
        grid = grids[0]
        rows, columns = len(grid.rows), len(grid.columns)
        wide, tall = _CELL_WITH_TEXT if grid.few else _CELL
        self.cells_width = min(max(wide * columns, 2.4), _WIDEST / len(grids))
        self.cells_height = min(max(tall * rows, 1.1), _TALLEST)
        self.row_ticks = _ticks(grid.rows, self.cells_height)
        self.column_ticks = _ticks(grid.columns, self.cells_width)
        longest = max(map(len, self.column_ticks[1]), default=0) * LETTER
        self.turned = longest > self.cells_width / max(len(self.column_ticks[1]), 1)
        self.bottom = 0.5 + (0.75 * longest + 0.1 if self.turned else 0.1)
        names = max(map(len, self.row_ticks[1]), default=0)
        self.left = 0.25 + LETTER * names + (0.25 if grid.row_label else 0)
        inner = len(grids) * self.cells_width + (len(grids) - 1) * _GAP
        self.spacing = _GAP / inner
        self.width = self.left + inner + _BAR
        self.top = 0.25 if any(grid.title for grid in grids) else 0.0
        self.height = self.top + self.cells_height + self.bottom


def _ticks(labels: Sequence[str], inches: float) -> tuple[list[int], list[str]]:
    """Places and texts: all labels if they can be read, else every n-th."""
    least = len(labels) * _LINE / inches
    every = next(step for step in (1, 2, 5, 10, 20, 50, math.ceil(least)) if step >= least)
    places = list(range(0, len(labels), every))
    return places, [shorten(labels[i], _LONGEST, placeholder=" …") for i in places]


def _plotly(
    title: str,
    subtitle: str,
    grids: Sequence[HeatMap],
    scale: str,
    bounds: tuple[float, float],
    log: bool,
) -> Live:
    layout = _Layout(grids)
    figure = plotly_figure(title, subtitle, layout.width, layout.height, layout.bottom)
    figure.layout.margin.update(
        l=PIXELS * layout.left,
        r=PIXELS * _BAR,
        t=figure.layout.margin.t + PIXELS * layout.top,
    )
    figure.set_subplots(1, len(grids), horizontal_spacing=layout.spacing)
    low, high = (math.log10(bound) for bound in bounds) if log else bounds
    bar: dict[str, Any] = {
        "title": {"text": literal(scale), "side": "right", "font": {"size": 12}},
        "thickness": 10,
        "outlinewidth": 0,
        "len": 1,
        "xpad": 12,
        "ypad": 0,
    }
    if log:
        powers = range(math.ceil(low), math.floor(high) + 1)
        bar |= {"tickvals": list(powers), "ticktext": [f"{10.0**power:g}" for power in powers]}
    for column, grid in enumerate(grids, start=1):
        place = {"row": 1, "col": column}
        values = [
            [None if v is None else math.log10(max(v, bounds[0])) if log else v for v in row]
            for row in grid.values
        ]
        texts = grid.cell_texts(bounds, log)
        figure.add_heatmap(
            z=values,
            customdata=[
                [
                    f"{literal(row)}, {literal(name)}: " + ("–" if v is None else f"{v:.3g}")
                    for name, v in zip(grid.columns, line, strict=True)
                ]
                for row, line in zip(grid.rows, grid.values, strict=True)
            ],
            x=list(range(len(grid.columns))),
            y=list(range(len(grid.rows))),
            zmin=low,
            zmax=high,
            colorscale=MAGNITUDE,
            text=texts,
            texttemplate=None if texts is None else "%{text}",
            textfont={"size": 11},
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=0 if texts is None else 1,
            ygap=0 if texts is None else 1,
            colorbar=bar,
            showscale=column == len(grids),
            **place,
        )
        absent = grid.absent()
        if absent:
            corners = [((a, i), (b, i), (b, i + 1), (a, i + 1), (None, None)) for i, a, b in absent]
            figure.add_scatter(
                x=[None if x is None else x - 0.5 for shape in corners for x, _ in shape],
                y=[None if y is None else y - 0.5 for shape in corners for _, y in shape],
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillpattern={"shape": "/", "fgcolor": FAINT, "bgcolor": "rgba(0,0,0,0)"},
                hoverinfo="skip",
                showlegend=False,
                **place,
            )
        for row, cell in grid.marked:
            figure.add_shape(
                type="rect",
                x0=cell - 0.5,
                x1=cell + 0.5,
                y0=row - 0.5,
                y1=row + 0.5,
                line={"color": AFTER, "width": 2.5},
                **place,
            )
        places, names = layout.column_ticks
        figure.update_xaxes(
            tickvals=places,
            ticktext=[literal(name) for name in names],
            tickangle=-45 if layout.turned else 0,
            range=[-0.5, len(grid.columns) - 0.5],
            title=grid.column_label,
            **place,
        )
        places, names = layout.row_ticks
        figure.update_yaxes(
            tickvals=places,
            ticktext=[literal(name) for name in names],
            range=[len(grid.rows) - 0.5, -0.5],
            title=grid.row_label if column == 1 else None,
            showticklabels=column == 1,
            **place,
        )
        if grid.title:
            figure.add_annotation(
                text=literal(grid.title),
                xref="x domain" if column == 1 else f"x{column} domain",
                yref="paper",
                x=0,
                y=1,
                yanchor="bottom",
                showarrow=False,
            )
    finish_axes(figure)
    figure.update_xaxes(showgrid=False, showline=False)
    figure.update_yaxes(showgrid=False, showline=False)
    return figure


def _matplotlib(
    title: str,
    subtitle: str,
    grids: Sequence[HeatMap],
    scale: str,
    bounds: tuple[float, float],
    log: bool,
) -> Picture:
    layout = _Layout(grids)
    picture = Picture(title, subtitle, layout.width, layout.height)
    row = picture.row_in_ink(len(grids))
    for axes, grid in zip(row, grids, strict=True):
        values = np.array(
            [[np.nan if v is None else max(v, bounds[0]) for v in line] for line in grid.values]
        )
        texts = grid.cell_texts(bounds, log)
        sns.heatmap(
            values,
            ax=axes,
            annot=False if texts is None else np.array(texts),
            fmt="",
            annot_kws={"size": 8},
            cmap=LinearSegmentedColormap.from_list("magnitude", MAGNITUDE),
            norm=(LogNorm if log else Normalize)(*bounds, clip=True),
            cbar=False,
            xticklabels=False,
            yticklabels=False,
            rasterized=True,  # else a large grid makes a huge SVG
        )
        for i, first, end in grid.absent():
            axes.add_patch(
                Rectangle((first, i), end - first, 1, fill=False, hatch="///", ec=(INK, 0.4), lw=0)
            )
        for i, j in grid.marked:
            axes.add_patch(Rectangle((j, i), 1, 1, fill=False, ec=AFTER, lw=2, clip_on=False))
        places, names = layout.column_ticks
        axes.set_xticks([place + 0.5 for place in places])
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticklabels(names, parse_math=False, **(turned if layout.turned else {}))
        places, names = layout.row_ticks
        axes.set_yticks([place + 0.5 for place in places])
        axes.set_yticklabels(names if axes is row[0] else [], parse_math=False)
        axes.tick_params(length=0)
        axes.set_xlabel(grid.column_label)
        axes.set_ylabel(grid.row_label if axes is row[0] else "")
        axes.set_title(grid.title, size=9, loc="left", color=INK)
    bar = picture.colorbar(
        row[-1].collections[0], ax=row, pad=0.015, aspect=layout.cells_height / 0.1, fraction=0.05
    )
    if log:
        bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.ax.minorticks_off()
    bar.ax.yaxis.label.set(color=INK, size=9, parse_math=False)
    bar.set_label(scale)
    bar.outline.set_visible(False)
    return picture
