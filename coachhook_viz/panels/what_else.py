"""What else: what the edits changed beside what was asked for, as a table and as a map."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.figures.style import visible
from coachhook_viz.measure.beside import CHANGE, KINDS
from coachhook_viz.measure.what_else import headline
from coachhook_viz.panels.controls import Button, Field, Select, Text, column, row
from coachhook_viz.panels.desk import Desk
from coachhook_viz.panels.dots import Dot, Dots
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.lens import Lens
from coachhook_viz.panels.panel import Static
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count, named, word
from coachhook_viz.session import Session

_BUDGET = 200
_ROWS = 1000  # that the table shows at once
_SHOWS = [
    ["all", "all"],
    ["changed", "changed"],
    ["changed, should stay", "harmed"],
    ["fired", "fired"],
    *([kind, kind] for kind in KINDS),
]
_SORTS = [["by kind", "kind"], ["most changed", "most"], ["A–Z", "name"]]
_MAP = (
    "Each dot is a prompt; those with similar keys stand together. Orange: its answer changed."
    " A ring: the hook spoke. Draw over the map to pick prompts out; click one to ask it."
)
_COLUMNS = ["kind", "prompt", "before", "after", "kept", "fired"]


class WhatElse(Lens):
    """Prompts beside the edits, before and after: a table to sort and filter, and a map of keys.

    Parameters
    ----------
    session : Session
    """

    title = "What else"
    help = "what the edits changed beside what was asked for"

    def __init__(self, session: Session) -> None:
        self._show_only = Select(
            label="Show prompts", options=_SHOWS, value="all", classes="cv-bare"
        )
        self._sort = Select(label="Sort prompts", options=_SORTS, value="kind", classes="cv-bare")
        self._search = Field(label="Search prompts", placeholder="Search…", classes="cv-bare")
        self._headline = Text(classes="cv-story", live="polite")
        self._nothing = Text(classes="cv-note")
        self._table = Grid(label="prompts beside the edits", look="table", picks="row")
        self._dots = Dots(label="map of the prompts' keys")
        self._brushed = Text(classes="cv-note", live="polite")
        self._clear = Button("Show all of them", "quiet", hidden=True)
        self._frame: pd.DataFrame | None = None
        self._picked_out: set[str] = set()  # prompts that were brushed on the map
        running = Running(Desk.of(session).worker, "Ask")
        self._tools = row(self._show_only, self._sort, self._search, classes="cv-row cv-tools-list")
        self._whole = row(
            column(self._tools, self._table),
            column(self._dots, self._brushed, self._clear),
            classes="cv-side cv-side-wide",
        )
        body = [running.buttons, running.said, self._headline, self._nothing, self._whole]
        super().__init__(session, body, running=running)
        for node in (self._show_only, self._sort, self._search):
            self.on(node, lambda value: self._draw_table())
        self.on(self._table, self._row_picked, "selected")
        self._dots.on_pick(lambda places: self._do(lambda: self._brush(places)))
        self.click(self._clear, lambda: self._brush([]))
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Show what is known of what is in force; it is asked at a click."""
        if self.session.state.facts and self.recall(self._show, self._of):
            return
        self._frame = None
        self._draw()

    def measure(self) -> None:
        """Ask all that lies beside the edits: `Session.what_else`."""
        self.run(
            "asking what else changed",
            lambda job: self.session.what_else(None, _BUDGET, job.progress, job.cancel),
            self._show,
            of=self._of,
            patience=1,
            running=self._running,
        )

    @property
    def ready(self) -> bool:
        """Whether anything is not asked yet."""
        return bool(self.session.state.facts) and self._frame is None

    def static(self) -> Static:
        """The line, the map as a picture, and the table."""
        if self._frame is None:
            return Static("Nothing asked yet.")
        picture = figures.what_else(self._frame, backend="matplotlib")
        return Static(headline(self._frame), picture, self._table.picture())

    def code(self) -> str:
        """The calls on `session` that give what is shown."""
        return (
            "from coachhook_viz.measure.what_else import headline, tally\n\n"
            f"frame = session.what_else(budget={_BUDGET})\n"
            "cv.figures.what_else(frame)\nheadline(frame)\ntally(frame)"
        )

    @property
    def _of(self) -> tuple[object, ...]:
        return self.session.state.key, _BUDGET

    def _show(self, frame: pd.DataFrame) -> None:
        self.alert()
        self._frame = frame
        self.desk.tell_beside(self, headline(frame))
        self._draw()
        self.worked()

    def _draw(self) -> None:
        frame = self._frame
        self._whole.hidden = frame is None
        self._nothing.hidden = frame is not None
        self._picked_out = set()
        if frame is None:
            self._headline.say()
            self._nothing.say(self._empty())
            self._table.show([], rows=[], columns=[], keys=[], selected=[])
            self._dots.show([])
            return
        self._headline.say(
            Markup("<p>Kept: <b>{}</b>. {} asked.</p>").format(
                headline(frame), frame.attrs.get("sampled", "")
            )
        )
        self._dots.show(
            [
                Dot(x, y, changed=not kept, fired=fired, detail=f"{kind}: {visible(prompt)}")
                for x, y, kept, fired, kind, prompt in zip(
                    *(frame[n].tolist() for n in ("x", "y", "kept", "fired", "kind", "prompt")),
                    strict=True,
                )
            ]
        )
        self._draw_table()

    def _empty(self) -> str:
        here = "each row here is a prompt, before and after"
        if not self.session.state.facts:
            return self.nothing(here)
        facts = count(len(self.session.state.facts), "edited fact")
        return (
            f"Press Ask: up to {_BUDGET} prompts that ask something else than the {facts} are put"
            f" to the model, and {here}."
        )

    def _draw_table(self) -> None:
        frame = self._frame
        if frame is None:
            return
        rows = self._chosen(frame)
        facts = self.session.facts
        lines = []
        shown = rows.head(_ROWS).to_dict("records")
        for one in shown:
            should = one["kind"] in CHANGE
            good = bool(one["kept"]) != should
            whose = "" if pd.isna(one["fact"]) else named(facts[int(one["fact"])])
            lines.append(
                [
                    Cell(str(one["kind"])),
                    Cell(visible(str(one["prompt"]))),
                    Cell(word(str(one["before"])), f"probability {one['p_before']:.3f}"),
                    Cell(
                        word(str(one["after"])),
                        f"“{word(str(one['before']))}” now has probability {one['p_after']:.3f}",
                        kind="after" if not one["kept"] else "",
                    ),
                    Cell("kept" if one["kept"] else "changed", kind="holds" if good else "missed"),
                    Cell("●" if one["fired"] else "", whose and f"most of it is of {whose}"),
                ]
            )
        self._table.show(lines, columns=_COLUMNS, keys=rows["prompt"].head(_ROWS).tolist())
        self._table.empty = "No prompt fits."
        of = f"{len(rows)} of {len(frame)} prompts" if len(rows) < len(frame) else ""
        self._brushed.say(of or _MAP)
        self._clear.hidden = not self._picked_out

    def _chosen(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that the map, the filter and the search leave, in their order."""
        show, words = self._show_only.value, self._search.value.casefold().split()
        stays = ~frame["kind"].isin(CHANGE)
        kept = {
            "all": frame["kind"].notna(),
            "changed": ~frame["kept"],
            "harmed": stays & ~frame["kept"],
            "fired": frame["fired"],
        }.get(show, frame["kind"] == show)
        texts = frame["prompt"].str.casefold()
        for one in words:
            kept &= texts.str.contains(one, regex=False)
        if self._picked_out:
            kept &= frame["prompt"].isin(self._picked_out)
        found = frame[kept]
        if self._sort.value == "name":
            return found.sort_values("prompt")
        if self._sort.value == "most":
            return found.iloc[(found["p_after"] / found["p_before"]).argsort().to_numpy()]
        return found

    def _row_picked(self, at: list[int]) -> None:
        if at and self._frame is not None:
            self._ask(str(self._chosen(self._frame)["prompt"].iloc[at[0]]))

    def _brush(self, places: list[int]) -> None:
        """Pick prompts out on the map; one alone is asked."""
        if self._frame is None:
            return
        prompts = self._frame["prompt"].iloc[places].tolist()
        self._picked_out = set(prompts)
        self._draw_table()
        if len(prompts) == 1:
            self._ask(prompts[0])

    def _ask(self, prompt: str) -> None:
        self.desk.select(self, prompt=prompt)
