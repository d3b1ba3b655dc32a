"""What `guide` found: the blocks of a model, and the settings that were tried."""

from __future__ import annotations

import plotly.graph_objects as go

from coachhook_viz.figures.lines import Chart, Line, draw_lines
from coachhook_viz.figures.style import Backend, Picture, check_backend, visible
from coachhook_viz.measure.guide import Guide

_SHARE = (-0.03, 1.03)
_METRICS = {
    "reliability": "reliability",
    "generality": "generality",
    "locality": "neighbours kept",
}


def guide(found: Guide, backend: Backend = "plotly") -> go.Figure | Picture:
    """Key energy and causal trace of each block, and the scores of each setting tried.

    Parameters
    ----------
    found : Guide
        What `guide` gives.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        The chosen layers, and the chosen setting, stand on a darker ground.

    Raises
    ------
    ValueError
        For another backend.
    """
    check_backend(backend)
    blocks, tried = found.blocks, found.frame
    hooked = blocks.loc[blocks["hooked"], "block"].tolist()
    traced = blocks.dropna(subset="recovery")
    at_block = "%{y:.3f} at block %{x}"
    energy = Line("key energy", blocks["block"].tolist(), blocks["share"].tolist())
    trace = Line("recovery", traced["block"].tolist(), traced["recovery"].tolist())
    scores = [
        Line(name, part["setting"].tolist(), part[metric].tolist())
        for metric, name in _METRICS.items()
        if len(part := tried.dropna(subset=metric))
    ]
    charts = [
        Chart("Key energy", "share of one token", [energy], _SHARE, "block", at_block, hooked),
        Chart("Causal trace", "recovery", [trace], None, "block", at_block, hooked),
        Chart(
            "Settings tried",
            "mean over facts",
            scores,
            _SHARE,
            "setting",
            "%{y:.3f} with setting %{x}",
            tried.loc[tried["chosen"], "setting"].tolist(),
        ),
    ]
    subtitle = "Dark ground: the layers and the setting that were chosen"
    return draw_lines(f"Settings for {visible(found.model)}", subtitle, charts, backend)
