"""What a session has been through, as one immutable value; each change gives another.

Branch     a list of rounds, how many of them are in force, and which facts are muted
History    all branches, the current one, what its rounds are called, and the next free numbers
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from coachhook_viz.editing.state import Round

MAIN = "main"
_LONGEST = 200  # characters of a name or a label


@dataclass(frozen=True, eq=False)
class Branch:
    """One line of rounds.

    Attributes
    ----------
    rounds : tuple of Round
        All of them, those in force first.
    position : int
        How many are in force.
    muted : frozenset of int
        Ids of facts whose columns are dropped.
    """

    rounds: tuple[Round, ...] = ()
    position: int = 0
    muted: frozenset[int] = frozenset()

    @property
    def fact_ids(self) -> tuple[int, ...]:
        """Ids of the facts of all rounds."""
        return tuple(fact_id for round_ in self.rounds for fact_id in round_.fact_ids)

    def in_force(self, position: int | None = None) -> tuple[Round, ...]:
        """The first `position` rounds without their muted facts; None: those in force."""
        position = self.position if position is None else position
        return tuple(round_.without(self.muted) for round_ in self.rounds[:position])


@dataclass(frozen=True)
class Label:
    """What a person calls a round, and notes about it."""

    name: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class History:
    """The branches of a session.

    Attributes
    ----------
    branches : mapping of str to Branch
    current : str
        Name of the branch in force.
    labels : mapping of int to Label
        By number of the round.
    next_round, next_fact : int
        Numbers that no round and no fact has had.
    """

    branches: Mapping[str, Branch] = field(default_factory=lambda: {MAIN: Branch()})
    current: str = MAIN
    labels: Mapping[int, Label] = field(default_factory=dict)
    next_round: int = 1
    next_fact: int = 0

    @property
    def branch(self) -> Branch:
        """The branch in force."""
        return self.branches[self.current]

    @property
    def rounds(self) -> dict[int, Round]:
        """The rounds of all branches by number, ascending."""
        found = {r.number: r for branch in self.branches.values() for r in branch.rounds}
        return dict(sorted(found.items()))

    def applied(self, round_: Round) -> History:
        """With `round_` on top of the rounds in force; those undone on this branch are dropped."""
        branch = self.branch
        below = branch.rounds[: branch.position]
        numbered = replace(
            round_,
            number=self.next_round,
            fact_ids=tuple(range(self.next_fact, self.next_fact + len(round_.facts))),
            muted=branch.muted & {fact_id for under in below for fact_id in under.fact_ids},
        )
        rounds = (*below, numbered)
        kept = Branch(rounds, len(rounds))
        following = self._with(replace(kept, muted=branch.muted & set(kept.fact_ids)))
        known = following.rounds
        return replace(
            following,
            labels={number: label for number, label in self.labels.items() if number in known},
            next_round=self.next_round + 1,
            next_fact=self.next_fact + len(round_.facts),
        )

    def moved(self, position: int) -> History:
        """With the first `position` rounds of the branch in force.

        Raises
        ------
        ValueError
            If there are not that many.
        """
        count = len(self.branch.rounds)
        if not 0 <= position <= count:
            raise ValueError(f"go_to({position}): the session has {count} rounds")
        return self._with(replace(self.branch, position=position))

    def muted(self, fact_id: int, silent: bool) -> History:
        """With one fact muted, or heard again.

        Raises
        ------
        ValueError
            If the branch has no such fact.
        """
        if fact_id not in self.branch.fact_ids:
            raise ValueError(
                f"no fact {fact_id} on this branch: give a number that session.facts has"
            )
        muted = self.branch.muted | {fact_id} if silent else self.branch.muted - {fact_id}
        return self._with(replace(self.branch, muted=muted))

    def branched(self, name: str) -> History:
        """On a new branch that begins with what is in force.

        Raises
        ------
        ValueError
            If the name is empty, too long or taken.
        """
        _check_text("a branch's name", name)
        if not name.strip():
            raise ValueError("a branch needs a name")
        if name in ("fact", "metric"):
            raise ValueError(
                f"a branch cannot be called {name!r}: `compare` has a column of that name"
            )
        if name in self.branches:
            raise ValueError(f"there is a branch {name!r} already: switch to it, or choose another")
        here = self.branch
        rounds = here.rounds[: here.position]
        start = Branch(rounds, len(rounds))
        start = replace(start, muted=here.muted & set(start.fact_ids))
        return replace(self, branches={**self.branches, name: start}, current=name)

    def switched(self, name: str) -> History:
        """On another branch.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        self.find(name)
        return replace(self, current=name)

    def labelled(self, number: int, label: Label) -> History:
        """With a round called something; with an empty label, no more.

        Raises
        ------
        ValueError
            If there is no round of that number, or the name is too long.
        """
        if number not in self.rounds:
            raise ValueError(f"no round has number {number}; there are {list(self.rounds)}")
        _check_text("a label", label.name)
        if not isinstance(label.note, str):
            raise ValueError(f"a note must be text, not {type(label.note).__name__}")
        labels = {n: known for n, known in self.labels.items() if n != number}
        return replace(self, labels=labels if label == Label() else {**labels, number: label})

    def find(self, name: str) -> Branch:
        """The branch of that name.

        Raises
        ------
        ValueError
            If there is none.
        """
        if name not in self.branches:
            raise ValueError(f"no branch {name!r}; there are {', '.join(map(repr, self.branches))}")
        return self.branches[name]

    def _with(self, branch: Branch) -> History:
        return replace(self, branches={**self.branches, self.current: branch})


def _check_text(what: str, text: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{what} must be text, not {type(text).__name__}")
    if len(text) > _LONGEST:
        raise ValueError(f"{what} may have {_LONGEST} characters, not {len(text)}")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise ValueError(f"{what} must be on one line, without control characters")
