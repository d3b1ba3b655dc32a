"""Scope: where the hook layers speak on a prompt, why, and what another threshold would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.config import ScopeKind
from coachhook_viz.editing.inspect import Scope as Reading
from coachhook_viz.editing.methods import CoachHook
from coachhook_viz.editing.scope import MATCH_THRESHOLD
from coachhook_viz.editing.state import EditState
from coachhook_viz.events import Event
from coachhook_viz.figures.style import visible
from coachhook_viz.panels.controls import Button, Choice, Field, Slider, Text, Toggle, column, row
from coachhook_viz.panels.desk import Selected, changes
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel, Static
from coachhook_viz.panels.prompts import COLUMNS, Checked, prompts_of
from coachhook_viz.panels.words import count, named, word
from coachhook_viz.panels.worker import Job
from coachhook_viz.reading import bundled_facts
from coachhook_viz.session import Session

RULES = [
    ["z-score", "zscore", "the published rule: a token far above the others of its prompt"],
    ["match", "match", "this project's rule: a token whose key an edit recognises"],
    ["off", "off", "every token"],
]
_TWO_KEY = [["two-key", "two-key", "this project's rule: a token that asks for what was edited"]]
WHY = {
    "two-key": (
        "Two keys: an edit changes one relation of its subject, and leaves its others alone."
        " z-score is the published rule, where an edit moves the whole subject."
    ),
    "zscore": "z-score, the published rule: an edit moves its whole subject.",
    "match": "match: an edit moves its whole subject, and hardly any other one.",
    "off": "off: an edit speaks at every token.",
}
_STEP = 0.01  # of the slider
_ROUNDED = 0.5001 * _STEP  # so far off a threshold is what the page makes of it: nobody moved it
_NAMED = 4  # facts that a cell's reach is shown of
_LEGEND = Markup(
    "<p class='cv-key'><span><span class='cv-ramp'></span> {}</span>"
    "<span><span class='cv-swatch cv-swatch-framed'></span> ● {}</span>"
    "<span>▲ the subject ends here</span></p>"
)
_IN_SCOPE = "in scope: the hook speaks"
_KEYS = {  # by rule, what a dark cell and ● mean
    "zscore": ("far above the other tokens", _IN_SCOPE),
    "off": ("far above the other tokens", _IN_SCOPE),
    "match": ("close to an edit's own key", _IN_SCOPE),
    "two-key": ("close to an edit's own key", "reaches τ: both keys, and the hook speaks"),
}


def rules_of(session: Session) -> list[list[str]]:
    """The rules that the session's edits can be judged by, as choices; before any edit, all."""
    edited = any(branch.rounds for branch in session.branches.values())
    plain = session.config.method == CoachHook()
    two_keys = plain if not edited else session.config.site == "answer"
    return _TWO_KEY * two_keys + RULES


