"""The scope grid: which tokens each hook layer reaches."""

from __future__ import annotations

from textwrap import shorten, wrap

import plotly.graph_objects as go
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.figures.style import (
    AFTER,
    IN_SCOPE,
    INK,
    MAGNITUDE,
    Backend,
    Picture,
    check_backend,
    literal,
    plotly_figure,
    visible,
)

_SUBJECT = "▲"
_WIDEST = 100  # inches; more than matplotlib can save


def scope(scope: Scope, backend: Backend = "plotly") -> go.Figure | Picture:
    """Tokens × layers: the score that the rule in force judges, in-scope cells framed and marked ●.

    The subject's last token is marked ▲ if the prompt names a subject.

    Parameters
    ----------
    scope : Scope
        What `Session.scope` gives. Under the match scope the cells hold the best match of any
        fact, else the z-scores; each layer's threshold stands beside its name.
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
    return _plotly(scope) if backend == "plotly" else _matplotlib(scope)


def _title(scope: Scope) -> str:
    prompt = shorten(" ".join(map(visible, scope.prompt.split())), 80, placeholder=" …")
    return f"Where the hook speaks: “{prompt}”"


def _below(scope: Scope) -> str:
    marks = "framed ●: in scope" + (
        f"; {_SUBJECT}: subject's last" * (scope.subject_last is not None)
    )
    if scope.kind == "match":
        return f"token (cell: best match with any edited fact; {marks})"
    ceiling = f"highest possible with {len(scope.tokens)} tokens: {scope.ceiling:.2f}"
    return f"token (cell: z-score, {ceiling}; {marks})"


def _tokens(scope: Scope) -> list[str]:
    shown = [visible(token) for token in scope.tokens]
    if scope.subject_last is not None:
        shown[scope.subject_last] += f" {_SUBJECT}"
    return shown


def _bounds(scores: list[list[float]]) -> tuple[float, float]:
    flat = [score for row in scores for score in row]
    low, high = min(flat), max(flat)
    return low, high if high > low else low + 1


def _cells(scores: list[list[float]], inside: list[list[bool]]) -> list[list[str]]:
    return [
        [f"{score:.2f}" + f" {IN_SCOPE}" * hit for score, hit in zip(row, hits, strict=True)]
        for row, hits in zip(scores, inside, strict=True)
    ]


def _score_name(scope: Scope) -> str:
    return "best match" if scope.kind == "match" else "z-score"


def _plotly(scope: Scope) -> go.Figure:
    scores, inside = scope.scores.tolist(), scope.in_scope.tolist()
    low, high = _bounds(scores)
    tokens = list(map(literal, _tokens(scope)))
    layers = scope.layer_names
    figure = plotly_figure(
        _title(scope), 260 + max(54 * len(tokens), 380), 190 + 38 * len(scope.layers)
    )
    figure.add_heatmap(
        z=scores,
        x=list(range(len(tokens))),
        y=list(range(len(layers))),
        zmin=low,
        zmax=high,
        colorscale=MAGNITUDE,
        text=_cells(scores, inside),
        texttemplate="%{text}",
        customdata=[[f"{token}, {layer}" for token in tokens] for layer in layers],
        hovertemplate="%{customdata}: %{text}<extra></extra>",
        xgap=3,
        ygap=3,
        colorbar={"title": _score_name(scope), "thickness": 12},
    )
    for row, hits in enumerate(inside):
        for column, hit in enumerate(hits):
            if hit:
                figure.add_shape(
                    type="rect",
                    x0=column - 0.5,
                    x1=column + 0.5,
                    y0=row - 0.5,
                    y1=row + 0.5,
                    line={"color": AFTER, "width": 3},
                )
    figure.update_xaxes(
        tickvals=list(range(len(tokens))), ticktext=tokens, title=_below(scope), showgrid=False
    )
    figure.update_yaxes(
        tickvals=list(range(len(layers))), ticktext=layers, autorange="reversed", showgrid=False
    )
    return figure


def _matplotlib(scope: Scope) -> Picture:
    scores, inside = scope.scores.tolist(), scope.in_scope.tolist()
    low, high = _bounds(scores)
    count = len(scope.tokens)
    width = min(2.4 + max(0.66 * count, 4.5), _WIDEST)
    picture = Picture(width, 1.7 + 0.42 * len(scope.layers))
    axes = picture.axes_in_ink()
    sns.heatmap(
        scores,
        ax=axes,
        annot=_cells(scores, inside),
        fmt="",
        annot_kws={"size": 8},
        cmap=LinearSegmentedColormap.from_list("magnitude", MAGNITUDE),
        vmin=low,
        vmax=high,
        linewidths=2,
        linecolor="none",
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": _score_name(scope), "pad": 0.01, "aspect": 12},
    )
    for row, hits in enumerate(inside):
        for column, hit in enumerate(hits):
            if hit:
                frame = Rectangle((column + 0.02, row + 0.03), 0.96, 0.94)
                frame.set(fill=False, edgecolor=AFTER, linewidth=2.5)
                axes.add_patch(frame)
    axes.set_xticks([i + 0.5 for i in range(count)])
    axes.set_xticklabels(
        _tokens(scope),
        rotation=30,
        ha="right",
        rotation_mode="anchor",
        parse_math=False,
    )
    axes.set_yticks([i + 0.5 for i in range(len(scope.layers))], scope.layer_names, rotation=0)
    axes.tick_params(length=0)
    axes.set_xlabel("\n".join(wrap(_below(scope), 90)), size=9)
    axes.set_title(
        "\n".join(wrap(_title(scope), 70)), size=11, loc="left", color=INK, parse_math=False
    )
    bar = picture.axes[-1]
    bar.tick_params(colors=INK, labelsize=8)
    bar.yaxis.label.set(color=INK, size=9)
    return picture
