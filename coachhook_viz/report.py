"""A session as one HTML file: no script, no network, nothing to install.

report    write it
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from coachhook_viz import figures
from coachhook_viz.editing.progress import CancelCallback, ProgressCallback, Watch
from coachhook_viz.facts import Fact
from coachhook_viz.figures.style import Picture
from coachhook_viz.session import Session

_ANSWER_TOKENS = 6
_METRICS = ("reliability", "generality", "locality")


@dataclass(frozen=True)
class _Answer:
    """What the model says to one fact's prompt, before and after."""

    number: int
    fact: Fact
    before: str
    after: str
    scores: dict[str, float]


@dataclass(frozen=True)
class _RoundStory:
    """One round in force: its answers, what was in scope, and the pictures of one of its facts."""

    number: int
    seconds: float
    alphas: dict[int, float]
    answers: list[_Answer]
    shown: Fact
    scope: str
    pictures: list[tuple[str, str]]  # image as a data address, its description


def report(
    session: Session,
    path: str | Path,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> Path:
    """Write what the rounds in force did as one self-contained HTML file.

    Each prompt is answered by the untouched and by the edited model; every fact is scored again
    after each round; for the first fact of each round the next-token bars and the scope are drawn.

    Parameters
    ----------
    session : Session
        With at least one round in force; it is only read.
    path : str or Path
        The file, replaced if it is there; its folder is made if needed.
    progress, cancel : callables, optional
        As in `Session.apply`, stages "report" and "quality".

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If no round is in force.
    EditCancelled
        If `cancel` answered True; no file is written.
    """
    if not session.position:
        raise ValueError("nothing to report: no round is in force; apply some facts first")
    watch = Watch(progress, cancel)
    measured = pd.concat(
        [session.evaluate(r + 1, progress, cancel) for r in range(session.position)]
    )
    final = measured[measured["round"] == session.position]
    stories, number = [], 0
    for place, round_ in enumerate(session.rounds[: session.position]):
        watch("report", place, session.position)
        answers = []
        for fact in round_.facts:
            watch("report", place, session.position)
            own = final[final["fact"] == number]
            scores = dict(zip(own["metric"], own["value"], strict=True))
            before = session.generate(fact.text, _ANSWER_TOKENS, edited=False)
            after = session.generate(fact.text, _ANSWER_TOKENS)
            answers.append(_Answer(number + 1, fact, before, after, scores))
            number += 1
        shown = round_.facts[0]
        scope = session.scope(shown.text)
        tops = [session.predict(shown.text, edited=edited) for edited in (False, True)]
        bars = figures.answers(tops[0], tops[1], shown.text, backend="matplotlib")
        grid = figures.scope(scope, backend="matplotlib")
        stories.append(
            _RoundStory(
                place + 1,
                round_.seconds,
                dict(round_.alphas),
                answers,
                shown,
                scope.explain(),
                [
                    (_address(bars), f"Next tokens after {shown.text!r}, before and after editing"),
                    (_address(grid), f"Scope on {shown.text!r}, tokens by layers"),
                ],
            )
        )
    means = measured.groupby(["round", "metric"])["value"].mean().unstack()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coachhook_viz", "data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        session=session,
        facts=number,
        stories=stories,
        metrics=[metric for metric in _METRICS if metric in means.columns],
        means=means.to_dict("index"),
        quality=_address(figures.quality(measured, backend="matplotlib")),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")
    return path


def _address(picture: Picture) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg().encode()).decode()