class Scope(Panel):
    """Tokens × layers: where the hook speaks on a prompt, why, and what would change it.

    Parameters
    ----------
    session : Session
    prompt : str
        What is looked at first.
    alone : bool
        Whether it brings a prompt field and the rule of its own.
    """

    title = "Scope"
    help = "where the hook speaks, and why"

    def __init__(self, session: Session, prompt: str = "", *, alone: bool = True) -> None:
        self._prompt = Field(
            label="Prompt to look at",
            placeholder="any text",
            rows=1,
            submits=True,
            hidden=not alone,
        )
        self._kind = Choice(
            label="scope", options=rules_of(session), value=session.config.scope, hidden=not alone
        )
        self._grid = Grid(label="scope, layers by tokens", look="tokens")
        self._key = Text(hidden=True)
        self._why = Text(classes="cv-story", live="polite")
        self._alpha = Slider(min=0, max=3, step=_STEP)
        # one of its own for each rule: a late move is never another rule's
        self._tau = Slider(min=_STEP, max=1, step=_STEP)
        self._reset = Button("Calibrated", tip="back to the thresholds that the rounds have set")
        self._would = Text(classes="cv-note", live="polite")
        self._reach_head = Text(classes="cv-note")
        self._reach = Grid(label="edits that reach the token", look="bars", picks="nothing")
        self._match = Text(classes="cv-note")
        self._more = Toggle(label="Several prompts", expands=True)
        self._several = Field(
            label="Prompts at once, one a line", rows=3, placeholder="one prompt a line"
        )
        self._of_fact = Button("Prompts of the selected fact")
        self._check = Button("Check", name="Check these prompts")
        self._table = Grid(label="prompts, fired or missed", look="table", picks="row")
        self._reading: Reading | None = None
        self._alphas: dict[int, float] = {}
        self._threshold: float | None = None
        self._kinds: dict[str, str] = {}
        self._lasting = column(
            self._why, row(self._alpha, self._tau, self._reset), self._would, hidden=True
        )
        right = column(self._reach_head, self._reach, self._match)
        several = column(self._several, row(self._of_fact, self._check), self._table, hidden=True)
        sides = row(self._lasting, right, classes="cv-side")
        body = [
            row(self._prompt, self._kind, hidden=not alone),
            self._grid,
            self._key,
            sides,
            row(self._more),
            several,
        ]
        super().__init__(session, body)
        self.on(self._prompt, lambda prompt: self.later(self._follow))
        self._prompt.on_enter(lambda: self._do(self._follow))
        self.on(self._kind, lambda kind: self.desk.judge(self, kind, failed=self._failed))
        self.on(self._grid, self._picked, "selected")
        self.on(self._alpha, self._alpha_slid)
        self.on(self._tau, self._tau_slid)
        self.on(self._table, self._row_picked, "selected")
        self.on(self._more, lambda shown: setattr(several, "hidden", not shown))
        self.click(self._reset, self.judge)
        self.click(self._of_fact, self._take_prompts)
        self.click(self._check, lambda: self.check(_lines(self._several.value)))
        self.look(prompt or self.desk.selection.prompt)

    @property
    def state(self) -> EditState:
        """What is examined, judged as the sliders say."""
        state = self.desk.state
        if self._threshold is None and not self._alphas:
            return state
        return state.judged(None, self._threshold, self._alphas)

    def look(self, prompt: str) -> None:
        """Look at `prompt`; the grid comes when the worker has it."""
        self._prompt.value = prompt
        self._examine(prompt)

    def judge(
        self,
        alphas: Mapping[int, float] | None = None,
        match_threshold: float | None = None,
        scope: ScopeKind | None = None,
    ) -> None:
        """Judge by other thresholds or another rule; by those in force where nothing is given."""
        if scope is not None:
            self._kind.value = scope  # which takes back the thresholds of another rule
        self._alphas = dict(alphas or {})
        self._threshold = match_threshold
        self.renew()

    def check(self, prompts: Sequence[str]) -> None:
        """See on several prompts at once whether the hook speaks, and where not, why."""
        asked, state = [prompt for prompt in prompts if prompt.strip()], self.state
        self.run(
            "checking prompts",
            lambda job: self._check_all(job, state, asked),
            self._show_table,
            of=(tuple(asked), state.key),
        )

    def static(self) -> Static:
        """The scope grid and the contributions."""
        if self._reading is None:
            return Static("Nothing looked at yet.")
        parts = [figures.scope(self._reading, backend="matplotlib")]
        if self._reading.facts:
            parts.append(figures.contributions(self._reading, backend="matplotlib"))
        return Static(*parts, self._reading.explain())

    def code(self) -> str:
        """The calls that give the grid, and what the model would answer."""
        given = [
            f"scope={self.desk.rule!r}" * (self.desk.rule != self.session.config.scope),
            f"match_threshold={self._threshold}" * (self._threshold is not None),
            f"alphas={self._alphas}" * bool(self._alphas),
        ]
        state = f"session.state.judged({', '.join(filter(None, given))})"
        prompt = self.desk.selection.prompt
        return "\n".join(
            [
                f"state = {state}",
                f"session.scope({prompt!r}, state=state)",
                f"session.predict({prompt!r}, state=state)",
            ]
            if any(given)
            else [f"session.scope({prompt!r})", f"session.predict({prompt!r})"]
        )

    def hear(self, event: Event) -> None:
        """Look again when something else is in force; follow the selection."""
        if changes(event):
            self._kind.options = rules_of(self.session)
            self._kind.value = self.desk.rule
            self._alphas, self._threshold = {}, None
            self.renew()
        elif isinstance(event, Selected) and event.source is not self:
            if event.now.prompt != event.before.prompt:
                self._prompt.value = event.now.prompt
                self.renew()
            if (event.now.layer, event.now.token) != (event.before.layer, event.before.token):
                self._point(event.now.layer, event.now.token)

    def refresh(self) -> None:
        """Read the scope of the prompt under examination."""
        prompt, state = self.desk.selection.prompt, self.state
        empty = ""
        if not prompt.strip():
            empty = "Type a prompt. Each column here is then one of its tokens, each row a layer."
        elif not self.session.rounds:
            empty = (
                "No round yet. After Apply, each column here is a token of the prompt, each row a"
                f" hooked layer, and ● marks where the hook speaks. {WHY[self.desk.rule]}"
            )
        elif not state.facts:
            empty = f"The hook is silent: {self.desk.standing}."
        if empty:
            self.forget(self._show)
            self._reading = None
            self._grid.show([], rows=[], columns=[], empty=empty)
            self._key.hidden = self._lasting.hidden = True
            self._more.hidden = not prompt.strip()
            self._show_reach()
            return
        self.run(
            "reading the scope",
            lambda job: self.session.scope(prompt, state=state),
            self._show,
            of=(prompt, state.key),
        )

    def _follow(self) -> None:
        if self._prompt.value != self.desk.selection.prompt:
            self._examine(self._prompt.value)  # nothing is written back to who types

    def _examine(self, prompt: str) -> None:
        self.desk.select(self, prompt=prompt)
        self.renew()

    def _show(self, reading: Reading) -> None:
        self.alert()
        before, self._reading = self._reading, reading
        self._draw(reading)
        if before is None or (before.prompt, before.subject_last) != (
            reading.prompt,
            reading.subject_last,
        ):
            self._pick_subject(reading)
        self._show_reach()
        states = [self.state, self.session.state]
        self.run(
            "asking",
            lambda job: [self.session.predict(reading.prompt, top=1, state=s) for s in states],
            self._show_answer,
            of=(reading.prompt, *(state.key for state in states)),
        )

    def _show_answer(self, frames: list[pd.DataFrame]) -> None:
        """What the model would say next, beside what it says with what is in force."""
        judged, in_force = frames
        token, now = (word(frame["token"].iloc[0]) for frame in (judged, in_force))
        share = judged["probability"].iloc[0]
        says = f"The model says “{token}” ({share:.2f})."
        changed = self._alphas or self._threshold is not None or not self.desk.hooks
        if changed or self.desk.rule != self.session.config.scope:
            says = f"With this the model would say “{token}” ({share:.2f})"
            says += f" instead of “{now}”." if token != now else ", as it does now."
        self._would.say(says)

    def _draw(self, reading: Reading) -> None:
        """The grid, the reason, and the sliders' place, from a reading: no model is run."""
        scores, inside = reading.scores.tolist(), reading.in_scope.tolist()
        flat = [score for line in scores for score in line]
        low, high = min(flat), max(max(flat), min(flat) + 1e-9)
        match = reading.matches
        top = 1.0 if match else max(reading.ceiling, 1e-9)
        bounds = reading.bounds.tolist()
        cells = [
            [
                Cell(
                    f"{score:+.1f}" if not match else _plain(score),
                    self._detail(reading, layer, column, score, bound, hit),
                    shade=(score - low) / (high - low),
                    bar=score / top,
                    line=None if reading.kind == "off" else bound / top,
                    framed=hit,
                )
                for column, (score, bound, hit) in enumerate(zip(line, limits, hits, strict=True))
            ]
            for layer, line, limits, hits in zip(
                reading.layers, scores, bounds, inside, strict=True
            )
        ]
        rows = list(reading.layer_names)
        if reading.subject_match is not None:  # the other key
            cells.append(_subject_row(reading))
            rows.append(
                f"subject, layer {reading.subject_layer} · τ {reading.subject_threshold:.2f}"
            )
        self._grid.show(
            cells,
            rows=rows,
            columns=reading.tokens,
            marked=reading.subject_last,
        )
        self._key.say(_LEGEND.format(*_KEYS[reading.kind]))
        self._key.hidden = self._lasting.hidden = self._more.hidden = False
        self._why.say(reading.explain())
        self._place_sliders(reading)

    def _detail(
        self, reading: Reading, layer: int, column: int, score: float, bound: float, hit: bool
    ) -> str:
        name = "match" if reading.matches else "z-score"
        sign = "τ" if reading.matches else "α"
        limit = "" if name == "match" else f" of at most {reading.ceiling:.2f}"
        judged = "" if reading.kind == "off" else f", {sign} {bound:.2f}"
        return (
            f"“{word(reading.tokens[column])}” at layer {layer}: {name} {score:.2f}{limit}"
            f"{judged}: {'in scope' if hit else 'not in scope'}"
        )

    def _place_sliders(self, reading: Reading) -> None:
        """Put the sliders where the thresholds are; the page keeps the one that is being moved."""
        match = reading.matches
        self._tau.hidden, self._alpha.hidden = not match, match
        self._tau.label = self._tau_of(reading)
        self._alpha.label = f"α at layer {self._layer(reading)}"
        self._alpha.disabled = reading.kind == "off"
        with self._tau.together():
            self._tau.value = self._tau_in_force(reading)
            beyond = math.ceil(10 * reading.ceiling + 1) / 10  # where nothing is in scope
            self._alpha.max = max(beyond, 2.5, self._bound(reading))
            self._alpha.value = self._bound(reading)

    def _tau_of(self, reading: Reading) -> str:
        """What the τ slider stands for: one for all or, as calibrated, that of one fact."""
        if reading.speaks is not None:
            return "τ of the relation key"
        taus = reading.match_thresholds
        if not taus.numel() or float(taus.max() - taus.min()) <= _ROUNDED:
            return "τ of the match scope"
        return f"τ at layer {self._layer(reading)}, of each fact its own; a move sets one for all"

    def _tau_in_force(self, reading: Reading) -> float:
        """τ of the fact that comes closest to it at the layer that is picked."""
        if not reading.matches or not reading.facts:
            return MATCH_THRESHOLD
        layer = reading.layers.index(self._layer(reading))
        scores, bounds = reading.scores[layer], reading.bounds[layer]
        return float(bounds[int((scores / bounds).argmax())])

    def _bound(self, reading: Reading) -> float:
        """α of the layer that its slider stands for."""
        return float(reading.alpha[reading.layers.index(self._layer(reading))])

    def _layer(self, reading: Reading) -> int:
        layer = self.desk.selection.layer
        return reading.layers[-1] if layer is None or layer not in reading.layers else layer

    def _alpha_slid(self, value: float) -> None:
        reading = self._reading
        if reading is None or reading.kind != "zscore" or _stays(value, self._bound(reading)):
            return
        layer = self._layer(reading)
        self._alphas[layer] = value
        alpha = reading.alpha.clone()
        alpha[reading.layers.index(layer)] = value
        inside = (reading.z >= alpha[:, None]) & (reading.norms > 0)
        self._redraw(replace(reading, alpha=alpha, in_scope=inside))

    def _tau_slid(self, value: float) -> None:
        reading = self._reading
        if reading is None or not reading.matches:
            return
        if _stays(value, self._tau_in_force(reading)):
            return
        self._threshold = value
        self._redraw(reading.at_threshold(value))

    def _redraw(self, reading: Reading) -> None:
        """Draw at once, without the model; ask it once the slider rests."""
        self._reading = reading
        self._draw(reading)
        self.forget(self._show)
        self.later(self.refresh)

    def _picked(self, at: list[int]) -> None:
        if at and self._reading is not None:
            layers, token = self._reading.layers, at[1]
            layer = layers[min(at[0], len(layers) - 1)]  # the row below is of the subject key
            self.desk.select(self, layer=layer, token=token)
            self._place_sliders(self._reading)
            self._show_reach()

    def _pick_subject(self, reading: Reading) -> None:
        """Of another prompt, what was picked is another token: pick the one that is edited."""
        place, layer = reading.subject_last, self._layer(reading)
        if reading.speaks is not None:
            place = int(reading.scores[reading.layers.index(layer)].argmax())
        self._grid.selected = [] if place is None else [reading.layers.index(layer), place]

    def _point(self, layer: int | None, token: int | None) -> None:
        """Follow a cell that was picked elsewhere."""
        reading = self._reading
        if reading is None or layer is None or token is None:
            return
        if layer in reading.layers and token < len(reading.tokens):
            self._grid.selected = [reading.layers.index(layer), token]

    def _show_reach(self) -> None:
        reading, at = self._reading, self._grid.selected
        if reading is None or not at or at[1] >= len(reading.tokens) or not reading.facts:
            self._reach.show([], rows=[])
            self._match.say()
            self._reach_head.say(
                "Click a cell to see which edits reach it." if reading is not None else ""
            )
            return
        layer, token = min(at[0], len(reading.layers) - 1), at[1]
        terms = reading.contributions[layer, :, token]
        shares = (terms.abs() / terms.abs().sum().clamp_min(1e-12)).tolist()
        order = sorted(range(len(shares)), key=lambda i: -shares[i])
        first, rest = order[:_NAMED], order[_NAMED:]
        rows = [named(reading.facts[i]) for i in first]
        values = [shares[i] for i in first]
        if rest:
            rows.append(count(len(rest), "other"))
            values.append(sum(shares[i] for i in rest))
        self._reach.show(
            [
                [Cell(f"{v:.0%}", f"{n}: {v:.1%}", bar=v, kind="after")]
                for n, v in zip(rows, values, strict=True)
            ],
            rows=rows,
        )
        name = word(reading.tokens[token])
        self._reach_head.say(f"“{name}” at layer {reading.layers[layer]} is reached by")
        best = int(torch.argmax(reading.match[layer, :, token]))
        value = float(reading.match[layer, best, token])
        self._match.say(
            f"Its key matches that of “{reading.facts[best].subject}” best: {value:.2f}, where 1 is"
            " the fact's own."
        )

    def _take_prompts(self) -> None:
        chosen = self.desk.selection.fact
        fact = None if chosen is None else self.session.facts.get(chosen)
        if fact is None:
            self.alert("Select a fact first, in Facts.")
            return
        edited = {fact.subject for fact in self.session.facts.values()}
        others = [f.subject for f in bundled_facts() if f.subject not in edited]
        self._kinds = prompts_of(fact, others)
        self._several.value = "\n".join(visible(text) for text in self._kinds)
        self.check(list(self._kinds))

    def _check_all(self, job: Job, state: EditState, prompts: Sequence[str]) -> list[Checked]:
        checked = []
        for prompt in prompts:
            if job.cancel():
                break
            checked.append(Checked.read(self.session, state, prompt))
        return checked

    def _show_table(self, checked: Sequence[Checked]) -> None:
        self.alert()
        lines = [one.line(self._kinds.get(one.reading.prompt, "")) for one in checked]
        self._table.show(lines, columns=COLUMNS, keys=[one.reading.prompt for one in checked])

    def _row_picked(self, at: list[int]) -> None:
        if at and at[0] < len(self._table.cells):
            self.look(self._table.cells[at[0]][0]["text"])


