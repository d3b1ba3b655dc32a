"""One widget for all that a panel shows: nodes in Python, drawn by one script in the page.

Node    a part of the page with synchronised traits, as a widget has, but without a widget's price
Group   nodes within a node
View    the widget: a tree of nodes

    field = Field(label="Prompt")
    view = View(Group([field]))
    field.observe(lambda change: print(change.new), "value")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar
from uuid import uuid4

import anywidget
import traitlets
from markupsafe import Markup

STATIC = Path(__file__).parent / "static"
_PARTS = (
    "view.js",
    "controls.js",
    "grid.js",
    "dots.js",
    "stage.js",
    "start.js",
)  # one module: a page loads no second one


class Node(traitlets.HasTraits):
    """A part of the page. What is tagged ``sync`` is the same in Python and in the page.

    Attributes
    ----------
    classes : str
        Names for the style sheet.
    hidden : bool
        Whether it takes no room.
    """

    kind: ClassVar[str]

    classes = traitlets.Unicode().tag(sync=True)
    hidden = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._view: View | None = None
        self._key = ""
        super().__init__(**traits)
        self.observe(self._changed, self.trait_names(sync=True))

    def close(self) -> None:
        """Let go of whoever observes it."""
        self.unobserve_all()
        self._view = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within the context changes are collected; the page hears of them at once."""
        if self._view is None:
            yield
        else:
            with self._view.together():
                yield

    def tell(self, content: dict[str, Any], buffers: Sequence[bytes] = ()) -> None:
        """Send the page a message that is no state."""
        if self._view is not None:
            self._view.send({"message": [self._key, content]}, list(buffers))

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """React to a message of the page that is no state."""

    def picture(self) -> Markup:
        """What it shows, as HTML that needs no script; nothing for what is only to be pressed."""
        return Markup("")

    def snapshot(self) -> dict[str, Any]:
        """All that the page needs to draw it."""
        state = {name: getattr(self, name) for name in self.trait_names(sync=True)}
        return {"key": self._key, "kind": self.kind, "state": state}

    def _changed(self, change: Any) -> None:
        if self._view is not None:
            self._view._patch(self._key, change.name, change.new)


class Group(Node):
    """Nodes within a node.

    Parameters
    ----------
    children : sequence of Node
    role, label : str
        What it is, for those who do not see it.
    """

    kind = "group"

    role = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, children: Sequence[Node], **traits: Any) -> None:
        self.children = tuple(children)
        super().__init__(**traits)

    def picture(self) -> Markup:
        """What is within it."""
        shown = (child.picture() for child in self.children if not child.hidden)
        return Markup("").join(Markup("<div>{}</div>").format(part) for part in shown if part)

    def snapshot(self) -> dict[str, Any]:
        """Itself, and what is within it."""
        within = [child.snapshot() for child in self.children]
        return {**super().snapshot(), "children": within}


class View(anywidget.AnyWidget):
    """The one widget of a panel: a tree of nodes, drawn by one script in the page.

    What a person changes in the page is told to the node's observers, and never sent back.

    Parameters
    ----------
    root : Node
    """

    _esm = "\n".join((STATIC / name).read_text("utf-8") for name in _PARTS)
    _css = (STATIC / "style.css").read_text("utf-8")  # as a path anywidget keeps each view for good

    uid = traitlets.Unicode().tag(sync=True)
    tree: Any = traitlets.Any().tag(sync=True, to_json=lambda value, view: view.snapshot())

    def __init__(self, root: Node) -> None:
        self.root = root
        self._nodes: dict[str, Node] = {}
        self._theirs: tuple[str, str, Any] | None = None  # what the page has just said
        self._lock = RLock()
        self._depth = 0
        self._pending: dict[str, dict[str, Any]] = {}
        for place, node in enumerate(walk(root)):
            node._view, node._key = self, str(place)
            self._nodes[node._key] = node
        super().__init__(uid=uuid4().hex)
        self.on_msg(self._hear)

    def snapshot(self) -> dict[str, Any]:
        """The tree as it is now: a page that is loaded again begins with it."""
        return self.root.snapshot()

    def close(self) -> None:
        """Take it off the page, and free its nodes."""
        for node in self._nodes.values():
            node.close()
        self._nodes = {}
        super().close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within the context changes of all nodes are collected into one message."""
        with self._lock:  # not held meanwhile: whoever draws may have to wait for another thread
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if not self._depth and self._pending:
                    pending, self._pending = self._pending, {}
                    self.send({"patch": pending})

    def _patch(self, key: str, name: str, value: Any) -> None:
        if (key, name, value) == self._theirs:
            self._theirs = None  # once: what comes after it is no echo
            return
        with self.together():
            self._pending.setdefault(key, {})[name] = value

    def _hear(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        if "hello" in content:  # what was sent before its script ran is lost
            self.send({"tree": self.snapshot()})
        for key, state in content.get("set", {}).items():
            for name, value in state.items():
                self._set(self._nodes.get(key), name, value)
        if "message" in content:
            key, said = content["message"]
            if key in self._nodes:
                self._nodes[key].heard(said, buffers)

    def _set(self, node: Node | None, name: str, value: Any) -> None:
        if node is None or not node.has_trait(name):
            return
        self._theirs = (node._key, name, value)
        try:
            setattr(node, name, value)
        except traitlets.TraitError:  # no value that a page of ours sends: tell it the true one
            self._theirs = None
            self._patch(node._key, name, getattr(node, name))
        finally:
            self._theirs = None


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for child in getattr(node, "children", ()):
        yield from walk(child)
