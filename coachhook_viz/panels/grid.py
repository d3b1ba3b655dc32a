"""A table that a person can walk through: the one live picture of the panels.

Cell    what stands in one place
Grid    rows × columns of cells, by mouse and by arrow keys, in the page's own theme

    grid = Grid(label="scope", columns=["The", " capital"], rows=["layer 4"], cells=[[Cell("1.2")]])
    grid.observe(lambda change: print(change.new), "selected")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import anywidget
import traitlets

STATIC = Path(__file__).parent / "static"
Kind = Literal[
    "", "holds", "partly", "missed", "muted", "before", "after", "now", "undone", "none", "aim"
]


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a grid; its text is text, whatever it holds.

    Attributes
    ----------
    text : str
    detail : str
        What is said of it on hover and focus.
    shade : float or None
        Its ground, 0 palest to 1 darkest.
    bar : float or None
        Length of a bar within it, 0 to 1.
    line : float or None
        Where a threshold stands on that bar, 0 to 1.
    framed : bool
        Whether an edit reaches it: an orange frame and ●.
    kind : str
        A word that the style sheet knows: holds, partly, missed, muted, before, after, now,
        undone, none, aim.
    strong : (int, int) or None
        Where a part of the text that stands out starts and stops.
    editable : bool
        Whether it can be typed into.
    typed : str or None
        What is then typed at, where it is another text than the one shown.
    """

    text: str = ""
    detail: str = ""
    shade: float | None = None
    bar: float | None = None
    line: float | None = None
    framed: bool = False
    kind: Kind = ""
    strong: tuple[int, int] | None = None
    editable: bool = False
    typed: str | None = None


class Grid(anywidget.AnyWidget):
    """Rows × columns of cells.

    Arrow keys, Home and End move, Enter and Space select, F2 or Enter type into an editable cell.

    Parameters
    ----------
    label : str
        What it is, for those who do not see it.
    look : str
        "tokens", "heat", "table", "bars" or "timeline".
    picks : str
        What is selected: "cell", "row" or "nothing".
    empty : str
        What is said where there is no row.

    Attributes
    ----------
    selected : list of int
        Row and column; empty where nothing is.
    """

    _esm = STATIC / "grid.js"
    _css = STATIC / "style.css"

    label = traitlets.Unicode().tag(sync=True)
    look = traitlets.Unicode("table").tag(sync=True)
    picks = traitlets.Unicode("cell").tag(sync=True)
    empty = traitlets.Unicode("").tag(sync=True)
    corner = traitlets.Unicode("").tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.Unicode()).tag(sync=True)
    marked = traitlets.Int(None, allow_none=True).tag(sync=True)  # a column: ▲ beside its name
    cells: Any = traitlets.List().tag(sync=True)
    selected: Any = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._typed: list[Callable[[int, int, str], object]] = []
        self.on_msg(self._hear)

    def show(
        self,
        cells: Sequence[Sequence[Cell]],
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        **traits: Any,
    ) -> None:
        """Put other cells in, in one go; what is not given stays."""
        plain = [[_plain(cell) for cell in row] for row in cells]
        with self.hold_sync():
            if rows is not None:
                self.rows = list(rows)
            if columns is not None:
                self.columns = list(columns)
            for name, value in traits.items():
                setattr(self, name, value)
            self.cells = plain

    def on_type(self, typed: Callable[[int, int, str], object]) -> None:
        """Call `typed` with row, column and text when a person has typed into a cell."""
        self._typed.append(typed)

    def _hear(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        if content.get("typed") is not None:
            row, column, text = content["typed"]
            for typed in self._typed:
                typed(int(row), int(column), str(text))


def _plain(cell: Cell) -> dict[str, Any]:
    """The cell without what it does not say."""
    said = asdict(cell).items()
    return {
        n: value for n, value in said if value is not None and value is not False and value != ""
    }
