"""What all panels on one session share: what is selected, what is staged, who works.

Desk         one for each session, however many panels look at it
Selected, Staged, Scored     its events, beside the session's own
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import RLock
from weakref import WeakValueDictionary

from coachhook_viz.events import (
    BranchChanged,
    Emitter,
    Event,
    FactMuted,
    Moved,
    RoundApplied,
    Subscriber,
)
from coachhook_viz.facts import Fact
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job, Worker
from coachhook_viz.session import Session


@dataclass(frozen=True)
class Selection:
    """What a person has picked, in whichever panel.

    Attributes
    ----------
    prompt : str
        What Ask and Scope look at.
    fact : int or None
        Id of a fact of the session.
    round : int or None
        How many rounds were in force, counted from the first.
    layer, token : int or None
        A hooked layer, and a place among the prompt's tokens.
    """

    prompt: str = ""
    fact: int | None = None
    round: int | None = None
    layer: int | None = None
    token: int | None = None


@dataclass(frozen=True)
class Selected(Event):
    """Something else is selected."""

    before: Selection
    now: Selection


@dataclass(frozen=True)
class Staged(Event):
    """Other facts are staged for the next round."""


@dataclass(frozen=True)
class Scored(Event):
    """The facts in force have been scored."""


STATE_EVENTS = (RoundApplied, Moved, FactMuted, BranchChanged)
_DESKS: WeakValueDictionary[int, Desk] = WeakValueDictionary()


class Desk:
    """What the panels on one session share.

    Use `Desk.of`: panels that are made one by one then share it too.

    Attributes
    ----------
    session : Session
    worker : Worker
    selection : Selection
    staged : tuple of Fact
        Facts for the next round.
    drawing : RLock
        Held by whoever draws: one lock for all panels, since one's change makes others draw.
    scores : dict of int to dict
        By id of a fact in force, its reliability, generality and locality now, as far as known.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.worker = Worker()
        self.drawing = RLock()
        self.selection = Selection()
        self.staged: tuple[Fact, ...] = ()
        self.scores: dict[int, dict[str, float]] = {}
        self._emitter = Emitter()
        session.subscribe(self._pass_on)
        self.score()

    @classmethod
    def of(cls, session: Session) -> Desk:
        """The desk of `session`, made when the first panel needs it."""
        desk = _DESKS.get(id(session))
        if desk is None:
            desk = _DESKS[id(session)] = cls(session)
        return desk

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each event of session and desk, until the result is called."""
        return self._emitter.subscribe(subscriber)

    def select(self, source: object, **changes: str | int | None) -> None:
        """Pick something; what is not named stays picked."""
        before, now = self.selection, replace(self.selection, **changes)  # type: ignore[arg-type]
        if now != before:
            self.selection = now
            self._emitter.emit(Selected(source, before, now))

    def stage(self, facts: Sequence[Fact], source: object) -> None:
        """Make `facts` the ones for the next round."""
        self.staged = tuple(facts)
        self._emitter.emit(Staged(source))

    def score(self) -> None:
        """Score the facts in force, off the main thread, for whoever wants to show it."""
        state = self.session.state
        self.scores = {}
        if state.facts:
            self.worker.submit(
                f"scoring {count(len(state.facts), 'fact')}",
                self._score,
                self._scored,
                key="score",
                patience=2,
            )

    def _score(self, job: Job) -> dict[int, dict[str, float]]:
        frame = self.session.evaluate(progress=job.progress, cancel=job.cancel)
        scores: dict[int, dict[str, float]] = {}
        columns = (frame[name].tolist() for name in ("fact", "metric", "value"))
        for fact_id, metric, value in zip(*columns, strict=True):
            scores.setdefault(fact_id, {})[metric] = value
        return scores

    def _scored(self, scores: dict[int, dict[str, float]]) -> None:
        self.scores = scores
        self._emitter.emit(Scored(None))

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, STATE_EVENTS):
            self.score()
        self._emitter.emit(event)
