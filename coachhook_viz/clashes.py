"""Facts about to be applied that meet edits in force: the same again, or something else.

Clash                  one fact and the edit that it meets
find_clashes           all of them
warn_of_repeats        what `Session.apply` says of those that are the same again
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from coachhook_viz.editing.state import Round
from coachhook_viz.errors import RepeatedFactWarning as RepeatedFactWarning
from coachhook_viz.facts import Fact, alike, find_problems
from coachhook_viz.warned import warn

Kind = Literal["same", "target", "subject"]


@dataclass(frozen=True)
class Clash:
    """A fact that meets an edit in force.

    Attributes
    ----------
    index : int
        The fact's place in the list that was asked about.
    fact_id, round : int
        The edit that it meets: its id, and its round's place in the branch, from 1.
    kind : {"same", "target", "subject"}
        The same question and target; the same question with another target; the same subject in
        another question, with another target.
    fact : Fact
        The edit that it meets.
    """

    index: int
    fact_id: int
    round: int
    kind: Kind
    fact: Fact

    @property
    def sentence(self) -> str:
        """What meets what, in words."""
        target = self.fact.target.strip()
        if self.kind == "same":
            return f"Already edited in round {self.round}: the same question, the same target."
        if self.kind == "target":
            return f"Round {self.round} edits the same question to “{target}”."
        return f"Round {self.round} already edits {self.fact.subject} (→ {target})."


def find_clashes(facts: Sequence[Fact], rounds: Iterable[Round]) -> list[Clash]:
    """At most one clash for each fact, in the order of the facts.

    Parameters
    ----------
    facts : sequence of Fact
    rounds : iterable of Round
        Those in force without their muted facts, the first one first.

    Returns
    -------
    list of Clash
        The most recent edit of the same question or, if there is none, of the same subject.
    """
    by_question: dict[str, tuple[int, int, Fact]] = {}
    by_subject: dict[str, list[tuple[int, int, Fact]]] = {}
    for place, round_ in enumerate(rounds, start=1):
        for fact_id, fact in zip(round_.fact_ids, round_.facts, strict=True):
            found = (fact_id, place, fact)
            by_question |= {alike(text): found for text in fact.texts}
            by_subject.setdefault(alike(fact.subject), []).insert(0, found)

    def meets(fact: Fact) -> Iterator[tuple[Kind, tuple[int, int, Fact]]]:
        asked = (by_question.get(alike(text)) for text in fact.texts)
        if there := next(filter(None, asked), None):
            yield ("same" if alike(there[2].target) == alike(fact.target) else "target"), there
        for there in by_subject.get(alike(fact.subject), ()):
            if alike(there[2].target) != alike(fact.target):
                yield "subject", there

    first = ((index, next(meets(fact), None)) for index, fact in enumerate(facts))
    return [
        Clash(index, found[1][0], found[1][1], found[0], found[1][2])
        for index, found in first
        if found is not None
    ]


def warn_of_repeats(facts: Sequence[Fact], rounds: Iterable[Round], stacklevel: int = 1) -> None:
    """Warn if some of `facts` are in force already: editing them again adds to the edit.

    Parameters
    ----------
    facts : sequence of Fact
    rounds : iterable of Round
        Those in force without their muted facts, the first one first.
    stacklevel : int
        As in `warnings.warn`, from the caller.

    Warns
    -----
    RepeatedFactWarning
    """
    if find_problems(facts):
        return  # they are going to be refused
    same = [clash for clash in find_clashes(facts, rounds) if clash.kind == "same"]
    if same:
        places = sorted({clash.round for clash in same})
        where = f"round{'s' * (len(places) > 1)} {', '.join(map(str, places))}"
        one = len(same) == 1
        warn(
            f"{len(same)} of {len(facts)} fact{'s' * (len(facts) != 1)}"
            f" {'is' if one else 'are'} in force already, with the same target ({where}):"
            f" {'it is' if one else 'they are'} edited again.",
            RepeatedFactWarning,
            stacklevel=stacklevel + 1,
        )
