"""Ask: any prompt, before and after side by side."""

from __future__ import annotations

import difflib
import re

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.progress import EditCancelled
from coachhook_viz.events import Event
from coachhook_viz.figures.style import visible
from coachhook_viz.panels.desk import STATE_EVENTS, Selected
from coachhook_viz.panels.grid import Cell, Grid, Kind
from coachhook_viz.panels.panel import Panel, Static, html, row
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_TOKENS = 16
_SIDES: tuple[Kind, Kind] = ("before", "after")


class Ask(Panel):
    """Any prompt, unedited beside edited: the likeliest next tokens, and the text that follows.

    Parameters
    ----------
    session : Session
    prompt : str
        What is asked first.
    """

    title = "Ask"

    def __init__(self, session: Session, prompt: str = "") -> None:
        self._prompt = widgets.Text(
            description="Prompt", placeholder="any text, e.g. The capital of France is"
        )
        self._heads = [html("", "cv-note") for _ in _SIDES]
        self._bars = [
            Grid(label=f"next tokens {side}", look="bars", picks="nothing") for side in _SIDES
        ]
        self._said = [html("", "cv-kept", "cv-said") for _ in _SIDES]
        self._answers: tuple[str, list[pd.DataFrame], list[str]] | None = None
        columns = [
            widgets.VBox([head, bars, said])
            for head, bars, said in zip(self._heads, self._bars, self._said, strict=True)
        ]
        body = [self._prompt, row(*columns, classes=["cv-side"])]
        super().__init__(session, body, "what the model says, before and after")
        self.on(self._prompt, lambda prompt: self.later(self._follow))
        self.ask(prompt or self.desk.selection.prompt)

    def ask(self, prompt: str) -> None:
        """Ask `prompt`; the answers come when the worker has them."""
        self.desk.select(self, prompt=prompt)
        self._prompt.value = prompt
        self._run()

    def static(self) -> Static:
        """The two answers as bars, and the texts."""
        if self._answers is None:
            return Static("Nothing asked yet.")
        prompt, (before, after), texts = self._answers
        return Static(
            figures.answers(before, after, prompt, backend="matplotlib"),
            *(f"{side}: {prompt}{text}" for side, text in zip(_SIDES, texts, strict=True)),
        )

    def code(self) -> str:
        """The calls that give the answers."""
        prompt = self._prompt.value
        return "\n".join(
            f"session.{call}({prompt!r}{tokens}{edited})"
            for call, tokens in (("predict", ""), ("generate", f", {_TOKENS}"))
            for edited in (", edited=False", "")
        )

    def hear(self, event: Event) -> None:
        """Ask again when something else is in force, or another prompt is selected."""
        if isinstance(event, Selected) and event.source is not self:
            if event.now.prompt != event.before.prompt:
                self.ask(event.now.prompt)
        elif isinstance(event, STATE_EVENTS):
            self._run()

    def _follow(self) -> None:
        if self._prompt.value != self.desk.selection.prompt:
            self.ask(self._prompt.value)

    def _run(self) -> None:
        prompt, rounds = self._prompt.value, self.session.position
        self._heads[0].value = "before, with no hook"
        self._heads[1].value = f"after {count(rounds, 'round')}"
        if not prompt.strip():
            for bars, said in zip(self._bars, self._said, strict=True):
                bars.show([], rows=[], empty="Type a prompt.")
                said.value = ""
            return
        self.desk.worker.submit(
            "asking",
            lambda job: [self.session.predict(prompt, edited=edited) for edited in (False, True)],
            lambda frames: self._show(prompt, frames),
            self.fail,
            key=f"ask{id(self)}",
        )

    def _show(self, prompt: str, frames: list[pd.DataFrame]) -> None:
        """The bars; the texts take longer, and make way for what is asked meanwhile."""
        self.alert()
        for bars, side, frame in zip(self._bars, _SIDES, frames, strict=True):
            bars.show(
                [
                    [Cell(f"{p:.2f}", f"{token!r}: probability {p:.3f}", bar=p, kind=side)]
                    for token, p in zip(frame["token"], frame["probability"], strict=True)
                ],
                rows=[visible(token) for token in frame["token"]],
            )

        def written(texts: list[str]) -> None:
            self._said[1].value = str(Markup("… {}").format(_marked(*map(_flowing, texts))))
            self._answers = prompt, frames, texts

        self.desk.worker.submit(
            "writing on",
            lambda job: [self._write(job, prompt, side) for side in range(len(_SIDES))],
            written,
            self.fail,
            key=f"write{id(self)}",
            patience=1,
        )

    def _write(self, job: Job, prompt: str, side: int) -> str:
        def stream(text: str) -> None:
            if job.cancel():
                raise EditCancelled("something else is asked")
            self._said[side].value = str(Markup("… {}").format(_flowing(text)))

        return self.session.generate(prompt, _TOKENS, edited=side > 0, stream=stream)


def _flowing(text: str) -> str:
    """`text` as one paragraph: its line breaks are seen, and make no room jump."""
    return re.sub("\n+", lambda breaks: f" {visible(breaks[0])} ", text).lstrip()


def _marked(before: str, after: str) -> Markup:
    """`after`, the words that `before` does not have in their place marked."""
    old, new = (re.findall(r"\s*\S+", text) for text in (before, after))
    pieces = []
    for change, _, _, start, stop in difflib.SequenceMatcher(None, old, new).get_opcodes():
        text = "".join(new[start:stop])
        pieces.append(Markup("{}" if change == "equal" else "<mark>{}</mark>").format(text))
    return Markup("").join(pieces)
