"""What a session can say about its own edits: methods of `Session`.

evaluate, quality, drift, interference, forgotten, scope_quality    what was measured once is kept
what_else             what the edits changed beside what was asked for
conflicts, clashes    facts that ask the same
compare               two branches
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, get_args

import pandas as pd

from coachhook_viz.clashes import Clash, find_clashes
from coachhook_viz.editing.progress import CancelCallback, ProgressCallback, Watch
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.facts import Fact, as_batch, find_conflicts
from coachhook_viz.measure import quality as scores
from coachhook_viz.measure.metrics import By, Metric, chosen
from coachhook_viz.measure.over_rounds import OverRounds, sample
from coachhook_viz.measure.quality import METRICS
from coachhook_viz.reading import bundled_facts


class Measured(Protocol):
    """What measuring needs of a session."""

    _measured: OverRounds

    @property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds of the branch, those in force first."""

    @property
    def position(self) -> int:
        """How many rounds are in force."""

    @property
    def state(self) -> EditState:
        """What is in force."""

    @property
    def muted(self) -> frozenset[int]:
        """Ids of the facts that are muted."""

    def state_at(self, position: int | None = None, branch: str | None = None) -> EditState:
        """What would be in force with the first `position` rounds of a branch."""


def evaluate(
    session: Measured,
    rounds: int | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
    *,
    metrics: str | Metric | Iterable[str | Metric] | None = None,
    by: By = "tokens",
) -> pd.DataFrame:
    """Re-score the facts of the first `rounds` rounds with just those in force.

    Parameters
    ----------
    rounds : int, optional
        None: the rounds in force.
    progress, cancel : callables, optional
        As in `apply`.
    metrics : str, Metric, or several of them, optional
        Names of `measure.metrics.ALL`: "reliability", "generality", "locality", "same
        subject", "portability", "retention", "fluency", and by probability "ES", "PS", "NS",
        "EM", "PM", "NM"; or a `measure.metrics.Metric` of your own. None: reliability,
        generality and locality, one row a fact.
    by : {"tokens", "generation"}
        "tokens": each token of an answer given those before it, which flatters; "generation":
        the model writes, and its text has to begin with the whole answer. Fluency and the
        metrics by probability have one way only.

    Returns
    -------
    DataFrame
        fact : int
            The fact's id in the session; muted ones are left out.
        round : int
            `rounds`: after how many rounds this was measured.
        metric : str
            "reliability", "generality" or "locality", see `measure.quality`.
        value : float

        With `metrics`, or by generation, one row a prompt, and also its columns prompt, said
        and known: see `measure.metrics.judged`. `measure.summary.summary` has the means.

    Raises
    ------
    ValueError
        If there are not that many rounds, no such metric, or `by` is another word.
    FactError
        If a prompt or an answer of the `metrics` has no tokens that can be measured.
    """
    rounds = session.position if rounds is None else rounds
    if not 0 <= rounds <= len(session.rounds):
        raise ValueError(f"evaluate({rounds}): the session has {len(session.rounds)} rounds")
    state, watch = session.state_at(rounds), Watch(progress, cancel)
    if by not in get_args(By):
        raise ValueError(f"by is {by!r}: it must be one of {', '.join(get_args(By))}")
    if metrics is not None or by != "tokens":
        wanted = chosen(METRICS if metrics is None else metrics)
        frame = session._measured.judged(state, wanted, by, watch)
        frame.insert(1, "round", rounds)
        return frame
    facts = dict(zip(state.fact_ids, state.facts, strict=True))
    frame = session._measured.score(state, facts, watch)
    frame.insert(1, "round", rounds)
    return frame[frame["metric"].isin(METRICS)].reset_index(drop=True)


