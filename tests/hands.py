"""A person at a panel, without a browser: what is typed and pressed, and what the page is sent.

Hands         at one view
Held          a session whose next round waits at a step
new_session   on a tiny model, nothing edited yet
submitted     what a desk's worker is asked for from now on
settle        waits for what follows each key, and for the worker
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tiny import tiny_model, tiny_session

from coachhook_viz import Session
from coachhook_viz.panels.controls import Button, Chips, Field, ListBox, Upload
from coachhook_viz.panels.desk import Desk
from coachhook_viz.panels.grid import Grid
from coachhook_viz.panels.view import Node, View, walk

HOSTILE = "<img src=x onerror=alert(1)>"
STRONG = {  # one fact takes, whatever the tiny model says
    "steps": 25,
    "learning_rate": 1.0,
    "clamp_factor": 10.0,
    "weight_decay": 0.0,
    "kl_weight": 0.0,
    "covariance_weight": 3.0,
}


def new_session(**changes: Any) -> Session:
    return tiny_session(tiny_model(lead="He "), **changes)


def settle(*panels: Any) -> None:
    """Wait until no timer of the panels and no job of their desk is left."""
    for _ in range(50):
        for panel in panels:
            if panel._timer is not None:
                panel._timer.join(5)
        assert panels[0].desk.worker.wait(30)
        if not any(panel._timer is not None and panel._timer.is_alive() for panel in panels):
            return
    raise AssertionError("it never rests")


def whole(playground: Any) -> None:
    """Wait until nothing of a playground moves."""
    assert playground.wait(30)
    settle(*playground._panels)


def submitted(desk: Desk, monkeypatch: Any) -> list[str]:
    """Titles of the jobs that the worker of `desk` is given from now on."""
    titles: list[str] = []
    submit = desk.worker.submit

    def recorded(title: str, *args: Any, **kwargs: Any) -> Any:
        titles.append(title)
        return submit(title, *args, **kwargs)

    monkeypatch.setattr(desk.worker, "submit", recorded)
    return titles


def texts(grid: Grid, column: int = 0) -> list[str]:
    return [line[column].get("text", "") for line in grid.cells]


def kinds(grid: Grid, column: int = 0) -> list[str]:
    return [line[column].get("kind", "") for line in grid.cells]


def nodes(panel: Any) -> Iterator[Node]:
    yield from walk(panel.view.root)


class Hands:
    """What a person does in the page of a panel.

    Parameters
    ----------
    panel : Panel or View

    Attributes
    ----------
    sent : list of dict
        All that the page is sent from now on.
    """

    def __init__(self, panel: Any) -> None:
        self.view: View = getattr(panel, "view", panel)
        self.sent: list[dict[str, Any]] = []
        self.files: list[tuple[str, bytes]] = []
        self.view.send = self._take  # type: ignore[method-assign]

    def _take(self, content: dict[str, Any], buffers: Sequence[Any] = ()) -> None:
        self.sent.append(content)
        _, said = content.get("message", ("", {}))
        if "download" in said:
            self.files.append((said["download"], bytes(buffers[0])))

    def set(self, node: Node, **state: Any) -> None:
        self.view._hear(self.view, {"set": {node._key: state}}, [])

    def say(self, node: Node, content: dict[str, Any], *buffers: Any) -> None:
        self.view._hear(self.view, {"message": [node._key, content]}, list(buffers))

    def type(self, field: Field, text: str) -> None:
        """All at once."""
        self.set(field, value=text)

    def enter(self, field: Field) -> None:
        self.say(field, {"enter": field.value})

    def press(self, button: Button) -> None:
        self.say(button, {"click": True})

    def pick(self, chips: Chips, text: str) -> None:
        self.say(chips, {"pick": chips.options.index(text)})

    def choose(self, rows: ListBox, *keys: str) -> None:
        self.set(rows, chosen=list(keys))

    def at(self, grid: Grid, row: int, column: int) -> None:
        self.set(grid, selected=[row, column])

    def hand(self, upload: Upload, name: str, data: bytes) -> None:
        self.say(upload, {"file": name}, memoryview(data))

    def written(self, node: Node) -> list[dict[str, Any]]:
        """What the page was told of a node's value, by message."""
        patches = [content.get("patch", {}).get(node._key, {}) for content in self.sent]
        return [patch for patch in patches if "value" in patch]


class Held:
    """A session whose next round waits at a step until it is let go, or cancelled.

    Attributes
    ----------
    reached, go : Event
    """

    def __init__(self, session: Session, monkeypatch: Any) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        apply = session.apply

        def slow(facts: Any, progress: Any, cancel: Any, *, source: object = None) -> Any:
            def held(said: Any) -> None:
                self.reached.set()
                for _ in range(1000):  # not for good, lest a test that fails stops all others
                    if self.go.wait(0.01) or cancel():
                        break
                progress(said)

            return apply(facts, held, cancel, source=source)

        monkeypatch.setattr(session, "apply", slow)

    def wait(self) -> None:
        """Until the round has begun."""
        assert self.reached.wait(10)
