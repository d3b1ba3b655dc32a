"""The playground: all panels on one session, cause and effect on one screen.

playground    make it; with no session it loads the default model first, in the background
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ipywidgets as widgets
from markupsafe import Markup

from coachhook_viz.loading import collector_paused
from coachhook_viz.panels.cells import predecessor, replacing
from coachhook_viz.panels.controls import Chips, Stage, Tabs, Text, column
from coachhook_viz.panels.view import View
from coachhook_viz.panels.worker import Job, Worker

if TYPE_CHECKING:
    import pandas

    from coachhook_viz.autosave import Kept
    from coachhook_viz.events import Event
    from coachhook_viz.panels.bar import Bar
    from coachhook_viz.panels.desk import Desk
    from coachhook_viz.panels.panel import Panel
    from coachhook_viz.session import Session

LENSES = (
    "scope",
    "layers",
    "why",
    "what_else",
    "drift",
    "interference",
    "compare",
    "sweep",
    "rounds",
    "model",
)  # the tabs, from left to right
_PROMPT = "The Eiffel Tower is located in the city of"
_LOADING = "Loading the default model. The first time it is fetched, which takes a minute."
_LOAD = "loading the model"
_BEGUN = """\
import coachhook_viz as cv

lm = cv.load_model()
session = cv.Session(lm, cv.EditConfig.for_model(lm, scope="two-key"))"""
_TWIN = 1.0  # seconds of quiet before the picture that needs no kernel is renewed


class Playground(widgets.VBox):
    """Bar, Facts, Ask and the lenses, on one session and one prompt.

    It appears at once; where it has no session yet, the model is loaded in the background.

    Parameters
    ----------
    session : Session, optional
        None: a new one on the default model.
    folder : str or Path, optional
        Where each finished round is kept. None: a new folder among the user's data.
    presentation : bool
        Large type, only the bar, Ask and one lens; ← and → go through the rounds.

    Attributes
    ----------
    session : Session or None
        None while the model is being loaded.
    bar, facts, ask : Panel
        Once there is a session, as all panels.
    scope, layers, why, what_else, drift, interference, compare, sweep, rounds, model : Panel
        The lenses.
    """

    def __init__(
        self,
        session: Session | None = None,
        folder: str | Path | None = None,
        presentation: bool = False,
    ) -> None:
        before = predecessor(Playground)
        own: Session | None = None if before is None else before.session
        self.session: Session | None = None
        self.desk: Desk | None = None
        self.bar: Bar | None = None
        self._folder = folder
        self._presented = presentation
        self._said = Text(_LOADING, "cv-note", live="polite")
        self._offers = Chips(label="what to go on with")
        self._kept: Kept | None = None
        self._wanted: Path | None = None  # the session to go on with once the model is there
        self._taking = threading.RLock()  # held while the session that was loaded is put in place
        self._stage = Stage()
        self._top = View(column(self._said, self._offers, self._stage, classes="cv-top"))
        self._ends: list[Any] = []
        self._panels: tuple[Panel, ...] = ()
        self._lenses: dict[str, Panel] = {}
        self._tabs: Tabs | None = None
        self._shown = LENSES[0]
        self._twin = ""
        self._displayed = False
        self._twin_id = uuid4().hex
        self._timer: threading.Timer | None = None
        super().__init__([self._top])
        for name in ("cv", "cv-playground"):
            self.add_class(name)
        self._offers.on_pick(self._go_on)
        self._stage.on_step(self._step)
        replacing(self)
        self._loading: Worker | None = None
        known = own if session is None else session
        if known is not None:
            self._take(known)
            if session is None:
                self._offer_afresh()
        else:
            self._load_model()

    def __repr__(self) -> str:
        return "<playground; if it does not show, put its name into a new cell: nothing is lost>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and beside it a picture for when there is no kernel any more."""
        bundle = super()._repr_mimebundle_(**kwargs)
        self._displayed = True
        self._show_twin()
        return bundle

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being computed; whether that came within `timeout` seconds."""
        if self._loading is not None and not self._loading.wait(timeout):
            return False
        while (desk := self.desk) is not None:
            if not desk.worker.wait(timeout):
                return False
            if desk is self.desk:  # else another session was opened
                break
        return True

    @property
    def lens(self) -> Panel:
        """The lens that is shown."""
        return self._lenses[self._shown]

    def look_through(self, lens: str) -> None:
        """Show another lens, by the name of its attribute: "scope", "drift", …."""
        if lens not in self._lenses:
            raise ValueError(f"there is no lens {lens!r}; there are {', '.join(self._lenses)}")
        self._shown = lens
        for name, panel in self._lenses.items():
            panel.visible = name == lens
        if self._tabs is not None:
            self._tabs.value = lens

    def present(self, on: bool = True) -> None:
        """Large type, only the bar, Ask and one lens; or as it was."""
        self._presented = on
        (self.add_class if on else self.remove_class)("cv-present")
        if self.bar is not None:
            self.bar._present.value = on

    def save(self, folder: str | Path) -> None:
        """Save the session to a folder: `Session.save`."""
        from coachhook_viz.panels.bar import folder_of

        if self.session is not None and self.bar is not None:
            path = folder_of(folder)
            self.session.save(path)
            self.bar.tell(f"Saved to {path.resolve()}.")

    def load(self, folder: str | Path) -> None:
        """Open a session that was saved, on the same model, in place of this one."""
        from coachhook_viz.panels.bar import folder_of
        from coachhook_viz.session import Session

        if self.session is None or self.desk is None or self.bar is None:
            return
        self.desk.worker.check_free()
        path, bar = folder_of(folder), self.bar
        lm, moments = self.session.lm, self.session.moments

        def opened(session: Session) -> None:
            self._take(session, path)
            if self.bar is not None:
                self.bar.tell(f"Opened {folder}.")

        self.desk.worker.submit(
            "opening a session",
            lambda job: Session.load(
                path, lm, moments, journal=False, progress=job.progress, cancel=job.cancel
            ),
            opened,
            bar._failed,
            exclusive=True,
        )

    def data(self) -> pandas.DataFrame:
        """The facts, one a row, and how well each holds now.

        Returns
        -------
        DataFrame
            fact, round : int; prompt, subject, target, state : str; and one column a metric.
        """
        import pandas as pd

        if self.session is None:
            return pd.DataFrame()
        session = self.session
        scores = session.evaluate()
        wide = scores.pivot_table("value", "fact", "metric") if len(scores) else pd.DataFrame()
        rows = []
        for place, round_ in enumerate(session.rounds, 1):
            for fact_id, fact in zip(round_.fact_ids, round_.facts, strict=True):
                state = "in force" if place <= session.position else "undone"
                state = "muted" if fact_id in session.muted else state
                rows.append((fact_id, place, fact.text, fact.subject, fact.target, state))
        names = ["fact", "round", "prompt", "subject", "target", "state"]
        return pd.DataFrame(rows, columns=names).join(wide, on="fact")

    def static(self) -> Any:
        """What all panels show, as HTML that survives saving."""
        from coachhook_viz.panels.panel import Static

        return Static(*(part for panel in self._panels for part in panel.static().parts))

    def code(self) -> str:
        """The public calls that give the session, and what the panels show of it."""
        if self.session is None:
            return _BEGUN
        shown = [self.ask, self.lens]
        blocks = [f"# {panel.title}\n{panel.code()}" for panel in shown if panel is not self.rounds]
        return "\n\n".join([self.session.code().rstrip(), *blocks]) + "\n"

    def close(self) -> None:
        """Take it off the page; what runs goes on without it."""
        self._leave()
        if self._timer is not None:
            self._timer.cancel()
        if self._loading is not None:
            self._loading.drop(_LOAD)  # without waiting for it
        self._top.layout.close()
        self._top.close()
        self.layout.close()
        super().close()

    def _leave(self) -> None:
        from coachhook_viz.panels.panel import free

        for end in self._ends:
            end()
        self._ends = []
        for panel in self._panels:
            panel.close()
        for widget in self.children[1:]:
            free(widget)
        self._panels = ()

    def _load_model(self) -> None:
        """Load the default model; meanwhile offer the last session of this notebook."""
        worker = self._loading = Worker()
        worker.listen(lambda: self._say_loading(worker.running))
        worker.submit("looking for kept sessions", lambda job: self._find_kept(), self._offer)
        worker.submit(_LOAD, _new_session, self._loaded, self._cannot_load, key=_LOAD)

    def _find_kept(self) -> Kept | None:
        """The session to offer: that of the folder, or the last one of this notebook."""
        from coachhook_viz.autosave import here, kept_in, recent
        from coachhook_viz.models.bundled import NAME

        if self._folder is not None:
            return kept_in(Path(self._folder).expanduser())
        mine = (k for k in recent() if k.notebook == here() and k.model == NAME)
        return next(mine, None)

    def _offer(self, kept: Kept | None) -> None:
        self._kept = kept
        if kept is not None:
            self._offers.options = [f"Go on: {kept.sentence}", "Start afresh"]

    def _loaded(self, session: Session) -> None:
        with self._taking:
            self._take(session)
            if self._wanted is not None:
                self.load(self._wanted)

    def _go_on(self, place: int) -> None:
        """Go on with the session that was offered, or begin another."""
        if self.bar is not None and self.bar.desk.worker.exclusive is not None:
            with self.bar.saying():
                self.bar.desk.worker.check_free()
            return
        offers, kept = list(self._offers.options), self._kept
        self._offers.options = []
        if offers[place].startswith("Go on") and kept is not None:
            with self._taking:
                if self.session is not None:
                    self.load(kept.folder)
                else:
                    self._wanted = kept.folder
                    self._said.say("Going on, once the model is loaded…")
        elif self.session is not None and self.session.rounds:
            from coachhook_viz.session import Session

            old = self.session
            self._take(Session(old.lm, old.config, old.moments))
            self._said.say()

    def _offer_afresh(self) -> None:
        """Say that the session of an earlier run of the cell is still there."""
        from coachhook_viz.panels.words import count

        session = self.session
        if session is not None and session.rounds:
            facts = count(len(session.state.facts), "fact")
            rounds = count(len(session.rounds), "round")
            self._said.say(f"Still the session of before: {rounds}, {facts}.")
            self._offers.options = ["Start afresh"]

    def _take(self, session: Session, folder: str | Path | None = None) -> None:
        """Show `session` in place of what was shown, and keep it in `folder` from now on."""
        from coachhook_viz.autosave import Autosave
        from coachhook_viz.panels.ask import Ask
        from coachhook_viz.panels.bar import Bar
        from coachhook_viz.panels.compare import Compare
        from coachhook_viz.panels.desk import Desk
        from coachhook_viz.panels.drift import Drift
        from coachhook_viz.panels.facts import Facts
        from coachhook_viz.panels.interference import Interference
        from coachhook_viz.panels.layers import Layers
        from coachhook_viz.panels.model import Model
        from coachhook_viz.panels.rounds import Rounds
        from coachhook_viz.panels.scope import Scope
        from coachhook_viz.panels.sweep import Sweep
        from coachhook_viz.panels.what_else import WhatElse
        from coachhook_viz.panels.why import Why

        self._leave()
        self.session, self.desk = session, Desk.of(session)
        desk = self.desk
        wanted, kept = folder or self._folder, desk.autosave
        if kept is not None and wanted is not None and kept.folder != Path(wanted).expanduser():
            kept.close()
            kept = None
        desk.autosave = kept or Autosave(session, wanted)
        if not desk.selection.prompt:
            desk.select(self, prompt=_PROMPT)
        desk.replace_by = self._replace
        self.bar = Bar(self, desk.autosave)
        self.facts, self.ask = Facts(session), Ask(session)
        self.scope, self.rounds = Scope(session, alone=False), Rounds(session, alone=False)
        self.layers, self.why = Layers(session, alone=False), Why(session, alone=False)
        self.what_else = WhatElse(session)
        self.drift, self.interference = Drift(session), Interference(session)
        show_trial = partial(self._replace, said="Opened a trial of the sweep.")
        self.compare, self.sweep = Compare(session), Sweep(session, show_trial)
        self.model = Model(session)
        self._lenses = {name: getattr(self, name) for name in LENSES}
        self._panels = (self.bar, self.facts, self.ask, *self._lenses.values())
        self._tabs = Tabs(
            label="lenses",
            options=[[panel.title, name, panel.help] for name, panel in self._lenses.items()],
            value=self._shown,
        )
        self._tabs.observe(lambda change: self.look_through(change.new), "value")
        self.look_through(self._shown)
        lens = _box([View(self._tabs), *self._lenses.values()], "cv-lens")
        bench = _box([self.facts, _box([self.ask, lens], "cv-right")], "cv-bench")
        self._ends = [
            desk.subscribe(self._heard),
            desk.worker.listen(self._renew_twin),
        ]
        self._said.say()
        self.children = [self._top, self.bar, bench]
        self.present(self._presented)
        self._renew_twin()

    def _replace(self, session: Session, said: str) -> None:
        """Go on with `session` and the same prompt; the one before stays where it is kept."""
        from coachhook_viz.panels.desk import Desk

        desk, kept = Desk.of(session), None
        if self.desk is not None:
            desk.select(self, prompt=self.desk.selection.prompt)
            desk.stage(self.desk.staged, self)
            kept = None if self.desk.autosave is None else self.desk.autosave.folder
        self._take(session)
        if self.bar is not None:
            where = "" if kept is None else f" The session of before is kept in {kept}."
            self.bar.tell(f"{said}{where}")

    def _heard(self, event: Event) -> None:
        from coachhook_viz.panels.desk import Asked

        if isinstance(event, Asked):
            self.look_through("why")
        self._renew_twin()

    def _step(self, step: int) -> None:
        session = self.session
        if session is not None and self.desk is not None and self.desk.worker.exclusive is None:
            position = session.position + step
            if 0 <= position <= len(session.rounds):
                session.go_to(position, source=self)

    def _say_loading(self, job: Job | None) -> None:
        if job is not None and job.said is not None and self.session is None:
            from coachhook_viz.panels.running import STAGES

            stage = STAGES.get(job.said.stage, job.said.stage)
            self._said.say(f"{stage.capitalize()}, {job.said.step} of {job.said.total}…")

    def _cannot_load(self, error: Exception) -> None:
        self._said.say(f"The model could not be loaded. {error}")

    def _renew_twin(self) -> None:
        """Renew the picture that needs no kernel, once all is quiet."""
        if self.desk is None or self.desk.worker.running is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(_TWIN, self._show_twin)
        self._timer.daemon = True
        self._timer.start()

    def _show_twin(self) -> None:
        """Put the picture beside the widget, or renew it there."""
        from IPython.core.getipython import get_ipython
        from IPython.display import HTML, display, update_display

        if get_ipython() is None or not self._displayed:
            return
        drawn = self._drawn()
        if drawn == self._twin:
            return
        show = update_display if self._twin else display
        self._twin = drawn
        show(HTML(drawn), display_id=self._twin_id)  # type: ignore[no-untyped-call]

    def _drawn(self) -> str:
        """What all panels show, as HTML that needs neither kernel nor script."""
        shown = [panel for panel in self._panels if panel.visible]
        with self.desk.drawing if self.desk is not None else nullcontext():
            inside = Markup("").join(panel.picture() for panel in shown)
        return str(
            Markup(
                "<div class='cv-twin'><p><b>This is the last picture of a playground.</b>"
                " Run the cell to go on; finished rounds are kept.</p>{}</div>"
            ).format(inside)
        )


def playground(
    session: Session | None = None,
    folder: str | Path | None = None,
    presentation: bool = False,
) -> Playground:
    """Show all panels on one session: facts, questions and lenses on one screen.

    Every finished round is kept. Without a session it offers to go on with the last one that was
    kept from this notebook.

    Parameters
    ----------
    session : Session, optional
        None: a new one with two keys on the default model, which is loaded in the background.
    folder : str or Path, optional
        Where each finished round is kept. None: a new folder among the user's data.
    presentation : bool
        Large type, only the bar, Ask and one lens; ← and → go through the rounds.

    Returns
    -------
    Playground
        The last line of a cell shows it.
    """
    return Playground(session, folder, presentation)


def _new_session(job: Job) -> Session:
    """With two keys: what a person edits changes, and what else is known of its subject stays."""
    from coachhook_viz.editing.config import EditConfig
    from coachhook_viz.models import load_model
    from coachhook_viz.session import Session

    with collector_paused():
        lm = load_model()
        config = EditConfig.for_model(lm, scope="two-key")
        return Session(lm, config, progress=job.progress, cancel=job.cancel)


def _box(children: Sequence[Any], name: str) -> widgets.Box:
    made = widgets.Box(children)
    made.add_class(name)
    return made
