"""Ask: any prompt or conversation, before and after side by side."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from functools import partial
from itertools import zip_longest

import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.progress import EditCancelled
from coachhook_viz.editing.state import EditState
from coachhook_viz.events import Event
from coachhook_viz.figures.style import visible
from coachhook_viz.panels.controls import Button, Choice, Field, Select, Text, column, row
from coachhook_viz.panels.desk import Selected, changes
from coachhook_viz.panels.grid import Cell, Grid, Kind
from coachhook_viz.panels.panel import Panel, Static
from coachhook_viz.panels.words import brief
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_TOKENS = 16
_TOP = 4  # likeliest tokens
_TURN = 60  # tokens of an answer in a conversation
_SIDES: tuple[Kind, Kind] = ("before", "after")
_ENDS = "(the model stops here)"
_MOVED = 0.005  # a probability that differs by less is the same
_WAITS = "Type a prompt to see what the model says."


class Ask(Panel):
    """Any prompt, unedited beside edited: the likeliest next tokens, and the text that follows.

    Parameters
    ----------
    session : Session
    prompt : str
        What is asked first.
    """

    title = "Ask"
    help = "what the model says, before and after"

    def __init__(self, session: Session, prompt: str = "") -> None:
        first = prompt or "The capital of France is"
        self._mode = Choice(
            label="Ask for",
            options=[
                ["Complete", "complete", "what follows the prompt"],
                ["Chat", "chat", "a conversation in the model's own template"],
            ],
            value="complete",
            classes="cv-bare",
            hidden=not session.lm.has_chat,
        )
        self._prompt = Field(
            label="Prompt to examine",
            placeholder="any text, e.g. The capital of France is",
            rows=1,
            submits=True,
            classes="cv-bare cv-grow",
        )
        self._of_fact = Select(
            label="Prompts of the selected fact", classes="cv-bare", hidden=True, value=""
        )
        self._why = Button("Why?", "quiet", hidden=True, tip="why it says this")
        self._heads = [Text(classes="cv-note") for _ in _SIDES]
        self._bars = [
            Grid(label=f"next tokens {side}", look="bars", picks="nothing") for side in _SIDES
        ]
        self._said = [
            Text(classes="cv-said", live="polite" if side == "after" else "", label=f"text {side}")
            for side in _SIDES
        ]
        self._turn = Field(
            label="Your message",
            placeholder="What is the capital of France?",
            rows=1,
            submits=True,
            classes="cv-bare cv-grow",
        )
        self._speak = Button("Send", "primary")
        self._anew = Button("New chat", "quiet")
        self._talk = [Text(classes="cv-talk", label=f"conversation {side}") for side in _SIDES]
        self._turns: list[str] = []
        self._replies: tuple[list[str], list[str]] = ([], [])
        self._answers: tuple[str, list[pd.DataFrame], list[str]] | None = None
        self._answered_to = ""  # the prompt whose answers are shown
        self._text_of: Hashable = None  # key of the state whose text is shown
        columns = [
            column(head, bars, said)
            for head, bars, said in zip(self._heads, self._bars, self._said, strict=True)
        ]
        self._completing = row(*columns, classes="cv-side")
        self._chatting = column(
            row(*self._talk, classes="cv-side"),
            row(self._turn, self._speak, self._anew, classes="cv-asked"),
            hidden=True,
        )
        asked = row(self._mode, self._prompt, self._of_fact, self._why, classes="cv-asked")
        super().__init__(session, [asked, self._completing, self._chatting])
        self.on(self._prompt, lambda prompt: self.later(self._follow))
        self._prompt.on_enter(lambda: self._do(self._follow))
        self.on(self._mode, lambda mode: self.refresh())
        self.on(self._of_fact, self._take_prompt)
        self.click(self._speak, self.send)
        self.click(self._why, lambda: self.desk.ask_why(self, self._prompt.value))
        self._turn.on_enter(self._entered)
        self.click(self._anew, self.begin_anew)
        self.ask(prompt or self.desk.selection.prompt or first)

    def ask(self, prompt: str) -> None:
        """Ask `prompt`; the answers come when the worker has them."""
        self._prompt.value = prompt
        self._examine(prompt)

    def _entered(self) -> None:
        if self._turn.value.strip():  # a second Enter sends nothing, and is no mistake
            self._do(self.send)

    def send(self, message: str | None = None) -> None:
        """Say `message`, or what stands in the field, in the conversation."""
        text = self._turn.value if message is None else message
        if not text.strip():
            raise ValueError("Type a message first.")
        self._turns.append(text)
        if message is None:
            self._turn.put("")
        self._draw_talk()
        self._answer()

    def begin_anew(self) -> None:
        """Forget the conversation."""
        self.forget(self._answered)
        self._turns, self._replies = [], ([], [])
        self._draw_talk()

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
        if self._mode.value == "chat" and self._turns:
            return "\n".join(
                f"session.chat({self._messages(side)!r}, {_TURN}{edited})"
                for side, edited in enumerate((", edited=False", self.desk.source))
            )
        prompt = self._prompt.value
        return "\n".join(
            f"session.{call}({prompt!r}{tokens}{edited})"
            for call, tokens in (("predict", f", {_TOP}"), ("generate", f", {_TOKENS}"))
            for edited in (", edited=False", self.desk.source)
        )

    def hear(self, event: Event) -> None:
        """Ask again when something else is in force, or another prompt is selected."""
        if isinstance(event, Selected):
            if event.source is not self and event.now.prompt != event.before.prompt:
                self.ask(event.now.prompt)
            elif event.now.fact != event.before.fact:
                self._offer_prompts()
        elif changes(event):
            self.renew()

    def refresh(self) -> None:
        """Ask again, in whichever way is chosen."""
        chat = self._mode.value == "chat"
        self._prompt.hidden = self._completing.hidden = chat
        self._why.hidden = True
        self._chatting.hidden = not chat
        self._offer_prompts()
        if not chat:
            self._complete()
        elif self._turns:  # the same questions again, of the model as it is now
            self._replies = ([], [])
            self._draw_talk()
            self._answer()
        else:
            self._draw_talk()

    def _follow(self) -> None:
        if self._prompt.value != self.desk.selection.prompt:
            self._examine(self._prompt.value)  # nothing is written back to who types

    def _examine(self, prompt: str) -> None:
        self.desk.select(self, prompt=prompt)
        self._offer_prompts()
        if self._mode.value == "complete":
            self._complete()

    def _take_prompt(self, prompt: str) -> None:
        if prompt:
            self._of_fact.value = ""
            self.ask(prompt)

    def _offer_prompts(self) -> None:
        """The prompts that belong to the selected fact."""
        selected = self.desk.selection.fact
        fact = None if selected is None else self.session.facts.get(selected)
        self._of_fact.hidden = fact is None or self._mode.value == "chat"
        if fact is not None:
            prompts = [("edit", fact.text)]
            prompts += [("paraphrase", text) for text in fact.paraphrases]
            prompts += [("neighbour", n.prompt) for n in fact.neighbors]
            listed = [[f"{kind}: {brief(visible(text), 60)}", text] for kind, text in prompts]
            self._of_fact.options = [["of the selected fact", ""], *listed]

    def _states(self) -> list[EditState]:
        session = self.session
        return [EditState.of(session.lm, session.config), self.desk.state]

    def _complete(self) -> None:
        self.forget(self._written)  # of whatever was asked before
        self._why.hidden = not self._prompt.value.strip() or not self.session.rounds
        prompt, states = self._prompt.value, self._states()
        self._heads[0].say("before, with no hook")
        self._heads[1].say(self.desk.standing)
        if not prompt.strip():
            self._answered_to = ""
            self._say_instead(_WAITS)
            self.forget(self._show)
            return
        if prompt != self._answered_to:
            for said in self._said:
                said.say()
        job = self._before_it()
        if prompt != self._answered_to and job is not None:
            self._say_instead(f"It waits for what runs now: {job.title}.")
        self.run(
            "asking",
            lambda job: [self.session.predict(prompt, _TOP, state=state) for state in states],
            partial(self._show, prompt, states),
            of=(prompt, states[1].key),
        )

    def _say_instead(self, text: str) -> None:
        """Show no answer, and say why."""
        for bars, empty in zip(self._bars, (text, ""), strict=True):
            bars.show([], rows=[], empty=empty)
        for said in self._said:
            said.say()

    def _before_it(self) -> Job | None:
        """The job that an answer has to wait for, if that may take a while."""
        worker = self.desk.worker
        job = worker.running
        if job is not None and not job.patience and job.said is not None:
            return job
        return worker.exclusive

    def _show(self, prompt: str, states: list[EditState], frames: list[pd.DataFrame]) -> None:
        """The bars; the texts take longer, and make way for what is asked meanwhile."""
        self.alert()
        self._answered_to = prompt
        if states[1].key != self._text_of:
            self._said[1].say("…")  # what another state said is not this one's
        before, after = (dict(zip(f["token"], f["probability"], strict=True)) for f in frames)
        for bars, side, own, other in zip(
            self._bars, _SIDES, (before, after), (after, before), strict=True
        ):
            bars.show(
                [
                    [
                        Cell(
                            f"{p:.2f}",
                            f"{visible(token)}: probability {p:.3f}",
                            bar=p,
                            kind=side if abs(p - other.get(token, 0.0)) > _MOVED else "before",
                        )
                    ]
                    for token, p in own.items()
                ],
                rows=[visible(token) for token in own],
            )
        self.run(
            "writing on",
            lambda job: [  # what a person waits for comes first
                self._write(job, prompt, side, states[side]) for side in (1, 0)
            ],
            partial(self._written, prompt, states[1].key, frames),
            of=(prompt, states[1].key),
            patience=1,
        )

    def _written(
        self, prompt: str, key: Hashable, frames: list[pd.DataFrame], written: list[str]
    ) -> None:
        texts = written[::-1]
        self._text_of = key
        self._said[0].say(_spoken(texts[0]))
        self._said[1].say(_marked(*map(_flowing, texts)) if texts[1].strip() else _spoken(texts[1]))
        self._answers = prompt, frames, texts

    def _write(self, job: Job, prompt: str, side: int, state: EditState) -> str:
        def stream(text: str) -> None:
            if job.cancel():
                raise EditCancelled("something else is asked")
            if text.strip():
                self._said[side].say(_spoken(text))

        return self.session.generate(prompt, _TOKENS, state=state, stream=stream)

    def _messages(self, side: int) -> list[dict[str, str]]:
        """The conversation of one side, up to the last question."""
        said = []
        for turn, reply in zip_longest(self._turns, self._replies[side], fillvalue=""):
            said.append({"role": "user", "content": turn})
            said.append({"role": "assistant", "content": reply})
        return said[:-1]

    def _answer(self) -> None:
        """Answer the open questions, one after the other, on both sides."""
        turns, states, known = list(self._turns), self._states(), self._replies
        self.run(
            "chatting",
            lambda job: [
                self._converse(job, turns, known[side], side, state)
                for side, state in enumerate(states)
            ],
            partial(self._answered, turns),
            of=(tuple(turns), states[1].key),
            fail=partial(self._unanswered, turns),
        )

    def _converse(
        self, job: Job, turns: list[str], known: list[str], side: int, state: EditState
    ) -> list[str]:
        """The answers to all `turns`; the `known` ones are not asked for again."""
        messages: list[dict[str, str]] = []
        replies: list[str] = []

        def stream(text: str) -> None:
            if job.cancel():
                raise EditCancelled("something else is asked")
            self._talk[side].say(self._told(turns, [*replies, text], side))

        for place, turn in enumerate(turns):
            messages.append({"role": "user", "content": turn})
            replies.append(
                known[place]
                if place < len(known)
                else self.session.chat(messages, _TURN, state=state, stream=stream)
            )
            messages.append({"role": "assistant", "content": replies[-1]})
        return replies

    def _answered(self, turns: list[str], replies: list[list[str]]) -> None:
        if turns == self._turns:
            self._replies = (list(replies[0]), list(replies[1]))
            self._draw_talk()

    def _unanswered(self, turns: list[str], error: Exception) -> None:
        """Take the last question back, into the field if nothing else stands there."""
        if turns == self._turns:
            self._turns = turns[:-1]
            if not self._turn.value:
                self._turn.put(turns[-1])
            self._draw_talk()
            if len(self._turns) > len(self._replies[1]):
                self._answer()
        self.fail(error)

    def _draw_talk(self) -> None:
        for side, words in enumerate(self._talk):
            words.say(self._told(self._turns, self._replies[side], side))

    def _told(self, turns: list[str], replies: list[str], side: int) -> Markup:
        head = "before, with no hook" if side == 0 else self.desk.standing
        lines = [Markup("<p class='cv-note'>{}</p>").format(head)]
        if not turns and side == 0:
            lines.append(Markup("<p class='cv-note'>Both answers will stand here.</p>"))
        for place, turn in enumerate(turns):
            lines.append(Markup("<p class='cv-turn'>{}</p>").format(turn))
            if place < len(replies):
                reply = replies[place].strip() or _ENDS
                lines.append(Markup("<p class='cv-reply'>{}</p>").format(reply))
        return Markup("").join(lines)


def _spoken(text: str) -> Markup:
    return Markup("… {}").format(_flowing(text)) if text.strip() else Markup(_ENDS)


def _flowing(text: str) -> str:
    """`text` as one paragraph: its line breaks are seen, and make no room jump."""
    return re.sub("\n+", lambda breaks: f" {visible(breaks[0])} ", text).strip()


def _marked(before: str, after: str) -> Markup:
    """`after`, the words that `before` does not have in their place marked."""
    old, new = (re.findall(r"\s*\S+", text) for text in (before, after))
    pieces = []
    for change, _, _, start, stop in difflib.SequenceMatcher(None, old, new).get_opcodes():
        text = "".join(new[start:stop])
        pieces.append(Markup("{}" if change == "equal" else "<mark>{}</mark>").format(text))
    return Markup("… {}").format(Markup("").join(pieces))
