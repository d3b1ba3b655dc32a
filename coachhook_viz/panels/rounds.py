"""Rounds: write the staged facts, watch it happen, and move between what is in force."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import ipywidgets as widgets
from markupsafe import Markup

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.progress import EditCancelled
from coachhook_viz.editing.state import Round
from coachhook_viz.events import Configured, Event, RoundLabelled
from coachhook_viz.models import LanguageModel
from coachhook_viz.panels.desk import STATE_EVENTS, Scored, Selected, Staged
from coachhook_viz.panels.grid import Cell, Grid, Kind
from coachhook_viz.panels.panel import Panel, Static, html, row
from coachhook_viz.panels.running import progress
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_SETTINGS = [f.name for f in fields(EditConfig) if f.name != "context_templates"]


class Rounds(Panel):
    """Apply what is staged as one round; undo, redo, branch, mute; settings.

    Parameters
    ----------
    session : Session
    """

    title = "Rounds"

    def __init__(self, session: Session) -> None:
        self._line = Grid(label="rounds in force", look="timeline")
        self._about = html("", "cv-note")
        self._apply = widgets.Button(description="Apply", button_style="primary")
        self._cancel = widgets.Button(description="Cancel")
        self._undo = widgets.Button(description="Undo")
        self._redo = widgets.Button(description="Redo")
        self._mute = widgets.Button(description="Mute fact", tooltip="the fact selected in Facts")
        self._more = widgets.ToggleButton(description="More…")
        self._progress = html("", "cv-kept", "cv-progress-box")
        self._label = widgets.Text(description="Name of the last round in force")
        self._branch = widgets.Text(description="New branch from here", placeholder="what if")
        self._begin = widgets.Button(description="Branch")
        self._switch = widgets.Dropdown(description="Branch in force", options=["main"])
        self._settings = Grid(
            label="settings",
            columns=["setting", "value", "known good"],
        )
        self._good = _known_good(session.lm)
        self._drawing_now = False
        optional = widgets.VBox(
            [self._label, self._branch, row(self._begin), self._switch, self._settings]
        )
        optional.add_class("cv-optional")
        optional.layout.display = "none"
        body = [
            self._line,
            self._about,
            row(self._apply, self._cancel),
            self._progress,
            row(self._undo, self._redo, self._mute, self._more),
            optional,
        ]
        super().__init__(session, body, "undo, redo, branch")
        self.click(self._apply, self.apply)
        self.click(self._cancel, self.cancel)
        self.click(self._undo, lambda: self._change(session.undo))
        self.click(self._redo, lambda: self._change(session.redo))
        self.click(self._mute, self._toggle_mute)
        self.click(self._begin, lambda: self._change(partial(session.branch, self._branch.value)))
        self.on(self._line, self._gone_to, "selected")
        self.on(self._label, self._labelled)
        self.on(self._switch, self._switched)
        self.on(
            self._more,
            lambda shown: setattr(optional.layout, "display", "" if shown else "none"),
        )
        self._settings.on_type(self._configured)
        self._draw()
        self.worked()

    def apply(self) -> None:
        """Write the staged facts as one round, in the background."""
        facts = self.desk.staged
        if not facts or self.desk.worker.exclusive is not None:
            return
        self.alert()

        def done(round_: Round) -> None:
            self.desk.stage([f for f in self.desk.staged if f not in round_.facts], self)
            self.alert(" ".join(job.warnings))
            self.desk.select(self, round=self.session.position, fact=round_.fact_ids[0])

        def edit(job: Job) -> Round:
            try:
                return self.session.apply(facts, job.progress, job.cancel, source=self)
            except EditCancelled:
                self._about.value = html("Cancelled: nothing has changed.").value
                raise

        job = self.desk.worker.submit(
            f"editing {count(len(facts), 'fact')}",
            edit,
            done,
            self.fail,
            exclusive=True,
        )

    def cancel(self) -> None:
        """Stop what runs, at its next step; the session is as it was before it."""
        job = self.desk.worker.exclusive or self.desk.worker.running
        if job is not None:
            job.stop()
            self.worked()

    def static(self) -> Static:
        """The rounds as a table."""
        position = self.session.position
        lines = [
            Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1f} s</td><td>{}</td></tr>").format(
                place, self._name(r), len(r.facts), r.seconds, "yes" if place <= position else "no"
            )
            for place, r in enumerate(self.session.rounds, 1)
        ]
        head = "<tr><th>round</th><th>name</th><th>facts</th><th>time</th><th>in force</th></tr>"
        table = Markup("<table>{}{}</table>").format(Markup(head), Markup("").join(lines))
        return Static(table) if lines else Static("No round yet.")

    def code(self) -> str:
        """The calls that lead to what is in force."""
        session = self.session
        lines = []
        for round_ in session.rounds:
            facts = (f"cv.Fact({f.prompt!r}, {f.subject!r}, {f.target!r})" for f in round_.facts)
            lines.append(f"session.apply([{', '.join(facts)}])")
        if session.position < len(session.rounds):
            lines.append(f"session.go_to({session.position})")
        lines += [f"session.mute({fact_id})" for fact_id in sorted(session.muted)]
        return "\n".join(lines) or "session = cv.Session(lm)"

    def hear(self, event: Event) -> None:
        """Draw anew what has changed."""
        if isinstance(event, (Staged, Scored, RoundLabelled, Configured, *STATE_EVENTS, Selected)):
            self._draw()
            self.worked()

    def worked(self) -> None:
        """Buttons that would clash rest while a round is edited; how far it has come."""
        session, worker = self.session, self.desk.worker
        job = worker.exclusive
        busy = job is not None
        self._apply.disabled = busy or not self.desk.staged
        self._cancel.disabled = not (busy or worker.running is not None)
        self._undo.disabled = busy or not session.position
        self._redo.disabled = busy or session.position == len(session.rounds)
        self._mute.disabled = busy or self.desk.selection.fact not in session.facts
        for widget in (self._begin, self._branch, self._switch, self._label):
            widget.disabled = busy
        shown = job or worker.running
        long = shown is not None and (shown.exclusive or shown.said is not None)
        self._progress.value = str(progress(shown)) if shown is not None and long else ""

    def _draw(self) -> None:
        session = self.session
        position = session.position
        self._drawing_now = True
        try:
            names = ["before any round", *(self._tell(r) for r in session.rounds)]
            self._line.show(
                [
                    [
                        Cell(
                            str(place),
                            names[place],
                            kind=_where(place, position),
                        )
                        for place in range(len(names))
                    ]
                ],
                selected=[0, position],
            )
            staged = len(self.desk.staged)
            self._apply.description = f"Apply {staged}" if staged else "Apply"
            self._about.value = html(
                self._tell(session.rounds[position - 1]) if position else "No round in force."
            ).value
            muted = self.desk.selection.fact in session.muted
            self._mute.description = "Unmute fact" if muted else "Mute fact"
            self._switch.options = list(session.branches)
            self._switch.value = session.current_branch
            number = session.rounds[position - 1].number if position else 0
            label = session.labels.get(number)
            self._label.value = "" if label is None else label.name
            self._settings.show(
                [
                    [
                        Cell(name),
                        Cell(_told(getattr(session.config, name)), editable=True),
                        Cell(self._good.get(name, "–"), kind="undone"),
                    ]
                    for name in _SETTINGS
                ]
            )
        finally:
            self._drawing_now = False

    def _tell(self, round_: Round) -> str:
        place = self.session.rounds.index(round_) + 1
        alphas = sorted(round_.alphas.values())
        name = self._name(round_)
        scores = [self.desk.scores[i] for i in round_.fact_ids if i in self.desk.scores]
        holding = sum(score["reliability"] == 1 for score in scores)
        hold = f", {holding} of {len(scores)} {'holds' if holding == 1 else 'hold'}"
        return (
            f"Round {place}{f' “{name}”' * bool(name)}: {count(len(round_.facts), 'fact')}"
            f"{hold * bool(scores)},"
            f" {round_.seconds:.1f} s, α {alphas[0]:.2f} to {alphas[-1]:.2f}"
        )

    def _name(self, round_: Round) -> str:
        label = self.session.labels.get(round_.number)
        return "" if label is None else label.name

    def _change(self, act: Callable[..., object]) -> None:
        if self.desk.worker.exclusive is not None:
            self._draw()  # what was picked is not what is
            raise ValueError("a round is being edited: wait for it, or cancel it")
        try:
            act(source=self)
        except Exception:
            self._draw()
            raise

    def _gone_to(self, at: list[int]) -> None:
        if not self._drawing_now and at:
            if at[1] != self.session.position:
                self._change(partial(self.session.go_to, at[1]))
            self.desk.select(self, round=at[1])

    def _toggle_mute(self) -> None:
        fact = self.desk.selection.fact
        if fact is not None:
            muted = fact in self.session.muted
            act = self.session.unmute if muted else self.session.mute
            self._change(partial(act, fact))

    def _labelled(self, name: str) -> None:
        if not self._drawing_now and self.session.position:
            number = self.session.rounds[self.session.position - 1].number
            note = getattr(self.session.labels.get(number), "note", "")
            self.later(lambda: self.session.label(number, name, note, source=self))

    def _switched(self, name: str) -> None:
        if not self._drawing_now and name:
            self._change(partial(self.session.switch, name))

    def _configured(self, row_: int, column: int, text: str) -> None:
        name = _SETTINGS[row_]
        with self.desk.drawing, self.saying():
            self.alert()
            value = _parsed(text, getattr(self.session.config, name))
            self._change(partial(self._configure, name, value))
        self._draw()

    def _configure(self, name: str, value: Any, source: object) -> None:
        """Change a setting in the background: other layers need moments of their own."""
        self.desk.worker.submit(
            f"changing {name}",
            lambda job: self.session.configure(source=source, **{name: value}),
            failed=self.fail,
            exclusive=True,
        )


def _known_good(lm: LanguageModel) -> dict[str, str]:
    """The settings known to work for a model; none where `EditConfig` has to guess."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            config = EditConfig.for_model(lm)
        except UserWarning:
            return {}
    return {name: _told(getattr(config, name)) for name in _SETTINGS}


def _where(place: int, position: int) -> Kind:
    return "now" if place == position else "undone" if place > position else ""


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parsed(text: str, like: Any) -> Any:
    """What a person typed, as the kind of value that the setting has."""
    if isinstance(like, str):
        return text.strip()
    try:
        if isinstance(like, tuple):
            return tuple(int(part) for part in text.replace(",", " ").split())
        return type(like)(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number, as {_told(like)!r} is") from None
