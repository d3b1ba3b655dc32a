"""Which cell of the notebook made a view: run again, it replaces what it made before.

replacing     say that something was made here; what an earlier run of the same cell made is closed
predecessor   what an earlier run of this cell made, while it is still there
"""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Closing(Protocol):
    """What can be taken off the page."""

    def close(self) -> None:
        """Take it off the page, and free what it holds."""


_MADE: dict[str, tuple[str, list[Closing]]] = {}  # by cell: the run that made them, and all made


def replacing(made: Closing) -> None:
    """Remember `made` as made by the running cell, and close what an earlier run of it made."""
    place = _here()
    if place is None:
        return
    cell, run = place
    before, views = _MADE.get(cell, ("", []))
    if before != run:
        for view in views:
            view.close()
        views = []
        _MADE[cell] = (run, views)
    views.append(made)


def predecessor(kind: type) -> Any:
    """What an earlier run of the running cell made, of that kind; None if it made none."""
    place = _here()
    if place is None:
        return None
    before, views = _MADE.get(place[0], ("", []))
    found = [view for view in views if isinstance(view, kind)]
    return found[-1] if found and before != place[1] else None


def _here() -> tuple[str, str] | None:
    """The running cell, by its id or, where the front end gives none, by its code; and its run."""
    if threading.current_thread() is not threading.main_thread():
        return None  # it works for an earlier cell than the one that runs now
    try:
        from IPython.core.getipython import get_ipython

        parent = get_ipython().get_parent()  # type: ignore[union-attr]
        cell = parent.get("metadata", {}).get("cellId") or parent["content"]["code"]
        return str(cell), str(parent["header"]["msg_id"])
    except (AttributeError, ImportError, KeyError, TypeError):
        return None  # no notebook
