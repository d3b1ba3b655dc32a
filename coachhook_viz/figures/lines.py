"""Lines over rounds or blocks, in charts side by side: what several pictures are drawn with.

Line, Chart    what is to be seen
draw_lines     draws it with either backend
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.ticker import MaxNLocator

from coachhook_viz.figures.style import (
    INK,
    PIXELS,
    Backend,
    Live,
    Look,
    Picture,
    drawn,
    finish_axes,
    literal,
    plotly_figure,
)

_TALL = 2.7  # inches of a chart with its labels
_LEFT = 0.75  # inches of its y axis


@dataclass(frozen=True)
class Line:
    """One line, and where `low` and `high` are given the band around it."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None

    @property
    def band(self) -> tuple[list[float], list[float], list[float]] | None:
        """x, low and high; a lone point gets a band that is wide enough to be seen."""
        if self.low is None or self.high is None:
            return None
        if len(self.x) > 1:
            return self.x, self.low, self.high
        return [self.x[0] - 0.02, self.x[0] + 0.02], self.low * 2, self.high * 2


@dataclass(frozen=True)
class Chart:
    """Lines on common axes; x counts rounds, or what `x_label` and `hover` say.

    Behind the whole numbers in `shaded` the ground is darker.
    """

    title: str
    y_label: str
    lines: Sequence[Line]
    y_range: tuple[float, float] | None = None
    x_label: str = "rounds in force"
    hover: str = "%{y:.4g} after %{x} rounds"
    shaded: Sequence[int] = ()

    @property
    def x_range(self) -> tuple[float, float]:
        """From the first to the last round, and a little more."""
        rounds = [x for line in self.lines for x in line.x] or [0.0]
        spare = 0.06 * (max(rounds) - min(rounds)) or 0.5
        return min(rounds) - spare, max(rounds) + spare


def draw_lines(
    title: str, subtitle: str, charts: Sequence[Chart], backend: Backend
) -> go.Figure | Picture:
    """One figure of `charts`; lines of the same name look the same in each.

    The legend has the lines of charts with several; a lone one is named by its y axis.
    """
    names = list(dict.fromkeys(line.name for chart in charts for line in chart.lines))
    looks = {name: Look.of(i, hollow=True) for i, name in enumerate(names)}
    return drawn(backend, _plotly, _matplotlib, title, subtitle, charts, looks)


def _width(charts: Sequence[Chart]) -> float:
    return {1: 5.6, 2: 8.2}.get(len(charts), 3.4 * len(charts))


def _plotly(title: str, subtitle: str, charts: Sequence[Chart], looks: dict[str, Look]) -> Live:
    legend = any(len(chart.lines) > 1 for chart in charts)
    titled = any(chart.title for chart in charts)
    width, bottom = _width(charts), 0.6 + 0.3 * legend
    figure = plotly_figure(title, subtitle, width, _TALL + 0.3 * legend + 0.2 * titled, bottom)
    figure.layout.margin.update(l=PIXELS * _LEFT, t=figure.layout.margin.t + 20 * titled)
    figure.set_subplots(1, len(charts), horizontal_spacing=_LEFT / width if charts[1:] else 0)
    shown: set[str] = set()
    for column, chart in enumerate(charts, start=1):
        place = {"row": 1, "col": column}
        for line in chart.lines:
            if line.band is not None:
                x, lower, upper = line.band
                figure.add_scatter(
                    x=[*x, *reversed(x)],
                    y=[*upper, *reversed(lower)],
                    mode="lines",
                    fill="toself",
                    fillcolor=_faint(looks[line.name].colour),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=line.name,
                    name=f"{line.name}, interval",
                    **place,
                )
        for line in chart.lines:
            look = looks[line.name]
            figure.add_scatter(
                name=literal(line.name),
                legendgroup=line.name,
                showlegend=len(chart.lines) > 1 and line.name not in shown,
                x=line.x,
                y=line.y,
                mode="lines+markers",
                line={"color": look.colour, "dash": look.dash},
                marker={"size": 8, "symbol": look.symbol, "line": {"width": 1.6}},
                hovertemplate=f"{chart.hover}<extra>%{{fullData.name}}</extra>",
                **place,
            )
            shown.add(line.name)
        for place_ in chart.shaded:
            figure.add_vrect(
                place_ - 0.5, place_ + 0.5, fillcolor=INK, opacity=0.15, line_width=0, **place
            )
        low, high = chart.x_range
        figure.update_xaxes(
            title=chart.x_label,
            range=chart.x_range,
            dtick=1 if high - low <= 15 else None,
            **place,
        )
        figure.update_yaxes(title=chart.y_label, range=chart.y_range, nticks=7, **place)
        if chart.title:
            figure.add_annotation(
                text=literal(chart.title),
                xref="x domain" if column == 1 else f"x{column} domain",
                yref="paper",
                x=0,
                y=1,
                yanchor="bottom",
                showarrow=False,
            )
    finish_axes(figure)
    figure.update_layout(showlegend=legend)
    return figure


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def _matplotlib(
    title: str, subtitle: str, charts: Sequence[Chart], looks: dict[str, Look]
) -> Picture:
    legend = any(len(chart.lines) > 1 for chart in charts)
    titled = any(chart.title for chart in charts)
    height = _TALL + 0.3 * legend + 0.2 * titled
    picture = Picture(title, subtitle, _width(charts), height)
    shown: dict[str, Artist] = {}
    for axes, chart in zip(picture.row_in_ink(len(charts)), charts, strict=True):
        for line in chart.lines:
            look = looks[line.name]
            if line.band is not None:
                axes.fill_between(*line.band, color=look.colour, alpha=0.12, lw=0)
            [drawn] = axes.plot(
                line.x,
                line.y,
                label=line.name,
                color=look.colour,
                marker=look.marker,
                markersize=6,
                markerfacecolor=look.face,
                linestyle=look.style,
            )
            if len(chart.lines) > 1:
                shown.setdefault(line.name, drawn)
        for place in chart.shaded:
            axes.axvspan(place - 0.5, place + 0.5, color=INK, alpha=0.15, lw=0)
        axes.set_xlim(*chart.x_range)
        if chart.y_range is not None:
            axes.set_ylim(*chart.y_range)
        axes.xaxis.set_major_locator(MaxNLocator(15, integer=True, min_n_ticks=1))
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        axes.set_title(chart.title, size=9, loc="left", color=INK)
        axes.grid(alpha=0.25, color=INK)
    if shown:
        picture.legend_in_ink(list(shown.values()), list(shown))
    return picture
