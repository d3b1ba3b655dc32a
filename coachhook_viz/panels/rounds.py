"""Rounds: write the staged facts, watch it happen, and move between what is in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from markupsafe import Markup

from coachhook_viz.editing.config import EditConfig, ScopeKind
from coachhook_viz.editing.methods import Method, name_of
from coachhook_viz.editing.state import Round
from coachhook_viz.events import Configured, Event, RoundLabelled
from coachhook_viz.measure.quality import holds
from coachhook_viz.models import LanguageModel
from coachhook_viz.panels.controls import Button, Field, Select, Text, Toggle, column, row
from coachhook_viz.panels.desk import STATE_EVENTS, Desk, Judged, Scored, Selected, Staged
from coachhook_viz.panels.grid import Cell, Grid, Kind
from coachhook_viz.panels.panel import Panel, Static
from coachhook_viz.panels.running import progress
from coachhook_viz.panels.words import count
from coachhook_viz.session import Session
from coachhook_viz.warned import heard

_SETTINGS = [f.name for f in fields(EditConfig) if f.name not in ("context_templates", "preserve")]


class Rounds(Panel):
    """Apply what is staged as one round; undo, redo, branch, mute; settings.

    Parameters
    ----------
    session : Session
    alone : bool
        Whether it brings the timeline and the buttons that the playground's bar has.
    """

    title = "Rounds"
    help = "undo, redo, branch, settings"

    def __init__(self, session: Session, *, alone: bool = True) -> None:
        self._line = Grid(label="rounds in force", look="timeline", hidden=not alone)
        self._about = Text(classes="cv-note", live="polite")
        self._apply = Button("Apply", "primary")
        self._cancel = Button("Cancel", name="Cancel the round")
        self._undo = Button("Undo")
        self._redo = Button("Redo")
        self._mute = Button("Mute fact", tip="the fact selected in Facts")
        self._more = Toggle(
            label="More", expands=True, name="Branches and settings", hidden=not alone
        )
        self._progress = Text(classes="cv-progress-box")
        self._label = Field(label="Name of the last round in force")
        self._branch = Field(label="New branch from here", placeholder="what if")
        self._begin = Button("Branch", name="Begin the branch")
        self._switch = Select(label="Branch in force", options=[["main", "main"]], value="main")
        self._settings = Grid(label="settings", columns=["setting", "value", "known good"])
        self._good: dict[tuple[str, ScopeKind], dict[str, str]] = {}
        optional = row(
            column(self._label, row(self._branch, self._begin, classes="cv-tools"), self._switch),
            column(
                Text("Settings of the rounds to come; click twice to type.", "cv-note"),
                self._settings,
            ),
            classes="cv-side",
            hidden=alone,
        )
        body = [
            self._line,
            self._about,
            row(self._apply, self._cancel, hidden=not alone),
            self._progress,
            row(self._undo, self._redo, self._mute, self._more, hidden=not alone),
            optional,
        ]
        super().__init__(session, body)
        self._alone = alone
        self.click(self._apply, self.apply)
        self.click(self._cancel, self.desk.applying.cancel)
        self.click(self._undo, lambda: self._change(session.undo))
        self.click(self._redo, lambda: self._change(session.redo))
        self.click(self._mute, self._toggle_mute)
        self.click(self._begin, self._begin_branch)
        self._branch.on_enter(lambda: self._do(self._begin_branch))
        self.on(self._line, self._gone_to, "selected")
        self.on(self._label, lambda name: self._name_later(name))
        self.on(self._switch, self._switched)
        self.on(self._more, lambda shown: setattr(optional, "hidden", not shown))
        self._settings.on_type(lambda *typed: self._do(lambda: self._configured(*typed)))
        self.refresh()
        self.worked()

    def apply(self) -> None:
        """Write the staged facts as one round, in the background."""
        if self.desk.staged:
            self.desk.applying.begin(self.desk.staged)

    def static(self) -> Static:
        """The rounds as a table."""
        position = self.session.position
        lines = [
            Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1f} s</td><td>{}</td></tr>").format(
                place,
                _name(self.session, r),
                len(r.facts),
                r.seconds,
                "yes" if place <= position else "no",
            )
            for place, r in enumerate(self.session.rounds, 1)
        ]
        head = "<tr><th>round</th><th>name</th><th>facts</th><th>time</th><th>in force</th></tr>"
        table = Markup("<table>{}{}</table>").format(Markup(head), Markup("").join(lines))
        return Static(table) if lines else Static("No round yet.")

    def code(self) -> str:
        """The calls that lead to what is in force."""
        return self.session.code()

    def hear(self, event: Event) -> None:
        """Draw anew what has changed."""
        told_by = (Staged, Scored, Judged, RoundLabelled, Configured, *STATE_EVENTS, Selected)
        if isinstance(event, told_by):
            self.renew()
            self.worked()

    def worked(self) -> None:
        """Buttons that would clash rest while a round is edited; how far it has come."""
        session, worker = self.session, self.desk.worker
        job = worker.exclusive
        busy = job is not None
        self._apply.disabled = busy or not self.desk.staged
        self._cancel.disabled = not busy
        self._undo.disabled = busy or not session.position
        self._redo.disabled = busy or session.position == len(session.rounds)
        self._mute.disabled = busy or self.desk.selection.fact not in session.facts
        for node in (self._begin, self._branch, self._switch, self._label):
            node.disabled = busy
        applying = self.desk.applying
        said: str | Markup = applying.said
        if job is not None:
            said = progress(job, applying.seconds_left if applying.running else None)
        self._progress.say(said)
        self._progress.hidden = not said or not self._alone

    def refresh(self) -> None:
        """The timeline, what the round is called, branches and settings, as they are now."""
        session = self.session
        position = session.position
        self._line.show(timeline(self.desk), selected=[0, position])
        staged = len(self.desk.staged)
        self._apply.label = f"Apply {staged}" if staged else "Apply"
        self._about.say(
            about(self.desk, session.rounds[position - 1])
            if position
            else "After Apply, the round in force is described here."
            if not session.rounds
            else "No round is in force."
        )
        muted = self.desk.selection.fact in session.muted
        self._mute.label = "Unmute fact" if muted else "Mute fact"
        self._switch.options = [[name, name] for name in session.branches]
        self._switch.value = session.current_branch
        label = session.labels.get(session.rounds[position - 1].number if position else 0)
        self._label.value = "" if label is None else label.name
        good = self._known_good()
        self._settings.show(
            [
                [
                    Cell(name),
                    Cell(_told(getattr(session.config, name)), editable=True),
                    Cell(good.get(name, "–"), kind="undone"),
                ]
                for name in _SETTINGS
            ],
            keys=_SETTINGS,
        )

    def _known_good(self) -> dict[str, str]:
        """What is known to work for the model, under the method and the scope that it has now."""
        config = self.session.config
        of = name_of(config.method), config.scope
        if of not in self._good:
            self._good[of] = _known_good(self.session.lm, *of)
        return self._good[of]

    def _change(self, act: Callable[..., object]) -> None:
        try:
            self.desk.worker.check_free()
            act(source=self)
        except Exception:
            self.refresh()  # what was picked is not what is
            raise

    def _gone_to(self, at: list[int]) -> None:
        if at and at[1] != self.session.position:
            self._change(partial(self.session.go_to, at[1]))
        if at:
            self.desk.select(self, round=at[1])

    def _toggle_mute(self) -> None:
        fact = self.desk.selection.fact
        if fact is not None:
            muted = fact in self.session.muted
            act = self.session.unmute if muted else self.session.mute
            self._change(partial(act, fact))

    def _begin_branch(self) -> None:
        self._change(partial(self.session.branch, self._branch.value))
        self._branch.put("")

    def _name_later(self, name: str) -> None:
        """Name the round that is in force now, whichever is a moment later."""
        if self.session.position:
            number = self.session.rounds[self.session.position - 1].number
            self.later(lambda: self._labelled(number, name))

    def _labelled(self, number: int, name: str) -> None:
        session = self.session
        self.desk.worker.check_free()
        label = session.labels.get(number)
        if name != (label.name if label is not None else ""):
            session.label(number, name, getattr(label, "note", ""), source=self)

    def _switched(self, name: str) -> None:
        if name and name != self.session.current_branch:
            self._change(partial(self.session.switch, name))

    def _configured(self, row_: int, column: int, text: str) -> None:
        name = _SETTINGS[row_]
        self.alert()
        try:
            value = _parsed(text, getattr(self.session.config, name))
            self._change(partial(self._configure, name, value))
        finally:
            self.refresh()

    def _configure(self, name: str, value: Any, source: object) -> None:
        """Change a setting in the background: other layers need moments of their own."""
        self.desk.worker.submit(
            f"changing {name}",
            lambda job: self.session.configure(source=source, **{name: value}),
            failed=self._failed,
            exclusive=True,
        )


def timeline(desk: Desk) -> list[list[Cell]]:
    """One cell a round, and one for the model before any."""
    session = desk.session
    names = ["before any round", *(about(desk, round_) for round_ in session.rounds)]
    return [
        [
            Cell(str(place), name, kind=_where(place, session.position))
            for place, name in enumerate(names)
        ]
    ]


def about(desk: Desk, round_: Round) -> str:
    """A round in one sentence."""
    session = desk.session
    place = session.rounds.index(round_) + 1
    name = _name(session, round_)
    named = f" “{name}”" if name else ""
    scores = [desk.scores[i] for i in round_.fact_ids if i in desk.scores]
    holding = sum(holds(score["reliability"]) for score in scores)
    hold = f", {holding} of {len(scores)} {'holds' if holding == 1 else 'hold'}" if scores else ""
    said = f"Round {place}{named}: {count(len(round_.facts), 'fact')}{hold}, {round_.seconds:.1f} s"
    if desk.rule != "zscore":  # the only rule that has an α
        return said
    alphas = round_.alphas.values()
    told = dict.fromkeys(f"{alpha:.2f}" for alpha in (min(alphas), max(alphas)))
    return f"{said}, α {' to '.join(told)}"


def _name(session: Session, round_: Round) -> str:
    label = session.labels.get(round_.number)
    return "" if label is None else label.name


def _known_good(lm: LanguageModel, method: str, scope: ScopeKind) -> dict[str, str]:
    """The settings known to work for a model; none where `EditConfig` has to guess."""
    try:
        with heard() as guesses:
            config = EditConfig.for_model(lm, method=method, scope=scope)
    except ValueError:
        return {}
    if guesses:
        return {}
    return {name: _told(getattr(config, name)) for name in _SETTINGS}


def _where(place: int, position: int) -> Kind:
    return "now" if place == position else "undone" if place > position else ""


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parsed(text: str, like: Any) -> Any:
    """What a person typed, as the kind of value that the setting has."""
    if isinstance(like, str | Method):  # a method by its name
        return text.strip()
    if isinstance(like, bool):
        if text.strip().lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither True nor False")
        return text.strip().lower() == "true"
    try:
        if isinstance(like, tuple):
            return tuple(int(part) for part in text.replace(",", " ").split())
        return type(like)(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number, as {_told(like)!r} is") from None
