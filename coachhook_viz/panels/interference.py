"""Interference: how much each edit acts on each other's key, beside what was to be expected."""

from __future__ import annotations

from functools import partial

import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.facts import Fact
from coachhook_viz.panels.acting import (
    ROOM,
    SIDES,
    WIDE,
    by_layer,
    clustered,
    column_names,
    headline,
    key,
    matrix,
    ranked,
    row_names,
)
from coachhook_viz.panels.controls import Button, Select, Text, column, row
from coachhook_viz.panels.desk import Desk
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.lens import Lens
from coachhook_viz.panels.panel import Static
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count, likely
from coachhook_viz.panels.worker import Job
from coachhook_viz.panels.zoom import Zoom
from coachhook_viz.session import Session

_MOST = 200  # facts that are shown, drawn once and for all
_BLOCKS = 20, 20, 625  # rows, columns; cells up to which each is drawn
_CHEAP = 200  # facts in force whose keys are read without being asked for
_Found = tuple[dict[int, Fact], pd.DataFrame, Markup]

_HERE = "each row here is a fact and each column an edit that acts on it"


class Interference(Lens):
    """Edit × edit: what came beside what was predicted.

    Parameters
    ----------
    session : Session
    """

    title = "Interference"
    help = "which edits act on which facts"

    def __init__(self, session: Session) -> None:
        orders = [["by round", "by round"], ["clustered", "clustered"]]
        self._order = Select(label="Order of the facts", options=orders, value="by round")
        self._grids = {
            side: Grid(label=f"{side} interference, facts by edits", look="heat", corner="by edit")
            for side in SIDES
        }
        self._zoom = Zoom(*_BLOCKS)
        self._nothing = Text(classes="cv-note")
        self._key = Text()
        self._words = Text()
        self._about = Text(live="polite")
        self._answers = Grid(
            label="Both prompts, before and after",
            picks="nothing",
            columns=["prompt", "before", "after"],
        )
        self._why = Button("Why?", "quiet", hidden=True, tip="why the fact holds, or not")
        self._layers = Grid(label="The pair by layer", look="heat", columns=list(SIDES))
        self._frame: pd.DataFrame | None = None
        self._facts: dict[int, Fact] = {}
        self._ids: list[int] = []
        self._pair: tuple[int, int] | None = None  # a fact, and whose edit acts on it
        sides = [column(Text(said, "cv-note"), self._grids[side]) for side, said in SIDES.items()]
        self._whole = row(*sides, classes="cv-side")
        self._detail = row(self._answers, self._layers, classes="cv-side cv-side-wide", hidden=True)
        running = Running(Desk.of(session).worker, "Measure")
        body = [
            row(self._order, self._zoom.out, running.buttons, classes="cv-tools"),
            running.said,
            self._nothing,
            self._whole,
            self._key,
            self._words,
            row(self._about, self._why),
            self._detail,
        ]
        super().__init__(session, body, running=running)
        self.on(self._order, lambda order: self._zoom_out())
        for grid in self._grids.values():
            self.on(grid, self._picked, "selected")
            grid.on_press(lambda at: self._do(lambda: self._open_block(at)))
        self.click(self._zoom.out, self._zoom_out)
        self.on(self._layers, self._layer_picked, "selected")
        self.click(self._why, self._ask_why)
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Measure in the background, where that is cheap."""
        self._take_selected()
        few, many = not self._enough, len(self.session.state.facts) > _CHEAP
        if few or (many and not self.recall(self._show, self.session.state.key)):
            self._frame = None
            self._draw()
        elif not many:
            self._dress(" cv-stale")
            if self._frame is None:
                self._nothing.say(f"Once it is measured, {_HERE}.")
            self.run(
                "measuring interference",
                self._measure,
                self._show,
                of=self.session.state.key,
                patience=2,
            )

    def measure(self) -> None:
        """Measure how the facts in force act on each other: `Session.interference`."""
        self.run(
            "measuring interference",
            self._measure,
            self._show,
            of=self.session.state.key,
            patience=1,
            running=self._running,
        )

    @property
    def ready(self) -> bool:
        """Whether anything is not measured yet."""
        return self._enough and self._frame is None

    def static(self) -> Static:
        """The two matrices as a picture, the rest in words."""
        if self._frame is None:
            return Static("Nothing measured yet.")
        picture = figures.interference(self._frame, self._facts, backend="matplotlib")
        return Static(picture, Markup(self._words.html))

    def code(self) -> str:
        """The calls on `session` that give what is shown."""
        budget = f"{_MOST}" * (len(self.session.state.facts) > _MOST)
        lines = [
            "from coachhook_viz.measure.interference import rank_correlation\n",
            f"pairs = session.interference({budget})",
            "cv.figures.interference(pairs, session.facts)",
            "rank_correlation(pairs)",
            "session.conflicts()",
        ]
        for fact_id in self._chosen or ():
            text = self._facts[fact_id].text
            lines += [f"session.predict({text!r}, edited=False)", f"session.predict({text!r})"]
        return "\n".join(dict.fromkeys(lines))

    def follow(self) -> None:
        """Mark the fact that is selected."""
        if self._take_selected():
            self._mark()

    @property
    def _enough(self) -> bool:
        return len(self.session.state.facts) > 1

    @property
    def _chosen(self) -> tuple[int, int] | None:
        """The pair, where both are shown."""
        return self._pair if self._pair and set(self._pair) <= set(self._ids) else None

    def _take_selected(self) -> bool:
        """Look at the fact that is selected, unless the pair is of it already."""
        fact_id = self.desk.selection.fact
        if fact_id is None or (self._pair and self._pair[0] == fact_id):
            return False
        self._pair = fact_id, fact_id
        return True

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
        self.alert()
        self._facts, self._frame, words = found
        self._words.say(words)
        self._draw()
        self.worked()

    def _dress(self, more: str = "") -> None:
        facts = len(self._zoom.rows)
        self._whole.classes = (
            f"cv-side{' cv-close' * (facts > WIDE)}{' cv-closer' * (facts > ROOM)}{more}"
        )

    def _draw(self) -> None:
        """Both matrices, in the order that is chosen."""
        frame = self._frame
        self._nothing.hidden = frame is not None
        self._whole.hidden = self._key.hidden = self._order.hidden = frame is None
        if frame is None:
            self._ids = []
            self._zoom.fit(0, 0)
            self._nothing.say(self._empty())
            self._words.say()
            for grid in self._grids.values():
                grid.show([], rows=[], columns=[], keys=[], selected=[])
            self._dress()
            self._mark()
            return
        tables = {side: frame.pivot_table(side, "fact", "by") for side in SIDES}
        self._ids = [int(str(fact_id)) for fact_id in tables["actual"].index]
        if self._order.value == "clustered":
            self._ids = clustered(tables["actual"])
        zoom = self._zoom
        zoom.fit(len(self._ids), len(self._ids))
        self._dress()
        self._key.say(key(zoom))
        for side, grid in self._grids.items():
            grid.show(
                matrix(side, tables[side], self._ids, self._facts, zoom),
                rows=row_names(self._ids, self._facts, zoom),
                columns=column_names(self._ids, zoom),
                picks="block" if zoom.binned else "cell",
                selected=zoom.shown(self._place()),
            )
        self._mark()

    def _open_block(self, at: list[int]) -> None:
        if self._zoom.binned:
            self._zoom.into(at)
            self._draw()

    def _zoom_out(self) -> None:
        """All, in the order that is chosen."""
        self._zoom.reset()
        self._draw()

    def _empty(self) -> str:
        facts = len(self.session.state.facts)
        if not facts:
            return self.nothing(_HERE)
        if facts == 1:
            return f"It takes two facts in force. With two, {_HERE}."
        return f"Press Measure to read the keys of {count(facts, 'fact')}: then {_HERE}."

    def _place(self) -> list[int]:
        """Row and column of the pair."""
        return [self._ids.index(i) for i in self._chosen or ()]

    def _picked(self, at: list[int]) -> None:
        if not at or at[0] >= len(self._zoom.rows) or at[1] >= len(self._zoom.columns):
            return
        if at == self._zoom.shown(self._place()):  # the block that the pair is in by now
            return
        row_, column_ = self._zoom.place(at)
        pair = self._ids[row_], self._ids[column_]
        if pair == self._pair:
            return
        self._pair = pair
        self._mark()
        self.desk.select(self, fact=pair[0], prompt=self._facts[pair[0]].text)

    def _layer_picked(self, at: list[int]) -> None:
        if at:
            self.desk.select(self, layer=self.session.config.layers[at[0]])

    def _ask_why(self) -> None:
        """Why the fact of the chosen cell holds, or not."""
        if self._chosen is not None:
            fact = self._facts[self._chosen[0]]
            self.desk.ask_why(self, fact.text, fact.target)

    def _mark(self) -> None:
        """Mark the chosen pair in both matrices, and look at it."""
        pair, frame = self._chosen, self._frame
        self._why.hidden = pair is None
        for grid in self._grids.values():
            grid.selected = self._zoom.shown(self._place())
        if pair is not None and pair[0] != pair[1] and frame is not None:
            self._look(frame, *pair)
            return
        self._detail.hidden = True
        words = "" if frame is None else "Click a cell to see both facts, before and after."
        self._about.say(Markup("<p class='cv-note'>{}</p>").format(words) if words else "")

    def _look(self, frame: pd.DataFrame, fact_id: int, by: int) -> None:
        """Both facts' prompts before and after, and the numbers at each layer."""
        session, facts = self.session, [self._facts[fact_id], self._facts[by]]
        self.run(
            "asking",
            lambda job: [
                [session.predict(fact.text, top=3, edited=edited) for edited in (False, True)]
                for fact in facts
            ],
            partial(self._show_pair, frame, (fact_id, by)),
            of=(session.state.key, fact_id, by),
        )

    def _show_pair(
        self, frame: pd.DataFrame, pair: tuple[int, int], found: list[list[pd.DataFrame]]
    ) -> None:
        if pair != self._pair or frame is not self._frame:
            return  # another pair is looked at, or none
        facts = [self._facts[fact_id] for fact_id in pair]
        lines = frame[(frame["fact"] == pair[0]) & (frame["by"] == pair[1])]
        self._about.say(Markup("<p>{}</p>").format(headline(facts[0], facts[1], lines)))
        self._answers.show(
            [
                [Cell(fact.text), Cell(likely(before)), Cell(likely(after), kind="after")]
                for fact, (before, after) in zip(facts, found, strict=True)
            ]
        )
        self._layers.show(by_layer(lines), rows=[f"layer {layer}" for layer in lines["layer"]])
        self._detail.hidden = False
