"""Lines over rounds, in panels side by side: what several pictures are drawn with.

Line, Panel    what is to be seen
draw_lines     draws it with either backend
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.ticker import MaxNLocator

from coachhook_viz.figures.style import (
    INK,
    SERIES,
    Backend,
    Picture,
    literal,
    plotly_figure,
)


@dataclass(frozen=True)
class Line:
    """One line, and where `low` and `high` are given the band around it."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Panel:
    """Lines on common axes; x counts rounds."""

    title: str
    y_label: str
    lines: Sequence[Line]
    y_range: tuple[float, float] | None = None
    x_label: str = "rounds in force"


def draw_lines(title: str, panels: Sequence[Panel], backend: Backend) -> go.Figure | Picture:
    """One figure of `panels`; lines of the same name look the same in each."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    looks = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    draw = _plotly if backend == "plotly" else _matplotlib
    return draw(title, panels, looks)


_Looks = dict[str, tuple[str, str, str]]


def _plotly(title: str, panels: Sequence[Panel], looks: _Looks) -> go.Figure:
    figure = plotly_figure(title, 160 + 460 * len(panels), 360)
    figure.set_subplots(1, len(panels), horizontal_spacing=0.12)
    shown: set[str] = set()
    for column, panel in enumerate(panels, start=1):
        place = {"row": 1, "col": column}
        for line in panel.lines:
            colour, _, symbol = looks[line.name]
            if line.low is not None and line.high is not None:
                figure.add_scatter(
                    x=[*line.x, *reversed(line.x)],
                    y=[*line.high, *reversed(line.low)],
                    fill="toself",
                    fillcolor=_faint(colour),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=line.name,
                    name=f"{line.name}, interval",
                    **place,
                )
            figure.add_scatter(
                name=literal(line.name),
                legendgroup=line.name,
                showlegend=line.name not in shown,
                x=line.x,
                y=line.y,
                mode="lines+markers",
                line={"color": colour},
                marker={"size": 8, "symbol": symbol},
                hovertemplate="%{y:.4g} after %{x} rounds<extra>%{fullData.name}</extra>",
                **place,
            )
            shown.add(line.name)
        most = max((x for line in panel.lines for x in line.x), default=1)
        figure.update_xaxes(title=panel.x_label, dtick=1 if most <= 15 else None, **place)
        figure.update_yaxes(title=panel.y_label, range=panel.y_range, **place)
        if panel.title:
            figure.add_annotation(
                text=literal(panel.title),
                xref="x domain" if column == 1 else f"x{column} domain",
                yref="paper",
                x=0,
                y=1.0,
                yanchor="bottom",
                showarrow=False,
                font={"size": 12},
            )
    figure.update_xaxes(automargin=True, linecolor=INK, gridcolor="rgba(117,117,117,0.25)")
    figure.update_yaxes(automargin=True, linecolor=INK, gridcolor="rgba(117,117,117,0.25)")
    top = 1.08 if any(panel.title for panel in panels) else 1.02
    figure.update_layout(
        legend={"orientation": "h", "y": top, "yanchor": "bottom"},
        showlegend=len(shown) > 1,
        margin={"t": 90 if len(shown) > 1 else 70},
    )
    return figure


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _matplotlib(title: str, panels: Sequence[Panel], looks: _Looks) -> Picture:
    width = 1.6 + 4.8 * len(panels)
    picture = Picture(width, 3.6)
    shown: dict[str, Artist] = {}
    for axes, panel in zip(picture.row_in_ink(len(panels)), panels, strict=True):
        for line in panel.lines:
            colour, marker, _ = looks[line.name]
            [drawn] = axes.plot(line.x, line.y, color=colour, marker=marker, markersize=5)
            shown.setdefault(line.name, drawn)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, lw=0)
        if panel.y_range is not None:
            axes.set_ylim(*panel.y_range)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        axes.set_title(panel.title, size=10, loc="left", color=INK)
        axes.grid(alpha=0.25, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
    text = "\n".join(wrap(title, int(13 * width)))
    picture.suptitle(text, size=11, x=0.01, ha="left", color=INK, parse_math=False)
    if len(shown) > 1:
        legend = picture.legend(
            list(shown.values()), list(shown), loc="outside lower left", ncols=6, frameon=False
        )
        for label in legend.get_texts():
            label.set(color=INK, parse_math=False)
    return picture
