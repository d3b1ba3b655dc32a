"""What all figures share: colours, tokens as one can read them, an empty picture to draw in.

Look           how one of several series is drawn
Picture        a titled matplotlib figure that shows itself in any notebook
Live           a plotly figure that has such a picture too, for where nothing draws it
plotly_figure  an empty one, with the same sizes
drawn          a figure's content, drawn by one backend
visible        a token on one line, its white space marked
literal        text that plotly must not read as markup
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from textwrap import wrap
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from coachhook_viz.warned import hushed

Backend = Literal["plotly", "matplotlib"]

INK = "#757575"  # 4.6 : 1 on white and on black, so one figure suits light and dark themes
FAINT = "rgba(117,117,117,0.25)"  # the same for grid lines
BEFORE, AFTER = "#8A97A8", "#D55E00"  # orange is kept for what an edit changed, or reaches
MAGNITUDE = ("#EEF1F6", "#1D4E89")  # a ramp of lightness in one hue, also for colour-blind eyes
IN_SCOPE = "●"
_SERIES = (  # colour (Okabe–Ito without AFTER), matplotlib's and plotly's symbol and dash
    ("#0072B2", "o", "circle", "-", "solid"),
    ("#E69F00", "s", "square", "--", "dash"),
    ("#009E73", "^", "triangle-up", ":", "dot"),
    ("#CC79A7", "D", "diamond", "-.", "dashdot"),
    ("#56B4E9", "v", "triangle-down", (0, (8, 2)), "longdash"),
    (INK, "p", "pentagon", (0, (8, 2, 2, 2)), "longdashdot"),
)
PIXELS = 96  # of plotly in an inch of matplotlib: twins are equally large
LETTER = 0.068  # inches of a letter of a label

_TITLE, _SUBTITLE, _LABEL = 11, 9, 9  # points
_MARGIN = 0.1  # inches
_LEADING = 1.4 / 72  # inches from line to line, by points
_MARKS = {"\n": "↵", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True)
class Look:
    """How one of several series is drawn, told apart by more than its colour."""

    colour: str
    marker: str
    symbol: str  # plotly's marker
    style: Any  # of the line
    dash: str  # plotly's
    face: str  # of matplotlib's marker

    @classmethod
    def of(cls, i: int, hollow: bool) -> Look:
        """Of series `i`; once the colours are used up, markers are the other of hollow and full."""
        colour, marker, symbol, style, dash = _SERIES[i % len(_SERIES)]
        hollow ^= bool(i // len(_SERIES) % 2)
        face = "none" if hollow else colour
        return cls(colour, marker, symbol + "-open" * hollow, style, dash, face)


class Picture(Figure):
    """A matplotlib figure with no window behind it, on a clear ground.

    Parameters
    ----------
    title, subtitle : str
        What is to be seen, in bold on one line, and how to read it, in as many as it takes.
    width, height : float
        Inches; the height goes without that of the titles.
    """

    def __init__(self, title: str, subtitle: str, width: float, height: float) -> None:
        lines, top = _head(subtitle, width)
        whole = height + top
        engine = ConstrainedLayoutEngine(
            w_pad=_MARGIN, h_pad=_MARGIN, wspace=0.06, rect=(0, 0, 1, (height + _MARGIN) / whole)
        )
        super().__init__(figsize=(width, whole), layout=engine, facecolor="none")
        left = _MARGIN / width
        options: dict[str, Any] = {"va": "top", "color": INK, "parse_math": False}
        below = _MARGIN + _LEADING * _TITLE
        self.text(left, 1 - _MARGIN / whole, title, size=_TITLE, weight="bold", **options)
        self.text(left, 1 - below / whole, "\n".join(lines), size=_SUBTITLE, **options)

    def axes_in_ink(self) -> Any:
        """Axes whose frame, ticks and labels read on light and on dark."""
        return self.row_in_ink(1)[0]

    def row_in_ink(self, count: int) -> list[Any]:
        """The same, several side by side."""
        row = list(self.subplots(1, count, squeeze=False)[0])
        for axes in row:
            axes.set_facecolor("none")
            axes.tick_params(colors=INK, labelsize=_LABEL)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["bottom", "left"]].set_color(INK)
            axes.set_axisbelow(True)
            for text in (axes.xaxis.label, axes.yaxis.label):
                text.set(color=INK, size=_LABEL, parse_math=False)
        return row

    def legend_in_ink(self, lines: list[Artist], names: list[str]) -> None:
        """A legend below the axes."""
        legend = self.legend(lines, names, loc="outside lower left", ncols=4, frameon=False)
        for label in legend.get_texts():
            label.set(color=INK, size=_LABEL, parse_math=False)

    def svg(self) -> str:
        """The picture as one self-contained SVG text, the same each time."""
        target = io.StringIO()
        # text stays text, drawn in the reader's own fonts
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "coachhook_viz"}):
            self._save(target, format="svg", dpi=288, metadata={"Date": None})
        return target.getvalue()

    def image(self) -> str:
        """The picture as an HTML image that holds its own data, and says its titles."""
        texts = " ".join(text.get_text() for text in self.texts)
        data = b64encode(self._repr_png_()).decode()
        width = round(PIXELS * self.get_size_inches()[0])
        return f'<img alt="{escape(texts)}" width="{width}" src="data:image/png;base64,{data}">'

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self._save(target, format="png", dpi=144)
        return target.getvalue()

    def _save(self, target: io.StringIO | io.BytesIO, **options: Any) -> None:
        with hushed():  # a script that the font lacks is no reason to complain
            self.savefig(target, **options)


class Live(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A plotly figure that a notebook keeps as a picture too.

    Plotly's own output in a notebook is one that only its JavaScript can draw; saved as HTML, or
    on a code host, nothing would stand there. The picture is an image in HTML, which ranks below
    the live figure wherever that can be drawn; beside an ``image/png``, JupyterLab would wait for
    the mouse before it draws. It is the figure as it was made, without later changes.
    """

    _still: Callable[[], Picture] | None = None

    def show(self, *args: Any, **options: Any) -> None:
        """Show it as plotly does, and the picture with it where plotly's defaults are asked for."""
        if args or options or not self._display():
            super().show(*args, **options)

    def _ipython_display_(self) -> None:
        if not pio.renderers.render_on_display or not self._display():
            super()._ipython_display_()

    def _display(self) -> bool:
        """Whether it could be shown as what a notebook can hold."""
        bundle = self._repr_mimebundle_()
        if bundle:  # empty where plotly opens a browser instead
            from IPython.display import publish_display_data  # only notebooks need it

            publish_display_data(bundle)  # type: ignore[no-untyped-call]
        return bool(bundle)

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> dict[str, Any]:
        bundle = dict(super()._repr_mimebundle_(*args, **options))
        if bundle and "text/html" not in bundle and self._still is not None:
            bundle["text/html"] = self._still().image()
        return bundle


