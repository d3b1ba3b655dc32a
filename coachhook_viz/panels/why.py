"""Why: the gates between an edit and what the model says, and one thing to mend it with."""

from __future__ import annotations

from dataclasses import replace

from markupsafe import Markup

from coachhook_viz.events import Event
from coachhook_viz.measure.about import Idle
from coachhook_viz.measure.why import MARKS, TITLES, Action
from coachhook_viz.measure.why import Why as Found
from coachhook_viz.measure.why import why as explain
from coachhook_viz.panels.controls import Button, Field, Text, row
from coachhook_viz.panels.desk import Asked, Selected, changes
from coachhook_viz.panels.grid import Cell, Grid, Kind
from coachhook_viz.panels.panel import Panel, Static
from coachhook_viz.session import Session

_KINDS: dict[str, Kind] = {"open": "holds", "warns": "partly", "broken": "missed", "unknown": ""}
_COLUMNS = ["state", "gate", "value", "bound", "what was found"]
_BUTTONS = {
    "scope": "Look under the scope {}",
    "wording": "Stage it with this wording",
    "two keys": "Edit again with two keys",
    "mute": "Mute the other fact",
    "unmute": "Unmute it",
    "redo": "Redo its round",
    "steps": "Take more steps from now on",
}


class Why(Panel):
    """Gates in their order, the first broken one marked, one sentence, one thing to press.

    Parameters
    ----------
    session : Session
    prompt : str
        What is looked at first.
    alone : bool
        Whether it brings a prompt field of its own.
    """

    title = "Why"
    help = "why a prompt gets the target, or not"

    def __init__(self, session: Session, prompt: str = "", *, alone: bool = True) -> None:
        self._prompt = Field(
            label="Prompt to explain", placeholder="any text", rows=1, submits=True,
            hidden=not alone,
        )  # fmt: skip
        self._target = Field(label="Target", placeholder="of the fact it is about")
        self._sentence = Text(classes="cv-story", live="polite", label="why")
        self._gates = Grid(label="gates", look="table", picks="nothing")
        self._mend = Text(classes="cv-note")
        self._act = Button("", "primary", hidden=True)
        self._tried = Text(classes="cv-note", live="polite")
        self._why: Found | None = None
        body = [
            row(self._prompt, self._target),
            self._sentence,
            self._gates,
            row(self._mend, self._act),
            self._tried,
        ]
        super().__init__(session, body)
        self.on(self._prompt, lambda prompt: self.later(self._follow))
        self.on(self._target, lambda target: self.later(self.refresh))
        self.click(self._act, self.mend)
        self.look(prompt or self.desk.selection.prompt)

    def look(self, prompt: str, target: str = "") -> None:
        """Explain `prompt`; the gates come when the worker has them."""
        self._prompt.value, self._target.value = prompt, target
        self.desk.select(self, prompt=prompt)
        self.renew()

    def mend(self) -> None:
        """Do the one thing that mends the broken gate."""
        found = self._why
        if found is None or found.action is None:
            return
        action = found.action
        if action.kind == "scope" and action.scope is not None:
            self.desk.judge(self, action.scope)
        elif action.kind == "two keys":
            self._edit_again(found)
        else:
            self.desk.worker.check_free()
            self._change(action)

    def static(self) -> Static:
        """The sentence and the gates."""
        found = self._why
        if found is None:
            return Static("Nothing looked at yet.")
        return Static(Markup(found._repr_html_()))

    def code(self) -> str:
        """The call that gives the gates."""
        target = f", {self._target.value.strip()!r}" if self._target.value.strip() else ""
        prompt = self.desk.selection.prompt
        return f"session.why({prompt!r}{target}{self.desk.state_source})"

    def hear(self, event: Event) -> None:
        """Explain again when something else is in force or selected."""
        if isinstance(event, Asked):
            self._target.value = event.target
            self.renew()
        elif changes(event):
            self.renew()
        elif (
            isinstance(event, Selected)
            and event.source is not self
            and event.now.prompt != event.before.prompt
        ):
            self._prompt.value, self._target.value = event.now.prompt, ""
            self.renew()

    def refresh(self) -> None:
        """Walk the gates of the prompt under examination."""
        prompt, target = self.desk.selection.prompt, self._target.value.strip() or None
        self._tried.say()
        empty = ""
        if not prompt.strip():
            empty = "Type a prompt. The gates from an edit to its answer will stand here."
        elif not self.desk.hooks:
            empty = "The hooks are off, so no edit speaks. Switch them on to see why."
        if empty:
            self.forget(self._show)
            self._why = None
            self._sentence.say()
            self._mend.say()
            self._act.hidden = True
            self._gates.show([], columns=[], empty=empty)
            return
        session, state = self.session, self.desk.state
        idle = Idle.of(prompt, session.facts, session.state.fact_ids, session.muted)
        self.run(
            "asking why",
            lambda job: explain(session.lm, state, prompt, target, idle),
            self._show,
            of=(prompt, target, state.key, session.state.key, session.muted),
        )

    def _show(self, found: Found) -> None:
        self.alert()
        self._why = found
        self._sentence.say(Markup("<p>{}</p>").format(found.sentence))
        self._gates.show(
            [
                [
                    Cell(MARKS[gate.state], gate.state, kind=_KINDS[gate.state]),
                    Cell(f"{'→ ' * (gate is found.broken)}{TITLES[gate.name]}"),
                    Cell("" if gate.value is None else f"{gate.value:.3g}"),
                    Cell("" if gate.limit is None else f"{gate.limit:.3g}"),
                    Cell(gate.said),
                ]
                for gate in found.gates
            ],
            columns=_COLUMNS,
        )
        action = found.action
        self._mend.say("" if action is None else action.said)
        pressed = "" if action is None else _BUTTONS.get(action.kind, "")
        if action is not None and action.kind == "two keys" and self.desk.replace_by is None:
            pressed = ""  # a panel on its own shows no other session
        self._act.hidden = not pressed
        if action is not None and pressed:
            self._act.label = pressed.format(action.scope)

    def _change(self, action: Action) -> None:
        session, fact_id = self.session, action.fact
        if action.kind == "redo":
            session.redo(source=self)
        elif action.kind == "steps":
            session.configure(source=self, steps=2 * session.config.steps)
            self._tried.say(f"Rounds from now on take {session.config.steps} steps.")
        elif fact_id is not None and action.kind == "mute":
            session.mute(fact_id, source=self)
        elif fact_id is not None and action.kind == "unmute":
            session.unmute(fact_id, source=self)
        elif fact_id is not None and action.wording is not None:
            fact = session.facts[fact_id]
            worded = replace(fact, wordings=(*fact.wordings, action.wording))
            self.desk.stage([*self.desk.staged, worded], self)
            self._tried.say("It is staged with this wording: apply it in Facts.")

    def _edit_again(self, found: Found) -> None:
        """Edit all facts in force again with two keys, and go on with that session."""
        session, action, replace_by = self.session, found.action, self.desk.replace_by
        if action is None or replace_by is None:
            return
        instead = {}
        if action.fact is not None and action.wording is not None:
            fact = session.facts[action.fact]
            instead = {action.fact: replace(fact, wordings=(*fact.wordings, action.wording))}
        self.desk.worker.check_free()
        self.desk.worker.submit(
            "editing again with two keys",
            lambda job: session.rerun(
                progress=job.progress, cancel=job.cancel, instead=instead, scope="two-key"
            ),
            lambda other: replace_by(other, "Edited again with two keys."),
            self._failed,
            exclusive=True,
        )

    def _follow(self) -> None:
        if self._prompt.value != self.desk.selection.prompt:
            self.desk.select(self, prompt=self._prompt.value)
            self.renew()
