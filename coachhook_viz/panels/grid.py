"""A table that a person can walk through: the one live picture of the panels.

Cell    what stands in one place
Grid    rows × columns of cells, by mouse and by arrow keys, in the page's own theme

    grid = Grid(label="scope", columns=["The", " capital"], rows=["layer 4"], cells=[[Cell("1.2")]])
    grid.observe(lambda change: print(change.new), "selected")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import traitlets
from markupsafe import Markup

from coachhook_viz.panels.view import Node

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


class Grid(Node):
    """Rows × columns of cells.

    Arrow keys, Home and End move, Enter and Space select, F2 or Enter type into an editable cell.

    Parameters
    ----------
    label : str
        What it is, for those who do not see it.
    look : str
        "tokens", "heat", "table", "bars" or "timeline".
    picks : str
        What is selected: "cell", "row" or "nothing"; "block": a press selects nothing, it is told
        to `on_press`, since a cell stands for several that it opens.
    empty : str
        What is said where there is no row.

    Attributes
    ----------
    selected : list of int
        Row and column; empty where nothing is.
    """

    kind = "grid"

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
        self._pressed: list[Callable[[list[int]], object]] = []
        self._keys: list[Any] = []

    def show(
        self,
        cells: Sequence[Sequence[Cell]],
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        keys: Sequence[Any] | None = None,
        **traits: Any,
    ) -> None:
        """Put other cells in, in one go; what is not given stays.

        Parameters
        ----------
        cells : sequence of sequences of Cell
        rows, columns : sequence of str, optional
            Names.
        keys : sequence, optional
            What each row is of: a selected row stays selected wherever it goes, and no other is.
        """
        plain = [[_plain(cell) for cell in row] for row in cells]
        if keys is not None:
            traits.setdefault("selected", self._moved(list(keys)))
            self._keys = list(keys)
        with self.together():
            if rows is not None:
                self.rows = list(rows)
            if columns is not None:
                self.columns = list(columns)
            self.cells = plain
            for name, value in traits.items():
                setattr(self, name, value)

    def _moved(self, keys: list[Any]) -> list[int]:
        """Where the selected row stands among `keys`."""
        if not self.selected or self.selected[0] >= len(self._keys):
            return []
        key = self._keys[self.selected[0]]
        return [keys.index(key), *self.selected[1:]] if key in keys else []

    def picture(self) -> Markup:
        """The table as HTML that needs no script."""
        head = Markup("").join(Markup("<th>{}</th>").format(name) for name in self.columns)
        corner = Markup("<th></th>") if self.rows else Markup("")
        lines = [Markup("<tr>{}{}</tr>").format(corner, head)] if self.columns else []
        for place, line in enumerate(self.cells):
            name = Markup("<th>{}</th>").format(self.rows[place]) if self.rows else Markup("")
            cells = Markup("").join(map(_pictured, line))
            lines.append(Markup("<tr>{}{}</tr>").format(name, cells))
        return Markup("<table>{}</table>").format(Markup("").join(lines)) if lines else Markup("")

    def on_type(self, typed: Callable[[int, int, str], object]) -> None:
        """Call `typed` with row, column and text when a person has typed into a cell."""
        self._typed.append(typed)

    def on_press(self, act: Callable[[list[int]], object]) -> None:
        """Call `act` with row and column when a person has pressed a cell that is a block."""
        self._pressed.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """A person has typed into a cell, or pressed a block."""
        if content.get("press") is not None:
            for act in self._pressed:
                act([int(place) for place in content["press"]])
        if content.get("typed") is not None:
            row, column, text = content["typed"]
            for typed in self._typed:
                typed(int(row), int(column), str(text))


def _pictured(cell: dict[str, Any]) -> Markup:
    text = f"{cell.get('text', '')}{' ●' if cell.get('framed') else ''}"
    style = "border:2px solid #d55e00" if cell.get("framed") else ""
    return Markup("<td style='{}'>{}</td>").format(style, text)


def _plain(cell: Cell) -> dict[str, Any]:
    """The cell without what it does not say."""
    said = asdict(cell).items()
    return {
        n: value for n, value in said if value is not None and value is not False and value != ""
    }
