"""Facts that meet edits in force: the same again, or another answer to what was edited.

Meeting    says which, and does what a person chooses: replace, apply anyway, leave out
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from coachhook_viz.clashes import Clash
from coachhook_viz.facts import Fact
from coachhook_viz.panels.words import count
from coachhook_viz.session import Session


class Meeting:
    """What facts that are about to be applied have to do with those in force.

    Attributes
    ----------
    asked : list of Fact
        What was last asked about.
    """

    OFFERS: ClassVar[tuple[str, ...]] = ("Replace", "Apply anyway", "Leave out")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._settled: set[Fact] = set()
        self.asked: list[Fact] = []

    def of(self, facts: Sequence[Fact]) -> list[Clash]:
        """What meets what."""
        return self._session.clashes(facts)

    def asks(self, facts: Sequence[Fact]) -> list[Clash]:
        """Those that a person has to decide on, and has not yet."""
        return [
            clash
            for clash in self.of(facts)
            if clash.kind != "subject" and facts[clash.index] not in self._settled
        ]

    def say(self, facts: Sequence[Fact]) -> str:
        """One sentence on them; nothing where there is nothing to decide."""
        self.asked = list(facts)
        open_ = self.asks(facts)
        if not open_:
            return ""
        if len(open_) == 1:
            fact = facts[open_[0].index]
            return f"{fact.subject} → {fact.target}: {open_[0].sentence}"
        same = sum(clash.kind == "same" for clash in open_)
        other = len(open_) - same
        parts = []
        if same:
            parts.append(f"{count(same, 'staged fact')} {_are(same)} in force already")
        if other:
            parts.append(
                f"{count(other, 'staged fact')} {_want(other)} another target than an edit in force"
            )
        return f"{', and '.join(parts)}."

    def forget(self, facts: Sequence[Fact]) -> None:
        """What has been chosen for `facts`: they are applied, and the same again is a new case."""
        self._settled -= set(facts)

    def settle(self, place: int) -> list[Fact]:
        """Do what a person has chosen of `OFFERS`; what is then left to be applied."""
        facts, open_ = self.asked, self.asks(self.asked)
        met = {clash.index for clash in open_}
        choice = self.OFFERS[place]
        if choice == "Leave out":
            return [fact for place, fact in enumerate(facts) if place not in met]
        self._settled |= {facts[i] for i in met}
        if choice == "Replace":
            for fact_id in {clash.fact_id for clash in open_}:
                self._session.mute(fact_id, source=self)
        return list(facts)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _want(number: int) -> str:
    return "wants" if number == 1 else "want"
