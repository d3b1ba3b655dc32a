"""Which of some facts a prompt is about.

about    their places, the likeliest first
stands   where a subject stands in a prompt
Idle     a fact that is not in force, and why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coachhook_viz.editing.wordings import relation_of
from coachhook_viz.facts import Fact, alike
from coachhook_viz.reading import known_relation
from coachhook_viz.texts import places, slotted


def about(prompt: str, facts: Sequence[Fact]) -> list[int]:
    """Places of the facts whose subject stands in `prompt`, the likeliest one first.

    First those that ask just this, in their prompt, wordings, paraphrases or probes; then those of
    the relation that the prompt is known to ask for; of the longest subject; the most recent.

    Parameters
    ----------
    prompt : str
    facts : sequence of Fact
        In the order of their edits.
    """
    text = alike(prompt)
    found = [i for i, fact in enumerate(facts) if stands(prompt, fact.subject)]

    def unlikely(i: int) -> tuple[bool, bool, int, int]:
        fact = facts[i]
        return not _asks(text, fact), not _relates(prompt, fact), -len(fact.subject), -i

    return sorted(found, key=unlikely)


def stands(prompt: str, subject: str) -> tuple[int, int] | None:
    """Start and stop of where `subject` stands last in `prompt`; in other case, if nowhere else."""
    found, lower = places(prompt, subject), prompt.lower()
    if not found and len(lower) == len(prompt):
        found = places(lower, subject.lower())
    return found[-1] if found else None


@dataclass(frozen=True)
class Idle:
    """A fact of a session that is not in force.

    Attributes
    ----------
    fact_id : int
    fact : Fact
    muted : bool
        Else its round is undone.
    """

    fact_id: int
    fact: Fact
    muted: bool

    @classmethod
    def of(
        cls, prompt: str, facts: Mapping[int, Fact], in_force: Sequence[int], muted: frozenset[int]
    ) -> Idle | None:
        """The one that `prompt` is about; None if a fact in force is, or none at all.

        Parameters
        ----------
        prompt : str
        facts : mapping of int to Fact
            All of them by id.
        in_force : sequence of int
        muted : frozenset of int
        """
        ids = list(facts)
        for place in about(prompt, list(facts.values())):
            if ids[place] in in_force:
                return None
            return cls(ids[place], facts[ids[place]], ids[place] in muted)
        return None

    def __str__(self) -> str:
        """As a sentence says it."""
        how = "is muted: unmute it" if self.muted else "is undone: redo its round"
        return f"the fact “{self.fact.subject} → {self.fact.target}” {how}"


def _relates(prompt: str, fact: Fact) -> bool:
    """Whether `prompt` is known to ask for the relation of `fact`."""
    asked = slotted(prompt, fact.subject)
    relation = known_relation(asked) if asked else ""
    return bool(relation) and relation == relation_of(fact)


def _asks(text: str, fact: Fact) -> bool:
    own = [probe.prompt for probe in fact.probes if probe.kind == "paraphrase"]
    return text in {alike(asked) for asked in (*fact.texts, *fact.paraphrases, *own)}
