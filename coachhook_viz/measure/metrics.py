"""What is asked about an edit, and who judges the answers: each metric is one value.

ALL         all of them by name
Metric      which prompts of a fact are asked, and who judges what is said
chosen      metrics by name or value
judged      one row a prompt, under one state; `table` has its columns
edit_prompt, paraphrases, neighbours, same_subject, portability    the prompts of a fact
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.wordings import relation_of
from coachhook_viz.facts import Fact, FactError, Probe, Problem, alike
from coachhook_viz.measure.answers import Question, Speaker
from coachhook_viz.measure.judges import (
    Asked,
    Judge,
    keeps,
    keeps_next,
    keeps_writing,
    margin,
    prefers,
    says,
    varies,
    writes,
)
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_probes

By = Literal["tokens", "generation"]
"""Teacher forced, or as the model writes by itself."""
SURE = 0.25
"""Probability of its likeliest next token from which on the unedited model has an answer at all."""
_FIELDS = {"edit": "prompt", "paraphrase": "paraphrases", "neighbour": "neighbors"}


@dataclass(frozen=True)
class Metric:
    """One thing that is measured about an edit.

    Examples
    --------
    >>> said_it = Metric("said it", questions=edit_prompt, judge=says)

    Attributes
    ----------
    name : str
    questions : callable
        Of a fact, the `Probe` values that are asked; one of the kind "edit" is the edit prompt.
    judge : callable
        Judges what is said, teacher forced where there is a choice.
    by_generation : callable or None
        Judges what the model writes by itself. None: there is no choice, `judge` does it.
    once_held : bool
        Whether only facts count that an earlier round edited, and whose value was 1 right after it.
    """

    name: str
    questions: Callable[[Fact], Iterable[Probe]]
    judge: Judge
    by_generation: Judge | None = None
    once_held: bool = False


def edit_prompt(fact: Fact) -> list[Probe]:
    """The prompt that was edited."""
    return [Probe(fact.text, fact.target, "edit")]


def paraphrases(fact: Fact) -> list[Probe]:
    """Other wordings of the edit prompt, which should get the target too."""
    own = [probe for probe in fact.probes if probe.kind == "paraphrase"]
    return [
        *(Probe(prompt, fact.target, "paraphrase") for prompt in fact.paraphrases),
        *(replace(p, answer=fact.target) if p.answer is None else p for p in own),
    ]


def neighbours(fact: Fact) -> list[Probe]:
    """Prompts about other subjects, which must stay."""
    return [
        *(Probe(n.prompt, n.answer, "neighbour") for n in fact.neighbors),
        *(probe for probe in fact.probes if probe.kind == "neighbour"),
    ]


def same_subject(fact: Fact) -> list[Probe]:
    """Prompts about the subject in other relations: the fact's own ones, else bundled ones.

    These go by its relation or, where that is not given or not known, by what its prompt asks for.
    """
    own = [probe for probe in fact.probes if probe.kind == "same subject"]
    told = replace(fact, relation=relation_of(fact))
    return own or list(bundled_probes(fact) or bundled_probes(told))


def portability(fact: Fact) -> list[Probe]:
    """Prompts whose answers follow from the edit."""
    return [probe for probe in fact.probes if probe.kind == "portability"]


def _with_truth(questions: Callable[[Fact], list[Probe]]) -> Callable[[Fact], list[Probe]]:
    """The same prompts, of facts whose truth is known: a preference needs both answers."""
    return lambda fact: [] if fact.truth is None else questions(fact)


def _told_apart(fact: Fact) -> list[Probe]:
    """Neighbours with an answer that is not the target itself."""
    return [
        probe
        for probe in neighbours(fact)
        if probe.answer is not None and alike(probe.answer) != alike(fact.target)
    ]


_ALL = (
    Metric("reliability", edit_prompt, says, writes),
    Metric("generality", paraphrases, says, writes),
    Metric("locality", neighbours, keeps, keeps_writing),
    Metric("same subject", same_subject, keeps_next, keeps_writing),
    Metric("portability", portability, says, writes),
    Metric("retention", edit_prompt, says, writes, once_held=True),
    Metric("fluency", edit_prompt, varies),
    Metric("ES", _with_truth(edit_prompt), prefers),
    Metric("PS", _with_truth(paraphrases), prefers),
    Metric("NS", _told_apart, prefers),
    Metric("EM", _with_truth(edit_prompt), margin),
    Metric("PM", _with_truth(paraphrases), margin),
    Metric("NM", _told_apart, margin),
)
ALL: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""All metrics by name. ES, PS and NS are the papers' efficacy, paraphrase and neighbourhood scores,
EM, PM and NM the magnitudes."""


