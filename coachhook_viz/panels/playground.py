"""The playground: all panels on one session, under a header that never lies.

playground    make it; with no session it loads the default model first, in the background
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
from markupsafe import Markup

from coachhook_viz.panels.grid import Grid
from coachhook_viz.panels.worker import Job, Worker

if TYPE_CHECKING:
    from coachhook_viz.panels.desk import Desk
    from coachhook_viz.session import Session

_PROMPT = "The Eiffel Tower is located in the city of"


class Playground(widgets.VBox):
    """All panels on one session.

    It appears at once; where it has no session yet, the model is loaded in the background.

    Parameters
    ----------
    session : Session, optional
        None: a new one on the default model.

    Attributes
    ----------
    session : Session or None
        None while the model is being loaded.
    facts, rounds, ask, scope, drift, interference, compare : Panel
        Once there is a session.
    """

    def __init__(self, session: Session | None = None) -> None:
        self.session: Session | None = None
        self.desk: Desk | None = None
        self._header = widgets.HTML()
        self._waiting = Grid(
            label="playground",
            picks="nothing",
            empty="Loading the default model. The first time it is fetched, and its second moments"
            " are collected, which takes a minute.",
        )
        self._folder = widgets.Text(placeholder="my session", description="Session folder")
        self._save = widgets.Button(description="Save")
        self._load = widgets.Button(description="Open")
        self._said = widgets.HTML()
        self._ends: list[Any] = []
        self._panels: tuple[Any, ...] = ()
        super().__init__([self._header, self._waiting])
        self.add_class("cv")
        self.add_class("cv-playground")
        self._save.on_click(lambda button: self.save(self._folder.value))
        self._load.on_click(lambda button: self.load(self._folder.value))
        self._draw_header("loading the model…")
        if session is None:
            worker = Worker()
            worker.listen(lambda: self._draw_loading(worker.running))
            worker.submit("loading the model", _new_session, self._take, self._cannot_load)
            self._loading: Worker | None = worker
        else:
            self._loading = None
            self._take(session)

    def __repr__(self) -> str:
        return "<playground; if it does not show, put its name into a new cell: nothing is lost>"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being computed; whether that came within `timeout` seconds."""
        loaded = self._loading is None or self._loading.wait(timeout)
        return loaded and (self.desk is None or self.desk.worker.wait(timeout))

    def save(self, folder: str | Path) -> None:
        """Save the session to a folder: `Session.save`."""
        if self.session is None:
            return
        try:
            path = _named(folder)
            self.session.save(path)
        except Exception as error:
            self._fail(error)
        else:
            self._tell(f"Saved to {path.resolve()}.")

    def load(self, folder: str | Path) -> None:
        """Open a session that was saved, on the same model, in place of this one."""
        from coachhook_viz.session import Session

        if self.session is None or self.desk is None:
            return
        lm, moments = self.session.lm, self.session.moments

        def opened(session: Session) -> None:
            self._take(session)
            self._tell(f"Opened {folder}.")

        self.desk.worker.submit(
            "opening a session",
            lambda job: Session.load(
                _named(folder), lm, moments, progress=job.progress, cancel=job.cancel
            ),
            opened,
            self._fail,
            exclusive=True,
        )

    def static(self) -> Any:
        """What all panels show, as HTML that survives saving."""
        from coachhook_viz.panels.panel import Static

        return Static(*(part for panel in self._panels for part in panel.static().parts))

    def code(self) -> str:
        """The public calls that give what the panels show."""
        blocks = [f"# {panel.title}\n{panel.code()}" for panel in self._panels]
        head = "import coachhook_viz as cv\n\nlm = cv.load_model()\nsession = cv.Session(lm)"
        return "\n\n".join([head, *blocks])

    def close(self) -> None:
        """Take it off the page; what runs goes on without it."""
        self._leave()
        super().close()

    def _leave(self) -> None:
        for end in self._ends:
            end()
        self._ends = []
        for panel in self._panels:
            panel.close()
        self._panels = ()

    def _take(self, session: Session) -> None:
        """Show `session` in place of what was shown."""
        from coachhook_viz.panels.ask import Ask
        from coachhook_viz.panels.compare import Compare
        from coachhook_viz.panels.desk import Desk
        from coachhook_viz.panels.drift import Drift
        from coachhook_viz.panels.facts import Facts
        from coachhook_viz.panels.interference import Interference
        from coachhook_viz.panels.panel import row
        from coachhook_viz.panels.rounds import Rounds
        from coachhook_viz.panels.scope import Scope

        self._leave()
        self.session, self.desk = session, Desk.of(session)
        if not self.desk.selection.prompt:
            self.desk.select(self, prompt=_PROMPT)
        self.facts, self.rounds = Facts(session), Rounds(session)
        self.ask, self.scope = Ask(session), Scope(session)
        self.drift, self.interference = Drift(session), Interference(session)
        self.compare = Compare(session)
        tabbed = (self.drift, self.interference, self.compare)
        self._panels = (self.facts, self.rounds, self.ask, self.scope, *tabbed)
        tabs = widgets.Tab(tabbed, titles=[panel.title for panel in tabbed])
        tabs.add_class("cv-tabbed")
        keep = widgets.VBox([row(self._folder, self._save, self._load), self._said])
        for name in ("cv-panel", "cv-keep"):
            keep.add_class(name)
        columns = widgets.Box(
            [
                _column(self.facts, self.rounds, keep),
                _column(self.ask, self.scope, tabs),
            ]
        )
        columns.add_class("cv-columns")
        self._ends = [
            self.desk.subscribe(lambda event: self._draw_header()),
            self.desk.worker.listen(self._draw_header),
        ]
        self._draw_header()
        self.children = [self._header, columns]

    def _draw_loading(self, job: Job | None) -> None:
        if job is not None and job.said is not None and self.session is None:
            from coachhook_viz.panels.running import STAGES

            stage = STAGES.get(job.said.stage, job.said.stage)
            self._draw_header(f"{stage}, {job.said.step} of {job.said.total}…")

    def _cannot_load(self, error: Exception) -> None:
        self._waiting.empty = f"The model could not be loaded. {error}"
        self._draw_header("no model")

    def _fail(self, error: Exception) -> None:
        from coachhook_viz.panels.panel import told

        self._said.value = str(Markup("<div class='cv-alert'>{}</div>").format(told(error)))

    def _tell(self, text: str) -> None:
        self._said.value = str(Markup("<p class='cv-note'>{}</p>").format(text))

    def _draw_header(self, busy: str = "") -> None:
        pills = []
        if self.session is not None and self.desk is not None:
            from coachhook_viz.panels.words import count

            session, job = self.session, self.desk.worker.running
            facts = len(session.state.facts)
            alphas = {layer: f"{a:.2f}" for layer, a in session.state.alphas.items()}
            by_layer = ", ".join(f"{alpha} at {layer}" for layer, alpha in alphas.items())
            alike = len(set(alphas.values())) == 1
            pills = [
                session.lm.name,
                f"round {session.position} of {len(session.rounds)}",
                count(facts, "fact"),
                f"hooks {'on' if facts else 'off'}",
                f"scope {session.config.scope}",
                f"α {min(alphas.values()) if alike else by_layer}",
                *([f"branch {session.current_branch}"] * (len(session.branches) > 1)),
            ]
            busy = busy or (f"{job.title}…" if job is not None else "")
        spans = Markup("").join(Markup("<span class='cv-pill'>{}</span>").format(p) for p in pills)
        self._header.value = str(
            Markup(
                "<div class='cv-pills'><b>coachhook</b>{}<span class='cv-pill cv-pill-busy{}'"
                " role='status'>{}</span></div>"
            ).format(spans, " cv-working" if busy else "", busy or "idle")
        )


def playground(session: Session | None = None) -> Playground:
    """Show the composed widget: facts, rounds, questions, scopes, drift and interference.

    Parameters
    ----------
    session : Session, optional
        None: a new one on the default model, which is loaded in the background.

    Returns
    -------
    Playground
        The last line of a cell shows it.
    """
    return Playground(session)


def _new_session(job: Job) -> Session:
    from coachhook_viz.models import load_model
    from coachhook_viz.session import Session

    return Session(load_model(), progress=job.progress, cancel=job.cancel)


def _named(folder: str | Path) -> Path:
    if not str(folder).strip():
        raise ValueError("give the folder a name")
    return Path(folder)


def _column(*panels: Any) -> widgets.Box:
    made = widgets.Box(panels)
    made.add_class("cv-column")
    return made
