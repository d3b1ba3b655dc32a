"""What facts do to each other and to a prompt's tokens, and settings side by side."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten

import pandas as pd
import plotly.graph_objects as go

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.facts import Fact
from coachhook_viz.figures.grids import Grid, draw_grids
from coachhook_viz.figures.style import (
    INK,
    SERIES,
    STRIPES,
    Backend,
    Picture,
    check_backend,
    check_frame,
    literal,
    plotly_figure,
    visible,
)
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.measure.quality import METRICS

_WHEN = {
    "own round": ", each fact right after its own round",
    "retained": ", mean over all rounds after a fact's own",
    "end": ", all facts at the end",
}
_MOST_FACTS = 20  # rows of the contributions; the rest is summed up
_SMALLEST = 1e-3  # interference that is drawn as none
_PATTERNS = ("", "/", ".", "x", "\\", "-")
_HATCHES = ("", "//", "..", "xx", "\\\\", "--")


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
        not; a cross marks tokens that are in scope. Beyond 20 facts the smaller ones share a row.

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
    rows = [str(scope.facts[i]) for i in shown]
    values = [terms[i].tolist() for i in shown]
    if len(order) > _MOST_FACTS:
        rows.append(f"{len(order) - _MOST_FACTS} other facts")
        values.append(terms[order[_MOST_FACTS:]].sum(0).tolist())
    highest = max(max(map(abs, row)) for row in values) or 1.0
    grid = Grid(
        "",
        rows,
        [visible(token) for token in scope.tokens],
        [[max(value, 0.0) for value in row] for row in values],
        "fact",
        "token (×: in scope, from the fact that gives most)",
        [
            (max(range(len(values)), key=lambda row: values[row][token]), token)
            for token in inside.nonzero().flatten().tolist()
        ],
    )
    where = "all hooked layers" if layer is None else f"layer {layer}"
    prompt = shorten(" ".join(map(visible, scope.prompt.split())), 70, placeholder=" …")
    title = f"Which edits reach each token of “{prompt}” ({where})"
    return draw_grids(title, [grid], "share of ‖ΔW k‖ in its direction", (0.0, highest), backend)


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
        "predicted": "Predicted before editing, from keys and order",
        "actual": "Actual: effect on the other's key",
    }
    grids = [
        Grid(
            titles[side],
            names,
            [str(i) for i in ids],
            table.to_numpy().tolist(),
            "acts on the key of fact",
            "edit of fact",
        )
        for side, table in tables.items()
    ]
    title = "Interference of edits, in units of each fact's own effect"
    if len(ids) > 2:
        rho = rank_correlation(frame)["rho"].iloc[-1]
        title += f" (rank correlation ρ = {rho:.2f})"
    return draw_grids(title, grids, "1: as strong as its own", (_SMALLEST, 1.0), backend, log=True)


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
    title = f"Settings compared{_WHEN[reading]}"
    metrics = [metric for metric in METRICS if metric in set(frame["metric"])]
    settings = list(frame["setting"].unique())
    sides = {
        str(setting): frame[frame["setting"] == setting].set_index("metric").reindex(metrics)
        for setting in settings
    }
    draw = _bars_plotly if backend == "plotly" else _bars_matplotlib
    return draw(title, metrics, sides)


def _bars_plotly(title: str, metrics: list[str], sides: dict[str, pd.DataFrame]) -> go.Figure:
    figure = plotly_figure(title, 240 + 90 * len(metrics) * len(sides), 380)
    for i, (name, side) in enumerate(sides.items()):
        figure.add_bar(
            name=literal(name),
            x=metrics,
            y=side["mean"].tolist(),
            marker={
                "color": SERIES[i % len(SERIES)][0],
                "pattern": {"shape": _PATTERNS[i % len(_PATTERNS)], **STRIPES},
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (side["high"] - side["mean"]).tolist(),
                "arrayminus": (side["mean"] - side["low"]).tolist(),
                "color": INK,
            },
            text=[f"{value:.2f}" for value in side["mean"]],
            textposition="inside",
            insidetextanchor="start",
            hovertemplate="%{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
        )
    figure.update_yaxes(title="mean over facts, 95 % interval", range=[0, 1.05])
    figure.update_layout(
        barmode="group",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"t": 90},
    )
    return figure


def _bars_matplotlib(title: str, metrics: list[str], sides: dict[str, pd.DataFrame]) -> Picture:
    picture = Picture(2.6 + 0.9 * len(metrics) * len(sides), 3.8)
    axes = picture.axes_in_ink()
    width = 0.8 / len(sides)
    for i, (name, side) in enumerate(sides.items()):
        places = [place - 0.4 + (i + 0.5) * width for place in range(len(metrics))]
        errors = [side["mean"] - side["low"], side["high"] - side["mean"]]
        axes.bar(
            places,
            side["mean"],
            width * 0.92,
            label=name,
            color=SERIES[i % len(SERIES)][0],
            hatch=_HATCHES[i % len(_HATCHES)],
            edgecolor="white",
            linewidth=0,
            yerr=errors,
            error_kw={"ecolor": INK, "elinewidth": 1.2, "capsize": 3},
        )
        for place, value in zip(places, side["mean"], strict=True):
            axes.annotate(
                f"{value:.2f}", (place, 0.02), ha="center", size=8, color="white", weight="bold"
            )
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("mean over facts, 95 % interval")
    axes.set_title(title, size=11, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, color=INK)
    axes.set_axisbelow(True)
    legend = picture.legend(loc="outside lower left", ncols=4, frameon=False)
    for label in legend.get_texts():
        label.set(color=INK, parse_math=False)
    return picture
