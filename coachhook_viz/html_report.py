"""A session as one HTML file: no script, no network, nothing to install.

report    write it
"""

from __future__ import annotations

import base64
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from coachhook_viz import figures
from coachhook_viz.editing.progress import CancelCallback, ProgressCallback, Watch
from coachhook_viz.facts import Fact
from coachhook_viz.figures.style import Picture
from coachhook_viz.history import Label
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.measure.quality import METRICS, forgetting, readings
from coachhook_viz.measure.scope_quality import confusion
from coachhook_viz.session import Session

_ANSWER_TOKENS = 6
_PAIRS = 8  # strongest interferences that are listed
_READINGS = ("own round", "retained", "end")


@dataclass(frozen=True)
class _Answer:
    """What the model says to one fact's prompt, before and after."""

    id: int
    fact: Fact
    before: str
    after: str
    scores: dict[str, float]


@dataclass(frozen=True)
class _RoundStory:
    """One round in force: its answers, what was in scope, and the pictures of one of its facts."""

    place: int
    label: Label
    seconds: float
    alphas: dict[int, float]
    answers: list[_Answer]
    shown: Fact
    scope: str
    pictures: list[tuple[str, str]]  # image as a data address, its description


@dataclass(frozen=True)
class _Failure:
    """A fact that does not hold at the end, and why."""

    id: int
    fact: Fact
    says: str
    reasons: list[str]


def report(
    session: Session,
    path: str | Path,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
    *,
    budget: int | None = 200,
) -> Path:
    """Write what the rounds in force did as one self-contained HTML file.

    Which branches there are, if several; how well the edits hold and which were forgotten; why some
    failed; where the scope spoke; what drifted; what interfered; then each round with its facts,
    before and after. All but the first of the branch in force.

    Parameters
    ----------
    session : Session
        With at least one fact in force; it is only read.
    path : str or Path
        The file, replaced if it is there; its folder is made if needed.
    progress, cancel : callables, optional
        As in `Session.apply`, stages "quality", "scope", "drift", "report".
    budget : int, optional
        Measure and show this many of the facts, drawn once and for all; None: all.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If no fact is in force.
    EditCancelled
        If `cancel` answered True; no file is written.
    """
    if not session.state.facts:
        raise ValueError("nothing to report: no fact is in force; apply some first")
    watch = Watch(progress, cancel)
    history = session.quality(budget, progress, cancel)
    drift = session.drift(progress, cancel)
    pairs = session.interference(budget, progress, cancel)
    lost = session.forgotten(budget, progress, cancel)
    scopes = session.scope_quality(budget, progress=progress, cancel=cancel)
    shown = list(history["fact"].unique())
    final = history[history["round"] == session.position]
    scores = {
        fact_id: {
            row.metric: row.value for row in final[final["fact"] == fact_id].itertuples(index=False)
        }
        for fact_id in shown
    }
    stories = [_tell(session, place, shown, scores, watch) for place in range(session.position)]
    summary = readings(history)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coachhook_viz", "data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        session=session,
        facts=session.facts,
        count=len(session.state.facts),
        sampled=history.attrs["sampled"] if len(shown) < len(session.state.facts) else "",
        stories=[story for story in stories if story.answers],
        metrics=[metric for metric in METRICS if metric in set(summary["metric"])],
        readings=[name for name in _READINGS if name in set(summary["reading"])],
        summary={(row.metric, row.reading): row for row in summary.itertuples(index=False)},
        forgotten=lost.to_dict("records"),
        failures=_failures(session, stories, lost, scopes),
        confusion=confusion(scopes).to_dict("index"),
        perplexity=_perplexity(drift),
        strongest=_strongest(pairs),
        rho=rank_correlation(pairs)["rho"].iloc[-1] if len(shown) > 2 else None,
        conflicts=session.conflicts(),
        pictures=_pictures(session, history, drift, pairs),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")
    return path


