"""Model: what the model is, and the settings that a search finds for it."""

from __future__ import annotations

from functools import partial
from typing import Any

from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.guided import GUIDED
from coachhook_viz.editing.progress import EditCancelled
from coachhook_viz.events import Configured, Event
from coachhook_viz.measure.guide import Guide, guide
from coachhook_viz.panels.controls import Button, Text, column, row
from coachhook_viz.panels.curves import table
from coachhook_viz.panels.desk import STATE_EVENTS, Desk
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel, Static, image
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_KEPT = "what the guide found"
_COLUMNS = [
    "setting", "layers", "λ", "learning rate", "clamp", "reliability", "generality",
    "neighbours kept",
]  # fmt: skip
_SCORES = ("reliability", "generality", "locality")


class Model(Panel):
    """What the model is, whether it can be edited, and which settings suit it.

    Parameters
    ----------
    session : Session
    """

    title = "Model"
    help = "what it is, and which settings suit it"

    def __init__(self, session: Session) -> None:
        self._found: Guide | None = None
        self._running = Running(Desk.of(session).worker, "Find settings")
        self._use = Button("Use these settings", hidden=True)
        self._hint = Text(classes="cv-note", live="polite")
        self._story = Text(classes="cv-story", live="polite")
        self._grid = Grid(label="settings tried", picks="nothing", columns=_COLUMNS)
        self._picture = Text()
        self._numbers = Text(classes="cv-data")
        self._whole = column(
            self._story, row(self._use, self._hint), self._grid, self._picture, self._numbers
        )
        self._about = Text(_about(session))
        body = [self._about, self._running.buttons, self._running.said, self._whole]
        super().__init__(session, body)
        self.click(self._running.button, self.measure)
        self.click(self._use, self._take)
        kept = self.desk.kept.get(_KEPT)
        if kept is None:
            self._grid.empty = (
                "Press Find settings: the model is checked block by block, and settings are tried"
                " on facts that it knows, which takes minutes. Each row here is then a setting."
            )
        else:
            self._show(kept)
        self.worked()

    def measure(self) -> None:
        """Check the model and look for settings: `guide`."""
        self.run("looking for settings", self._look, self._show, running=self._running)

    def static(self) -> Static:
        """What was found, in words, as a picture and as a table."""
        found = self._found
        if found is None:
            return Static(_about(self.session), "No settings looked for yet.")
        picture = figures.guide(found, backend="matplotlib")
        return Static(_about(self.session), found.explain(), picture, self._grid.picture())

    def code(self) -> str:
        """The calls that give what is shown."""
        return (
            "found = cv.guide(session.lm)\nprint(found.explain())\ncv.figures.guide(found)\n"
            "found.frame"
        )

    def hear(self, event: Event) -> None:
        """Settings can be taken before the first edit only; others may be of other blocks."""
        if isinstance(event, Configured):
            self._about.say(_about(self.session))
        if isinstance(event, (*STATE_EVENTS, Configured)):
            self._offer()

    def worked(self) -> None:
        """How far the search has come."""
        self._running.draw()
        self._offer()

    def _look(self, job: Job) -> Guide:
        try:
            return guide(self.session.lm, progress=job.progress, cancel=job.cancel)
        except EditCancelled as stopped:
            if stopped.guide is not None:
                self._do(partial(self._show, stopped.guide))  # what it had found by then
            raise

    def _show(self, found: Guide) -> None:
        self.alert()
        self._found = found
        self.desk.kept.put(_KEPT, found)
        checked = f"All {len(found.blocks)} blocks have passed the check."
        self._story.say(Markup("<p>{} {}</p>").format(checked, found.explain()))
        self._grid.show([_line(one) for one in found.frame.to_dict("records")])
        self._picture.say(image(figures.guide(found, backend="matplotlib")))
        blocks = found.blocks.set_index("block")[["share", "recovery"]]
        names = {"share": "share of one token in the key energy", "recovery": "recovery"}
        self._numbers.say(table(blocks.rename(columns=names), "block"))
        self._offer()

    def _offer(self) -> None:
        """Offer the settings, or say why they cannot be taken."""
        found, session = self._found, self.session
        self._use.hidden = found is None
        if found is None:
            return
        edited = any(branch.rounds for branch in session.branches.values())
        taken = all(getattr(session.config, name) == value for name, value in self._own.items())
        self._use.disabled = taken or edited or self.desk.worker.exclusive is not None
        self._hint.say(
            "The session has these settings."
            if taken
            else "The rounds hang on the settings they have: begin another session to use these."
            if edited
            else "They are for edits at the subject: the session then has the z-score scope."
            if session.config.site == "answer"
            else ""
        )

    @property
    def _own(self) -> dict[str, Any]:
        """What the session's settings become: all of them where it edits at another site."""
        assert self._found is not None
        config = self._found.config
        if self.session.config.site == "answer":
            return {**vars(config)}
        return {name: getattr(config, name) for name in GUIDED}

    def _take(self) -> None:
        """Make them the session's: `Session.configure`, which may need other second moments."""
        self.desk.worker.check_free()
        own = self._own
        self.desk.worker.submit(
            "taking the settings",
            lambda job: self.session.configure(source=self, **own),
            failed=self._failed,
            exclusive=True,
        )


def _about(session: Session) -> str:
    """The model in a sentence."""
    lm = session.lm
    return (
        f"{lm.name}: {count(lm.n_layers, 'block')}, hidden states {lm.d_model} wide, keys"
        f" {lm.d_key} wide, {str(lm.dtype).removeprefix('torch.')} on {lm.device}. Its blocks"
        f" {', '.join(map(str, session.config.keyed_layers))} have passed the check."
    )


def _line(tried: Any) -> list[Cell]:
    number = f"{tried['setting']}{', chosen' * tried['chosen']}"
    kind: Any = "holds" if tried["chosen"] else ""
    said = [
        ", ".join(map(str, tried["layers"])),
        *(f"{tried[name]:g}" for name in ("covariance_weight", "learning_rate", "clamp_factor")),
    ]
    scores = [
        Cell("–") if tried[name] != tried[name] else Cell(f"{tried[name]:.2f}", bar=tried[name])
        for name in _SCORES
    ]
    return [Cell(number, kind=kind), *map(Cell, said), *scores]
