"""What all figures share: colours, tokens as one can read them, an empty picture to draw in.

Picture        a matplotlib figure that shows itself in any notebook
plotly_figure  an empty plotly figure
visible        a token on one line, its white space marked
literal        text that plotly must not read as markup
"""

from __future__ import annotations

import io
import warnings
from html import escape
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

Backend = Literal["plotly", "matplotlib"]

INK = "#757575"  # 4.6 : 1 on white and on black, so one figure suits light and dark themes
BEFORE, AFTER = "#8A97A8", "#D55E00"  # orange is kept for what an edit changed, or reaches
MAGNITUDE = ("#EEF1F6", "#1D4E89")  # a ramp of lightness in one hue, also for colour-blind eyes
STRIPES = {"fillmode": "overlay", "fgcolor": "white", "fgopacity": 0.6, "solidity": 0.15}
IN_SCOPE = "●"
SERIES = (  # colour (Okabe–Ito), matplotlib's and plotly's symbol
    ("#0072B2", "o", "circle"),
    ("#E69F00", "s", "square"),
    ("#009E73", "^", "triangle-up"),
    ("#CC79A7", "D", "diamond"),
    ("#56B4E9", "v", "triangle-down"),
    ("#D55E00", "X", "x"),
)

_MARKS = {"\n": "↵", "\t": "⇥", "\r": "␍"}


class Picture(Figure):
    """A matplotlib figure with no window behind it, on a clear ground."""

    def __init__(self, width: float, height: float) -> None:
        engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
        super().__init__(figsize=(width, height), layout=engine, facecolor="none")

    def axes_in_ink(self) -> Any:
        """Axes whose frame, ticks and labels read on light and on dark."""
        return self.row_in_ink(1)[0]

    def row_in_ink(self, count: int) -> list[Any]:
        """The same, several side by side."""
        row = list(self.subplots(1, count, squeeze=False)[0])
        for axes in row:
            axes.set_facecolor("none")
            axes.tick_params(colors=INK)
            for spine in axes.spines.values():
                spine.set_color(INK)
            for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
                text.set_color(INK)
                text.set_parse_math(False)
        return row

    def svg(self) -> str:
        """The picture as one self-contained SVG text, the same each time."""
        target = io.StringIO()
        # text stays text, drawn in the reader's own fonts
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "coachhook_viz"}):
            self._save(target, format="svg", metadata={"Date": None})
        return target.getvalue()

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self._save(target, format="png", dpi=144)
        return target.getvalue()

    def _save(self, target: io.StringIO | io.BytesIO, **options: Any) -> None:
        with warnings.catch_warnings():  # a script that the font lacks is no reason to complain
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            self.savefig(target, **options)


def plotly_figure(title: str, width: int, height: int) -> go.Figure:
    """An empty plotly figure in the shared look."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        title={"text": literal(title), "font": {"size": 14}, "x": 0, "xref": "paper"},
        font={"color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        width=width,
        height=height,
        margin={"l": 20, "r": 20, "t": 60, "b": 20},
    )
    figure.update_xaxes(automargin=True, linecolor=INK, gridcolor="rgba(117,117,117,0.25)")
    figure.update_yaxes(automargin=True, linecolor=INK, gridcolor="rgba(117,117,117,0.25)")
    return figure


def visible(token: str) -> str:
    """A token on one line: ``"·Paris"`` for `" Paris"`, ``"↵"`` for a line break."""
    text = "".join(_MARKS.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}") for c in token)
    spaces = len(text) - len(text.lstrip(" "))
    return "·" * spaces + text[spaces:]


def literal(text: str) -> str:
    """`text` for plotly, which would else read tags, entities and ``$formulas$`` in it."""
    return escape(text, quote=False).replace("$", "&#36;")  # plotly knows no &quot;


def check_backend(backend: str) -> None:
    """Raise ValueError for a backend that there is not."""
    if backend not in ("plotly", "matplotlib"):
        raise ValueError(f"backend is {backend!r}: use 'plotly' or 'matplotlib'")


def check_frame(frame: pd.DataFrame) -> None:
    """Raise ValueError for a frame with nothing in it."""
    if frame.empty:
        raise ValueError("there is nothing to draw: the frame has no measurement")
