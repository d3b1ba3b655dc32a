"""What a person types into and presses, as nodes of a `View`.

Heading, Text                   a title; words, announced where they are live
Field                           one line or several; only the person writes while it has the focus
Button, Toggle, Choice, Chips   to press: once, on and off, one of several, suggestions
Select, Slider, Check           a drop-down list, a number, yes or no
Upload                          a file of the person's
Tabs                            which of several views is shown
ListBox                         rows that are known by a key; several can be chosen
Stage                           the place of a whole playground
row, column                     nodes side by side, nodes below each other
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import traitlets
from markupsafe import Markup

from coachhook_viz.panels.view import Group, Node


class Heading(Node):
    """The title of a panel, and what it is for."""

    kind = "heading"

    title = traitlets.Unicode().tag(sync=True)
    help = traitlets.Unicode().tag(sync=True)


class Text(Node):
    """Words.

    Parameters
    ----------
    said : str or Markup
        Text is escaped unless it is `Markup`.
    classes : str
    live : str
        "polite" or "assertive" where a screen reader should say what changes.
    """

    kind = "text"

    html = traitlets.Unicode().tag(sync=True)
    live = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, said: str | Markup = "", classes: str = "", **traits: Any) -> None:
        super().__init__(classes=classes, **traits)
        self.say(said)

    def picture(self) -> Markup:
        """The words."""
        return Markup(self.html)

    def say(self, said: str | Markup = "") -> None:
        """Say something else; text is escaped unless it is `Markup`."""
        self.html = str(Markup("{}").format(said))


class _Labelled(Node):
    label = traitlets.Unicode().tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)


class Field(_Labelled):
    """A field for text.

    Attributes
    ----------
    value : str
        What stands in it. Set while a person types, the page keeps what was typed, and says so.
    rows : int
        0: a single line; else so many lines at first, growing.
    submits : bool
        Whether Enter submits where there are several lines; Shift+Enter then makes a line break.
    error : str
        What is wrong with it, shown below.
    """

    kind = "field"

    value = traitlets.Unicode().tag(sync=True)
    over = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    placeholder = traitlets.Unicode().tag(sync=True)
    rows = traitlets.Int(0).tag(sync=True)
    submits = traitlets.Bool(False).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._entered: list[Callable[[], object]] = []

    def put(self, text: str) -> None:
        """Write into it at the person's own wish, even if it has the focus.

        What has been typed meanwhile stands all the same.
        """
        with self.together():
            self.over = self.value
            self.value = text

    def on_enter(self, act: Callable[[], object]) -> None:
        """Call `act` when the key Enter is pressed in it."""
        self._entered.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """The key Enter."""
        if "enter" in content:
            for act in self._entered:
                act()


class Button(_Labelled):
    """A button; while it rests it keeps the focus, and presses are nothing.

    Attributes
    ----------
    look : str
        "", "primary" or "quiet".
    tip : str
        What is said on hover.
    name : str
        Its name where the label alone would not tell it from another.
    """

    kind = "button"

    look = traitlets.Unicode().tag(sync=True)
    tip = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)

    def __init__(self, label: str, look: str = "", **traits: Any) -> None:
        super().__init__(label=label, look=look, **traits)
        self._clicked: list[Callable[[], object]] = []

    def on_click(self, act: Callable[[], object]) -> None:
        """Call `act` on each press."""
        self._clicked.append(act)

    def click(self) -> None:
        """Press it."""
        if not self.disabled:
            for act in self._clicked:
                act()

    def download(self, name: str, data: bytes, media: str = "text/plain") -> None:
        """Hand the person a file."""
        self.tell({"download": name, "type": media}, [data])

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """A press in the page."""
        if "click" in content:
            self.click()


class Toggle(_Labelled):
    """A button that is on or off.

    Attributes
    ----------
    value : bool
    expands : bool
        Whether it opens something, rather than being pressed.
    """

    kind = "toggle"

    value = traitlets.Bool(False).tag(sync=True)
    expands = traitlets.Bool(False).tag(sync=True)
    look = traitlets.Unicode().tag(sync=True)
    tip = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)


class Choice(_Labelled):
    """One of a few, as buttons side by side.

    Attributes
    ----------
    options : list of [text, value] or [text, value, tip]
    value : str
    """

    kind = "choice"

    options: Any = traitlets.List().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)


class Select(_Labelled):
    """One of many, as a drop-down list.

    Attributes
    ----------
    options : list of [text, value]
    value : str
    """

    kind = "select"

    options: Any = traitlets.List().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)


class Slider(_Labelled):
    """A number between two others."""

    kind = "slider"

    min = traitlets.Float(0).tag(sync=True)
    max = traitlets.Float(1).tag(sync=True)
    step = traitlets.Float(0.01).tag(sync=True)
    value = traitlets.Float(0).tag(sync=True)
    digits = traitlets.Int(2).tag(sync=True)


class Check(_Labelled):
    """Yes or no."""

    kind = "check"

    value = traitlets.Bool(False).tag(sync=True)


class Upload(_Labelled):
    """A button that asks for a file.

    Attributes
    ----------
    accept : str
        Endings, as ``".csv,.json"``.
    """

    kind = "upload"

    accept = traitlets.Unicode().tag(sync=True)
    look = traitlets.Unicode().tag(sync=True)
    tip = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)

    def __init__(self, label: str, accept: str = "", **traits: Any) -> None:
        super().__init__(label=label, accept=accept, **traits)
        self._taken: list[Callable[[str, bytes], object]] = []

    def on_file(self, act: Callable[[str, bytes], object]) -> None:
        """Call `act` with name and content of each file."""
        self._taken.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """A file."""
        if "file" in content and buffers:
            for act in self._taken:
                act(str(content["file"]), bytes(buffers[0]))


class Chips(Node):
    """Suggestions to press.

    Attributes
    ----------
    options : list of str
    label : str
        What they are, for those who do not see them.
    """

    kind = "chips"

    options: Any = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._picked: list[Callable[[int], object]] = []

    def on_pick(self, act: Callable[[int], object]) -> None:
        """Call `act` with the place of the one that is pressed."""
        self._picked.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """A press in the page."""
        place = content.get("pick")
        if isinstance(place, int) and place in range(len(self.options)):
            for act in self._picked:
                act(place)


class Tabs(_Labelled):
    """Which of several views is shown.

    Attributes
    ----------
    options : list of [text, value] or [text, value, tip]
    value : str
    """

    kind = "tabs"

    options: Any = traitlets.List().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)


class ListBox(Node):
    """Rows that are known by a key, of which several can be chosen.

    Attributes
    ----------
    rows : list of dict
        Each with key, mark, text, target, where, and where they apply kind, detail and strong,
        the place of what stands out in the text.
    chosen : list of str
        Keys.
    empty : str
        What is said where there is no row.
    """

    kind = "list"

    label = traitlets.Unicode().tag(sync=True)
    empty = traitlets.Unicode().tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    chosen: Any = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._again: list[Callable[[str], object]] = []

    def on_again(self, act: Callable[[str], object]) -> None:
        """Call `act` with the key of the only row that is chosen when it is pressed once more."""
        self._again.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """A press in the page."""
        if self.chosen == [content.get("again")]:
            for act in self._again:
                act(self.chosen[0])

    def picture(self) -> Markup:
        """The rows."""
        line = Markup("<li>{mark} {text} {target} ({where})</li>")
        lines = Markup("").join(line.format(**row) for row in self.rows)
        return Markup("<ul style='list-style:none'>{}</ul>").format(lines) if lines else Markup("")


class Stage(Node):
    """The place of a whole playground: nothing to see, but it knows its height and its keys.

    Attributes
    ----------
    made : float
        When, in seconds since the epoch: a new one is brought into view.
    """

    kind = "stage"

    made = traitlets.Float().tag(sync=True)

    def __init__(self) -> None:
        super().__init__(made=time.time())
        self._stepped: list[Callable[[int], object]] = []

    def on_step(self, act: Callable[[int], object]) -> None:
        """Call `act` with -1 or 1 for the keys ← and → while it is presented."""
        self._stepped.append(act)

    def heard(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """An arrow key."""
        if content.get("step") in (-1, 1):
            for act in self._stepped:
                act(content["step"])


def row(*children: Node, classes: str = "cv-row", **traits: Any) -> Group:
    """Nodes side by side, wrapped where it is narrow."""
    return Group(children, classes=classes, **traits)


def column(*children: Node, classes: str = "cv-stack", **traits: Any) -> Group:
    """Nodes below each other."""
    return Group(children, classes=classes, **traits)
