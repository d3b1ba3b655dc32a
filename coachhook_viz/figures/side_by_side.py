"""What `compare` gives, drawn: settings over the rounds, and what success costs under each."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from coachhook_viz.figures.lines import Chart, Line, draw_lines
from coachhook_viz.figures.style import (
    INK,
    Backend,
    Live,
    Look,
    Picture,
    check_backend,
    check_frame,
    drawn,
    finish_axes,
    literal,
    plotly_figure,
)

_SHARE = (-0.03, 1.03)
_LABELS = {
    "reliability": "mean over facts so far",
    "generality": "mean over facts so far",
    "locality": "mean over facts so far",
    "retention": "reliability of earlier facts",
    "perplexity": "perplexity of neutral text",
    "norm": "‖ΔW‖ / ‖W₀‖",
    "seconds": "seconds a fact",
}
_Points = dict[str, tuple[float, float]]  # by setting: success and damage


def settings_over_rounds(
    frame: pd.DataFrame,
    metrics: Sequence[str] = ("retention", "locality", "perplexity", "norm"),
    backend: Backend = "plotly",
) -> go.Figure | Picture:
    """Settings over the rounds: one chart a metric, one line a setting.

    Parameters
    ----------
    frame : DataFrame
        What `compare` gives.
    metrics : sequence of str
        Of the frame's, or "retention": reliability of the facts of all rounds but the last one.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure

    Raises
    ------
    ValueError
        For another backend, an unknown metric, or a frame without the metrics.
    """
    check_backend(backend)
    unknown = [metric for metric in metrics if metric not in _LABELS]
    if unknown:
        raise ValueError(f"there is no metric {unknown[0]!r}: use some of {tuple(_LABELS)}")
    frame = pd.concat([frame, _retention(frame)])
    charts = []
    for metric in metrics:
        part = frame[frame["metric"] == metric]
        lines = [
            Line(str(name), [float(x) for x in of.index], of.tolist())
            for name, of in _means(part).items()
        ]
        if lines:
            shares = part["value"].between(0, 1).all() and part["fact"].notna().all()
            charts.append(Chart(metric, _LABELS[metric], lines, _SHARE if shares else None))
    if not charts:
        check_frame(frame.iloc[:0])
    subtitle = "The same facts in the same rounds; all facts so far are asked after each round"
    return draw_lines("Settings over the rounds", subtitle, charts, backend)


def damage(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """What success costs: one point a setting, after the last round.

    Parameters
    ----------
    frame : DataFrame
        What `compare` gives.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        Reliability to the right; upwards, on the left, the share of the neighbours' answers that
        changed, on the right the perplexity of neutral text in units of the unedited model's. Best
        is the lower right corner.

    Raises
    ------
    ValueError
        For another backend, or a frame without reliability.
    """
    check_backend(backend)
    end = frame[frame["round"] == frame["round"].max()]
    means = end.pivot_table("value", "setting", "metric", sort=False)
    check_frame(means.reindex(columns=["reliability"]).dropna())
    unedited = frame[(frame["round"] == 0) & (frame["metric"] == "perplexity")]["value"]
    sides = {}
    if "locality" in means:
        sides["share of neighbours' answers changed"] = 1 - means["locality"]
    if "perplexity" in means and len(unedited):
        sides["perplexity / unedited"] = means["perplexity"] / float(unedited.iloc[0])
    charts: list[tuple[str, _Points]] = [
        (
            label,
            {
                str(name): (float(means.loc[name, "reliability"]), float(value))
                for name, value in values.dropna().items()
            },
        )
        for label, values in sides.items()
    ]
    subtitle = "After the last round; best is the lower right corner"
    return drawn(backend, _plotly, _matplotlib, "Damage against success", subtitle, charts)


def _retention(frame: pd.DataFrame) -> pd.DataFrame:
    """Reliability of the facts of earlier rounds, under the name of a metric of its own."""
    part = frame[frame["metric"] == "reliability"]
    first = part.groupby(["setting", "fact"])["round"].transform("min")
    return part[part["round"] > first].assign(metric="retention")


def _means(part: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """By setting, the mean by round."""
    return {
        str(name): of.groupby("round")["value"].mean()
        for name, of in part.groupby("setting", sort=False)
    }


def _plotly(title: str, subtitle: str, charts: list[tuple[str, _Points]]) -> Live:
    names = list(dict.fromkeys(name for _, points in charts for name in points))
    figure = plotly_figure(title, subtitle, 8.2, 3.4, 0.6 + 0.22 * (1 + len(names) // 4))
    figure.set_subplots(1, max(len(charts), 1), horizontal_spacing=0.12)
    for column, (label, points) in enumerate(charts, start=1):
        place = {"row": 1, "col": column}
        for name, (success, harm) in points.items():
            look = Look.of(names.index(name), hollow=False)
            figure.add_scatter(
                name=literal(name),
                legendgroup=name,
                showlegend=column == 1,
                x=[success],
                y=[harm],
                mode="markers",
                marker={"color": look.colour, "size": 10, "symbol": look.symbol},
                hovertemplate="reliability %{x:.3f}, %{y:.3f}<extra>%{fullData.name}</extra>",
                **place,
            )
        figure.update_xaxes(title="reliability", range=_SHARE, **place)
        figure.update_yaxes(title=label, **place)
    finish_axes(figure)
    return figure


def _matplotlib(title: str, subtitle: str, charts: list[tuple[str, _Points]]) -> Picture:
    names = list(dict.fromkeys(name for _, points in charts for name in points))
    picture = Picture(title, subtitle, 8.2, 3.4 + 0.22 * (1 + len(names) // 4))
    shown = {}
    for axes, (label, points) in zip(picture.row_in_ink(len(charts)), charts, strict=True):
        for name, (success, harm) in points.items():
            look = Look.of(names.index(name), hollow=False)
            [shown[name]] = axes.plot(
                [success],
                [harm],
                linestyle="none",
                marker=look.marker,
                color=look.colour,
                markerfacecolor=look.face,
                markersize=7,
            )
        axes.set_xlim(*_SHARE)
        axes.set_xlabel("reliability")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25, color=INK)
    picture.legend_in_ink(list(shown.values()), list(shown))
    return picture
