"""Sweep: the facts in force under many settings and in several orders, on all cores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from coachhook_viz import figures
from coachhook_viz.autosave import sessions_folder
from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.methods import METHODS, method_of, name_of
from coachhook_viz.errors import FailedTrialWarning
from coachhook_viz.events import Configured
from coachhook_viz.facts import Fact
from coachhook_viz.measure.quality import METRICS
from coachhook_viz.panels.compare import scored, under_method
from coachhook_viz.panels.controls import Button, Field, Select, Text, row
from coachhook_viz.panels.desk import STATE_EVENTS, Desk
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.lens import Lens
from coachhook_viz.panels.panel import Static, image, told
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.recipe import literal
from coachhook_viz.session import Session
from coachhook_viz.store.format import describe
from coachhook_viz.store.sweeps import sweep_of
from coachhook_viz.sweeping import at_the_end, sweep
from coachhook_viz.trials import Trial, edited, trials_of
from coachhook_viz.warned import heard

_PRESENT = "as it is"
_VARIED = {
    "covariance weight λ": "covariance_weight",
    "learning rate": "learning_rate",
    "steps": "steps",
    "clamp factor": "clamp_factor",
    "match threshold": "match_threshold",
    "layers": "layers",
    "method": "method",
    "scope": "scope",
}
_EXAMPLES = {
    "covariance_weight": "30, 300, 3000",
    "learning_rate": "0.2, 0.5, 0.8",
    "steps": "10, 20, 40",
    "clamp_factor": "0.75, 1.5",
    "match_threshold": "0.3, 0.5, 0.7",
    "layers": "3 4 5, 4 5 6",
    "method": "memit, alphaedit, rome",
    "scope": "zscore, match, off",
}


@dataclass(frozen=True)
class _Swept:
    """A sweep, and what came of it.

    Attributes
    ----------
    lines : list of list of Cell
        What is shown of each trial.
    failed : str
        What is said of those that have no result.
    ends : DataFrame or None
        As `at_the_end`; None where no trial has a result.
    picture : str
        Of them.
    """

    folder: Path
    facts: tuple[Fact, ...]
    rounds: int
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    lines: list[list[Cell]] = field(default_factory=list)
    failed: str = ""
    ends: pd.DataFrame | None = None
    picture: str = ""


class Sweep(Lens):
    """The facts in force edited anew under many settings, beside the settings as they are.

    Parameters
    ----------
    session : Session
    open_ : callable, optional
        Called with a session that is to be shown instead of this one. None: no trial is opened.
    """

    stale_after = (*STATE_EVENTS, Configured)
    takes_choices = True
    title = "Sweep"
    help = "the same facts under many settings, on all cores"

    def __init__(self, session: Session, open_: Callable[[Session], object] | None = None) -> None:
        self._open_session = open_
        first = next(iter(_VARIED.values()))
        self._varied = Select(
            label="Setting", options=[[name, field] for name, field in _VARIED.items()], value=first
        )
        self._values = Field(label="Its values", placeholder=_EXAMPLES[first])
        self._add = Button("Add", name="Add these settings")
        self._clear = Button("Clear", "quiet", name="Clear the settings")
        self._rounds = Field(label="Rounds")
        self._seeds = Field(label="Shuffled by seeds", placeholder="none: as they were edited")
        columns = ["setting", *METRICS, "perplexity"]
        self._grid = Grid(label="Trials", picks="row", columns=columns)
        self._open = Button("Open trial", name="Open this trial as a session", hidden=True)
        self._picture = Text()
        self._ended = Text(classes="cv-note cv-warn", live="polite")
        self._note = Text(classes="cv-note", live="polite")
        self._calls: dict[str, dict[str, Any]] = {}  # what each setting changes, by its name
        self._found: _Swept | None = None
        running = Running(Desk.of(session).worker, "Run")
        body = [
            row(self._varied, self._values, self._add, self._clear, classes="cv-tools"),
            row(self._rounds, self._seeds, running.buttons, self._open, classes="cv-tools"),
            running.said,
            self._ended,
            self._grid,
            self._note,
            self._picture,
        ]
        super().__init__(session, body, running=running)
        self.on(self._varied, self._exemplify)
        for node in (self._values, self._rounds, self._seeds):
            self.on(node, lambda value: self._unsay())
        self.click(self._add, self._take)
        self._values.on_enter(lambda: self._do(self._take))
        self.click(self._clear, self._forget)
        self.on(self._grid, lambda at: self._draw_open(), "selected")
        self.click(self._open, self._reopen)
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Nothing is known of what is in force now, or of other settings."""
        self._found = None
        self._rounds.placeholder = f"{self._count_rounds()} as it is"
        self._draw()

    @property
    def ready(self) -> bool:
        """Whether there are facts, and settings."""
        return bool(self._calls and self.session.state.facts)

    def measure(self) -> None:
        """Run what is in the table: `sweep`."""
        plan = self._plan()
        if plan is not None:
            self._draw()
            self.run(
                "sweeping",
                partial(self._swept, plan),
                self._show,
                running=self._running,
                fail=self.fail,
            )

    def static(self) -> Static:
        """The settings as a picture, the trials as a table."""
        if self._found is None or self._found.ends is None:
            return Static("Nothing swept yet.")
        picture = figures.comparison(self._found.ends, backend="matplotlib")
        return Static(picture, self._grid.picture())

    def code(self) -> str:
        """The calls on `session` that give what is shown."""
        lines = ["configs = {"]
        lines.append(f"    {_PRESENT!r}: session.config,")
        for name, changes in self._calls.items():
            given = ", ".join(f"{field}={literal(value)}" for field, value in changes.items())
            lines.append(f"    {name!r}: session.config.changed(session.lm, {given}),")
        found = self._found
        rounds = self._count_rounds() if found is None else found.rounds
        folder = "my sweep" if found is None else str(found.folder)
        more = f", seeds={list(found.seeds)}" if found is not None and found.seeds else ""
        more += ", moments=session.moments" if self.session.moments is not None else ""
        lines += [
            "}",
            "facts, lm = session.state.facts, session.lm",
            f"frame = cv.sweep(lm, facts, configs, folder={folder!r}, rounds={rounds}{more})",
        ]
        return "\n".join(lines)

    def worked(self) -> None:
        """How far it has come."""
        super().worked()
        job = self._running.job
        if job is not None and job.cancel() and self._found is None:
            self._ended.say("Cancelled: finished trials are kept, and Run goes on with the others.")
        self._draw_open()

    def _exemplify(self, varied: str) -> None:
        self._values.placeholder = _EXAMPLES[varied]
        self._unsay()

    def _unsay(self) -> None:
        """Something else is typed: what was wrong with it is no longer said."""
        self._values.error = self._rounds.error = self._seeds.error = ""

    def _take(self) -> None:
        """Put what is typed into the table, if it can be read."""
        field, text = self._varied.value, self._values.value
        label = next(name for name, varied in _VARIED.items() if varied == field)
        self._values.error = ""
        try:
            read = {f"{label} {part}": self._changes(field, part) for part in _parts(text)}
        except ValueError as error:
            self._values.error = told(error)
            return
        if not read:
            self._values.error = f"Write values, as {_EXAMPLES[field]}."
            return
        self._calls |= read
        self._values.put("")
        self._found = None
        self._draw()
        self.worked()

    def _forget(self) -> None:
        self._calls, self._found = {}, None
        self._draw()
        self.worked()

    def _changes(self, field: str, text: str) -> dict[str, Any]:
        """What a value that is typed changes in the session's settings.

        Raises
        ------
        ValueError
            If it cannot be read, or is no such setting.
        """
        changes: dict[str, Any] = {field: _value(field, text)}
        if field == "method":
            name = name_of(method_of(text))
            changes = under_method(self.session, name, METHODS[name].scopes[0])
        self._config(changes).check(self.session.lm)
        return changes

    def _config(self, changes: dict[str, Any]) -> EditConfig:
        with heard():  # that layers are a guess: it was said already
            return self.session.config.changed(self.session.lm, **changes)

    def _plan(self) -> _Swept | None:
        """What is to be run; None if a field does not hold what it should."""
        facts = tuple(self.session.state.facts)
        self._rounds.error = self._seeds.error = ""
        text = self._rounds.value.strip()
        rounds = int(text) if text.isdecimal() else 0 if text else self._count_rounds()
        if not 1 <= rounds <= len(facts):
            self._rounds.error = f"Write a whole number from 1 to {len(facts)}."
        parts = _parts(self._seeds.value)
        if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
            self._seeds.error = "Write different whole numbers, as 0, 1, 2."
        if self._rounds.error or self._seeds.error:
            return None
        seeds = tuple(map(int, parts))
        configs = {_PRESENT: self.session.config}
        configs |= {name: self._config(changes) for name, changes in self._calls.items()}
        trials = tuple(trials_of(configs, None, seeds))
        place = _folder(self.session, facts, rounds)
        return _Swept(place, facts, rounds, seeds, trials)

    def _swept(self, plan: _Swept, job: Job) -> _Swept:
        with heard(FailedTrialWarning) as failed:
            frame = sweep(
                self.session.lm,
                plan.facts,
                {trial.setting: trial.config for trial in plan.trials},
                folder=plan.folder,
                seeds=plan.seeds,
                rounds=plan.rounds,
                moments=self.session.moments,
                progress=job.progress,
                cancel=job.cancel,
            )
        parts = [_of(trial, frame) for trial in plan.trials]
        lines = [
            [Cell(_name(trial)), *_scores(part)]
            for trial, part in zip(plan.trials, parts, strict=True)
        ]
        found = replace(plan, lines=lines, failed=" ".join(map(str, failed)))
        if frame.empty:
            return found
        ends = at_the_end(frame)
        shown = image(figures.comparison(ends, backend="matplotlib"))
        return replace(found, ends=ends, picture=shown)

    def _show(self, found: _Swept) -> None:
        self._found = found
        self._draw()
        self.worked()

    def _count_rounds(self) -> int:
        return max(1, sum(bool(round_.facts) for round_ in self.session.state.rounds))

    def _draw(self) -> None:
        found = self._found
        self._grid.empty = self._empty()
        self._picture.say()
        self._ended.say("" if found is None else found.failed)
        if found is None:
            names = [_PRESENT, *self._calls] if self._calls else []
            empty = [Cell()] * (len(METRICS) + 1)
            self._grid.show([[Cell(name), *empty] for name in names], keys=names)
            self._note.say()
            self._draw_open()
            return
        self._grid.show(found.lines, keys=[trial.id for trial in found.trials])
        self._note.say(
            f"Mean over {count(len(found.facts), 'fact')} after the last round, and 95 % interval;"
            f" perplexity of neutral text. Kept in {found.folder}."
        )
        self._picture.say(found.picture)
        self._draw_open()

    def _draw_open(self) -> None:
        busy = self.desk.worker.exclusive is not None or self._running.job is not None
        self._open.hidden = self._open_session is None or self._picked is None
        self._open.disabled = busy

    @property
    def _picked(self) -> Trial | None:
        """The trial whose row is selected."""
        at, found = self._grid.selected, self._found
        return found.trials[at[0]] if at and found is not None else None

    def _reopen(self) -> None:
        """Edit once more what the selected trial edited, and show that session."""
        trial, found, show = self._picked, self._found, self._open_session
        if trial is None or found is None or show is None:
            return
        self.desk.worker.check_free()
        session, moments = self.session, self.session.moments
        self._running.key = key = f"{id(self)} reopen"
        self.desk.worker.submit(
            f"opening {trial}",
            lambda job: edited(
                session.lm, trial, found.facts, found.rounds, moments, job.progress, job.cancel
            ),
            show,
            self._failed,
            key=key,
            exclusive=True,
        )

    def _empty(self) -> str:
        if not self.session.state.facts:
            return self.nothing("each row here is a setting and what the same facts reach under it")
        return (
            "Add settings and press Run: the facts in force are edited anew under each, and each"
            " row here is a trial."
        )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _value(field: str, text: str) -> Any:
    """A setting's value as it is typed."""
    try:
        if field in ("method", "scope"):
            return text
        if field == "layers":
            return tuple(int(layer) for layer in text.split())
        return int(text) if field == "steps" else float(text)
    except ValueError:
        raise ValueError(f"{text!r} cannot be read: write values as {_EXAMPLES[field]}.") from None


def _name(trial: Trial) -> str:
    return trial.setting if trial.seed is None else f"{trial.setting}, seed {trial.seed}"


def _folder(session: Session, facts: tuple[Fact, ...], rounds: int) -> Path:
    """Where a sweep of these facts, beside these settings, is kept: the same one next time."""
    version, model = metadata.version("coachhook-viz"), describe(session.lm)
    said = sweep_of(version, model, facts, rounds, session.moments, {_PRESENT: session.config})
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return sessions_folder().parent / "sweeps" / digest[:16]


def _of(trial: Trial, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a trial."""
    seeds = frame["seed"].isna() if trial.seed is None else frame["seed"] == trial.seed
    return frame[(frame["setting"] == trial.setting) & seeds]


def _scores(frame: pd.DataFrame) -> list[Cell]:
    """Reliability, generality and locality at the end with their intervals, and perplexity."""
    if frame.empty:
        return [Cell("failed", kind="undone"), *[Cell()] * len(METRICS)]
    last = frame[(frame["metric"] == "perplexity") & (frame["round"] == frame["round"].max())]
    return [*scored(at_the_end(frame)), Cell(f"{last['value'].iloc[0]:.2f}")]
