"""Where the keys of prompts beside an edit stand, and which of them changed."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from coachhook_viz.figures.style import (
    AFTER,
    BEFORE,
    INK,
    Backend,
    Live,
    Picture,
    check_backend,
    check_frame,
    drawn,
    finish_axes,
    literal,
    plotly_figure,
    visible,
)

_TITLE = "What else the edits changed"
_WIDTH, _HEIGHT = 5.6, 4.2  # inches
_LABELS = ("first axis of the whitened keys", "second axis")
_SYMBOLS = {
    "edit": ("star", "*"),
    "paraphrase": ("diamond", "D"),
    "portability": ("triangle-up", "^"),
    "same subject": ("square", "s"),
    "neighbour": ("circle", "o"),
    "bundled": ("x", "x"),
    "text": ("cross", "+"),
}


def what_else(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """A map of the prompts beside some edits, by their keys.

    Parameters
    ----------
    frame : DataFrame
        What `Session.what_else` gives.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        Orange: the answer changed; a dark edge: the hook spoke; one symbol a kind.

    Raises
    ------
    ValueError
        For another backend, or if the frame is empty.
    """
    check_backend(backend)
    check_frame(frame)
    return drawn(backend, _plotly, _matplotlib, dict(iter(frame.groupby("kind", sort=False))))


_HOW = "Orange: the answer changed. Dark edge: the hook spoke."


def _points(part: pd.DataFrame) -> tuple[list[float], list[float], list[str], list[float]]:
    """x, y, colours and edges' widths."""
    colours = [BEFORE if kept else AFTER for kept in part["kept"].tolist()]
    edges = [1.6 if fired else 0.0 for fired in part["fired"].tolist()]
    return part["x"].tolist(), part["y"].tolist(), colours, edges


def _plotly(parts: dict[str, pd.DataFrame]) -> Live:
    figure = plotly_figure(_TITLE, _HOW, _WIDTH, _HEIGHT, 1.0)
    for kind, part in parts.items():
        x, y, colours, edges = _points(part)
        figure.add_scatter(
            name=kind,
            x=x,
            y=y,
            mode="markers",
            marker={
                "symbol": _SYMBOLS[kind][0],
                "size": 9,
                "color": colours,
                "line": {"width": edges, "color": "#222222"},
            },
            text=[
                literal(f"{visible(prompt)}: {before.strip()} → {after.strip()}")
                for prompt, before, after in zip(
                    part["prompt"], part["before"], part["after"], strict=True
                )
            ],
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title=_LABELS[0], showticklabels=False)
    figure.update_yaxes(title=_LABELS[1], showticklabels=False)
    finish_axes(figure)
    return figure


def _matplotlib(parts: dict[str, pd.DataFrame]) -> Picture:
    picture = Picture(_TITLE, _HOW, _WIDTH, _HEIGHT)
    axes = picture.axes_in_ink()
    shown: list[Any] = []
    for kind, part in parts.items():
        x, y, colours, edges = _points(part)
        marker = _SYMBOLS[kind][1]
        line = (
            {"linewidths": 1.2} if marker in "x+" else {"linewidths": edges, "edgecolors": "#222"}
        )
        shown.append(axes.scatter(x, y, 28, c=colours, marker=marker, **line))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(_LABELS[0], color=INK)
    axes.set_ylabel(_LABELS[1], color=INK)
    picture.legend_in_ink(shown, list(parts))
    return picture
