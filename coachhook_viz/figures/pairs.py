"""What facts do to each other and to a prompt's tokens, and settings side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.facts import Fact
from coachhook_viz.figures.grids import HeatMap, draw_grids
from coachhook_viz.figures.scope_grid import quoted, token_labels
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
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.measure.quality import METRICS

_WHEN = {
    "own round": "Each fact right after its own round",
    "retained": "Mean over all rounds after a fact's own",
    "end": "All facts after the last round",
}
_MOST_FACTS = 20  # rows of the contributions; the rest is summed up
_SMALLEST = 1e-3  # interference that is drawn as none
_SHARE = (-0.03, 1.16)  # room for numbers above 1
_NUMBERS = 1.06  # where they stand
_FIFTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)


def contributions(
    scope: Scope, layer: int | None = None, backend: Backend = "plotly"
) -> go.Figure | Picture:
    """Facts × tokens: which edits reach each token, ΔW k split into one term a fact.

    Parameters
    ----------
    scope : Scope
        What `Session.scope` gives.
    layer : int, optional
        None: summed over the hooked layers.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        Cells hold the size of each fact's term along ΔW k, whether the scope lets it through or
        not; a frame marks tokens that are in scope. Beyond 20 facts the smaller ones share a row.

    Raises
    ------
    ValueError
        For another backend, if no fact is in force, or the layer is not hooked.
    """
    check_backend(backend)
    if not scope.facts:
        raise ValueError("there is nothing to draw: no fact is in force")
    if layer is not None and layer not in scope.layers:
        raise ValueError(f"layer {layer} is not hooked; hooked are {scope.layers}")
    chosen = slice(None) if layer is None else [scope.layers.index(layer)]
    terms = scope.contributions[chosen].sum(0)  # (facts, tokens)
    inside = scope.in_scope[chosen].any(0)
    order = terms.abs().amax(1).argsort(descending=True).tolist()
    shown = sorted(order[:_MOST_FACTS])
    rows = [f"{scope.facts[i].subject} → {scope.facts[i].target}" for i in shown]
    values = [terms[i].tolist() for i in shown]
    if len(order) > _MOST_FACTS:
        rows.append(f"{len(order) - _MOST_FACTS} other facts")
        values.append(terms[order[_MOST_FACTS:]].sum(0).tolist())
    highest = max(max(map(abs, row)) for row in values) or 1.0
    grid = HeatMap(
        "",
        rows,
        token_labels(scope),
        [[max(value, 0.0) for value in row] for row in values],
        "fact",
        "token",
        [
            (max(range(len(values)), key=lambda row: values[row][token]), token)
            for token in inside.nonzero().flatten().tolist()
        ],
    )
    where = "all hooked layers" if layer is None else f"layer {layer}"
    key = "; framed: in scope, at the fact that gives most" * bool(grid.marked)
    subtitle = f"{quoted(scope)}\n{where[0].upper()}{where[1:]}{key}"
    title = "Which edits reach each token"
    return draw_grids(title, subtitle, [grid], "part of ‖ΔW k‖", (0.0, highest), backend)


def interference(
    frame: pd.DataFrame,
    facts: Mapping[int, Fact] | None = None,
    layer: int | None = None,
    backend: Backend = "plotly",
) -> go.Figure | Picture:
    """Edit × edit: what was to be expected beside what came.

    Parameters
    ----------
    frame : DataFrame
        What `Session.interference` gives.
    facts : mapping of int to Fact, optional
        `Session.facts`, to name the rows by subject.
    layer : int, optional
        None: mean over the hooked layers.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure

    Raises
    ------
    ValueError
        For another backend, or an empty frame.
    """
    check_backend(backend)
    frame = frame if layer is None else frame[frame["layer"] == layer]
    check_frame(frame)
    tables = {
        side: frame.pivot_table(side, index="fact", columns="by")
        for side in ("predicted", "actual")
    }
    ids = [int(str(i)) for i in tables["actual"].index]
    names = [f"{facts[i].subject} · {i}" if facts and i in facts else str(i) for i in ids]
    titles = {
        "predicted": "Predicted before editing",
        "actual": "Actual",
    }
    grids = [
        HeatMap(
            titles[side],
            names,
            [str(i) for i in ids],
            table.to_numpy().tolist(),
            "on the key of fact",
            "effect of the edit of fact",
        )
        for side, table in tables.items()
    ]
    subtitle = "Effect of each edit on each fact's key; 1: as strong as the fact's own edit"
    if len(ids) > 2:
        rho = rank_correlation(frame)["rho"].iloc[-1]
        subtitle += f"; rank correlation of the two: ρ = {rho:.2f}"
    title = "How edits interfere"
    bounds = (_SMALLEST, 1.0)
    return draw_grids(title, subtitle, grids, "relative effect", bounds, backend, log=True)


def comparison(
    frame: pd.DataFrame, reading: str = "end", backend: Backend = "plotly"
) -> go.Figure | Picture:
    """Settings side by side: reliability, generality and locality with their intervals.

    Parameters
    ----------
    frame : DataFrame
        Results of `measure.quality.readings`, each with a column `setting` that names it,
        concatenated.
    reading : str
        "own round", "retained" or "end".
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure

    Raises
    ------
    ValueError
        For another backend, or if the frame has no such reading.
    """
    check_backend(backend)
    frame = frame[(frame["reading"] == reading) & frame["metric"].isin(METRICS)]
    check_frame(frame)
    metrics = [metric for metric in METRICS if metric in set(frame["metric"])]
    settings = list(frame["setting"].unique())
    sides = {
        str(setting): frame[frame["setting"] == setting].set_index("metric").reindex(metrics)
        for setting in settings
    }
    subtitle = f"{_WHEN[reading]}; lines: 95 % interval of the mean"
    content = ("Settings compared", subtitle, metrics, sides)
    return drawn(backend, _points_plotly, _points_matplotlib, *content)


def _width(metrics: list[str], sides: dict[str, pd.DataFrame]) -> float:
    return max(0.9 + 0.45 * len(metrics) * (len(sides) + 1), 5.6)


def _places(metrics: list[str], count: int, i: int) -> list[float]:
    """Where setting `i` of `count` stands for each metric."""
    return [metric + (i + 1) / (count + 1) - 0.5 for metric in range(len(metrics))]


def _points_plotly(
    title: str, subtitle: str, metrics: list[str], sides: dict[str, pd.DataFrame]
) -> Live:
    figure = plotly_figure(title, subtitle, _width(metrics, sides), 3.3, 0.8)
    for i, (name, side) in enumerate(sides.items()):
        look = Look.of(i, hollow=False)
        places = _places(metrics, len(sides), i)
        figure.add_scatter(
            name=literal(name),
            x=places,
            y=side["mean"].tolist(),
            mode="markers",
            marker={"color": look.colour, "size": 9, "symbol": look.symbol},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (side["high"] - side["mean"]).tolist(),
                "arrayminus": (side["mean"] - side["low"]).tolist(),
                "color": look.colour,
                "thickness": 1.6,
                "width": 0,
            },
            customdata=metrics,
            hovertemplate="%{customdata}: %{y:.3f}<extra>%{fullData.name}</extra>",
        )
        for place, mean in zip(places, side["mean"], strict=True):
            figure.add_annotation(
                x=place,
                y=_NUMBERS,
                yanchor="bottom",
                text=f"{mean:.2f}",
                font={"size": 11},
                showarrow=False,
            )
    ends = [-0.5, len(metrics) - 0.5]
    figure.update_xaxes(tickvals=list(range(len(metrics))), ticktext=metrics, range=ends)
    figure.update_yaxes(title="mean over facts", range=_SHARE, tickvals=_FIFTHS)
    finish_axes(figure)
    figure.update_xaxes(showgrid=False)
    return figure


def _points_matplotlib(
    title: str, subtitle: str, metrics: list[str], sides: dict[str, pd.DataFrame]
) -> Picture:
    picture = Picture(title, subtitle, _width(metrics, sides), 3.3)
    axes = picture.axes_in_ink()
    drawn = []
    for i, (_, side) in enumerate(sides.items()):
        look = Look.of(i, hollow=False)
        places = _places(metrics, len(sides), i)
        errors = [side["mean"] - side["low"], side["high"] - side["mean"]]
        drawn.append(
            axes.errorbar(
                places,
                side["mean"],
                errors,
                fmt=look.marker,
                color=look.colour,
                markerfacecolor=look.face,
                markersize=6,
            )
        )
        for place, mean in zip(places, side["mean"], strict=True):
            axes.text(place, _NUMBERS, f"{mean:.2f}", ha="center", size=8, color=INK)
    axes.set_xticks(range(len(metrics)), metrics)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(metrics) - 0.5)
    axes.set_ylim(*_SHARE)
    axes.set_yticks(_FIFTHS)
    axes.set_ylabel("mean over facts")
    axes.grid(axis="y", alpha=0.25, color=INK)
    picture.legend_in_ink(drawn, list(sides))
    return picture
