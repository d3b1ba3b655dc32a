"""What every panel has: a region with a title, a place for errors, work off the main thread.

Panel       the base of them all
Static      a picture or table that survives saving, and needs no script
free        closes a widget and all within it
told        what an error says, for a person
image       a picture as HTML
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import ipywidgets as widgets
from markupsafe import Markup

from coachhook_viz.errors import FactFileError, SessionFileError
from coachhook_viz.events import Event
from coachhook_viz.figures.style import Picture
from coachhook_viz.panels.cells import replacing
from coachhook_viz.panels.controls import Heading, Text
from coachhook_viz.panels.desk import Desk
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.view import Group, Node, View
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_MOMENT = 0.15  # seconds
_Result = TypeVar("_Result")


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
            image(part)
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

    Each declares what it is called and what it is for, and has `static()`, what it shows now as a
    `Static`, and `code()`, the calls that give it. It computes only while it is `visible`.

    Parameters
    ----------
    session : Session
    body : sequence of Node
    beside : sequence of widgets
        Live pictures below the body.

    Attributes
    ----------
    session : Session
    desk : Desk
        What it shares with the other panels on the same session.
    title, help : str
        What it is called, and the question that it answers.
    """

    title: ClassVar[str]
    help: ClassVar[str] = ""

    def __init__(self, session: Session, body: Sequence[Node], beside: Sequence[Any] = ()) -> None:
        self.session = session
        self.desk = Desk.of(session)
        self._timer: threading.Timer | None = None
        self._shown = True
        self._behind = False  # whether something has changed while it was not visible
        self._jobs: dict[str, bool] = {}  # keys of its jobs, and whether a person waits for them
        self.heading = Heading(title=self.title, help=self.help)
        self._alert = Text(classes="cv-alert", live="assertive")
        region = Group(
            [self.heading, *body, self._alert],
            role="region",
            label=self.title,
            classes=f"cv-panel cv-{self.title.lower()}",
        )
        self.view = View(region)
        super().__init__([self.view, *beside])
        self.add_class("cv-place")
        self._ends = [
            self.desk.subscribe(self._hear),
            self.desk.worker.listen(self._worked),
        ]
        replacing(self)

    def hear(self, event: Event) -> None:
        """React to a change of the session or of the selection, its own included."""

    def worked(self) -> None:
        """React to the worker: a job began, came on or ended."""

    def refresh(self) -> None:
        """Show what is in force now; a panel that measures overrides it."""

    @property
    def visible(self) -> bool:
        """Whether a person can see it. What happens while it cannot be seen is read afterwards."""
        return self._shown

    @visible.setter
    def visible(self, shown: bool) -> None:
        self._shown = shown
        self.layout.display = None if shown else "none"
        if not shown and self.drop(unasked=True):
            self._behind = True
        if shown:
            behind, self._behind = self._behind, False
            if behind:
                self._do(self.refresh)
            self._do(self.worked)

    def renew(self) -> None:
        """`refresh` now, or once it is visible."""
        if self._shown:
            self.refresh()
        else:
            self._behind = True

    def __repr__(self) -> str:
        return f"<panel {self.title}; if it does not show, run its cell again>"

    def close(self) -> None:
        """Leave the desk and the page; what runs goes on without it."""
        for end in self._ends:
            end()
        if self._timer is not None:
            self._timer.cancel()
        for child in self.children:
            free(child)
        self.layout.close()
        super().close()

    def alert(self, text: str | Markup = "") -> None:
        """Say what went wrong and what to do, or take it away."""
        self._alert.say(text)

    def fail(self, error: Exception) -> None:
        """Say what `error` says: for `failed` of a job."""
        self.alert(told(error))

    def run(
        self,
        title: str,
        work: Callable[[Job], _Result],
        show: Callable[[_Result], object],
        *,
        of: Hashable = None,
        patience: int = 0,
        running: Running | None = None,
        fail: Callable[[Exception], object] | None = None,
    ) -> None:
        """Do `work` off the main thread, then `show` its result.

        A later call with the same `show` overtakes an earlier one, whose result is dropped.

        Parameters
        ----------
        title : str
            What a person reads meanwhile.
        work : callable
            Called with the `Job`.
        show : callable
            A method: its name tells which calls overtake each other.
        of : hashable, optional
            All that the result depends on: it is kept, and shown at once when it is wanted again.
        patience : int
            As in `Job`.
        running : Running, optional
            What shows how far it has come, and cancels it. It goes on when nobody sees the panel.
        fail : callable, optional
            Called with what `work` raises, instead of `Panel.fail`.
        """
        if self.recall(show, of):
            return
        name, state = _name(show), self.session.state
        key = self._key_of(show)
        self._jobs[key] = running is not None or patience < 2
        if running is not None:
            running.key = key

        begun: list[Job] = []

        def begin(job: Job) -> _Result:
            begun.append(job)
            return work(job)

        def done(result: _Result) -> None:
            if of is not None and self.session.state is state:  # else it may be of both
                self.desk.kept.put((self.title, name, of), result)
            self._do(lambda: None if begun[-1].cancel() else show(result))  # if overtaken meanwhile

        def failed(error: Exception) -> None:
            self._do(lambda: (fail or self.fail)(error))

        self.desk.worker.submit(title, begin, done, failed, key=key, patience=patience)

    def recall(self, show: Callable[[Any], object], of: Hashable) -> bool:
        """Show what `run` has kept for `show` of that; whether there was anything."""
        kept = None if of is None else self.desk.kept.get((self.title, _name(show), of))
        if kept is None:
            return False
        self.forget(show)
        show(kept)
        return True

    def forget(self, show: Callable[..., object]) -> None:
        """Drop what `run` has begun for `show`: nobody wants it any more."""
        self.desk.worker.drop(self._key_of(show))

    def _key_of(self, show: Callable[..., object]) -> str:
        return f"{id(self)} {_name(show)}"

    def drop(self, *, unasked: bool = False) -> bool:
        """Stop what it has begun with `run`; whether there was anything.

        Parameters
        ----------
        unasked : bool
            Only that which nobody has asked for, and nobody waits for.
        """
        worker = self.desk.worker
        keys = [key for key, wanted in self._jobs.items() if not (unasked and wanted)]
        found = [key for key in keys if worker.find(key) is not None]
        for key in found:
            worker.drop(key)
        return bool(found)

    def on(self, node: Any, act: Callable[[Any], object], trait: str = "value") -> None:
        """Call `act` with the new value whenever a person, or another thread, changes it."""
        node.observe(lambda change: self._do(lambda: act(change.new)), trait)

    def click(self, button: Any, act: Callable[[], object]) -> None:
        """Call `act` on each click; what was wrong before is no longer said."""

        def clicked() -> None:
            self.alert()
            self._do(act)

        button.on_click(clicked)

    def picture(self) -> Markup:
        """All that it shows, as HTML that needs no script."""
        return Markup("<section><h4>{}</h4>{}</section>").format(
            self.title, self.view.root.picture()
        )

    def _do(self, act: Callable[[], object]) -> None:
        with self.desk.drawing, self.view.together(), self.saying():
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

    def _failed(self, error: Exception) -> None:
        self._do(lambda: self.fail(error))

    def _hear(self, event: Event) -> None:
        with self.desk.drawing, self.view.together():
            self.hear(event)

    def _worked(self) -> None:
        if self._shown:
            with self.desk.drawing, self.view.together():
                self.worked()


def _name(show: Any) -> str:
    return str(getattr(getattr(show, "func", show), "__name__", ""))


def free(widget: Any) -> None:
    """Close a widget and all within it."""
    for child in getattr(widget, "children", ()):
        free(child)
    layout = getattr(widget, "layout", None)
    widget.close()
    if isinstance(layout, widgets.Layout):  # that of a plotly figure is no widget
        layout.close()


def told(error: Exception) -> str:
    """What an error says, for a person: its message, or what kind it is.

    It begins with a capital, unless that is a name: ``"facts.csv: it is empty"``.
    """
    text = str(error).strip()
    if isinstance(error, FactFileError | SessionFileError) or "_" in text.partition(" ")[0]:
        return text
    return f"{text[:1].upper()}{text[1:]}" if text else type(error).__name__


def image(picture: Picture) -> Markup:
    """An image: SVG is cut out of a notebook whose reader has not yet said to trust it."""
    data = base64.b64encode(picture._repr_png_()).decode()
    titles = [picture.get_suptitle(), *(axes.get_title("left") for axes in picture.axes)]
    return Markup("<img src='data:image/png;base64,{}' alt='{}' width='{:.0f}'>").format(
        data, " ".join(filter(None, titles)), 96 * picture.get_figwidth()
    )
