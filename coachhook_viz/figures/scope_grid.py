"""The scope grid: which tokens each hook layer reaches."""

from __future__ import annotations

from textwrap import shorten

import plotly.graph_objects as go

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.figures.grids import HeatMap, draw_grids
from coachhook_viz.figures.style import IN_SCOPE, Backend, Picture, check_backend, visible

_SUBJECT = "▲"
_MOST_TOKENS = 15  # that still get their score in numbers


def scope(scope: Scope, backend: Backend = "plotly") -> go.Figure | Picture:
    """Tokens × layers: the score that the rule in force judges, in-scope cells framed and marked ●.

    The subject's last token is marked ▲ if the prompt names a subject.

    Parameters
    ----------
    scope : Scope
        What `Session.scope` gives. Under the match scope the cells hold the match of the fact
        that is closest to its τ, under the two-key scope of any open one, else the z-scores; as
        numbers too up to 15 tokens. Each layer's thresholds stand beside its name.
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
    scores, inside = scope.scores.tolist(), scope.in_scope.tolist()
    match = scope.matches
    numbers = len(scope.tokens) <= _MOST_TOKENS
    texts = [
        [f"{score:.2f}" * numbers + f" {IN_SCOPE}" * hit for score, hit in zip(*row, strict=True)]
        for row in zip(scores, inside, strict=True)
    ]
    grid = HeatMap(
        "",
        scope.layer_names,
        token_labels(scope),
        scores,
        "",
        "token",
        [(i, j) for i, row in enumerate(inside) for j, hit in enumerate(row) if hit],
        texts,
    )
    # from the lowest score to the highest that there can be, so that pale stays pale
    lowest = 0.0 if match else min(map(min, scores))
    highest = max(1.0 if match else scope.ceiling, *map(max, scores), lowest + 1e-9)
    name = "match" if match else "z-score"
    subtitle = f"{quoted(scope)}\n{_key(scope)}"
    return draw_grids("Where the hook speaks", subtitle, [grid], name, (lowest, highest), backend)


def token_labels(scope: Scope) -> list[str]:
    """The tokens as one can read them, the subject's last one marked."""
    shown = [visible(token) for token in scope.tokens]
    if scope.subject_last is not None:
        shown[scope.subject_last] += f" {_SUBJECT}"
    return shown


def quoted(scope: Scope) -> str:
    """The prompt for a subtitle."""
    prompt = shorten(visible(scope.prompt.strip(" ")), 120, placeholder=" …")
    return f"“{prompt}”"


def _key(scope: Scope) -> str:
    """How to read it."""
    marks = [f"framed {IN_SCOPE}: in scope"] * bool(scope.in_scope.any())
    if scope.subject_last is not None:
        marks.append(f"{_SUBJECT}: subject's last")
    if scope.matches:
        marks.append("score: match of the fact closest to its τ")
    else:
        marks.append(f"highest possible with {len(scope.tokens)} tokens: {scope.ceiling:.2f}")
    return " · ".join(marks)
