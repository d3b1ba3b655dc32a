"""What rounds of edits do, drawn over the rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from coachhook_viz.facts import Fact
from coachhook_viz.figures.grids import HeatMap, draw_grids, marks_fit
from coachhook_viz.figures.lines import Chart, Line, draw_lines
from coachhook_viz.figures.style import Backend, Picture, check_backend, check_frame
from coachhook_viz.measure.quality import METRICS, forgetting, readings

_SHARE = (-0.03, 1.03)
_LESS = 0.05  # lower values than before that deserve a frame


def quality(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """Mean of reliability, generality and locality over the facts, with its interval, by round.

    Parameters
    ----------
    frame : DataFrame
        What `Session.quality` gives, or results of `Session.evaluate`, concatenated: fact, round,
        metric, value.
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
    check_frame(frame)
    frame = frame[frame["metric"].isin(METRICS)]
    means = pd.concat(  # as if edited later: then `readings` has nothing but the end to read
        readings(part.assign(edited=int(str(round_)) + 1)).assign(round=round_)
        for round_, part in frame.groupby("round")
    ).set_index("round")
    lines = [
        replace(_line(metric, part["mean"]), low=part["low"].tolist(), high=part["high"].tolist())
        for metric in METRICS
        if len(part := means[means["metric"] == metric])
    ]
    subtitle = "All facts so far, scored again after each round; bands: 95 % interval of the mean"
    chart = Chart("", "mean over facts", lines, _SHARE)
    return draw_lines("How well the edits hold", subtitle, [chart], backend)


def retention(
    frame: pd.DataFrame,
    metric: str = "reliability",
    facts: Mapping[int, Fact] | None = None,
    backend: Backend = "plotly",
) -> go.Figure | Picture:
    """Heat map fact × round: how well each fact holds after its own round and each later one.

    Parameters
    ----------
    frame : DataFrame
        What `Session.quality` gives.
    metric : str
        "reliability", "generality", "locality" or a probability.
    facts : mapping of int to Fact, optional
        `Session.facts`, to name the rows by subject.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        A frame marks where a fact scores lower by 0.05 or more than right after its own round, up
        to 25 facts.

    Raises
    ------
    ValueError
        For another backend, or if the frame has no such metric.
    """
    check_backend(backend)
    frame = frame[frame["metric"] == metric]
    check_frame(frame)
    edited = frame.drop_duplicates("fact").set_index("fact")["edited"]
    table = frame.pivot_table("value", index="fact", columns="round")
    values = [[None if pd.isna(v) else float(v) for v in row] for row in table.to_numpy()]
    rounds = [int(str(r)) for r in table.columns]
    marked = []
    for row, fact in enumerate(table.index):
        own = values[row][rounds.index(int(edited[fact]))]
        for column, value in enumerate(values[row]):
            if value is not None and own is not None and own - value >= _LESS:
                marked.append((row, column))
    name = metric.replace("_", " ")
    grid = HeatMap(
        "",
        [_name(int(fact), facts) for fact in table.index],
        [str(r) for r in rounds],
        values,
        "fact",
        "rounds in force",
        marked if marks_fit(len(values)) else (),
    )
    key = [f"framed: lower by {_LESS} or more than after its own round"] * bool(grid.marked)
    key += ["hatched: not edited yet"] * bool(grid.absent())
    subtitle = "; ".join([f"{name.capitalize()} of each fact after each round", *key])
    return draw_grids("What is retained", subtitle, [grid], name, (0.0, 1.0), backend)


def forgetting_curve(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """Share of the facts that took in their own round and do not hold now, by round.

    Parameters
    ----------
    frame : DataFrame
        What `Session.quality` gives.
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
    shares = forgetting(frame)
    check_frame(shares)
    line = _line("forgotten", shares.set_index("round")["share"])
    highest = max(line.y)
    last = shares.iloc[-1]
    subtitle = (
        f"{int(last['lost'])} of {int(last['taken'])} facts that took do not hold"
        f" after round {int(last['round'])}"
    )
    top = min(1.03, max(0.1, 1.25 * highest))
    chart = Chart("", "share of facts that took", [line], (-0.03 * top, top))
    return draw_lines("How much is forgotten", subtitle, [chart], backend)


def weights(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """Size of ΔW and the scope threshold α of each hooked layer, by round.

    Parameters
    ----------
    frame : DataFrame
        What `Session.drift` gives.
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
    check_frame(frame)
    charts = [
        Chart(title, label, _by_layer(frame, metric))
        for metric, title, label in (
            ("relative_norm", "Size of the hook layers", "‖ΔW‖ / ‖W₀‖"),
            ("effective_rank", "Directions they use", "effective rank of ΔW"),
            ("alpha", "Thresholds of the z-score scope", "threshold α"),
        )
    ]
    subtitle = "ΔW: what the edits add to a layer's weight W₀; α: z-score from which it speaks"
    return draw_lines("What is written into each hook layer", subtitle, charts, backend)


def shift(frame: pd.DataFrame, backend: Backend = "plotly") -> go.Figure | Picture:
    """How far neutral text moves: hidden states at two blocks, and perplexity, by round.

    Parameters
    ----------
    frame : DataFrame
        What `Session.drift` gives.
    backend : {"plotly", "matplotlib"}

    Returns
    -------
    plotly.graph_objects.Figure or matplotlib.figure.Figure
        Bands span the middle half of the texts.

    Raises
    ------
    ValueError
        For another backend, or an empty frame.
    """
    check_backend(backend)
    check_frame(frame)
    lines = []
    moved = frame[frame["metric"] == "shift"]
    for block, part in moved.groupby("layer"):
        rounds = part.groupby("round")["value"]
        low, middle, high = (rounds.quantile(q) for q in (0.25, 0.5, 0.75))
        line = _line(f"output of block {block}", middle)
        lines.append(replace(line, low=low.tolist(), high=high.tolist()))
    perplexity = frame[frame["metric"] == "perplexity"].set_index("round")["value"].sort_index()
    # no narrower than a tenth of the unedited value, so that noise does not look like harm
    spare = 0.05 * perplexity.iloc[0]
    range_ = perplexity.min() - spare, perplexity.max() + spare
    charts = [
        Chart("Hidden states", "‖h − h₀‖ / ‖h₀‖", lines),
        Chart("Next tokens", "perplexity", [_line("perplexity", perplexity)], range_),
    ]
    subtitle = (
        "Against the unedited model; line: the median text, band: the middle half of the texts"
    )
    return draw_lines("How far the edits move neutral text", subtitle, charts, backend)


def _line(name: str, values: pd.Series[float]) -> Line:
    return Line(name, [float(x) for x in values.index], [float(y) for y in values])


def _by_layer(frame: pd.DataFrame, metric: str) -> list[Line]:
    part = frame[frame["metric"] == metric]
    return [
        _line(f"layer {layer}", rows.set_index("round")["value"])
        for layer, rows in part.groupby("layer")
    ]


def _name(fact_id: int, facts: Mapping[int, Fact] | None) -> str:
    return f"{facts[fact_id].subject} · {fact_id}" if facts and fact_id in facts else str(fact_id)
