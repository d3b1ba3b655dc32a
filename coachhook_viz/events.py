"""What a session says when it has changed; each event carries the source that caused it.

RoundApplied, Moved, FactMuted, BranchChanged, RoundLabelled, Configured     one change each
Emitter                                                                      tells the subscribers

    session.subscribe(lambda event: print(event))
    session.undo(source="my panel")     # Moved(source='my panel', position=2)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.state import Round

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """A change of a session's state, after it has happened.

    Attributes
    ----------
    source : object
        What the caller passed as `source`, so that a view knows its own changes; None if nothing.
    """

    source: object


@dataclass(frozen=True)
class RoundApplied(Event):
    """A new round is in force, the last of its branch."""

    round: Round


@dataclass(frozen=True)
class Moved(Event):
    """Another number of rounds is in force."""

    position: int


@dataclass(frozen=True)
class FactMuted(Event):
    """A fact was muted, or is heard again."""

    fact_id: int
    muted: bool


@dataclass(frozen=True)
class BranchChanged(Event):
    """Another branch is in force; it may be a new one."""

    name: str
    new: bool


@dataclass(frozen=True)
class RoundLabelled(Event):
    """A round's label or note is another."""

    number: int


@dataclass(frozen=True)
class Configured(Event):
    """Rounds to come have other settings."""

    config: EditConfig


Subscriber = Callable[[Event], object]


class Emitter:
    """Subscribers, told in the order in which they came."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each event from now on, until the returned function is called."""
        entry = [subscriber]  # one subscriber may come twice
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if entry:
                self._subscribers.remove(entry.pop())

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell all subscribers; the error of one is logged, and keeps nobody else from hearing."""
        for subscriber in list(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                _log.exception("a subscriber failed on %s", type(event).__name__)
