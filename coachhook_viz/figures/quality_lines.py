"""Reliability, generality and locality over the rounds."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import seaborn as sns

from coachhook_viz.figures.style import (
    INK,
    Backend,
    Picture,
    check_backend,
    plotly_figure,
)

_TITLE = "How well the edits hold, all facts so far re-scored after each round"
_LOOKS = {  # colour (Okabe–Ito), matplotlib's and plotly's symbol
    "reliability": ("#0072B2", "o", "circle"),
    "generality": ("#E69F00", "s", "square"),
    "locality": ("#009E73", "^", "triangle-up"),
}


def quality(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """Mean of each metric over the facts, by round.

    Parameters
    ----------
    frame : DataFrame
        One or more results of `Session.evaluate`, concatenated: fact, round, metric, value.
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
    if frame.empty:
        raise ValueError("there is nothing to draw: the frame has no measurement")
    return _plotly(frame) if backend == "plotly" else _matplotlib(frame)


def _plotly(frame: pd.DataFrame) -> go.Figure:
    figure = plotly_figure(_TITLE, 620, 340)
    means = frame.pivot_table("value", index="round", columns="metric")
    for metric, (colour, _, symbol) in _LOOKS.items():
        if metric in means:
            figure.add_scatter(
                name=metric,
                x=means[metric].index.tolist(),
                y=means[metric].tolist(),
                mode="lines+markers",
                line={"color": colour},
                marker={"size": 9, "symbol": symbol},
            )
    figure.update_xaxes(title="rounds in force", dtick=1)
    figure.update_yaxes(title="mean over facts", range=[-0.03, 1.03])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    return figure


def _matplotlib(frame: pd.DataFrame) -> Picture:
    picture = Picture(6.4, 3.4)
    axes = picture.axes_in_ink()
    sns.lineplot(
        frame,
        x="round",
        y="value",
        hue="metric",
        style="metric",
        hue_order=list(_LOOKS),
        style_order=list(_LOOKS),
        palette={metric: colour for metric, (colour, _, _) in _LOOKS.items()},
        markers={metric: marker for metric, (_, marker, _) in _LOOKS.items()},
        dashes=False,
        errorbar=None,
        ax=axes,
    )
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(sorted(frame["round"].unique()))
    axes.set_xlabel("rounds in force")
    axes.set_ylabel("mean over facts")
    axes.set_title(_TITLE, size=11, loc="left", color=INK)
    axes.grid(alpha=0.25, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, labelcolor=INK, ncols=3, loc="lower left")
    return picture
