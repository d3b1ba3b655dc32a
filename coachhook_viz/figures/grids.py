"""Heat maps, side by side on one colour scale: what several pictures are drawn with.

Grid          what is to be seen
draw_grids    draws it with either backend
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten, wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

from coachhook_viz.figures.style import (
    AFTER,
    INK,
    MAGNITUDE,
    Backend,
    Picture,
    literal,
    plotly_figure,
)

_READABLE = 30  # rows or columns that still get a label each
_LONGEST = 34  # characters of a label


@dataclass(frozen=True)
class Grid:
    """Values by rows and columns, None where there is none.

    Attributes
    ----------
    marked : sequence of (row, column)
        Cells that get a cross, where rows and columns are few enough for it.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    row_label: str
    column_label: str
    marked: Sequence[tuple[int, int]] = ()

    @property
    def crosses(self) -> Sequence[tuple[int, int]]:
        """The `marked` cells if they are large enough."""
        large = max(len(self.rows), len(self.columns)) <= _READABLE
        return self.marked if large else ()


def draw_grids(
    title: str,
    grids: Sequence[Grid],
    scale: str,
    bounds: tuple[float, float],
    backend: Backend,
    log: bool = False,
) -> go.Figure | Picture:
    """One figure of `grids`.

    Parameters
    ----------
    title : str
    grids : sequence of Grid
    scale : str
        What the colours mean.
    bounds : tuple of float
        Values of the palest and the darkest colour.
    backend : {"plotly", "matplotlib"}
    log : bool
        Colours by order of magnitude.
    """
    draw = _plotly if backend == "plotly" else _matplotlib
    return draw(title, grids, scale, bounds, log)


def _ticks(labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """Places and texts: all labels if they can be read, else every n-th."""
    every = math.ceil(len(labels) / _READABLE) or 1
    places = list(range(0, len(labels), every))
    return places, [shorten(labels[i], _LONGEST, placeholder=" …") for i in places]


def _size(grids: Sequence[Grid]) -> tuple[float, float]:
    """Inches of one grid: a cell is large while there are few."""
    rows, columns = (max(len(getattr(g, side)) for g in grids) for side in ("rows", "columns"))
    return (
        min(max(0.42 * columns, 2.6), 0.025 * columns + 3.6),
        min(max(0.28 * rows, 1.6), 0.025 * rows + 3.2),
    )


def _plotly(
    title: str, grids: Sequence[Grid], scale: str, bounds: tuple[float, float], log: bool
) -> go.Figure:
    width, height = _size(grids)
    figure = plotly_figure(
        title, int(240 + len(grids) * (72 * width + 190)), int(170 + 72 * height)
    )
    figure.set_subplots(1, len(grids), horizontal_spacing=0.2 if len(grids) > 1 else 0)
    low, high = (math.log10(bound) for bound in bounds) if log else bounds
    bar: dict[str, Any] = {"title": {"text": literal(scale), "side": "right"}, "thickness": 12}
    if log:
        powers = range(math.ceil(low), math.floor(high) + 1)
        bar |= {"tickvals": list(powers), "ticktext": [f"{10.0**power:g}" for power in powers]}
    for column, grid in enumerate(grids, start=1):
        place = {"row": 1, "col": column}
        values = [
            [None if v is None else math.log10(max(v, bounds[0])) if log else v for v in row]
            for row in grid.values
        ]
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
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=1 if len(grid.columns) <= _READABLE else 0,
            ygap=1 if len(grid.rows) <= _READABLE else 0,
            colorbar=bar,
            showscale=column == len(grids),
            **place,
        )
        if grid.crosses:
            figure.add_scatter(
                x=[cell[1] for cell in grid.crosses],
                y=[cell[0] for cell in grid.crosses],
                mode="markers",
                marker={"symbol": "x-thin", "size": 7, "line": {"color": AFTER, "width": 2}},
                hoverinfo="skip",
                showlegend=False,
                **place,
            )
        places, texts = _ticks(grid.columns)
        figure.update_xaxes(
            tickvals=places,
            ticktext=[literal(text) for text in texts],
            title=grid.column_label,
            showgrid=False,
            zeroline=False,
            **place,
        )
        places, texts = _ticks(grid.rows)
        figure.update_yaxes(
            tickvals=places,
            ticktext=[literal(text) for text in texts],
            title=grid.row_label,
            autorange="reversed",
            showgrid=False,
            zeroline=False,
            **place,
        )
        if grid.title:
            figure.add_annotation(
                text=literal(grid.title),
                xref="x domain" if column == 1 else f"x{column} domain",
                yref="paper",
                x=0,
                y=1.01,
                yanchor="bottom",
                showarrow=False,
                font={"size": 12},
            )
    figure.update_xaxes(automargin=True, linecolor=INK)
    figure.update_yaxes(automargin=True, linecolor=INK)
    return figure


def _matplotlib(
    title: str, grids: Sequence[Grid], scale: str, bounds: tuple[float, float], log: bool
) -> Picture:
    width, height = _size(grids)
    whole = 1.0 + len(grids) * (width + 2.2)
    picture = Picture(whole, height + 1.5)
    row = picture.row_in_ink(len(grids))
    shades = LinearSegmentedColormap.from_list("magnitude", MAGNITUDE)
    norm = (LogNorm if log else Normalize)(*bounds, clip=True)
    for axes, grid in zip(row, grids, strict=True):
        values = np.array(
            [[np.nan if v is None else max(v, bounds[0]) for v in line] for line in grid.values]
        )
        image = axes.imshow(values, cmap=shades, norm=norm, aspect="auto", interpolation="nearest")
        if grid.crosses:
            rows, columns = zip(*grid.crosses, strict=True)
            axes.scatter(columns, rows, marker="x", s=24, c=AFTER, linewidths=1.6)
        for axis, labels in ((axes.xaxis, grid.columns), (axes.yaxis, grid.rows)):
            places, texts = _ticks(labels)
            axis.set_ticks(places)
            axis.set_ticklabels(texts, parse_math=False)
        if max(map(len, grid.columns), default=0) > 4:
            axes.tick_params(axis="x", rotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.tick_params(length=0, labelsize=8)
        axes.set_xlabel(grid.column_label)
        axes.set_ylabel(grid.row_label)
        axes.set_title(grid.title, size=10, loc="left", color=INK)
    bar = picture.colorbar(image, ax=row, pad=0.015, aspect=24, fraction=0.05)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.ax.yaxis.label.set(color=INK, size=9)
    bar.set_label(scale)
    bar.outline.set_visible(False)
    text = "\n".join(wrap(title, int(13 * whole)))
    picture.suptitle(text, size=11, x=0.01, ha="left", color=INK, parse_math=False)
    return picture
