"""What all panels on one session share: what is examined, what is staged, who works.

Desk         one for each session, however many panels look at it
Selected, Staged, Scored, Judged, Asked, Beside     its events, beside the session's own
changes      whether an event means that something else is in force, or judged otherwise
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from coachhook_viz.autosave import Autosave
from coachhook_viz.editing.config import EditConfig, ScopeKind
from coachhook_viz.editing.state import EditState
from coachhook_viz.events import (
    BranchChanged,
    Configured,
    Emitter,
    Event,
    FactMuted,
    Moved,
    RoundApplied,
    Subscriber,
)
from coachhook_viz.facts import Fact
from coachhook_viz.panels.applying import Applying
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job, Worker
from coachhook_viz.session import Session
from coachhook_viz.warned import heard

_KEPT = 400  # results


@dataclass(frozen=True)
class Selection:
    """What a person has picked, in whichever panel.

    Attributes
    ----------
    prompt : str
        The one prompt under examination.
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


@dataclass(frozen=True)
class Judged(Event):
    """The edits in force are looked at under another rule, or with the hooks off."""


@dataclass(frozen=True)
class Asked(Event):
    """Somebody wants to know why a prompt does not get a target."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Beside(Event):
    """What else the edits changed has been asked."""


STATE_EVENTS = (RoundApplied, Moved, FactMuted, BranchChanged)
_DESKS: WeakValueDictionary[int, Desk] = WeakValueDictionary()


def changes(event: Event) -> bool:
    """Whether what the model says may be something else after `event`."""
    return isinstance(event, (*STATE_EVENTS, Judged, Configured))


class Kept:
    """Results by all that they depend on; the ones used longest ago are forgotten."""

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._results: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, of: Hashable) -> Any:
        """What was kept; None if nothing was."""
        with self._lock:
            if of in self._results:
                self._results.move_to_end(of)
            return self._results.get(of)

    def put(self, of: Hashable, result: Any) -> None:
        """Keep a result."""
        with self._lock:
            self._results[of] = result
            self._results.move_to_end(of)
            while len(self._results) > self._most:
                self._results.popitem(last=False)


class Desk:
    """What the panels on one session share.

    Use `Desk.of`: panels that are made one by one then share it too.

    Attributes
    ----------
    session : Session
    worker : Worker
    applying : Applying
        The rounds that are being written.
    selection : Selection
    staged : tuple of Fact
        Facts for the next round.
    drawing : RLock
        Held by whoever draws: one lock for all panels, since one's change makes others draw.
    kept : Kept
        What panels have computed, by state.
    scores : dict of int to dict
        By id of a fact in force, its reliability, generality and locality now, as far as known.
    rule : str
        The scope under which the edits are looked at.
    hooks : bool
        Whether they are looked at with the hooks on.
    autosave : Autosave or None
        What keeps the session, once somebody has asked for it.
    replace_by : callable or None
        Shows another session, on the same model, in place of this one, and says a sentence: the
        playground's. None where panels stand alone.
    beside : str
        What else the edits in force changed, in a line; empty until that was asked.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.worker = Worker()
        self.applying = Applying(self)
        self.drawing = threading.RLock()
        self.selection = Selection()
        self.staged: tuple[Fact, ...] = ()
        self.kept = Kept()
        self.scores: dict[int, dict[str, float]] = {}
        self.rule: ScopeKind = session.config.scope
        self.hooks = True
        self.autosave: Autosave | None = None
        self.beside = ""
        self.replace_by: Callable[[Session, str], object] | None = None
        self._settings: dict[ScopeKind, EditConfig] = {}  # left for another scope, by scope
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

    @property
    def state(self) -> EditState:
        """The one model state that is examined: what is in force, as it is looked at."""
        session = self.session
        if not self.hooks:
            return EditState.of(session.lm, session.config)
        state = session.state
        return state if self.rule == session.config.scope else state.judged(self.rule)

    @property
    def standing(self) -> str:
        """What is in force, in a few words."""
        session = self.session
        position, facts = session.position, len(session.state.facts)
        if not session.rounds:
            return "no round yet"
        if not position:
            return "before round 1"
        within = {i for r in session.rounds[:position] for i in r.fact_ids}
        muted = len(within & session.muted)
        after = f"after round {position}"
        if not facts:
            return f"{after}, {'the only fact' if muted == 1 else f'all {muted} facts'} muted"
        if not self.hooks:
            return "hooks off"
        return f"{after}, {count(muted, 'fact')} muted" if muted else after

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each event of session and desk, until the result is called."""
        return self._emitter.subscribe(subscriber)

    def select(self, source: object, **changes: str | int | None) -> None:
        """Pick something; what is not named stays picked."""
        before, now = self.selection, replace(self.selection, **changes)  # type: ignore[arg-type]
        if now != before:
            self.selection = now
            self._emitter.emit(Selected(source, before, now))

    def ask_why(self, source: object, prompt: str, target: str = "") -> None:
        """Ask why a prompt does not get a target; with none, that of the fact it is about."""
        self.select(source, prompt=prompt)
        self._emitter.emit(Asked(source, prompt, target))

    def tell_beside(self, source: object, said: str) -> None:
        """Say in a line what else the edits in force changed."""
        self.beside = said
        self._emitter.emit(Beside(source))

    def stage(self, facts: Sequence[Fact], source: object) -> None:
        """Make `facts` the ones for the next round."""
        self.staged = tuple(facts)
        self._emitter.emit(Staged(source))

    def judge(
        self,
        source: object,
        rule: ScopeKind | None = None,
        hooks: bool | None = None,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        """Look at the edits under another scope, or with the hooks on or off.

        As long as there is no round, nor one on its way, another scope becomes the session's own,
        with the settings it had or, if it had none, all that are known for it, if its edits are
        written elsewhere. That needs moments of other layers, so it is done by the worker;
        `failed` hears why it could not be.
        """
        rule = self.rule if rule is None else rule
        hooks = self.hooks if hooks is None else hooks
        if (rule, hooks) == (self.rule, self.hooks):
            return
        session = self.session
        edited = any(branch.rounds for branch in session.branches.values())
        if rule != session.config.scope and not edited and self.worker.exclusive is None:
            if "two-key" in (rule, session.config.scope):
                self._configure(source, rule, failed)
                return
            session.configure(source=source, scope=rule)
        if rule == "two-key" and session.config.site != "answer":  # a first round is on its way
            self._emitter.emit(Judged(None))  # what was picked is not what is
            self.worker.check_free()
        told = (rule, hooks) == (self.rule, self.hooks)  # by the session's own event
        self.rule, self.hooks = rule, hooks
        if not told:
            self._emitter.emit(Judged(source))

    def _configure(
        self, source: object, rule: ScopeKind, failed: Callable[[Exception], object] | None
    ) -> None:
        session = self.session

        def work(job: Job) -> None:
            before, config = session.config, self._settings.get(rule)
            if config is None:
                with heard():  # that layers are a guess: it was said already
                    config = EditConfig.for_model(session.lm, scope=rule)
            session.configure(source=source, **vars(config))
            self._settings[before.scope] = before

        def refused(error: Exception) -> None:
            self._emitter.emit(Judged(None))  # what was picked is not what is
            if failed is not None:
                failed(error)

        self.worker.submit(f"getting ready for {rule}", work, failed=refused, exclusive=True)

    @property
    def state_source(self) -> str:
        """The same for calls that take a state alone."""
        if not self.hooks:
            return ", state=session.state_at(0)"
        return self.source

    @property
    def source(self) -> str:
        """The state under examination, as the last argument of the session's calls in code."""
        if not self.hooks:
            return ", edited=False"
        if self.rule != self.session.config.scope:
            return f", state=session.state.judged(scope={self.rule!r})"
        return ""

    def score(self) -> None:
        """Score the facts in force, off the main thread, for whoever wants to show it."""
        state = self.session.state
        of = ("scores", state.key)
        kept = self.kept.get(of)
        self.scores = kept or {}
        self.worker.drop("score")
        if not state.facts or kept is not None:
            return

        def done(scores: dict[int, dict[str, float]]) -> None:
            if self.session.state is not state:
                return  # it may have been scored in part under another state
            self.kept.put(of, scores)
            self.scores = scores
            self._emitter.emit(Scored(None))

        self.worker.submit(
            f"scoring {count(len(state.facts), 'fact')}",
            self._score,
            done,
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

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, STATE_EVENTS):
            self.score()
            self.beside = ""
        if isinstance(event, Configured):
            self.rule = event.config.scope
        self._emitter.emit(event)
