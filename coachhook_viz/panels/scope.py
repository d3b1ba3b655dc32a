"""Scope: where the hook layers speak on a prompt, why, and what another threshold would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import ipywidgets as widgets
import pandas as pd
import torch

from coachhook_viz import figures
from coachhook_viz.editing.config import ScopeKind
from coachhook_viz.editing.inspect import Scope as Reading
from coachhook_viz.editing.state import EditState
from coachhook_viz.events import Event
from coachhook_viz.panels.desk import STATE_EVENTS, Selected
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel, Static, html, row
from coachhook_viz.panels.prompts import COLUMNS, Checked, prompts_of
from coachhook_viz.panels.words import count, named, word
from coachhook_viz.panels.worker import Job
from coachhook_viz.reading import bundled_facts
from coachhook_viz.session import Session

_KINDS: dict[str, ScopeKind] = {"z-score": "zscore", "match": "match", "off": "off"}
_STEP = 0.01  # of the slider
_ROUNDED = 0.5001 * _STEP  # so far off a threshold is what the page makes of it: nobody moved it
_NAMED = 4  # facts that a cell's reach is shown of


class Scope(Panel):
    """Tokens × layers: where the hook speaks on a prompt, why, and what would change it.

    Parameters
    ----------
    session : Session
    prompt : str
        What is looked at first.
    """

    title = "Scope"

    def __init__(self, session: Session, prompt: str = "") -> None:
        self._prompt = widgets.Text(description="Prompt", placeholder="any text")
        self._kind = widgets.ToggleButtons(
            options=_KINDS, value=session.config.scope, tooltips=["published rule", "ours", ""]
        )
        self._grid = Grid(label="scope, layers by tokens", look="tokens")
        self._why = html("")
        self._alpha = widgets.FloatSlider(min=0, max=3, step=_STEP, readout_format=".2f")
        self._tau = widgets.FloatSlider(  # one of its own: a late move is never another rule's
            description="τ", min=_STEP, max=1, step=_STEP, readout_format=".2f"
        )
        self._reset = widgets.Button(description="Calibrated", tooltip="α as the rounds set it")
        self._would = html("", "cv-note")
        self._reach_head = html("Click a cell to see which edits reach it.", "cv-note")
        self._reach = Grid(label="edits that reach the token", look="bars", picks="nothing")
        self._match = html("", "cv-note")
        self._several = widgets.Textarea(
            description="Prompts at once, one a line", rows=3, placeholder="one prompt a line"
        )
        self._of_fact = widgets.Button(description="Prompts of the selected fact")
        self._check = widgets.Button(description="Check")
        self._table = Grid(label="prompts, fired or missed", look="table", picks="row")
        self._reading: Reading | None = None
        self._alphas: dict[int, float] = {}
        self._threshold: float | None = None
        self._kinds: dict[str, str] = {}
        self._setting = False
        left = widgets.VBox([self._why, row(self._alpha, self._tau, self._reset), self._would])
        right = widgets.VBox([self._reach_head, self._reach, self._match])
        several = widgets.VBox([self._several, row(self._of_fact, self._check), self._table])
        sides = row(left, right, classes=["cv-side"])
        body = [row(self._prompt, self._kind), self._grid, sides, several]
        super().__init__(session, body, "where the hook speaks, and why")
        self.on(self._prompt, lambda prompt: self.later(self._follow))
        self.on(self._kind, lambda kind: self._run())
        self.on(self._grid, self._picked, "selected")
        self.on(self._alpha, self._alpha_slid)
        self.on(self._tau, self._tau_slid)
        self.on(self._table, self._row_picked, "selected")
        self.click(self._reset, self.judge)
        self.click(self._of_fact, self._take_prompts)
        self.click(self._check, lambda: self.check(self._several.value.splitlines()))
        self.look(prompt or self.desk.selection.prompt)

    @property
    def state(self) -> EditState:
        """What is in force, judged as the panel's buttons and slider say."""
        return self.session.state.judged(self._kind.value, self._threshold, self._alphas)

    def look(self, prompt: str) -> None:
        """Look at `prompt`; the grid comes when the worker has it."""
        self._prompt.value = prompt
        self._run()
        self.desk.select(self, prompt=prompt)

    def judge(
        self,
        alphas: Mapping[int, float] | None = None,
        match_threshold: float | None = None,
        scope: ScopeKind | None = None,
    ) -> None:
        """Judge by other thresholds or another rule; by those in force where nothing is given."""
        self._alphas = dict(alphas or {})
        self._threshold = match_threshold
        if scope is not None:
            self._kind.value = scope
        self._run()

    def check(self, prompts: Sequence[str]) -> None:
        """See on several prompts at once whether the hook speaks, and where not, why."""
        asked = [prompt for prompt in prompts if prompt.strip()]
        state = self.state
        self.desk.worker.submit(
            "checking prompts",
            lambda job: self._check_all(job, state, asked),
            self._show_table,
            self.fail,
            key=f"check{id(self)}",
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
            f"scope={self._kind.value!r}" * (self._kind.value != self.session.config.scope),
            f"match_threshold={self._threshold}" * (self._threshold is not None),
            f"alphas={self._alphas}" * bool(self._alphas),
        ]
        state = f"session.state.judged({', '.join(filter(None, given))})"
        prompt = self._prompt.value
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
        if isinstance(event, STATE_EVENTS):
            self.judge()
        elif isinstance(event, Selected) and event.source is not self:
            if event.now.prompt != event.before.prompt:
                self.look(event.now.prompt)
            if (event.now.layer, event.now.token) != (event.before.layer, event.before.token):
                self._point(event.now.layer, event.now.token)

    def _follow(self) -> None:
        if self._prompt.value != self.desk.selection.prompt:
            self.look(self._prompt.value)

    @property
    def _asked(self) -> tuple[object, ...]:
        """What a person wants to see: a reading of anything else comes too late."""
        return self._prompt.value, self._kind.value, self._threshold, dict(self._alphas)

    def _run(self) -> None:
        prompt = self._prompt.value
        if not prompt.strip():
            self._reading = None
            self._grid.show([], rows=[], columns=[], empty="Type a prompt.")
            self._why.value = self._would.value = ""
            return
        asked = self._asked
        self.desk.worker.submit(
            "reading the scope",
            lambda job: self.session.scope(prompt, state=self.state),
            lambda reading: self._show(reading, asked),
            self.fail,
            key=f"scope{id(self)}",
        )

    def _show(self, reading: Reading, asked: tuple[object, ...]) -> None:
        with self.desk.drawing:
            if asked != self._asked:
                return
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
        self.desk.worker.submit(
            "asking",
            lambda job: [self.session.predict(reading.prompt, top=1, state=s) for s in states],
            lambda frames: self._show_answer(*frames),
            self.fail,
            key=f"would{id(self)}",
        )

    def _show_answer(self, judged: pd.DataFrame, in_force: pd.DataFrame) -> None:
        """What the model would say next, beside what it says with what is in force."""
        token, now = (word(frame["token"].iloc[0]) for frame in (judged, in_force))
        share = judged["probability"].iloc[0]
        says = f"The model says “{token}” ({share:.2f})."
        changed = self._alphas or self._threshold is not None
        if changed or self._kind.value != self.session.config.scope:
            says = f"With this the model would say “{token}” ({share:.2f})"
            says += f" instead of “{now}”." if token != now else ", as it does now."
        self._would.value = html(says).value

    def _draw(self, reading: Reading) -> None:
        """The grid, the reason, and the sliders' place, from a reading: no model is run."""
        scores, inside = reading.scores.tolist(), reading.in_scope.tolist()
        flat = [score for line in scores for score in line]
        low, high = min(flat), max(max(flat), min(flat) + 1e-9)
        match = reading.kind == "match"
        top = 1.0 if match else max(reading.ceiling, 1e-9)
        bounds = [
            reading.match_threshold if match else float(alpha) for alpha in reading.alpha.tolist()
        ]
        cells = [
            [
                Cell(
                    f"{score:+.1f}" if not match else f"{score:.2f}",
                    self._detail(reading, layer, column, score, bound, hit),
                    shade=(score - low) / (high - low),
                    bar=score / top,
                    line=None if reading.kind == "off" else bound / top,
                    framed=hit,
                )
                for column, (score, hit) in enumerate(zip(line, hits, strict=True))
            ]
            for layer, line, hits, bound in zip(reading.layers, scores, inside, bounds, strict=True)
        ]
        self._grid.show(
            cells,
            rows=reading.layer_names,
            columns=reading.tokens,
            marked=reading.subject_last,
        )
        self._why.value = html(reading.explain()).value
        self._place_sliders(reading)

    def _detail(
        self, reading: Reading, layer: int, column: int, score: float, bound: float, hit: bool
    ) -> str:
        name = "match" if reading.kind == "match" else "z-score"
        sign = "τ" if reading.kind == "match" else "α"
        limit = "" if name == "match" else f" of at most {reading.ceiling:.2f}"
        judged = "" if reading.kind == "off" else f", {sign} {bound:.2f}"
        return (
            f"“{word(reading.tokens[column])}” at layer {layer}: {name} {score:.2f}{limit}"
            f"{judged}: {'in scope' if hit else 'not in scope'}"
        )

    def _place_sliders(self, reading: Reading) -> None:
        match = reading.kind == "match"
        self._tau.layout.display = "" if match else "none"
        self._alpha.layout.display = "none" if match else ""
        self._alpha.description = f"α at layer {self._layer(reading)}"
        self._alpha.disabled = reading.kind == "off"
        self._setting = True
        try:
            _move(self._tau, reading.match_threshold, 1.0)
            _move(self._alpha, self._bound(reading), max(reading.ceiling, 2.5))
        finally:
            self._setting = False

    def _bound(self, reading: Reading) -> float:
        """α of the layer that its slider stands for."""
        return float(reading.alpha[reading.layers.index(self._layer(reading))])

    def _layer(self, reading: Reading) -> int:
        layer = self.desk.selection.layer
        return reading.layers[-1] if layer is None or layer not in reading.layers else layer

    def _alpha_slid(self, value: float) -> None:
        reading = self._reading
        if reading is None or reading.kind != "zscore" or self._stays(value, self._bound(reading)):
            return
        layer = self._layer(reading)
        self._alphas[layer] = value
        alpha = reading.alpha.clone()
        alpha[reading.layers.index(layer)] = value
        inside = (reading.z >= alpha[:, None]) & (reading.norms > 0)
        self._redraw(replace(reading, alpha=alpha, in_scope=inside))

    def _tau_slid(self, value: float) -> None:
        reading = self._reading
        if reading is None or reading.kind != "match":
            return
        if not self._stays(value, reading.match_threshold):
            self._threshold = value
            inside = reading.scores >= value
            self._redraw(replace(reading, match_threshold=value, in_scope=inside))

    def _stays(self, value: float, bound: float) -> bool:
        return self._setting or abs(value - bound) <= _ROUNDED

    def _redraw(self, reading: Reading) -> None:
        """Draw at once, without the model; ask it once the slider rests."""
        self._reading = reading
        self._draw(reading)
        self.later(self._run)

    def _picked(self, at: list[int]) -> None:
        if at and self._reading is not None:
            layer, token = self._reading.layers[at[0]], at[1]
            self.desk.select(self, layer=layer, token=token)
            self._place_sliders(self._reading)
            self._show_reach()

    def _pick_subject(self, reading: Reading) -> None:
        """Of another prompt, what was picked is another token: pick the subject's last."""
        place, layer = reading.subject_last, self._layer(reading)
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
            self._match.value = ""
            self._reach_head.value = "Click a cell to see which edits reach it."
            return
        layer, token = at
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
        self._reach_head.value = html(
            f"“{name}” at layer {reading.layers[layer]} is reached by"
        ).value
        best = int(torch.argmax(reading.match[layer, :, token]))
        value = float(reading.match[layer, best, token])
        self._match.value = html(
            f"Its key matches that of “{reading.facts[best].subject}” best: {value:.2f}, where 1 is"
            " the fact's own."
        ).value

    def _take_prompts(self) -> None:
        chosen = self.desk.selection.fact
        fact = None if chosen is None else self.session.facts.get(chosen)
        if fact is None:
            self.alert("Select a fact first, in Facts.")
            return
        edited = {fact.subject for fact in self.session.facts.values()}
        others = [f.subject for f in bundled_facts() if f.subject not in edited]
        self._kinds = prompts_of(fact, others)
        self._several.value = "\n".join(self._kinds)
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
        self._table.show(lines, columns=COLUMNS)

    def _row_picked(self, at: list[int]) -> None:
        if at and at[0] < len(self._table.cells):
            self.look(self._table.cells[at[0]][0]["text"])


def _move(slider: widgets.FloatSlider, value: float, high: float) -> None:
    """Put a slider there: the page answers a range without its value by another value."""
    high = max(high, value)
    slider.max = max(high, slider.max)
    slider.min = min(slider.min, value)
    slider.value = value
    slider.max = high
