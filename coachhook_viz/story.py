"""What became of each fact, round after round: the values that a report lets a reader explore.

Seen         the scope on one prompt, as a reader sees it
After        one fact after some rounds
FactStory    one fact, unedited and after each round from its own on
Story        all of them
tell         asks the model for them
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import pandas as pd

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import continuation
from coachhook_viz.facts import Fact
from coachhook_viz.measure.quality import standing
from coachhook_viz.measure.replies import Reply, continuations, replies
from coachhook_viz.session import Session

_STOPS = 24  # rounds that can be looked at; of more, some are left out
_TEXT = 6  # tokens of the texts before and after


@dataclass(frozen=True)
class Seen:
    """The scope on one prompt, L hooked layers by T tokens.

    Attributes
    ----------
    tokens : tuple of str
    subject_last : int or None
    layers : tuple of str
        Each with its threshold.
    scores : list of list of float
        (L, T) what the rule in force judges.
    inside : list of list of bool
        (L, T) where the hook speaks.
    bounds : tuple of float
        The palest and the darkest score that there can be.
    sentence : str
        The same in words.
    """

    tokens: tuple[str, ...]
    subject_last: int | None
    layers: tuple[str, ...]
    scores: list[list[float]]
    inside: list[list[bool]]
    bounds: tuple[float, float]
    sentence: str

    @classmethod
    def of(cls, scope: Scope) -> Seen:
        """What is to be seen of a reading, which itself is large."""
        scores: list[list[float]] = scope.scores.tolist()
        match = scope.matches
        lowest = 0.0 if match else float(scope.scores.min())
        highest = max(1.0 if match else scope.ceiling, float(scope.scores.max()), lowest + 1e-9)
        return cls(
            scope.tokens,
            scope.subject_last,
            scope.layer_names,
            scores,
            scope.in_scope.tolist(),
            (lowest, highest),
            scope.explain(),
        )


@dataclass(frozen=True)
class After:
    """One fact after some rounds.

    Attributes
    ----------
    status : str
        "holds", "partly" or "missed": all, some or none of the target's tokens are the model's own.
    probability : float
        Of the target's first token.
    replies : tuple of Reply
        To the fact's prompts.
    right : tuple of bool
        Of each: does the model begin with the target; to a neighbour, does it begin as it did?
    seen : Seen
        On the edit prompt.
    """

    status: str
    probability: float
    replies: tuple[Reply, ...]
    right: tuple[bool, ...]
    seen: Seen


@dataclass(frozen=True)
class FactStory:
    """One fact.

    Attributes
    ----------
    id : int
    fact : Fact
    round : int
        After how many rounds it is in force.
    prompts : tuple of (str, str)
        Kind and text, the edit prompt first.
    before : tuple of Reply
        Of the unedited model, to each prompt.
    said, says : str
        The texts after the edit prompt, unedited and at the end.
    after : mapping of int to After
        By round, from the fact's own on.
    """

    id: int
    fact: Fact
    round: int
    prompts: tuple[tuple[str, str], ...]
    before: tuple[Reply, ...]
    said: str
    says: str
    after: Mapping[int, After]

    @property
    def end(self) -> After:
        """After the last round."""
        return self.after[max(self.after)]


@dataclass(frozen=True)
class Story:
    """The facts, and the rounds after which they were looked at, the last one among them."""

    facts: tuple[FactStory, ...]
    stops: tuple[int, ...]


def tell(session: Session, history: pd.DataFrame, watch: Watch) -> Story:
    """Ask for everything once; a later call asks only what is new.

    Parameters
    ----------
    session : Session
    history : DataFrame
        What `Session.quality` gives: its facts are told of.
    watch : Watch
        Called before each round and half, stage "report".
    """
    stops, shown = _stops(session.position), set(history["fact"])
    scores = history.set_index(["fact", "round", "metric"])["value"].to_dict()
    own = {
        fact_id: place
        for place, round_ in enumerate(session.state.rounds, 1)
        for fact_id in round_.fact_ids
        if fact_id in shown
    }
    facts = {fact_id: session.facts[fact_id] for fact_id in own}
    prompts = {fact_id: _prompts(fact) for fact_id, fact in facts.items()}
    total, memory = 2 * len(stops) + 3, _memory(session)
    watch("report", 0, total)
    base = EditState.of(session.lm, session.config)
    asked = [text for kinds in prompts.values() for _, text in kinds]
    before = memory.replies(base, asked, watch)
    after: dict[int, dict[int, After]] = {fact_id: {} for fact_id in facts}
    for step, stop in enumerate(stops):
        present = [fact_id for fact_id in facts if own[fact_id] <= stop]
        watch("report", 2 * step + 1, total)
        state = session.state_at(stop)
        asked = [text for fact_id in present for _, text in prompts[fact_id]]
        found = memory.replies(state, asked, watch)
        watch("report", 2 * step + 2, total)
        for fact_id in present:
            fact = facts[fact_id]
            watch.stop_if_asked("report", 2 * step + 2, total)
            after[fact_id][stop] = After(
                standing(scores[fact_id, stop, "reliability"]),
                scores[fact_id, stop, "target_probability"],
                tuple(found[text] for _, text in prompts[fact_id]),
                _right(session, fact, prompts[fact_id], before, found),
                memory.seen(session, state, fact),
            )
    texts = []
    for step, state in enumerate((base, session.state)):
        watch("report", total - 2 + step, total)
        texts.append(memory.texts(state, [fact.text for fact in facts.values()], watch))
    return Story(
        tuple(
            FactStory(
                fact_id,
                fact,
                own[fact_id],
                prompts[fact_id],
                tuple(before[text] for _, text in prompts[fact_id]),
                texts[0][fact.text],
                texts[1][fact.text],
                after[fact_id],
            )
            for fact_id, fact in facts.items()
        ),
        stops,
    )


def _right(
    session: Session,
    fact: Fact,
    prompts: tuple[tuple[str, str], ...],
    before: Mapping[str, Reply],
    now: Mapping[str, Reply],
) -> tuple[bool, ...]:
    """As in `After`."""
    wanted = (
        before[text].ids[0]
        if kind == "neighbour"
        else continuation(session.lm, text, fact.target)[1][0]
        for kind, text in prompts
    )
    return tuple(
        now[text].ids[0] == token for (_, text), token in zip(prompts, wanted, strict=True)
    )


def _stops(rounds: int) -> tuple[int, ...]:
    """Rounds 1 to `rounds`, or about as many of them as one can choose from, the last included."""
    many = min(rounds, _STOPS)
    return tuple(sorted({round(rounds * (i + 1) / many) for i in range(many)}))


def _prompts(fact: Fact) -> tuple[tuple[str, str], ...]:
    kinds = {neighbor.prompt: "neighbour" for neighbor in fact.neighbors}
    kinds |= dict.fromkeys(fact.paraphrases, "paraphrase")
    kinds.pop(fact.text, None)
    order = ("paraphrase", "neighbour")
    rest = sorted(kinds.items(), key=lambda entry: order.index(entry[1]))
    return (("edit", fact.text), *((kind, text) for text, kind in rest))


class _Memory:
    """What one session's model said in states that were asked about before."""

    def __init__(self, session: Session) -> None:
        self._lm = session.lm
        self._replies: dict[Hashable, dict[str, Reply]] = {}
        self._texts: dict[Hashable, dict[str, str]] = {}
        self._seen: dict[tuple[Hashable, str], Seen] = {}

    def replies(self, state: EditState, prompts: list[str], watch: Watch) -> dict[str, Reply]:
        known = self._replies.setdefault(state.key, {})
        new = [prompt for prompt in prompts if prompt not in known]
        known |= replies(self._lm, state, new, watch=watch)
        return known

    def texts(self, state: EditState, prompts: list[str], watch: Watch) -> dict[str, str]:
        known = self._texts.setdefault(state.key, {})
        new = [prompt for prompt in prompts if prompt not in known]
        known |= continuations(self._lm, state, new, _TEXT, watch)
        return known

    def seen(self, session: Session, state: EditState, fact: Fact) -> Seen:
        key = (state.key, fact.text)
        if key not in self._seen:
            scope = session.scope(fact.text, fact.subject, state)
            self._seen[key] = Seen.of(scope)
        return self._seen[key]


_MEMORIES: WeakKeyDictionary[Session, _Memory] = WeakKeyDictionary()


def _memory(session: Session) -> _Memory:
    if session not in _MEMORIES:
        _MEMORIES[session] = _Memory(session)
    return _MEMORIES[session]
