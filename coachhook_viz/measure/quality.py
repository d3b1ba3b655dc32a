"""How well facts were written: reliability, generality, locality, and what became of them.

quality       one row a fact and metric, under one state
holds         whether a fact does, by its reliability; `standing` has a word for it
readings      means with confidence intervals: right after a fact's own round, later, at the end
forgotten     which facts were lost again, when, and by which round
forgetting    the share of them, round by round
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact
from coachhook_viz.measure.answers import Question, Speaker, ask
from coachhook_viz.measure.metrics import neighbours, paraphrases
from coachhook_viz.models import LanguageModel

METRICS = ("reliability", "generality", "locality")
Standing = Literal["holds", "partly", "missed"]
_RESAMPLES = 2000


def holds(reliability: float) -> bool:
    """Whether a fact holds: every token of its target is the model's own."""
    return reliability == 1


def standing(reliability: float) -> Standing:
    """What a fact of this reliability is called: a share of the target's tokens."""
    return "holds" if holds(reliability) else "partly" if reliability > 0 else "missed"


def quality(
    lm: LanguageModel,
    state: EditState,
    facts: Sequence[Fact],
    watch: Watch | None = None,
    unedited: Speaker | None = None,
) -> pd.DataFrame:
    """Score `facts` under `state`, teacher forced.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    facts : sequence of Fact
    watch : Watch, optional
        Called before each batch, stage "quality".
    unedited : Speaker, optional
        The unedited model, with what earlier calls have asked it.

    Returns
    -------
    DataFrame
        fact : int
            Index into `facts`.
        metric : str
            "reliability": share of target tokens that are the argmax after the edit prompt;
            "generality": the same, mean over the paraphrases;
            "locality": share of the neighbours' answer tokens whose argmax is that of the
            unedited model (of the next token alone where a neighbour has no answer);
            "target_probability", "target_rank", "truth_probability", "truth_rank": of the first
            token of target and truth, right after the edit prompt.
        value : float
            A share or probability in [0, 1], or a rank from 1. A fact without truth, paraphrases
            or neighbours has no such row.
    """
    unedited = Speaker(lm, EditState.of(lm, state.config)) if unedited is None else unedited
    asked: list[tuple[int, str, Question]] = []
    names: list[list[str]] = []
    for i, fact in enumerate(facts):
        question = Question.of(lm, fact.text, fact.target)
        looked_up = {"target": question.answer[0]}
        if fact.truth is not None:
            looked_up["truth"] = Question.of(lm, fact.text, fact.truth).answer[0]
        names.append(list(looked_up))
        question = Question(question.prompt, question.answer, tuple(looked_up.values()))
        asked.append((i, "reliability", question))
        for metric, probes in (("generality", paraphrases), ("locality", neighbours)):
            asked += [(i, metric, Question.of(lm, p.prompt, p.answer)) for p in probes(fact)]
    answers = ask(lm, state, [question for _, _, question in asked], watch)
    local = [question for _, metric, question in asked if metric == "locality"]
    stayed = dict(zip(local, unedited.ask(local, watch), strict=True))
    rows: list[tuple[int, str, float]] = []
    for (i, metric, question), answer in zip(asked, answers, strict=True):
        wanted = stayed[question].top if metric == "locality" else question.answer
        hits = [said == token for said, token in zip(answer.top, wanted, strict=True)]
        rows.append((i, metric, sum(hits) / len(hits)))
        if metric == "reliability":
            for name, p, rank in zip(names[i], answer.probabilities, answer.ranks, strict=True):
                rows += [(i, f"{name}_probability", p), (i, f"{name}_rank", float(rank))]
    frame = pd.DataFrame(rows, columns=["fact", "metric", "value"])
    return frame.groupby(["fact", "metric"], sort=False)["value"].mean().reset_index()


