"""Drift: how well each fact holds round after round, and what the rounds do to all else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.events import Configured, Event
from coachhook_viz.measure.quality import METRICS, forgetting
from coachhook_viz.measure.why import failing
from coachhook_viz.panels.controls import Button, Select, Text, column, row
from coachhook_viz.panels.curves import PLOTS, Curves
from coachhook_viz.panels.desk import Desk, Judged
from coachhook_viz.panels.grid import Grid
from coachhook_viz.panels.lens import Lens
from coachhook_viz.panels.panel import Static
from coachhook_viz.panels.retention import ROOM, Retention
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count, likely
from coachhook_viz.panels.worker import Job
from coachhook_viz.panels.zoom import Zoom
from coachhook_viz.session import Session

_MOST = 100  # facts that are scored, drawn once and for all
_CHEAP = 100  # scores, facts × rounds, that are taken without being asked for
_BLOCKS = 30, 20, 1250  # rows, columns; cells up to which each is drawn
_CLICK = "Click a cell to see what the model says there."

_HERE = "each row here is a fact and each column a round"


class Drift(Lens):
    """Retention of each fact, and what the rounds do to weights, thresholds and neutral text.

    Parameters
    ----------
    session : Session
    """

    title = "Drift"
    help = "what later rounds do to each fact, and to all else"

    def __init__(self, session: Session) -> None:
        metrics = ("target_probability", *METRICS)
        self._metric = Select(
            label="Of each fact after each round",
            options=[[name.replace("_", " "), name] for name in metrics],
            value=metrics[0],
        )
        self._grid = Grid(label="Scores of facts after rounds", look="heat")
        self._zoom = Zoom(*_BLOCKS)
        self._key = Text()
        self._said = Text(classes="cv-note", live="polite")
        self._why = Button("Why?", "quiet", hidden=True, tip="why the prompt gets this answer")
        self._basis = Text(classes="cv-note")
        self._boxes = Text()
        self._story = Text()
        self._picture = Select(
            label="Curve over the rounds",
            options=[[name, name] for name in PLOTS],
            value=next(iter(PLOTS)),
        )
        self._hint = Text(classes="cv-note")
        self._curves = Curves()
        self._retention: Retention | None = None
        self._asked = ""  # the prompt that the cell hangs on
        self._opened: list[int] = []  # the cell whose prompt is to be looked at
        self._drift: pd.DataFrame | None = None
        running = Running(Desk.of(session).worker, "Measure")
        self._sides = row(
            column(
                row(self._metric, self._zoom.out, classes="cv-tools"),
                self._grid,
                self._key,
                self._said,
                self._why,
            ),
            column(self._boxes, self._story, self._basis),
            classes="cv-side cv-side-wide",
        )
        over = column(
            row(self._picture, running.buttons, classes="cv-tools"),
            running.said,
            self._hint,
            self._curves.numbers,
        )
        super().__init__(session, [self._sides, over], [self._curves], running=running)
        self.on(self._metric, lambda metric: self._open())
        self.on(self._picture, lambda picture: self._draw_curves())
        self.on(self._grid, self._picked, "selected")
        self._grid.on_press(lambda at: self._do(lambda: self._open_block(at)))
        self.click(self._why, self._ask_why)
        self.click(self._zoom.out, self._zoom_out)
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Score the facts over the rounds, in the background, where that is cheap."""
        state, known = self.session.state, self._retention is not None
        self._drift = None
        if state.facts and self.recall(self._measured, state.key):
            return
        self._draw_curves()
        if state.facts and (known or len(state.facts) * len(state.rounds) <= _CHEAP):
            self._stale(known)
            if not known:
                self._grid.empty = f"Once it is measured, {_HERE}."
            self.run(
                "scoring facts over the rounds",
                partial(Retention.measure, self.session, _MOST),
                self._scored,
                of=state.key,
                patience=2,
            )
        else:
            self._retention = None
            self._draw()

    def measure(self) -> None:
        """Measure all that is shown: `Session.quality`, `forgotten` and `drift`."""
        self.run(
            "measuring drift",
            lambda job: (
                Retention.measure(self.session, _MOST, job),
                self.session.drift(job.progress, job.cancel),
            ),
            self._measured,
            of=self.session.state.key,
            patience=1,
            running=self._running,
        )

    @property
    def ready(self) -> bool:
        """Whether anything is not measured yet."""
        return bool(self.session.state.facts) and self._drift is None

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
        """The calls on `session` that give what is shown."""
        budget = f"{_MOST}" * (len(self.session.state.facts) > _MOST)
        lines = [
            f"quality = session.quality({budget})",
            f"cv.figures.retention(quality, {self._metric.value!r}, session.facts)",
            f"session.forgotten({budget})",
        ]
        known = self._retention
        if known is not None and not forgetting(known.scores).empty:
            lines.append("cv.figures.forgetting_curve(quality)")
        if self._drift is not None:
            lines.append("drift = session.drift()")
            lines += [f"cv.figures.{name}(drift)" for name in ("weights", "shift")]
        if known is not None and self._place():
            place, column_ = self._place()
            text = self._asked or known.facts[known.ids[place]].text
            lines.append(f"session.predict({text!r}, state=session.state_at({column_ + 1}))")
        return "\n".join(lines)

    def hear(self, event: Event) -> None:
        """Say so when the edits are looked at under another rule than they are scored under."""
        if isinstance(event, (Judged, Configured)):
            self._draw_basis()
        super().hear(event)

    def follow(self) -> None:
        """Mark the cell of the fact and round that are selected, and look at it."""
        known, at = self._retention, self._place()
        if known is not None:
            if at and not self._zoom.shown(at):
                self._zoom_out()
            self._grid.selected = self._zoom.shown(at)
            self._look(known, at)

    def _scored(self, retention: Retention) -> None:
        self.alert()
        self._retention = retention
        self._draw()

    def _measured(self, found: tuple[Retention, pd.DataFrame]) -> None:
        self._drift = found[1]
        self._scored(found[0])
        self._draw_curves()
        self.worked()

    def _stale(self, old: bool) -> None:
        """Whether what is shown is of what was in force before."""
        known = self._retention
        dense = known is not None and known.rounds > ROOM
        self._sides.classes = f"cv-side cv-side-wide{' cv-close' * dense}{' cv-stale' * old}"

    def _draw(self) -> None:
        """Heat map, boxes and words."""
        known = self._retention
        self._stale(False)
        self._key.hidden = self._said.hidden = known is None
        self._metric.hidden = known is None
        self._draw_basis()
        if known is None:
            self._zoom.fit(0, 0)
            self._grid.show([], rows=[], columns=[], keys=[], empty=self._empty())
            self._boxes.say()
            self._story.say()
            return
        self._zoom.fit(len(known.ids), known.rounds)
        self._draw_cells(known)
        self._boxes.say(known.boxes())
        self._story.say(known.story())
        self._look(known, self._place())

    def _draw_cells(self, known: Retention) -> None:
        zoom = self._zoom
        self._key.say(known.key(zoom))
        self._grid.show(
            known.cells(self._metric.value, zoom),
            rows=known.rows(zoom),
            columns=known.columns(zoom),
            picks="block" if zoom.binned else "cell",
            selected=zoom.shown(self._place()),
        )

    def _open_block(self, at: list[int]) -> None:
        known = self._retention
        if known is not None and self._zoom.binned:
            self._zoom.into(at)
            self._draw_cells(known)

    def _zoom_out(self) -> None:
        if self._retention is not None:
            self._zoom.reset()
            self._draw_cells(self._retention)

    def _empty(self) -> str:
        state = self.session.state
        if not state.facts:
            return self.nothing(_HERE)
        facts, rounds = count(len(state.facts), "fact"), count(len(state.rounds), "round")
        return f"Press Measure to score {facts} over {rounds}: then {_HERE}."

    def _draw_basis(self) -> None:
        rule = self.session.config.scope
        other = not self.desk.hooks or self.desk.rule != rule
        self._basis.hidden = not other or self._retention is None
        self._basis.say(f"Scored with the hooks on, under the {rule} scope of the edits.")

    def _draw_curves(self) -> None:
        """One of the pictures over the rounds, once all is measured."""
        picture, known = PLOTS[self._picture.value], self._retention
        frame = self._drift
        if picture.scores and frame is not None and known is not None:
            frame = known.scores
        values = None if frame is None else picture.values(frame)
        self._picture.hidden = not self.session.state.facts
        if values is not None and not values.empty:
            self._hint.say()
            self._curves.show(values, picture.label, picture.highest)
            return
        self._curves.clear()
        if not self.session.state.facts:
            self._hint.say()
        elif values is not None:
            self._hint.say("No fact took in its own round, so none can be forgotten.")
        else:
            self._hint.say(
                "Measure draws here, round by round, how many facts are forgotten, the size of"
                " ΔW, the thresholds, and how neutral text changes. It takes some seconds."
            )

    def _open(self) -> None:
        """Another score of the cell that is selected may hang on another prompt."""
        self._opened = self._place()
        self._draw()

    def _picked(self, at: list[int]) -> None:
        known = self._retention
        if not at or known is None or at == self._zoom.shown(self._place()):
            return  # nobody's pick, or the one that is selected
        at = self._zoom.place(at)
        fact_id, round_ = known.ids[at[0]], at[1] + 1
        self.desk.select(self, fact=fact_id, round=round_, prompt=known.facts[fact_id].text)
        self._opened = at
        self._look(known, at)

    def _place(self) -> list[int]:
        """Row and column of the fact and round that are selected."""
        known, picked = self._retention, self.desk.selection
        if known is None or picked.fact not in known.ids or picked.round is None:
            return []
        if not 0 < picked.round <= known.rounds:
            return []
        return [known.ids.index(picked.fact), picked.round - 1]

    def _look(self, known: Retention, at: list[int]) -> None:
        """What the model says, with the first rounds in force, to the prompt a cell hangs on.

        Of generality and locality that is the paraphrase or neighbour that fails.
        """
        self._why.hidden = not at
        if not at:
            self._said.say(_CLICK)
            return
        session, round_, metric = self.session, at[1] + 1, self._metric.value
        fact = known.facts[known.ids[at[0]]]

        def work(job: Job) -> tuple[str, pd.DataFrame]:
            state = session.state_at(round_)
            prompt = failing(session.lm, state, fact, metric)
            return prompt, session.predict(prompt, top=3, state=state)

        self.run(
            "asking",
            work,
            partial(self._answered, known, at),
            of=(session.state.key, fact, round_, metric),
        )

    def _ask_why(self) -> None:
        """Why the prompt that a cell hangs on gets its answer."""
        known, at = self._retention, self._place()
        if known is not None and at:
            local = self._metric.value == "locality"
            target = "" if local else known.facts[known.ids[at[0]]].target
            self.desk.ask_why(self, self._asked, target)

    def _answered(
        self,
        known: Retention,
        at: list[int],
        found: tuple[str, pd.DataFrame],
    ) -> None:
        if at != self._place():
            return  # another cell is looked at, or none
        fact_id, round_ = known.ids[at[0]], at[1] + 1
        fact, scores = known.facts[fact_id], known.at(fact_id, round_)
        self._asked, now = found
        if at == self._opened:  # by a person, here
            self._opened = []
            self.desk.select(self, prompt=self._asked)
        said = f"“{self._asked}” after round {round_}: {likely(now)}."
        if scores:
            said += (
                f" Probability of “{fact.target}” {scores['target_probability']:.3f},"
                f" rank {scores['target_rank']:.0f}."
            )
        self._said.say(Markup("<p>{}</p>").format(said))
