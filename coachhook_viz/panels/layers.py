"""Layers: at which block the answer flips, before and after, and without one layer's hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.edited_model import EditedModel
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import tokenize
from coachhook_viz.events import Event
from coachhook_viz.figures.lens_lines import line_name
from coachhook_viz.measure.lens import defaults, overtakes
from coachhook_viz.panels.controls import Field, Text, column, row
from coachhook_viz.panels.desk import Selected, changes
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel, Static
from coachhook_viz.panels.words import short, word
from coachhook_viz.session import Session

_SHOWN = 0.005  # a probability that is told as a number
_KEY = Markup(
    "<p class='cv-key'><span>0 <span class='cv-ramp'></span> 1: probability of the answer's first"
    " token</span><span>▪ a hooked layer: click it to compare without its hook</span>"
    "<span>click a token to read there</span></p>"
)


@dataclass(frozen=True, eq=False)
class Read:
    """A lens on one prompt.

    Attributes
    ----------
    prompt : str
    tokens : tuple of str
    place : int
        The token that is read at.
    answers : tuple of str
    frame : DataFrame
        What `Session.lens` gives.
    """

    prompt: str
    tokens: tuple[str, ...]
    place: int
    answers: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def story(self) -> str:
        """At which block the answer flips."""
        if len(self.answers) < 2 or self.place != len(self.tokens) - 1:
            return ""
        *_, truth, target = self.answers
        after = overtakes(self.frame, target, truth)
        before = overtakes(self.frame, target, truth, edited=False)
        if after is None:
            told = f"“{target}” does not overtake “{truth}” with the edit"
        else:
            told = f"With the edit “{target}” is ahead of “{truth}” from block {after} on"
        return (
            f"{told}; {'nor' if after is None else 'not'} without it."
            if before is None
            else (f"{told}; without it, from block {before} on.")
        )


class Layers(Panel):
    """Answers × blocks: what each block's output would say, unedited and edited.

    Parameters
    ----------
    session : Session
    prompt : str
        What is looked at first.
    alone : bool
        Whether it brings a prompt field of its own.
    """

    title = "Layers"
    help = "at which block the answer flips"

    def __init__(self, session: Session, prompt: str = "", *, alone: bool = True) -> None:
        self._prompt = Field(
            label="Prompt to look through",
            placeholder="any text",
            rows=1,
            submits=True,
            hidden=not alone,
        )
        self._answers = Field(label="Answers to follow", placeholder="truth, target")
        self._tokens = Grid(label="read at a token", look="tokens")
        self._grid = Grid(label="probability, answers by blocks", look="heat", corner="block")
        self._story = Text(classes="cv-story", live="polite")
        self._key = Text(_KEY, hidden=True)
        self._read: Read | None = None
        self._without: int | None = None
        self._token: int | None = None
        body = [
            row(self._prompt, hidden=not alone),
            row(self._answers, self._tokens, classes="cv-tools"),
            column(self._grid, classes="cv-close"),
            self._key,
            self._story,
        ]
        super().__init__(session, body)
        self.on(self._prompt, lambda prompt: self.later(self._follow))
        self.on(self._answers, lambda answers: self.later(self.refresh))
        self.on(self._grid, self._block_picked, "selected")
        self.on(self._tokens, self._token_picked, "selected")
        self.look(prompt or self.desk.selection.prompt)

    def look(self, prompt: str) -> None:
        """Look at `prompt`; the grid comes when the worker has it."""
        self._prompt.value = prompt
        self._examine(prompt)

    def compare(self, layer: int | None) -> None:
        """Compare with one hooked layer's hook off; None: with none off."""
        self._without = layer
        self.renew()

    def read_at(self, token: int | None) -> None:
        """Read at another token of the prompt; None: at the last one."""
        self._token = token
        self.renew()

    def static(self) -> Static:
        """The lines as a picture, and the story."""
        read = self._read
        if read is None:
            return Static("Nothing looked at yet.")
        return Static(figures.lens(read.frame, read.prompt, backend="matplotlib"), read.story)

    def code(self) -> str:
        """The calls that give the lines."""
        read, prompt = self._read, self.desk.selection.prompt
        given = [
            f", {read.answers!r}" if read is not None else "",
            f", without={self._without}" * (self._without is not None),
            f", token={self._token}" * (self._token is not None),
            self.desk.state_source,
        ]
        return (
            f"frame = session.lens({prompt!r}{''.join(given)})\ncv.figures.lens(frame, {prompt!r})"
        )

    def hear(self, event: Event) -> None:
        """Look again when something else is in force, or another prompt is selected."""
        if changes(event):
            self.renew()
        elif (
            isinstance(event, Selected)
            and event.source is not self
            and event.now.prompt != event.before.prompt
        ):
            self._prompt.value = event.now.prompt
            self._token = None
            self.renew()

    def refresh(self) -> None:
        """Read the prompt under examination."""
        prompt, state = self.desk.selection.prompt, self.desk.state
        if not prompt.strip():
            self.forget(self._show)
            self._read = None
            self._key.hidden = True
            self._story.say()
            self._tokens.show([], columns=[])
            self._grid.show(
                [],
                rows=[],
                columns=[],
                empty="Type a prompt. Each column here is then a block, each row an answer.",
            )
            return
        given = tuple(filter(None, (one.strip() for one in self._answers.value.split(","))))
        without = self._without if self._without in state.layers and state.facts else None
        known, token = self.session.state, self._token
        self.run(
            "reading the layers",
            lambda job: self._look(prompt, state, known, given, without, token),
            self._show,
            of=(prompt, state.key, known.key, given, without, token),
        )

    def _look(
        self,
        prompt: str,
        state: EditState,
        known: EditState,
        given: Sequence[str],
        without: int | None,
        token: int | None,
    ) -> Read:
        lm, model = self.session.lm, EditedModel(self.session.lm, state)
        answers = tuple(given) or _defaults(model, known, prompt)
        tokens = tuple(lm.tokenizer.decode([one]) for one in tokenize(lm, prompt))
        place = len(tokens) - 1 if token is None or token >= len(tokens) else token
        frame = model.lens(prompt, answers, without=without, token=place)
        return Read(prompt, tokens, place, answers, frame)

    def _show(self, read: Read) -> None:
        self.alert()
        self._read = read
        frame = read.frame
        columns = (frame[name].tolist() for name in ("answer", "edited", "without"))
        names = [line_name(*of) for of in zip(*columns, strict=True)]
        lines = dict.fromkeys(names)
        values: dict[str, list[tuple[int, float, int]]] = {name: [] for name in lines}
        columns = (frame[name].tolist() for name in ("block", "probability", "rank"))
        for name, *found in zip(names, *columns, strict=True):
            values[name].append(tuple(found))
        hooked = set(frame.loc[frame["hooked"], "block"])
        blocks = frame["block"].unique().tolist()
        picked = [] if self._without is None else [0, blocks.index(self._without)]
        self._grid.show(
            [
                [
                    Cell(
                        short(p) if p >= _SHOWN else "",
                        f"{name}: probability {p:.3f}, rank {rank}, after block {block}"
                        + (", a hooked layer" if block in hooked else ""),
                        shade=p,
                    )
                    for block, p, rank in line
                ]
                for name, line in values.items()
            ],
            rows=list(values),
            columns=[f"▪{block}" if block in hooked else str(block) for block in blocks],
            selected=picked,
        )
        self._tokens.show(
            [
                [
                    Cell("●" if i == read.place else "·", f"read at “{word(t)}”")
                    for i, t in enumerate(read.tokens)
                ]
            ],
            rows=["read at"],
            columns=list(read.tokens),
            selected=[0, read.place],
        )
        self._key.hidden = False
        self._story.say(read.story)

    def _block_picked(self, at: list[int]) -> None:
        if not at or self._read is None:
            return
        block = int(self._read.frame["block"].unique()[at[1]])
        if block not in self.session.config.layers:
            self._story.say(f"Block {block} is not hooked. {self._read.story}")
            return
        if block != self._without:
            self.desk.select(self, layer=block)
            self.compare(block)

    def _token_picked(self, at: list[int]) -> None:
        if at and self._read is not None and at[1] != self._read.place:
            self.desk.select(self, token=at[1])
            self.read_at(at[1])

    def _follow(self) -> None:
        if self._prompt.value != self.desk.selection.prompt:
            self._examine(self._prompt.value)  # nothing is written back to who types

    def _examine(self, prompt: str) -> None:
        self._token = None
        self.desk.select(self, prompt=prompt)
        self.renew()


def _defaults(model: EditedModel, known: EditState, prompt: str) -> tuple[str, ...]:
    """Truth and target; what is not known of them, or not there, is what the model says itself."""
    unedited = EditedModel(model.lm, EditState.of(model.lm, model.state.config))
    try:
        found = tuple(defaults(known, prompt))
        if len(found) > 1:
            return found
        truth = unedited.predict(prompt, 1)["token"].iloc[0].strip()
        return (truth, *found) if truth.isalnum() and truth != found[0] else found
    except ValueError:
        tops = [m.predict(prompt, 1)["token"].iloc[0].strip() for m in (unedited, model)]
        said = tuple(dict.fromkeys(top for top in tops if any(map(str.isalnum, top))))
        if not said:
            raise ValueError(
                "No edited subject stands in this prompt: type the answers to follow, as in"
                " “Paris, Rome”."
            ) from None
        return said
