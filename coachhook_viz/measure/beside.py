"""What is asked to see what else an edit has changed.

Beside        one prompt, what it is asked for, and on whose account
questions     those of some facts: own, same subject, neighbours, bundled facts
drawn         at most so many of them, of each kind alike
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from coachhook_viz.editing.wordings import relation_of
from coachhook_viz.facts import Fact, alike
from coachhook_viz.measure.about import stands
from coachhook_viz.measure.metrics import neighbours, paraphrases, portability, same_subject
from coachhook_viz.reading import bundled_facts, bundled_foils, bundled_wordings

KINDS = (
    "edit",
    "paraphrase",
    "portability",
    "same subject",
    "neighbour",
    "bundled",
    "text",
)  # in the order of the rows
CHANGE = ("edit", "paraphrase", "portability")  # what should change


@dataclass(frozen=True)
class Beside:
    """One prompt.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    prompt : str
    fact : int or None
        Id of the fact that it is asked on account of.
    subject : str
        Whose last token its key is read at; empty: the prompt's last token.
    made : bool
        Whether it was made from a template, so that it counts only where the unedited model has
        an answer.
    """

    kind: str
    prompt: str
    fact: int | None = None
    subject: str = ""
    made: bool = False


def questions(facts: Mapping[int, Fact], edited: Sequence[Fact]) -> list[Beside]:
    """All prompts about some facts, each once, by kind.

    Parameters
    ----------
    facts : mapping of int to Fact
        By id.
    edited : sequence of Fact
        All facts in force: what any of them asks is no neighbour of another.
    """
    found: list[Beside] = []
    named = [fact.subject for fact in edited]
    subjects = {alike(subject) for subject in named}
    bundled = [fact for fact in bundled_facts() if alike(fact.subject) not in subjects]
    for fact_id, fact in facts.items():
        found.append(Beside("edit", fact.text, fact_id, fact.subject))
        for kind, probes in (("paraphrase", paraphrases), ("portability", portability)):
            found += [Beside(kind, p.prompt, fact_id, fact.subject) for p in probes(fact)]
        found += _same_subject(fact_id, fact)
        found += [Beside("neighbour", probe.prompt, fact_id) for probe in neighbours(fact)]
        relation = relation_of(fact)
        known = bundled_wordings().get(relation)
        forms = (fact.prompt, *(() if known is None else known.prompts))
        found += [
            Beside("neighbour", form.replace("{}", b.subject), fact_id, b.subject, True)
            for form in forms
            for b in bundled
            if relation and b.relation == relation
        ]
    found += [Beside("bundled", fact.text, None, fact.subject) for fact in bundled]
    found += [
        Beside("bundled", prompt, None, "", True)
        for fact in bundled
        for prompt in (*fact.paraphrases, *(neighbor.prompt for neighbor in fact.neighbors))
        if not any(stands(prompt, subject) for subject in named)
    ]
    asked = {alike(text) for fact in edited for text in (*fact.texts, *fact.paraphrases)}
    once: dict[str, Beside] = {}
    for one in found:
        if one.kind in CHANGE or alike(one.prompt) not in asked:
            once.setdefault(alike(one.prompt), one)
    return sorted(once.values(), key=lambda one: KINDS.index(one.kind))


def _same_subject(fact_id: int, fact: Fact) -> list[Beside]:
    """The subject in other relations: own probes, templates of its relation, or of any subject."""
    own = [probe for probe in fact.probes if probe.kind == "same subject"]
    if own:
        return [Beside("same subject", probe.prompt, fact_id, fact.subject) for probe in own]
    made = [probe.prompt for probe in same_subject(fact)]
    if not made:
        made = [text.replace("{}", fact.subject) for text in bundled_foils().prompts]
    return [Beside("same subject", text, fact_id, fact.subject, True) for text in made]


def drawn(asked: Sequence[Beside], budget: int) -> list[Beside]:
    """At most `budget` of them: of each kind in turn, those whose hash is smallest."""
    if len(asked) <= budget:
        return list(asked)
    by_kind = [
        sorted((one for one in asked if one.kind == kind), key=_hash)
        for kind in KINDS
        if any(one.kind == kind for one in asked)
    ]
    turns = [one for turn in zip_longest(*by_kind) for one in turn if one is not None]
    kept = set(turns[:budget])
    return [one for one in asked if one in kept]


def _hash(one: Beside) -> bytes:
    return hashlib.sha256(one.prompt.encode()).digest()