def quality(
    session: Measured,
    budget: int | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """Score every fact in force after its own round and after each later one.

    What an earlier call has measured is not run again. See `measure.quality` for `readings`,
    `forgetting` and what the metrics mean.

    Parameters
    ----------
    budget : int, optional
        Score this many of the facts, drawn once and for all; ``frame.attrs["sampled"]`` says
        so.
    progress, cancel : callables, optional
        As in `apply`, stage "quality".

    Returns
    -------
    DataFrame
        fact : int
        edited : int
            How many rounds were in force after the fact's own.
        round : int
            After how many rounds this was measured.
        metric : str
            "reliability", "generality", "locality", "target_probability", "target_rank",
            "truth_probability", "truth_rank".
        value : float

    Raises
    ------
    ValueError
        If `budget` is not positive.
    """
    wanted = sample(session.state.fact_ids, budget)
    frame = session._measured.quality(session.state.rounds, wanted, Watch(progress, cancel))
    frame.attrs["sampled"] = _sampled(wanted, session.state)
    return frame


def drift(
    session: Measured,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """What the rounds in force did to weights, thresholds and neutral text, one by one.

    Returns
    -------
    DataFrame
        round : int
            After how many rounds; 0 is the unedited model.
        layer : int or NA
        metric : str
            "norm", "relative_norm", "singular_1" to "singular_3", "effective_rank" of ΔW;
            "alpha"; "shift" and "cosine" of hidden states on the probe texts; "perplexity".
            See `measure.drift`.
        value : float
        fact : int or NA
            The fact that lowered "alpha" in this round.
        probe : int or NA
            Index of the probe text.
    """
    return session._measured.drift(session.state.rounds, Watch(progress, cancel))


def interference(
    session: Measured,
    budget: int | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """How much each fact in force acts on each other's key, and what was to be expected.

    Parameters
    ----------
    budget : int, optional
        As in `quality`.
    progress, cancel : callables, optional
        As in `apply`.

    Returns
    -------
    DataFrame
        layer, fact, by : int; actual, overlap, predicted : float. See `measure.interference`.

    Raises
    ------
    ValueError
        If `budget` is not positive.
    """
    wanted = sample(session.state.fact_ids, budget)
    rounds = session.rounds[: session.position]
    frame = session._measured.interference(session.state, wanted, rounds, Watch(progress, cancel))
    frame.attrs["sampled"] = _sampled(wanted, session.state)
    return frame


def forgotten(
    session: Measured,
    budget: int | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """Facts that took and were lost again, after which round and by which fact of it.

    Returns
    -------
    DataFrame
        fact, edited, round : int; by : int or NA; regained : bool. See
        `measure.quality.forgotten`.
    """
    frame = quality(session, budget, progress, cancel)
    return scores.forgotten(frame, interference(session, budget, progress, cancel))


def scope_quality(
    session: Measured,
    budget: int | None = None,
    others: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """Whether the hook speaks on edit prompts, paraphrases, neighbours and near misses.

    Parameters
    ----------
    budget : int, optional
        As in `quality`.
    others : sequence of str, optional
        Subjects to make near misses with, where they look like a fact's own. None: those of the
        bundled facts.
    progress, cancel : callables, optional
        As in `apply`, stage "scope".

    Returns
    -------
    DataFrame
        One row a prompt, see `measure.scope_quality`; its `confusion` is the summary.

    Raises
    ------
    ValueError
        If `budget` is not positive.
    """
    if others is None:
        others = [fact.subject for fact in bundled_facts()]
    wanted = sample(session.state.fact_ids, budget)
    watch = Watch(progress, cancel)
    frame = session._measured.scope_quality(session.state, wanted, others, watch)
    frame.attrs["sampled"] = _sampled(wanted, session.state)
    return frame


def what_else(
    session: Measured,
    fact_ids: Iterable[int] | None = None,
    budget: int = 200,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """What the edits in force have changed beside what was asked for.

    The same subject in other relations, the same relation of other subjects, all bundled facts,
    neutral text, and what the facts are measured with themselves. Prompts made from templates
    count where the unedited model is sure of its answer. What was asked once is not asked again.

    Parameters
    ----------
    fact_ids : iterable of int, optional
        On account of which facts; None: of all in force.
    budget : int
        Most prompts, neutral texts not counted; of each kind alike, drawn once and for all.
    progress, cancel : callables, optional
        As in `apply`, stage "what else".

    Returns
    -------
    DataFrame
        kind : str
            "edit", "paraphrase", "portability": these should change; "same subject",
            "neighbour", "bundled", "text": these should stay.
        prompt : str
        before, after : str
            The likeliest next token; of a text its perplexity.
        kept : bool
            Whether they are the same; of a text within 1 %.
        fired : bool
            Whether a hook spoke.
        fact : int or NA
            The fact that gave most where it spoke.
        of : int or NA
            The fact on account of which it is asked.
        p_before, p_after : float
            Probability of the token `before`, unedited and now; of a text the geometric mean of its
            tokens' probabilities.
        x, y : float
            Where its key stands: two principal components of the whitened keys, of length 1, at
            the first hooked layer.

        ``frame.attrs["sampled"]`` says how many of how many prompts. `measure.what_else.tally`
        counts, `headline` says it in a line.

    Raises
    ------
    ValueError
        If no fact is in force, one of `fact_ids` is not, or the budget is not positive.
    EditCancelled
        If `cancel` answered True.
    """
    if not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget is {budget!r}: it must be 1 or more prompts")
    state = session.state
    if not state.facts:
        raise ValueError("no fact is in force: apply one, or unmute one, to see what else changed")
    wanted = list(dict.fromkeys(state.fact_ids if fact_ids is None else fact_ids))
    if not wanted:
        raise ValueError("fact_ids is empty: name a fact, or leave it out for all in force")
    for fact_id in wanted:
        if fact_id not in state.fact_ids:
            muted = "is muted: unmute it" if fact_id in session.muted else "is not in force"
            raise ValueError(f"fact {fact_id!r} {muted}; in force are {list(state.fact_ids)}")
    return session._measured.what_else(state, wanted, budget, Watch(progress, cancel))


def conflicts(session: Measured) -> list[tuple[int, int]]:
    """Ids of facts in force that ask the same and want different answers, in pairs."""
    ids = session.state.fact_ids
    return [(ids[i], ids[j]) for i, j in find_conflicts(session.state.facts)]


def clashes(session: Measured, facts: Iterable[Fact] | Fact) -> list[Clash]:
    """Which of `facts`, that are to be applied, meet an edit in force, and how.

    Parameters
    ----------
    facts : iterable of Fact, or one Fact

    Returns
    -------
    list of Clash
        At most one a fact: with the most recent edit of the same question or, if there is
        none, of the same subject, unless edits are of one relation alone (the answer site).
        `Clash.sentence` says it in words. Muted facts meet nobody.
    """
    found = find_clashes(as_batch(facts), session.state.rounds)
    one_relation = session.state.config.site == "answer"
    return [clash for clash in found if not (one_relation and clash.kind == "subject")]


def compare(
    session: Measured,
    one: str,
    other: str,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """Score the facts that are in force on either of two branches under both.

    Returns
    -------
    DataFrame
        fact : int
        metric : str
        and one column of values for each branch, under its name.

    Raises
    ------
    ValueError
        If there is no such branch, or it is the same twice.
    """
    if one == other:
        raise ValueError(f"compare needs two branches, not {one!r} twice")
    states = {name: session.state_at(branch=name) for name in (one, other)}
    facts: dict[int, Fact] = {}
    for state in states.values():
        facts.update(zip(state.fact_ids, state.facts, strict=True))
    watch, columns = Watch(progress, cancel), []
    for name, state in states.items():
        frame = session._measured.score(state, facts, watch)
        frame = frame[frame["metric"].isin(METRICS)]
        columns.append(frame.set_index(["fact", "metric"])["value"].rename(name))
    return pd.concat(columns, axis=1).reset_index()


def _sampled(wanted: Sequence[int], state: EditState) -> str:
    return f"{len(wanted)} of {len(state.fact_ids)} facts"
