"""What the model answers, before and after editing."""

from __future__ import annotations

from textwrap import shorten, wrap

import pandas as pd
import plotly.graph_objects as go

from coachhook_viz.figures.style import (
    AFTER,
    BEFORE,
    INK,
    STRIPES,
    Backend,
    Picture,
    check_backend,
    literal,
    plotly_figure,
    visible,
)

_SIDES = (("before", BEFORE, ""), ("after", AFTER, "///"))


def answers(
    before: pd.DataFrame, after: pd.DataFrame, prompt: str, backend: Backend = "plotly"
) -> go.Figure | Picture:
    """The likeliest next tokens, unedited beside edited.

    Parameters
    ----------
    before, after : DataFrame
        What `Session.predict` gives with ``edited=False`` and ``edited=True``: token, probability.
        A token that only one of them has gets no bar on the other side, where its probability is
        smaller than any that is shown; tokens that read the same are added up.
    prompt : str
        For the title.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure

    Raises
    ------
    ValueError
        For another backend.
    """
    check_backend(backend)
    sides = [frame.groupby("token")["probability"].sum() for frame in (before, after)]
    tokens = sorted(
        dict.fromkeys([*before["token"], *after["token"]]),
        key=lambda token: -max(side.get(token, 0.0) for side in sides),
    )
    shares = [[side.get(token) for token in tokens] for side in sides]
    title = f"Next token after “{shorten(prompt, 80, placeholder=' …')}”"
    draw = _plotly if backend == "plotly" else _matplotlib
    return draw([visible(token) for token in tokens], shares, title)


def _plotly(tokens: list[str], shares: list[list[float | None]], title: str) -> go.Figure:
    figure = plotly_figure(title, 560, 130 + 38 * len(tokens))
    for (name, colour, hatch), share in zip(_SIDES, shares, strict=True):
        figure.add_bar(
            name=name,
            y=list(range(len(tokens))),
            x=share,
            orientation="h",
            marker={"color": colour, "pattern": {"shape": hatch[:1], **STRIPES}},
            hovertemplate=f"{name}: %{{x:.3f}}<extra></extra>",
        )
    figure.update_xaxes(title="probability", range=[0, 1])
    figure.update_yaxes(
        tickvals=list(range(len(tokens))),
        ticktext=[literal(token) for token in tokens],
        autorange="reversed",
        showgrid=False,
    )
    figure.update_layout(
        barmode="group", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    )
    return figure


def _matplotlib(tokens: list[str], shares: list[list[float | None]], title: str) -> Picture:
    picture = Picture(6.0, 1.2 + 0.36 * len(tokens))
    axes = picture.axes_in_ink()
    for side, ((name, colour, hatch), share) in enumerate(zip(_SIDES, shares, strict=True)):
        places = [i + 0.4 * side - 0.2 for i in range(len(tokens))]
        widths = [value or 0.0 for value in share]
        axes.barh(
            places, widths, 0.38, label=name, color=colour, hatch=hatch, edgecolor="white", lw=0
        )
    axes.set_yticks(range(len(tokens)))
    axes.set_yticklabels(tokens, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability")
    axes.set_title("\n".join(wrap(title, 62)), size=11, loc="left", color=INK, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    return picture