def readings(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Three readings of the same facts, kept apart, with bootstrap confidence intervals.

    Parameters
    ----------
    frame : DataFrame
        What `Session.quality` gives: fact, edited, round, metric, value.
    seed : int
        Of the 2000 resamples of the facts.

    Returns
    -------
    DataFrame
        metric : str
        reading : str
            "own round": right after the round that edited the fact; "retained": mean over all
            later rounds; "end": after the last one.
        mean, low, high : float
            Mean over the facts, and the 95 % percentile interval.
        facts : int
            How many facts have such a reading.
    """
    later = frame[frame["round"] > frame["edited"]]
    parts = {
        "own round": frame[frame["round"] == frame["edited"]],
        "retained": later.groupby(["fact", "metric"], sort=False)["value"].mean().reset_index(),
        "end": frame[frame["round"] == frame["round"].max()],
    }
    generator = np.random.default_rng(seed)
    rows = []
    for metric in frame["metric"].unique():
        for reading, part in parts.items():
            values = part.loc[part["metric"] == metric, "value"].to_numpy()
            if not len(values):
                continue
            drawn = generator.integers(0, len(values), (_RESAMPLES, len(values)))
            low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
            rows.append((metric, reading, values.mean(), low, high, len(values)))
    return pd.DataFrame(rows, columns=["metric", "reading", "mean", "low", "high", "facts"])


def forgotten(frame: pd.DataFrame, interference: pd.DataFrame) -> pd.DataFrame:
    """Facts that took in their own round and were lost in a later one.

    Parameters
    ----------
    frame : DataFrame
        What `Session.quality` gives.
    interference : DataFrame
        What `Session.interference` gives.

    Returns
    -------
    DataFrame
        fact : int
        edited : int
            Its own round.
        round : int
            The first round after which its reliability was below 1: that round's edit did it.
        by : int or NA
            The fact of that round that acts most on this one's key, as the mean over layers; NA
            where none is known.
        regained : bool
            Whether it holds again after the last round.
    """
    reliability = frame[frame["metric"] == "reliability"].sort_values("round")
    means = interference.groupby(["fact", "by"])["actual"].mean().reset_index()
    acts = {(f, by): value for f, by, value in means.itertuples(index=False)}
    rows: list[tuple[int, int, int, int | None, bool]] = []
    own_round = dict(zip(reliability["fact"], reliability["edited"], strict=True))
    for fact, own in own_round.items():
        part = reliability[reliability["fact"] == fact]
        held = dict(zip(part["round"], map(holds, part["value"]), strict=True))
        lost = [r for r, holding in held.items() if r > own and not holding]
        if held.get(own) and lost:
            suspects = [other for other, r in own_round.items() if r == lost[0]]
            known = {other: acts[fact, other] for other in suspects if (fact, other) in acts}
            by = max(known, key=known.__getitem__) if known else None
            rows.append((fact, own, lost[0], by, bool(held[max(held)])))
    columns = ["fact", "edited", "round", "by", "regained"]
    return pd.DataFrame(rows, columns=columns).astype({"by": "Int64"})


def forgetting(frame: pd.DataFrame) -> pd.DataFrame:
    """After each round, how many of the facts that took do not hold.

    Parameters
    ----------
    frame : DataFrame
        What `Session.quality` gives.

    Returns
    -------
    DataFrame
        round : int
        taken : int
            Facts of this and earlier rounds whose reliability was 1 after their own round.
        lost : int
            Those of them whose reliability is below 1 after this round.
        share : float
            lost / taken, 0 where none was taken.
    """
    reliability = frame[frame["metric"] == "reliability"]
    own = reliability[reliability["round"] == reliability["edited"]]
    taken = set(own.loc[own["value"].map(holds), "fact"])
    rows = []
    for round_, part in reliability[reliability["fact"].isin(taken)].groupby("round"):
        lost = int((~part["value"].map(holds)).sum())
        rows.append((round_, len(part), lost, lost / len(part)))
    return pd.DataFrame(rows, columns=["round", "taken", "lost", "share"])