def chosen(metrics: str | Metric | Iterable[str | Metric]) -> list[Metric]:
    """Metrics by name or value.

    Parameters
    ----------
    metrics : str, Metric, or several of them

    Raises
    ------
    ValueError
        If there is no such metric, none at all, or two have one name.
    """
    given = [metrics] if isinstance(metrics, str | Metric) else list(metrics)
    unknown = [name for name in given if isinstance(name, str) and name not in ALL]
    if unknown or not given:
        named = ", ".join(map(repr, unknown))
        said = f"there is no metric {named}" if unknown else "no metric is named"
        raise ValueError(f"{said}; there are {', '.join(ALL)}")
    found = [ALL[metric] if isinstance(metric, str) else metric for metric in given]
    names = [metric.name for metric in found]
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ValueError(f"two metrics have the name {twice[0]!r}")
    return found


def judged(
    metric: Metric,
    facts: Mapping[int, Fact],
    edited: Speaker,
    unedited: Speaker,
    by: By = "tokens",
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Ask all that `metric` asks about some facts, and judge it.

    Parameters
    ----------
    metric : Metric
    facts : mapping of int to Fact
        By id.
    edited, unedited : Speaker
    by : {"tokens", "generation"}
        Where the metric has the choice.
    watch : Watch, optional
        Asked before each batch whether to stop, stage "quality".

    Returns
    -------
    DataFrame
        fact : int
        metric : str
        prompt : str
        said : str
            What the edited model said: the tokens that were likeliest, or the text that it wrote.
        known : bool or NA
            Whether the unedited model already answers the prompt: with the truth, where the prompt
            is the edit prompt or a paraphrase; else with the probe's own answer; where there is
            none, whether it has one at all (its likeliest token has a probability of 0.25 or more).
            NA where the truth is not known. Judged as the metric is: by tokens or by generation.
        value : float

    Raises
    ------
    FactError
        If a prompt or an answer has no tokens that can be measured; nothing has run then.
    """
    owners = [(i, Asked(fact, p)) for i, fact in facts.items() for p in metric.questions(fact)]
    asked = [one for _, one in owners]
    _check(edited.lm, facts, owners)
    free = metric.by_generation if by == "generation" else None
    verdicts = (free or metric.judge)(asked, edited, unedited, watch)
    known = _known(asked, unedited, says if free is None else writes, watch)
    rows = [
        (i, metric.name, one.probe.prompt, verdict.said, knew, verdict.value)
        for (i, one), verdict, knew in zip(owners, verdicts, known, strict=True)
    ]
    return table(rows)


def table(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    """Rows of `judged` as a frame, which has its columns and types even where there is no row."""
    frame = pd.DataFrame(rows, columns=["fact", "metric", "prompt", "said", "known", "value"])
    return frame.astype({"fact": "int64", "known": "boolean", "value": "float64"})


def _check(lm: LanguageModel, facts: Mapping[int, Fact], owners: list[tuple[int, Asked]]) -> None:
    places = {fact_id: place for place, fact_id in enumerate(facts)}
    problems = []
    for fact_id, one in owners:
        fact, probe = one.fact, one.probe
        answers = [probe.answer]
        if probe.kind in ("edit", "paraphrase") and fact.truth is not None:
            answers.append(fact.truth)  # asked for the column known
        field = "probes" if probe in fact.probes else _FIELDS.get(probe.kind, "probes")
        for answer in answers:
            try:
                Question.of(lm, probe.prompt, answer)
            except ValueError as error:
                problems.append(Problem(places[fact_id], field, str(error)))
    if problems:
        raise FactError(problems, list(facts.values()))


def _known(
    asked: list[Asked], unedited: Speaker, judge: Judge, watch: Watch | None
) -> list[bool | None]:
    known: list[bool | None] = [None] * len(asked)
    answered: dict[int, Asked] = {}
    open_: dict[int, Question] = {}
    for place, one in enumerate(asked):
        edited = one.probe.kind in ("edit", "paraphrase")
        answer = one.fact.truth if edited else one.probe.answer
        if answer is not None:
            answered[place] = replace(one, probe=replace(one.probe, answer=answer))
        elif not edited:
            open_[place] = Question.of(unedited.lm, one.probe.prompt)
    verdicts = judge(list(answered.values()), unedited, unedited, watch)
    for place, verdict in zip(answered, verdicts, strict=True):
        known[place] = verdict.value == 1
    for place, said in zip(open_, unedited.ask(list(open_.values()), watch), strict=True):
        known[place] = said.certainty >= SURE
    return known