def _subject_row(reading: Reading) -> list[Cell]:
    """Where an edited subject is seen, under the two-key rule."""
    assert reading.subject_match is not None
    assert reading.subject_threshold is not None
    bound, cells = reading.subject_threshold, []
    values, facts = (each.tolist() for each in reading.subject_match.max(0))
    for token, value, i in zip(reading.tokens, values, facts, strict=True):
        seen = value >= bound
        subject = reading.facts[i].subject
        cells.append(
            Cell(
                _plain(value),
                f"“{word(token)}” at layer {reading.subject_layer}: match {value:.2f} with"
                f" “{subject}”, τ {bound:.2f}: {'subject seen' if seen else 'no subject'}",
                shade=min(max(value, 0.0), 1.0),
                bar=min(max(value, 0.0), 1.0),
                line=bound,
                framed=seen,
            )
        )
    return cells


def _plain(match: float) -> str:
    """Two digits, and no sign where they are noughts."""
    return f"{round(match, 2) + 0.0:.2f}"


def _stays(value: float, bound: float) -> bool:
    return abs(value - bound) <= _ROUNDED


def _lines(text: str) -> list[str]:
    """Prompts, one a line; a line break within one stands there as ↵."""
    return [line.replace("↵", "\n") for line in text.splitlines()]
