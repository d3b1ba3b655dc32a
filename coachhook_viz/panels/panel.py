"""What every panel has: a title, a place for errors, links to the others, a static twin, its code.

Panel       the base of them all
Static      a picture or table that survives saving, and needs no script
told        what an error says, for a person
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import ipywidgets as widgets
from markupsafe import Markup

from coachhook_viz.events import Event
from coachhook_viz.figures.style import Picture
from coachhook_viz.panels.desk import Desk
from coachhook_viz.session import Session

_MOMENT = 0.15  # seconds


class Static:
    """What a panel shows, as HTML that survives saving and needs no script.

    Parameters
    ----------
    parts : sequence of str or Picture
        Text is escaped unless it is `Markup`.
    """

    def __init__(self, *parts: str | Picture) -> None:
        self.parts = parts

    def _repr_html_(self) -> str:
        pieces = [
            _image(part)
            if isinstance(part, Picture)
            else Markup("<p>{}</p>").format(part)
            if not isinstance(part, Markup)
            else part
            for part in self.parts
        ]
        return str(Markup("<div>{}</div>").format(Markup("").join(pieces)))

    def __repr__(self) -> str:
        return f"<static twin, {len(self.parts)} parts>"


class Panel(widgets.VBox):
    """A view on a session; whatever a click does, one public call does.

    Each has `static()`, what it shows now as a `Static`, and `code()`, the calls that give it.

    Parameters
    ----------
    session : Session
    body : sequence of widgets
    subtitle : str

    Attributes
    ----------
    session : Session
    desk : Desk
        What it shares with the other panels on the same session.
    """

    title: ClassVar[str]

    def __init__(self, session: Session, body: Sequence[Any], subtitle: str = "") -> None:
        self.session = session
        self.desk = Desk.of(session)
        self._timer: threading.Timer | None = None
        self._heading = widgets.HTML()
        self._alert = html("", "cv-alert")
        super().__init__([self._heading, *body, self._alert])
        self.subtitle(subtitle)
        for name in ("cv", "cv-panel", f"cv-{self.title.lower()}"):
            self.add_class(name)
        self._ends = [
            self.desk.subscribe(self._hear),
            self.desk.worker.listen(self._worked),
        ]

    def hear(self, event: Event) -> None:
        """React to a change of the session or of the selection, its own included."""

    def worked(self) -> None:
        """React to the worker: a job began, came on or ended."""

    def __repr__(self) -> str:
        return f"<panel {self.title}; if it does not show, run its cell again>"

    def close(self) -> None:
        """Leave the desk and the page; what runs goes on without it."""
        for end in self._ends:
            end()
        if self._timer is not None:
            self._timer.cancel()
        for child in _below(self):
            child.close()
        super().close()

    def subtitle(self, text: str) -> None:
        """Say something beside the title."""
        self._heading.value = Markup("<div class='cv-title'><b>{}</b><span>{}</span></div>").format(
            self.title, text
        )

    def alert(self, text: str = "") -> None:
        """Say what went wrong and what to do, or take it away."""
        self._alert.value = str(Markup("{}").format(text))

    def fail(self, error: Exception) -> None:
        """Say what `error` says: for `failed` of a job."""
        self.alert(told(error))

    def on(self, widget: Any, act: Callable[[Any], object], trait: str = "value") -> None:
        """Call `act` with the new value whenever a person, or another thread, changes it."""
        widget.observe(lambda change: self._do(lambda: act(change.new)), trait)

    def click(self, button: Any, act: Callable[[], object]) -> None:
        """Call `act` on each click; what was wrong before is no longer said."""

        def clicked(button: Any) -> None:
            self.alert()
            self._do(act)

        button.on_click(clicked)

    def _do(self, act: Callable[[], object]) -> None:
        with self.desk.drawing, self.saying():
            act()

    @contextmanager
    def saying(self) -> Iterator[None]:
        """Within the context an error is said in the panel, instead of printed in a cell."""
        try:
            yield
        except Exception as error:
            self.fail(error)

    def later(self, act: Callable[[], object]) -> None:
        """Call `act` once nothing newer has come for a moment: for what follows each key."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(_MOMENT, self._do, [act])
        self._timer.daemon = True
        self._timer.start()

    def _hear(self, event: Event) -> None:
        with self.desk.drawing:
            self.hear(event)

    def _worked(self) -> None:
        with self.desk.drawing:
            self.worked()


def told(error: Exception) -> str:
    """What an error says, for a person: its message, or what kind it is."""
    text = str(error).strip()
    return f"{text[:1].upper()}{text[1:]}" if text else type(error).__name__


def html(value: str | Markup, *classes: str) -> widgets.HTML:
    """An HTML widget; text is escaped unless it is `Markup`."""
    made = widgets.HTML(str(Markup("{}").format(value)))
    for name in classes:
        made.add_class(name)
    return made


def row(*children: Any, classes: Sequence[str] = ("cv-row",)) -> widgets.Box:
    """Widgets side by side, wrapped where it is narrow."""
    made = widgets.Box(children)
    for name in classes:
        made.add_class(name)
    return made


def _image(picture: Picture) -> Markup:
    """An image: SVG is cut out of a notebook whose reader has not yet said to trust it."""
    data = base64.b64encode(picture._repr_png_()).decode()
    titles = [picture.get_suptitle(), *(axes.get_title("left") for axes in picture.axes)]
    return Markup("<img src='data:image/png;base64,{}' alt='{}' width='{:.0f}'>").format(
        data, " ".join(filter(None, titles)), 96 * picture.get_figwidth()
    )


def _below(widget: Any) -> Iterator[Any]:
    for child in getattr(widget, "children", ()):
        yield from _below(child)
        yield child