def _tell(
    session: Session,
    place: int,
    shown: list[int],
    scores: dict[int, dict[str, float]],
    watch: Watch,
) -> _RoundStory:
    round_ = session.state.rounds[place]
    answers = []
    for fact_id, fact in zip(round_.fact_ids, round_.facts, strict=True):
        if fact_id in shown:
            watch("report", place, session.position)
            before = session.generate(fact.text, _ANSWER_TOKENS, edited=False)
            after = session.generate(fact.text, _ANSWER_TOKENS)
            answers.append(_Answer(fact_id, fact, before, after, scores[fact_id]))
    first = answers[0].fact if answers else session.state.facts[0]
    scope = session.scope(first.text, first.subject)
    tops = [session.predict(first.text, edited=edited) for edited in (False, True)]
    bars = figures.answers(tops[0], tops[1], first.text, backend="matplotlib")
    grid = figures.scope(scope, backend="matplotlib")
    return _RoundStory(
        place + 1,
        session.labels.get(round_.number, Label()),
        round_.seconds,
        dict(round_.alphas),
        answers,
        first,
        scope.explain(),
        [
            (_address(bars), f"Next tokens after {first.text!r}, before and after editing"),
            (_address(grid), f"Scope on {first.text!r}, tokens by layers"),
        ],
    )


def _failures(
    session: Session, stories: list[_RoundStory], lost: pd.DataFrame, scopes: pd.DataFrame
) -> list[_Failure]:
    """Facts whose reliability is below 1 at the end, with what is known of the reason."""
    stop = session.config.stop_loss
    losses = {
        fact_id: loss
        for round_ in session.state.rounds
        for fact_id, loss in zip(round_.fact_ids, round_.losses, strict=True)
    }
    silent = scopes[(scopes["kind"] == "edit") & ~scopes["anywhere"]].set_index("fact")["reason"]
    gone = lost.set_index("fact")
    rivals = {i: j for pair in session.conflicts() for i, j in (pair, pair[::-1])}
    found = []
    for answer in (answer for story in stories for answer in story.answers):
        if answer.scores["reliability"] == 1:
            continue
        reasons = []
        if answer.id in rivals:
            other = rivals[answer.id]
            reasons.append(f"fact {other} asks the same and wants {session.facts[other].target!r}")
        if answer.id in silent.index:
            reasons.append(str(silent[answer.id]))
        if answer.id in gone.index:
            row = gone.loc[answer.id]
            by = f", where fact {row['by']} acts on its key most" if pd.notna(row["by"]) else ""
            reasons.append(f"It held until round {row['round']} was applied{by}.")
        elif losses[answer.id] > stop:
            reasons.append(
                f"Its optimisation ended at loss {losses[answer.id]:.2f}, above {stop}: more steps"
                " or a larger clamp_factor may help."
            )
        found.append(
            _Failure(
                answer.id,
                answer.fact,
                answer.after,
                reasons or ["The hook layers do not move the answer far enough."],
            )
        )
    return found


def _perplexity(drift: pd.DataFrame) -> tuple[float, float]:
    """Before the first round and now."""
    values = drift[drift["metric"] == "perplexity"].sort_values("round")["value"]
    return float(values.iloc[0]), float(values.iloc[-1])


def _strongest(pairs: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The pairs of facts that act most on each other, means over the layers."""
    others = pairs[pairs["fact"] != pairs["by"]]
    means = others.groupby(["fact", "by"])[["predicted", "actual"]].mean().reset_index()
    return means.nlargest(_PAIRS, "actual").to_dict("records")


def _pictures(
    session: Session, history: pd.DataFrame, drift: pd.DataFrame, pairs: pd.DataFrame
) -> dict[str, str]:
    facts = session.facts
    drawn = {
        "quality": figures.quality(history, backend="matplotlib"),
        "retention": figures.retention(history, facts=facts, backend="matplotlib"),
        "weights": figures.weights(drift, backend="matplotlib"),
        "shift": figures.shift(drift, backend="matplotlib"),
    }
    if not forgetting(history).empty:
        drawn["forgetting"] = figures.forgetting_curve(history, backend="matplotlib")
    if len(set(pairs["fact"])) > 1:
        drawn["interference"] = figures.interference(pairs, facts, backend="matplotlib")
    return {name: _address(picture) for name, picture in drawn.items()}


def _address(picture: Picture) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg().encode()).decode()
