"""A map of dots: a person draws over it to pick some out, or clicks one.

Dot     one of them
Dots    the map
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import traitlets

from coachhook_viz.panels.view import Node


@dataclass(frozen=True)
class Dot:
    """One dot.

    Attributes
    ----------
    x, y : float
    changed : bool
        Orange; else grey.
    fired : bool
        Whether it has a ring.
    detail : str
        What is said of it on hover.
    """

    x: float
    y: float
    changed: bool = False
    fired: bool = False
    detail: str = ""


class Dots(Node):
    """Dots in two dimensions; the table beside it says the same to those who do not see it.

    Parameters
    ----------
    label : str
    """

    kind = "dots"

    label = traitlets.Unicode().tag(sync=True)
    dots: Any = traitlets.List().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._picked: list[Callable[[list[int]], object]] = []

    def show(self, dots: Sequence[Dot]) -> None:
        """Put other dots there, scaled to fill it."""
        if not dots:
            self.dots = []
            return
        plain = [asdict(dot) for dot in dots]
        for axis in ("x", "y"):
            low = min(dot[axis] for dot in plain)
            span = max(dot[axis] for dot in plain) - low or 1.0
            for dot in plain:
                dot[axis] = round((dot[axis] - low) / span, 4)
        self.dots = plain

    def on_pick(self, act: Callable[[list[int]], object]) -> None:
        """Call `act` with the places of the dots that are picked out."""
        self._picked.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """A click or a frame in the page."""
        places = content.get("pick")
        if isinstance(places, list):
            found = [p for p in places if isinstance(p, int) and 0 <= p < len(self.dots)]
            for act in self._picked:
                act(found)