def drawn(
    backend: Backend,
    plotly: Callable[..., Live],
    matplotlib: Callable[..., Picture],
    *content: Any,
) -> go.Figure | Picture:
    """What is to be seen, decided by the caller, as `backend` draws it."""
    if backend == "matplotlib":
        return matplotlib(*content)
    figure = plotly(*content)
    figure._still = partial(matplotlib, *content)  # drawn when it is needed
    return figure


def plotly_figure(
    title: str, subtitle: str, width: float, height: float, bottom: float = 0.6
) -> Live:
    """A plotly figure in the shared look; sizes as in `Picture`, `bottom` is the lower margin."""
    lines, top = _head(subtitle, width)
    lines += [""] * (len(lines) == 1)  # plotly puts a single line lower than the first of several
    figure = Live()
    figure.update_layout(
        template="none",
        title={
            "text": literal(title),
            "font": {"size": _TITLE * 4 / 3, "weight": 700},
            "subtitle": {
                "text": "<br>".join(map(literal, lines)),
                "font": {"size": _SUBTITLE * 4 / 3, "color": INK},
            },
            "x": _MARGIN / width,
            "y": 1,
            "yanchor": "top",
            "pad": {"t": PIXELS * _MARGIN},
        },
        font={"color": INK, "size": _LABEL * 4 / 3, "family": "DejaVu Sans, Verdana, sans-serif"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        width=round(PIXELS * width),
        height=round(PIXELS * (height + top)),
        margin={"l": 56, "r": 16, "t": PIXELS * top, "b": PIXELS * bottom},
        legend={
            "orientation": "h",
            "x": _MARGIN / width,
            "xref": "container",
            "xanchor": "left",
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
        },
    )
    return figure


def finish_axes(figure: go.Figure) -> None:
    """The shared look for all axes of a plotly figure, once they are there."""
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(
            automargin=True,
            linecolor=INK,
            gridcolor=FAINT,
            zeroline=False,
            ticks="",
            ticklabelstandoff=4,
            title={"standoff": 8, "font": {"size": _LABEL * 4 / 3}},
        )


def _head(subtitle: str, width: float) -> tuple[list[str], float]:
    """`subtitle` in lines of at most `width` inches, and the height of title and subtitle."""
    letters = int(72 * width / (0.55 * _SUBTITLE))
    lines = [line for part in subtitle.split("\n") for line in wrap(part, letters)]
    return lines, _LEADING * (_TITLE + _SUBTITLE * len(lines)) + 2 * _MARGIN


def visible(token: str) -> str:
    """A token on one line: ``"·Paris"`` for `" Paris"`, ``"↵"`` for a line break."""
    text = token
    if not token.isprintable():
        marks = (_MARKS.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}") for c in token)
        text = "".join(marks)
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
