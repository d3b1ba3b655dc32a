"""The list of facts: which rows, in which order, each known by a key.

Line       a row: mark, fact, where
Listing    all rows of a session, searched, filtered and sorted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coachhook_viz.facts import Fact
from coachhook_viz.figures.style import visible
from coachhook_viz.measure.quality import Standing, standing
from coachhook_viz.session import Session

if TYPE_CHECKING:
    from coachhook_viz.panels.desk import Desk

FILTERS = [
    ["All", "all"],
    ["Holds", "holds"],
    ["Partly", "partly"],
    ["Missed", "missed"],
    ["Muted", "muted"],
    ["Staged", "staged"],
    ["Undone", "undone"],
]
SORTS = [["Round", "order"], ["Newest", "newest"], ["A–Z", "name"], ["Worst", "worst"]]
_WORDS = {
    "holds": "it holds",
    "partly": "it holds in part",
    "missed": "it does not hold",
    "": "being scored",
}
_MARKS: Mapping[Standing, str] = {"holds": "●", "partly": "◐", "missed": "○"}
_WORST = ("missed", "partly", "", "holds", "muted", "undone", "staged")


@dataclass(frozen=True)
class Line:
    """A row of the list.

    Attributes
    ----------
    key : str
        ``"f3"`` is the fact 3 of the session; ``"s…"`` a staged one.
    mark, where : str
    fact : Fact
    kind : str
        holds, partly, missed, muted, undone, staged, or "" while it is being scored.
    """

    key: str
    mark: str
    fact: Fact
    where: str
    kind: str

    def plain(self) -> dict[str, Any]:
        """What the page needs."""
        fact = self.fact
        start = max(fact.prompt.find("{}"), 0)
        said = _WORDS.get(self.kind, self.kind)
        round_ = self.where.partition(",")[0]
        place = f", round {round_[1:]}" if round_.startswith("r") else ""
        return {
            "key": self.key,
            "mark": self.mark,
            "kind": self.kind,
            "text": visible(fact.text),
            "strong": [start, start + len(fact.subject)],
            "target": f"→\u00a0{visible(fact.target)}",
            "where": self.where,
            "detail": f"{fact.text} → {fact.target}{place}: {said}",
        }


class Listing:
    """All rows of a session, searched, filtered and sorted."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.shown: dict[str, Line] = {}

    def fact(self, key: str) -> Fact:
        """The fact of a row that is shown."""
        return self.shown[key].fact

    def all(self, desk: Desk) -> list[Line]:
        """Every row: staged ones first, then by round."""
        session = self._session
        lines: list[Line] = []
        seen: dict[str, int] = {}
        for fact in desk.staged:
            text = f"s{fact.prompt}\n{fact.subject}\n{fact.target}"
            seen[text] = seen.get(text, 0) + 1  # the same fact may be staged for two rounds
            lines.append(Line(f"{text}\n{seen[text]}", "+", fact, "staged", "staged"))
        rounds = {i: place for place, r in enumerate(session.rounds, 1) for i in r.fact_ids}
        for fact_id, fact in session.facts.items():
            place = rounds[fact_id]
            mark, kind, where = "·", "undone", f"r{place}"
            if fact_id in session.muted:
                mark, kind, where = "–", "muted", f"r{place}, muted"
            elif place > session.position:
                where = f"r{place}, undone"
            else:
                mark, kind = _standing(desk.scores.get(fact_id))
            lines.append(Line(f"f{fact_id}", mark, fact, where, kind))
        return lines

    def choose(self, desk: Desk, words: str, kind: str, order: str) -> list[Line]:
        """The rows that hold all `words` and are of a kind, in an order."""
        wanted = words.casefold().split()
        lines = [
            line
            for line in self.all(desk)
            if kind in ("all", line.kind)
            and all(one in f"{line.fact.text} {line.fact.target}".casefold() for one in wanted)
        ]
        lines = _sorted(lines, order)
        self.shown = {line.key: line for line in lines}
        return lines


def _sorted(lines: Sequence[Line], order: str) -> list[Line]:
    if order == "newest":
        staged = [line for line in lines if line.kind == "staged"]
        return staged + [line for line in reversed(lines) if line.kind != "staged"]
    if order == "name":
        return sorted(lines, key=lambda line: line.fact.subject.casefold())
    if order == "worst":
        return sorted(lines, key=lambda line: _WORST.index(line.kind))
    return list(lines)


def _standing(scores: dict[str, float] | None) -> tuple[str, str]:
    if scores is None:
        return "…", ""
    kind = standing(scores["reliability"])
    return _MARKS[kind], kind
