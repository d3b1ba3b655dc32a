"""What became of each fact: scored after its own round and each later one, in cells and in words.

Retention     the scores, the forgotten, and those that never took
ROOM          how many rounds have room to spare
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from coachhook_viz.facts import Fact
from coachhook_viz.measure.quality import METRICS, forgetting, holds, readings, standing
from coachhook_viz.panels.grid import Cell, Kind
from coachhook_viz.panels.words import count, named, short
from coachhook_viz.panels.worker import Job
from coachhook_viz.panels.zoom import Zoom, means
from coachhook_viz.session import Session

_MARKS: dict[Kind, str] = {"holds": "", "partly": "◐", "missed": "○"}
_SCALE = Markup("<span>0 <span class='cv-ramp'></span> 1</span><span>r1: after round 1</span>")
_KEY = Markup(
    "<p class='cv-key'>{}<span>◐ took in part</span><span>○ missed</span>"
    "<span><span class='cv-swatch cv-none'></span> not yet edited</span></p>"
).format(_SCALE)
_BLOCKS = Markup(
    "<p class='cv-key'>{}<span>each cell: the mean of {}; click to open it</span>"
    "<span><span class='cv-swatch cv-none'></span> not yet edited</span></p>"
)
ROOM = 6  # rounds up to which scores stand with a 0 before the point
_TOLD = 6  # facts that are told of in words


@dataclass(frozen=True, eq=False)
class Retention:
    """Scores of each fact after its own round and each later one.

    Attributes
    ----------
    facts : mapping of int to Fact
    scores, means, lost : DataFrame
        Of `Session.quality`, `measure.quality.readings` and `Session.forgotten`.
    failed : mapping of int to str
        Facts that did not take in full in their own round; where the hook is silent, why.
    sampled : str
        How many of the facts were scored, if not all.
    """

    facts: dict[int, Fact]
    scores: pd.DataFrame
    means: pd.DataFrame
    lost: pd.DataFrame
    failed: dict[int, str]
    sampled: str

    @classmethod
    def measure(cls, session: Session, budget: int, job: Job) -> Retention:
        """Score `budget` of the facts in force; what is known already is not run again."""
        facts, scores = session.facts, session.quality(budget, job.progress, job.cancel)
        own = scores[(scores["round"] == scores["edited"]) & (scores["metric"] == "reliability")]
        failed: dict[int, str] = {}
        for fact_id in own.loc[~own["value"].map(holds), "fact"].tolist()[:_TOLD]:
            scope = session.scope(facts[fact_id].text, facts[fact_id].subject)
            failed[fact_id] = "" if scope.in_scope.any() else scope.explain()
        lost = session.forgotten(budget, job.progress, job.cancel)
        few = len(session.state.facts) > budget
        sampled = scores.attrs["sampled"] if few else ""
        return cls(facts, scores, readings(scores), lost, failed, sampled)

    @property
    def ids(self) -> list[int]:
        """Ids of the facts that were scored."""
        return [int(fact_id) for fact_id in self.scores["fact"].unique()]

    @property
    def rounds(self) -> int:
        """How many rounds were in force."""
        return int(self.scores["round"].max())

    def at(self, fact_id: int, round_: int) -> dict[str, float]:
        """Scores of one fact after so many rounds, by metric."""
        here = self.scores[(self.scores["fact"] == fact_id) & (self.scores["round"] == round_)]
        return dict(zip(here["metric"].tolist(), here["value"].tolist(), strict=True))

    def cells(self, metric: str, zoom: Zoom) -> list[list[Cell]]:
        """One row a fact, one column a round; or their means in blocks."""
        if zoom.binned:
            return self._blocks(metric, zoom)
        ids, rounds = self.ids, self.rounds
        shown = [ids[part.start] for part in zoom.rows]
        scores = self.scores[self.scores["fact"].isin(shown)]
        found: dict[tuple[int, int], dict[str, float]] = {}
        columns = (scores[c].tolist() for c in ("fact", "round", "metric", "value"))
        for fact_id, round_, name, value in zip(*columns, strict=True):
            found.setdefault((fact_id, round_), {})[name] = value
        edited = dict(zip(scores["fact"], scores["edited"], strict=True))
        return [
            [
                _cell(named(self.facts[i]), place, found[i, place], metric, rounds <= ROOM)
                if place >= edited[i]
                else Cell(detail=f"{named(self.facts[i])} came in round {edited[i]}", kind="none")
                for place in (part.start + 1 for part in zoom.columns)
            ]
            for i in shown
        ]

    def _blocks(self, metric: str, zoom: Zoom) -> list[list[Cell]]:
        """One cell a block: the mean of the scores in it."""
        scores = self.scores[self.scores["metric"] == metric]
        table = scores.pivot(index="fact", columns="round", values="value")
        table = table.reindex(index=self.ids, columns=range(1, self.rounds + 1))
        values, counts = means(table.to_numpy(dtype=float), zoom.rows, zoom.columns)
        name = metric.replace("_", " ")
        after = [
            f"r{part.start + 1}{f' to r{part.stop}' * (len(part) > 1)}" for part in zoom.columns
        ]
        return [
            [
                Cell(
                    short(value) if abs(value) < 1.005 else f"{value:.0f}",
                    f"{facts}, after {rounds}: mean {name} {value:.3g} of {count(scored, 'score')};"
                    " click to open",
                    shade=value,
                )
                if scored
                else Cell(detail=f"{facts}, after {rounds}: no {name}", kind="none")
                for value, scored, rounds in zip(line, numbers, after, strict=True)
            ]
            for facts, line, numbers in zip(
                self.rows(zoom), values.tolist(), counts.tolist(), strict=True
            )
        ]

    def rows(self, zoom: Zoom) -> list[str]:
        """Names of the rows."""
        ids = self.ids
        return [
            named(self.facts[ids[part.start]])
            if len(part) == 1
            else f"{count(len(part), 'fact')}, {ids[part.start]}–{ids[part.stop - 1]}"
            for part in zoom.rows
        ]

    def columns(self, zoom: Zoom) -> list[str]:
        """Names of the columns; of a block its first round."""
        return [f"r{part.start + 1}{'…' * (len(part) > 1)}" for part in zoom.columns]

    def key(self, zoom: Zoom) -> Markup:
        """What shades and marks of the cells mean."""
        if not zoom.binned:
            return _KEY
        facts, rounds = (count(zoom.lengths[i], word) for i, word in enumerate(("fact", "round")))
        return _BLOCKS.format(_SCALE, f"{facts} × {rounds}")

    def boxes(self) -> Markup:
        """Mean reliability, generality and locality now, with their intervals."""
        box = Markup("<div><span>{}</span><b>{:.2f}</b> <span>{:.2f}–{:.2f}</span></div>")
        end = self.means[(self.means["reading"] == "end") & self.means["metric"].isin(METRICS)]
        columns = (end[name].tolist() for name in ("metric", "mean", "low", "high"))
        filled = [box.format(*line) for line in zip(*columns, strict=True)]
        return Markup("<div class='cv-boxes'>{}</div>").format(Markup("").join(filled))

    def story(self) -> Markup:
        """Which facts were lost, after which round and by which fact; which never took, and why."""
        lines, facts = [], self.facts
        shares = forgetting(self.scores)
        if not shares.empty:
            taken, lost = int(shares["taken"].iloc[-1]), int(shares["lost"].iloc[-1])
            hold = "holds" if taken - lost == 1 else "hold"
            said = f" of {count(taken, 'learned fact')} still {hold}."
            lines.append(_line("●", "good" if not lost else "warn", str(taken - lost), said))
        columns = (self.lost[name].tolist() for name in ("fact", "round", "by", "regained"))
        for fact_id, round_, by, regained in zip(*columns, strict=True):
            whom = "" if pd.isna(by) else f", where {named(facts[by])} acts on its key most"
            said = f" was forgotten after round {round_}{whom}."
            said += " It holds again now." * regained
            lines.append(_line("○", "bad", named(facts[fact_id]), said))
        edited = dict(zip(self.scores["fact"], self.scores["edited"], strict=True))
        for fact_id, why in self.failed.items():
            part = standing(self.at(fact_id, edited[fact_id])["reliability"]) == "partly"
            said = f" took only in part. {why}" if part else f" never took. {why}"
            mark, kind = ("◐", "warn") if part else ("○", "bad")
            lines.append(_line(mark, kind, named(facts[fact_id]), said))
        if len(lines) > _TOLD:
            lines[_TOLD:] = [_line("", "note", f"{len(lines) - _TOLD} more", ".")]
        if self.sampled:
            lines.append(_line("", "note", f"Shown: {self.sampled}", ", drawn once and for all."))
        return Markup("<div class='cv-story'>{}</div>").format(Markup("").join(lines))


def _cell(name: str, round_: int, scores: dict[str, float], metric: str, room: bool) -> Cell:
    value, share = scores.get(metric), scores["reliability"]
    kind: Kind = standing(share)
    said = ", ".join(f"{m} {scores[m]:.2f}" for m in METRICS if m in scores)
    target = f"target probability {scores['target_probability']:.3f}"
    rank = f"rank {scores['target_rank']:.0f}"
    text = "–" if value is None else f"{value:.2f}" if room else short(value)
    return Cell(
        f"{_MARKS[kind]} {text}" if room and _MARKS[kind] else f"{_MARKS[kind]}{text}",
        f"{name} after round {round_}: {said}, {target}, {rank}",
        shade=value,
        kind=kind,
    )


def _line(mark: str, kind: str, name: str, said: str) -> Markup:
    return Markup("<p><b class='cv-{}'>{} {}</b>{}</p>").format(kind, mark, name, said)
