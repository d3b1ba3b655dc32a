"""Curves over rounds: one live plotly picture, and its numbers in a table.

Curves    both; the picture is made when there is first something to draw
table     a frame as a table that unfolds
PLOTS     what there is to draw, by name
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anywidget
import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from coachhook_viz.figures.style import INK, Look
from coachhook_viz.measure.quality import forgetting
from coachhook_viz.panels.controls import Text
from coachhook_viz.panels.view import STATIC

_HEIGHT = 260  # pixels
_FAINT = "rgba(117,117,117,0.25)"
_AXIS = {
    "automargin": True,
    "linecolor": INK,
    "gridcolor": _FAINT,
    "zerolinecolor": _FAINT,
    "title": {"font": {"size": 12}, "standoff": 10},
}
_FEW = 15  # rounds that still get a label each


class _Fit(anywidget.AnyWidget):
    """Nothing to be seen: it makes the plotly widget beside it as wide as their box."""

    _esm = (STATIC / "fit.js").read_text("utf-8")


class Curves(widgets.VBox):
    """Curves over rounds.

    Plotly's widget brings 5 MB of script along, so there is one, made late and updated in place.

    Attributes
    ----------
    numbers : Text
        Its numbers as a table: for the `View` of the panel that it stands in.
    """

    def __init__(self) -> None:
        self._figure: Any = None
        self.numbers = Text(classes="cv-data", hidden=True)
        super().__init__([])
        self.add_class("cv-curves")
        self.layout.display = "none"

    @property
    def figure(self) -> Any:
        """The plotly widget; None while nothing has been drawn."""
        return self._figure

    def show(self, values: pd.DataFrame, label: str, highest: float | None = None) -> None:
        """Draw other curves.

        Parameters
        ----------
        values : DataFrame
            One row a round, its index; one column a curve.
        label : str
            What is measured, with its unit.
        highest : float, optional
            Where the axis ends, beginning at 0. None: where the values do.
        """
        if self._figure is None:
            self._figure = go.FigureWidget(layout=_layout())
            self._figure._config = {"displayModeBar": False, "responsive": True}
            self.children = [self._figure, _Fit()]
        looks = [Look.of(i, hollow=False) for i in range(len(values.columns))]
        traces = [
            go.Scatter(
                name=str(name),
                x=[int(round_) for round_ in values.index],
                y=values[name].tolist(),
                mode="lines+markers",
                line={"color": look.colour, "dash": look.dash},
                marker={"size": 8, "symbol": look.symbol},
                hovertemplate="%{y:.4g} after %{x} rounds<extra>%{fullData.name}</extra>",
            )
            for name, look in zip(values.columns, looks, strict=True)
        ]
        span = None if highest is None else [-0.03 * highest, 1.03 * highest]
        with self._figure.batch_update():
            self._figure.data = ()
            self._figure.add_traces(traces)
            self._figure.layout.showlegend = len(traces) > 1
            self._figure.layout.xaxis.dtick = 1 if len(values) <= _FEW else None
            self._figure.layout.yaxis.title.text = label
            self._figure.layout.yaxis.range = span
            self._figure.layout.yaxis.autorange = span is None
        self._figure.layout.xaxis.title.text = "rounds in force"
        self.numbers.say(table(values, "round"))
        self.numbers.hidden = False
        self.layout.display = None

    def clear(self) -> None:
        """Take picture and table off the page; the widget is kept for the next curves."""
        self.numbers.hidden = True
        self.layout.display = "none"

    def close(self) -> None:
        """Take it off the page, and free the plotly widget."""
        for child in self.children:
            if isinstance(child.layout, widgets.Layout):  # plotly's is another thing
                child.layout.close()
            child.close()
        super().close()


def table(values: pd.DataFrame, corner: str) -> Markup:
    """The numbers of `values` as a table that unfolds at a click, all text escaped."""
    cell, head = Markup("<td>{:.4g}</td>"), Markup("<th scope='{}'>{}</th>")
    lines = [
        Markup("<tr>{}{}</tr>").format(
            head.format("row", name), Markup("").join(cell.format(value) for value in line)
        )
        for name, line in zip(values.index, values.to_numpy().tolist(), strict=True)
    ]
    top = Markup("").join(head.format("col", name) for name in [corner, *values.columns])
    return Markup(
        "<details><summary>Numbers</summary><table><tr>{}</tr>{}</table></details>"
    ).format(top, Markup("").join(lines))


def _layout() -> dict[str, Any]:
    return {
        "template": "none",
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": _HEIGHT,
        "autosize": True,
        "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }


def _by_layer(metric: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def values(frame: pd.DataFrame) -> pd.DataFrame:
        part = frame[frame["metric"] == metric].pivot_table("value", "round", "layer")
        return part.rename(columns=lambda layer: f"layer {layer}")

    return values


def _forgotten(scores: pd.DataFrame) -> pd.DataFrame:
    return forgetting(scores).set_index("round")[["share"]].rename(columns={"share": "forgotten"})


def _shift(frame: pd.DataFrame) -> pd.DataFrame:
    part = frame[frame["metric"] == "shift"]
    medians = part.pivot_table("value", "round", "layer", aggfunc="median")
    return medians.rename(columns=lambda layer: f"output of block {layer}, median text")


def _perplexity(frame: pd.DataFrame) -> pd.DataFrame:
    part = frame[frame["metric"] == "perplexity"]
    return part.set_index("round")[["value"]].rename(columns={"value": "perplexity"})


@dataclass(frozen=True)
class Plot:
    """Curves that can be drawn of a session.

    Attributes
    ----------
    values : callable
        Gives the values from a frame.
    label : str
        What is measured.
    highest : float or None
        Where the axis ends.
    scores : bool
        Whether the frame is `Session.quality`; else `Session.drift`.
    """

    values: Callable[[pd.DataFrame], pd.DataFrame]
    label: str
    highest: float | None = None
    scores: bool = False


PLOTS = {
    "share forgotten": Plot(_forgotten, "share of facts that took", 1.0, scores=True),
    "size of ΔW": Plot(_by_layer("relative_norm"), "‖ΔW‖ / ‖W0‖"),
    "thresholds": Plot(_by_layer("alpha"), "α"),
    "hidden states of neutral text": Plot(_shift, "‖h − h0‖ / ‖h0‖"),
    "perplexity of neutral text": Plot(_perplexity, "perplexity"),
}
