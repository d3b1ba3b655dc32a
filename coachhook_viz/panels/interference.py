"""Interference: how much each edit acts on each other's key, beside what was to be expected."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.events import Event
from coachhook_viz.facts import Fact
from coachhook_viz.panels.desk import STATE_EVENTS, Desk, Selected
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.pairs import ROOM, SIDES, by_layer, clustered, headline, matrix, ranked
from coachhook_viz.panels.panel import Panel, Static, html, row
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import brief, likely
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_MOST = 25  # facts that are shown, drawn once and for all
_CHEAP = 200  # facts in force whose keys are read without being asked for
_KEY = Markup(
    "<p class='cv-key'>0.001 <span class='cv-ramp'></span> 1: as strong as its own edit"
    "<span><span class='cv-swatch cv-none'></span> the fact itself</span></p>"
)
_Found = tuple[dict[int, Fact], pd.DataFrame, Markup]


class Interference(Panel):
    """Edit × edit: what came beside what was predicted.

    Parameters
    ----------
    session : Session
    """

    title = "Interference"

    def __init__(self, session: Session) -> None:
        self._order = widgets.Dropdown(description="Order", options=["by round", "clustered"])
        self._running = Running(Desk.of(session).worker, "Measure")
        self._grids = {
            side: Grid(label=f"{side} interference, facts by edits", look="heat", corner="edit")
            for side in SIDES
        }
        self._key = html(_KEY)
        self._words = html("")
        self._about = html("")
        self._answers = Grid(
            label="both prompts, before and after",
            picks="nothing",
            columns=["prompt", "before", "after"],
        )
        self._layers = Grid(label="the pair by layer", look="heat", columns=list(SIDES))
        self._frame: pd.DataFrame | None = None
        self._facts: dict[int, Fact] = {}
        self._ids: list[int] = []
        self._pair: tuple[int, int] | None = None  # a fact, and whose edit acts on it
        self._marking = False
        sides = [
            widgets.VBox([html(said, "cv-note"), self._grids[side]]) for side, said in SIDES.items()
        ]
        self._whole = row(*sides, classes=["cv-side"])
        self._detail = row(self._answers, self._layers, classes=["cv-side", "cv-side-wide"])
        tools = row(self._order, self._running.buttons, classes=["cv-tools"])
        body = [
            tools,
            self._running.said,
            self._whole,
            self._key,
            self._words,
            self._about,
            self._detail,
        ]
        super().__init__(session, body, "which edits act on which facts")
        self.on(self._order, lambda order: self._draw())
        for grid in self._grids.values():
            self.on(grid, self._picked, "selected")
        self.on(self._layers, self._layer_picked, "selected")
        self.click(self._running.button, self.measure)
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Measure in the background, where that is cheap."""
        if not 1 < len(self.session.state.facts) <= _CHEAP:
            self._frame = None
            self._draw()
            return
        self._whole.add_class("cv-stale")
        self.desk.worker.submit(
            "measuring interference",
            self._measure,
            self._show,
            self.fail,
            key=f"interference{id(self)}",
            patience=2,
        )

    def measure(self) -> None:
        """Measure how the facts in force act on each other: `Session.interference`."""
        self._running.submit("measuring interference", self._measure, self._show, self.fail)
        self.worked()

    def static(self) -> Static:
        """The two matrices as a picture, the rest in words."""
        if self._frame is None:
            return Static("Nothing measured yet.")
        picture = figures.interference(self._frame, self._facts, backend="matplotlib")
        return Static(picture, Markup(self._words.value))

    def code(self) -> str:
        """The calls that give what is shown."""
        budget = f"{_MOST}" * (len(self.session.state.facts) > _MOST)
        lines = [
            "from coachhook_viz.measure.interference import rank_correlation\n",
            f"pairs = session.interference({budget})",
            "cv.figures.interference(pairs, session.facts)",
            "rank_correlation(pairs)",
            "session.conflicts()",
        ]
        for fact_id in self._pair or ():
            text = self._facts[fact_id].text
            lines += [f"session.predict({text!r}, edited=False)", f"session.predict({text!r})"]
        return "\n".join(dict.fromkeys(lines))

    def hear(self, event: Event) -> None:
        """Measure again when something else is in force; follow the selection."""
        if isinstance(event, STATE_EVENTS):
            self.refresh()
            self.worked()
        elif isinstance(event, Selected) and event.source is not self:
            fact_id = event.now.fact
            if fact_id is not None and fact_id != event.before.fact:
                self._pair = fact_id, fact_id
                self._mark()

    def worked(self) -> None:
        """How far a measurement has come."""
        self._running.draw(len(self.session.state.facts) > 1)

    def _measure(self, job: Job) -> _Found:
        facts, few = self.session.facts, len(self.session.state.facts) > _MOST
        frame = self.session.interference(_MOST, job.progress, job.cancel)
        said = [ranked(frame)]
        if few:
            said.append(f"Shown: {frame.attrs['sampled']}, drawn once and for all.")
        lines = [Markup("<p>{}</p>").format(" ".join(filter(None, said)))]
        lines += [
            Markup("<p><b class='cv-bad'>! Conflict</b>: “{}” and “{}” ask the same.</p>").format(
                facts[one], facts[other]
            )
            for one, other in self.session.conflicts()
        ]
        return facts, frame, Markup("<div class='cv-story'>{}</div>").format(Markup("").join(lines))

    def _show(self, found: _Found) -> None:
        with self.desk.drawing:
            self.alert()
            self._facts, self._frame, words = found
            self._words.value = str(words)
            self._draw()

    def _draw(self) -> None:
        """Both matrices, in the order that is chosen."""
        frame = self._frame
        self._whole.remove_class("cv-stale")
        self._key.layout.display = "none" if frame is None else ""
        if frame is None:
            self._ids, self._words.value = [], ""
            few = len(self.session.state.facts) < 2
            empty = "It takes two facts in force." if few else "Measure reads the facts' keys."
            for grid in self._grids.values():
                grid.show([], rows=[], columns=[], empty=empty)
            self._mark()
            return
        tables = {side: frame.pivot_table(side, "fact", "by") for side in SIDES}
        self._ids = [int(str(fact_id)) for fact_id in tables["actual"].index]
        if self._order.value == "clustered":
            self._ids = clustered(tables["actual"])
        dense = len(self._ids) > ROOM
        (self._whole.add_class if dense else self._whole.remove_class)("cv-dense")
        for side, grid in self._grids.items():
            grid.show(
                matrix(side, tables[side], self._ids, self._facts),
                rows=[f"{brief(self._facts[i].subject)} · {i}" for i in self._ids],
                columns=[str(i) for i in self._ids],
            )
        self._mark()

    def _picked(self, at: list[int]) -> None:
        if self._marking or not at or max(at) >= len(self._ids):
            return
        fact_id, by = (self._ids[place] for place in at)
        self._pair = fact_id, by
        self._mark()
        self.desk.select(self, fact=fact_id, prompt=self._facts[fact_id].text)

    def _layer_picked(self, at: list[int]) -> None:
        if at:
            self.desk.select(self, layer=self.session.config.layers[at[0]])

    def _mark(self) -> None:
        """Mark the chosen pair in both matrices, and look at it."""
        pair = self._pair if self._pair and set(self._pair) <= set(self._ids) else None
        self._marking = True
        try:
            for grid in self._grids.values():
                grid.selected = [] if pair is None else [self._ids.index(i) for i in pair]
        finally:
            self._marking = False
        if pair is not None and pair[0] != pair[1]:
            self._look(*pair)
            return
        self._detail.layout.display = "none"
        words = "" if self._frame is None else "Click a cell to see both facts, before and after."
        self._about.value = str(Markup("<p class='cv-note'>{}</p>").format(words))

    def _look(self, fact_id: int, by: int) -> None:
        """Both facts' prompts before and after, and the numbers at each layer."""
        facts, frame = [self._facts[fact_id], self._facts[by]], self._frame
        assert frame is not None
        pair = frame[(frame["fact"] == fact_id) & (frame["by"] == by)]

        def show(found: list[list[pd.DataFrame]]) -> None:
            with self.desk.drawing:
                if self._pair == (fact_id, by):
                    self._show_pair(facts, pair, found)

        self.desk.worker.submit(
            "asking",
            lambda job: [
                [self.session.predict(fact.text, top=3, edited=edited) for edited in (False, True)]
                for fact in facts
            ],
            show,
            self.fail,
            key=f"interference pair{id(self)}",
        )

    def _show_pair(
        self, facts: list[Fact], pair: pd.DataFrame, found: list[list[pd.DataFrame]]
    ) -> None:
        self._about.value = str(Markup("<p>{}</p>").format(headline(facts[0], facts[1], pair)))
        self._answers.show(
            [
                [Cell(fact.text), Cell(likely(before)), Cell(likely(after), kind="after")]
                for fact, (before, after) in zip(facts, found, strict=True)
            ]
        )
        self._layers.show(by_layer(pair), rows=[f"layer {layer}" for layer in pair["layer"]])
        self._detail.layout.display = ""
