"""Facts that meet edits in force: the same again, or another answer to what was edited.

Meeting    says which, and does what a person chooses: replace, apply anyway, leave out
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from coachhook_viz.clashes import Clash
from coachhook_viz.editing.wordings import written_for
from coachhook_viz.facts import Fact
from coachhook_viz.panels.words import count
from coachhook_viz.session import Session

_MEETS = {  # by kind of clash, of one fact and of several
    "same": ("is in force already", "are in force already"),
    "target": (
        "wants another target than an edit in force",
        "want another target than an edit in force",
    ),
    "subject": (
        "is about a subject that is edited already",
        "are about subjects that are edited already",
    ),
}


class Meeting:
    """What facts that are about to be applied have to do with those in force.

    Attributes
    ----------
    asked : list of Fact
        What was last asked about.
    replacing : dict of Fact to int
        The edits, by id, that these facts are to take the place of.
    """

    OFFERS: ClassVar[tuple[str, ...]] = ("Replace", "Apply anyway", "Leave out")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._settled: set[Fact] = set()
        self.asked: list[Fact] = []
        self.replacing: dict[Fact, int] = {}

    def of(self, facts: Sequence[Fact]) -> list[Clash]:
        """What meets what."""
        return self._session.clashes(facts)

    def asks(self, facts: Sequence[Fact]) -> list[Clash]:
        """Those that a person can decide on, and has not yet."""
        return [clash for clash in self.of(facts) if facts[clash.index] not in self._settled]

    def say(self, facts: Sequence[Fact]) -> str:
        """One sentence on them; nothing where there is nothing to decide."""
        self.asked = list(facts)
        open_ = self.asks(facts)
        if not open_:
            return ""
        if len(open_) == 1:
            fact = facts[open_[0].index]
            return f"{fact.subject} → {fact.target}: {open_[0].sentence}"
        parts = []
        for kind, (one, several) in _MEETS.items():
            number = sum(clash.kind == kind for clash in open_)
            if number:
                parts.append(f"{count(number, 'staged fact')} {one if number == 1 else several}")
        return f"{'; '.join(parts)}."

    def forget(self, facts: Sequence[Fact]) -> None:
        """What has been chosen for `facts`: they are applied, and the same again is a new case."""
        for fact in [*self._settled]:
            if any(written_for(fact, written) for written in facts):
                self._settled.discard(fact)
                self.replacing.pop(fact, None)

    def settle(self, place: int) -> list[Fact]:
        """Note what a person has chosen of `OFFERS`; what is then left to be applied."""
        facts, open_ = self.asked, self.asks(self.asked)
        met = {clash.index for clash in open_}
        choice = self.OFFERS[place]
        if choice == "Leave out":
            return [fact for place, fact in enumerate(facts) if place not in met]
        self._settled |= {facts[i] for i in met}
        if choice == "Replace":
            self.replacing |= {facts[clash.index]: clash.fact_id for clash in open_}
        return list(facts)
