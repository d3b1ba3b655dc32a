"""What the model answers, before and after editing."""

from __future__ import annotations

from textwrap import shorten

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
    drawn,
    finish_axes,
    literal,
    plotly_figure,
    visible,
)

_SIDES = (("before", BEFORE, ""), ("after", AFTER, "///"))
_TITLE = "What the model says next"
_WIDTH, _ROW = 5.6, 0.36  # inches
_RANGE = (0, 1.1)  # room for numbers beside the bars
_FIFTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)


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
    prompt = shorten(visible(prompt.strip(" ")), 120, placeholder=" …")
    names = [visible(token) for token in tokens]
    return drawn(backend, _plotly, _matplotlib, names, shares, f"“{prompt}”")


def _number(share: float | None) -> str:
    return "" if share is None else "<0.01" if share < 0.01 else f"{share:.2f}"


def _plotly(tokens: list[str], shares: list[list[float | None]], prompt: str) -> Live:
    figure = plotly_figure(_TITLE, prompt, _WIDTH, 1.0 + _ROW * len(tokens), 0.85)
    for (name, colour, hatch), share in zip(_SIDES, shares, strict=True):
        figure.add_bar(
            name=name,
            y=list(range(len(tokens))),
            x=share,
            orientation="h",
            marker={
                "color": colour,
                "pattern": {
                    "shape": hatch[:1],
                    "fillmode": "overlay",
                    "fgcolor": "white",
                    "fgopacity": 0.5,
                    "size": 7,
                    "solidity": 0.15,
                },
            },
            text=[_number(value) for value in share],
            textposition="outside",
            textfont={"size": 11},
            cliponaxis=False,
            hovertemplate=f"{name}: %{{x:.3f}}<extra></extra>",
        )
    figure.update_xaxes(title="probability of the next token", range=_RANGE, tickvals=_FIFTHS)
    figure.update_yaxes(
        tickvals=list(range(len(tokens))),
        ticktext=[literal(token) for token in tokens],
        range=[len(tokens) - 0.5, -0.5],
    )
    figure.update_layout(barmode="group", bargap=0.25)
    finish_axes(figure)
    figure.update_yaxes(showgrid=False)
    return figure


def _matplotlib(tokens: list[str], shares: list[list[float | None]], prompt: str) -> Picture:
    picture = Picture(_TITLE, prompt, _WIDTH, 1.0 + _ROW * len(tokens))
    axes = picture.axes_in_ink()
    drawn = []
    for side, ((_, colour, hatch), share) in enumerate(zip(_SIDES, shares, strict=True)):
        places = [i + 0.375 * side - 0.1875 for i in range(len(tokens))]
        widths = [value or 0.0 for value in share]
        faint = (1, 1, 1, 0.5)
        bars = axes.barh(places, widths, 0.375, color=colour, hatch=hatch, edgecolor=faint, lw=0)
        axes.bar_label(bars, map(_number, share), padding=2, size=8, color=INK)
        drawn.append(bars)
    axes.set_yticks(range(len(tokens)))
    axes.set_yticklabels(tokens, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(tokens) - 0.5, -0.5)
    axes.set_xlim(*_RANGE)
    axes.set_xticks(_FIFTHS)
    axes.set_xlabel("probability of the next token")
    axes.grid(axis="x", alpha=0.25, color=INK)
    picture.legend_in_ink(drawn, [name for name, *_ in _SIDES])
    return picture
