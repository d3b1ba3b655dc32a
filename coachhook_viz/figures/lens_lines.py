"""Where an answer comes up on its way through the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas.api.typing import NAType

from coachhook_viz.figures.lines import Chart, Line, draw_lines
from coachhook_viz.figures.style import Backend, Picture, check_backend, check_frame, visible

_TITLE = "What each block's output would say"


def lens(frame: pd.DataFrame, prompt: str = "", backend: Backend = "plotly") -> go.Figure | Picture:
    """Probability of answers at every block's output, before and after editing.

    Parameters
    ----------
    frame : DataFrame
        What `Session.lens` gives.
    prompt : str
        For the title.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        Hooked layers stand on a darker ground.

    Raises
    ------
    ValueError
        For another backend, or if the frame is empty.
    """
    check_backend(backend)
    check_frame(frame)
    columns = (frame[name].tolist() for name in ("answer", "edited", "without"))
    names = np.array([line_name(*of) for of in zip(*columns, strict=True)])
    lines = [
        Line(str(name), part["block"].tolist(), part["probability"].tolist())
        for name, part in frame.groupby(names, sort=False)
    ]
    hooked = frame.loc[frame["hooked"], "block"].unique().tolist()
    chart = Chart(
        "",
        "probability",
        lines,
        (-0.03, 1.03),
        "block",
        "%{y:.4g} at block %{x}",
        hooked,
    )
    asked = f"“{visible(prompt.strip(' '))}”\n" if prompt else ""
    return draw_lines(_TITLE, f"{asked}Dark ground: hooked layers.", [chart], backend)


def line_name(answer: str, edited: bool, without: int | NAType) -> str:
    """What a line is called: ``"Rome, after"``."""
    if not edited:
        return f"{visible(answer)}, before"
    return f"{visible(answer)}, after" + ("" if pd.isna(without) else f" without layer {without}")
