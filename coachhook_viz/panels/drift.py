"""Drift: how well each fact holds round after round, and what the rounds do to all else."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.events import Event
from coachhook_viz.measure.quality import METRICS, forgetting
from coachhook_viz.panels.desk import STATE_EVENTS, Desk, Selected
from coachhook_viz.panels.grid import Grid
from coachhook_viz.panels.lines import PLOTS, Lines
from coachhook_viz.panels.panel import Panel, Static, html, row
from coachhook_viz.panels.retention import Retention
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import likely, named
from coachhook_viz.session import Session

_MOST = 100  # facts that are scored, drawn once and for all
_CHEAP = 100  # scores, facts × rounds, that are taken without being asked for
_KEY = Markup(
    "<p class='cv-key'>0 <span class='cv-ramp'></span> 1<span>◐ in part</span><span>○ missed</span>"
    "<span><span class='cv-swatch cv-none'></span> not yet edited</span></p>"
)


class Drift(Panel):
    """Retention of each fact, and what the rounds do to weights, thresholds and neutral text.

    Parameters
    ----------
    session : Session
    """

    title = "Drift"

    def __init__(self, session: Session) -> None:
        self._metric = widgets.Dropdown(
            description="Of each fact after each round",
            options=[(name.replace("_", " "), name) for name in ("target_probability", *METRICS)],
        )
        self._grid = Grid(label="retention, facts by rounds", look="heat")
        self._key = html(_KEY)
        self._said = html("", "cv-note")
        self._boxes = html("")
        self._story = html("")
        self._running = Running(Desk.of(session).worker, "Measure")
        self._picture = widgets.Dropdown(description="Over the rounds", options=list(PLOTS))
        self._hint = html("", "cv-note")
        self._lines = Lines()
        self._retention: Retention | None = None
        self._drift: pd.DataFrame | None = None
        self._following = False
        left = widgets.VBox(
            [row(self._metric, classes=["cv-tools"]), self._grid, self._key, self._said]
        )
        right = widgets.VBox([self._boxes, self._story])
        self._sides = row(left, right, classes=["cv-side", "cv-side-wide"])
        tools = row(self._picture, self._running.buttons, classes=["cv-tools"])
        lines = widgets.VBox([tools, self._running.said, self._hint, self._lines])
        body = [self._sides, lines]
        super().__init__(session, body, "what later rounds do to each fact, and to all else")
        self.on(self._metric, lambda metric: self._draw())
        self.on(self._picture, lambda picture: self._draw_lines())
        self.on(self._grid, self._picked, "selected")
        self.click(self._running.button, self.measure)
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Score the facts over the rounds, in the background, where that is cheap."""
        state, known = self.session.state, self._retention is not None
        self._drift = None
        self._draw_lines()
        if not state.facts or not (known or len(state.facts) * len(state.rounds) <= _CHEAP):
            self._retention = None
            self._draw()
            return
        self._sides.add_class("cv-stale")
        self.desk.worker.submit(
            "scoring facts over the rounds",
            lambda job: Retention.measure(self.session, _MOST, job),
            self._show,
            self.fail,
            key=f"drift{id(self)}",
            patience=2,
        )

    def measure(self) -> None:
        """Measure all that is shown: `Session.quality`, `forgotten` and `drift`."""
        self._running.submit(
            "measuring drift",
            lambda job: (
                Retention.measure(self.session, _MOST, job),
                self.session.drift(job.progress, job.cancel),
            ),
            lambda found: self._show(*found),
            self.fail,
        )
        self.worked()

    def static(self) -> Static:
        """The heat map and the lines as pictures, the rest in words."""
        known, metric = self._retention, self._metric.value
        if known is None:
            return Static("Nothing measured yet.")
        parts: list[Any] = [known.boxes(), known.story()]
        if metric in set(known.scores["metric"]):
            heat = figures.retention(known.scores, metric, known.facts, backend="matplotlib")
            parts.insert(0, heat)
        if not forgetting(known.scores).empty:
            parts.append(figures.forgetting_curve(known.scores, backend="matplotlib"))
        if self._drift is not None:
            parts.append(figures.weights(self._drift, backend="matplotlib"))
            parts.append(figures.shift(self._drift, backend="matplotlib"))
        return Static(*parts)

    def code(self) -> str:
        """The calls that give what is shown."""
        budget = f"{_MOST}" * (len(self.session.state.facts) > _MOST)
        lines = [
            f"quality = session.quality({budget})",
            f"cv.figures.retention(quality, {self._metric.value!r}, session.facts)",
            f"session.forgotten({budget})",
        ]
        if self._retention is not None and not forgetting(self._retention.scores).empty:
            lines.append("cv.figures.forgetting_curve(quality)")
        if self._drift is not None:
            lines.append("drift = session.drift()")
            lines += [f"cv.figures.{name}(drift)" for name in ("weights", "shift")]
        if self._grid.selected and self._retention is not None:
            place, column = self._grid.selected
            text = self._retention.facts[self._retention.ids[place]].text
            lines.append(f"session.predict({text!r}, state=session.state_at({column + 1}))")
        return "\n".join(lines)

    def hear(self, event: Event) -> None:
        """Score again when something else is in force; follow the selection."""
        if isinstance(event, STATE_EVENTS):
            self.refresh()
            self.worked()
        elif isinstance(event, Selected) and event.source is not self:
            self._follow()

    def worked(self) -> None:
        """How far a measurement has come."""
        self._running.draw(bool(self.session.state.facts))

    def _show(self, retention: Retention, drift: pd.DataFrame | None = None) -> None:
        with self.desk.drawing:
            self.alert()
            self._retention = retention
            self._drift = self._drift if drift is None else drift
            self._draw()
            self._draw_lines()

    def _draw(self) -> None:
        """Heat map, boxes and words."""
        known = self._retention
        self._sides.remove_class("cv-stale")
        self._key.layout.display = "none" if known is None else ""
        if known is None:
            empty = "Measure scores the facts after each round."
            if not self.session.state.facts:
                empty = "No fact is in force yet."
            self._grid.show([], rows=[], columns=[], empty=empty, selected=[])
            self._boxes.value = self._story.value = self._said.value = ""
            return
        self._grid.show(
            known.cells(self._metric.value),
            rows=[named(known.facts[fact_id]) for fact_id in known.ids],
            columns=[f"r{place}" for place in range(1, known.rounds + 1)],
        )
        self._boxes.value = str(known.boxes())
        self._story.value = str(known.story())
        self._follow()

    def _draw_lines(self) -> None:
        """One of the pictures over the rounds, once all is measured."""
        picture, known = PLOTS[self._picture.value], self._retention
        frame = self._drift
        if picture.scores and frame is not None and known is not None:
            frame = known.scores
        values = None if frame is None else picture.lines(frame)
        self._hint.value = ""
        if values is not None and not values.empty:
            self._lines.show(values, picture.label, picture.highest)
            return
        self._lines.clear()
        if self.session.state.facts:
            self._hint.value = (
                "No fact took in its own round."
                if values is not None
                else "Measure reads weights, thresholds and neutral text; it takes some seconds."
            )

    def _picked(self, at: list[int]) -> None:
        known = self._retention
        if self._following or not at or known is None or at[0] >= len(known.ids):
            return
        fact_id, round_ = known.ids[at[0]], at[1] + 1
        self.desk.select(self, fact=fact_id, round=round_, prompt=known.facts[fact_id].text)
        self._look(known, fact_id, round_)

    def _follow(self) -> None:
        """Mark the cell of the fact and round that are selected."""
        known, fact_id, round_ = (
            self._retention,
            self.desk.selection.fact,
            self.desk.selection.round,
        )
        if known is None:
            return
        place: list[int] = []
        if fact_id in known.ids and round_ is not None and 0 < round_ <= known.rounds:
            place = [known.ids.index(fact_id), round_ - 1]
            self._look(known, fact_id, round_)
        else:
            self._said.value = "Click a cell to see what the model says there."
        self._following = True
        try:
            self._grid.selected = place
        finally:
            self._following = False

    def _look(self, known: Retention, fact_id: int, round_: int) -> None:
        """What the model says to a fact's prompt with the first rounds in force."""
        fact, scores = known.facts[fact_id], known.at(fact_id, round_)

        def show(now: pd.DataFrame) -> None:
            said = f"“{fact.text}” after round {round_}: {likely(now)}."
            if scores:
                said += (
                    f" Probability of “{fact.target}” {scores['target_probability']:.3f},"
                    f" rank {scores['target_rank']:.0f}."
                )
            with self.desk.drawing:
                self._said.value = html(said).value

        self.desk.worker.submit(
            "asking",
            lambda job: self.session.predict(fact.text, top=3, state=self.session.state_at(round_)),
            show,
            self.fail,
            key=f"drift cell{id(self)}",
        )
