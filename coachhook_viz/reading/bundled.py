"""The facts that ship with the package, and how else one asks for what they are about.

bundled_facts      the facts written for this package
bundled_wordings   how else one asks for what they are about, by relation
known_relation     which of these a prompt asks for
bundled_foils      how one asks for anything else
bundled_probes     prompts about a fact's subject in other relations
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

from coachhook_viz.facts import Fact, Probe, alike

_ENOUGH = 4  # words after the subject that tell a relation


def bundled_facts(relation: str | None = None) -> list[Fact]:
    """The facts written for this package, each with truth, paraphrases and neighbours.

    Parameters
    ----------
    relation : str, optional
        Only those of one relation.

    Raises
    ------
    ValueError
        If there is no such relation; the message lists them.
    """
    text = resources.files("coachhook_viz.data").joinpath("facts.json").read_text("utf-8")
    facts = [Fact(**record) for record in json.loads(text)]
    if relation is None:
        return facts
    chosen = [fact for fact in facts if fact.relation == relation]
    if not chosen:
        relations = sorted({fact.relation for fact in facts})
        raise ValueError(f"no relation {relation!r}; there are {', '.join(relations)}")
    return chosen


@dataclass(frozen=True)
class Wordings:
    """How one asks for a relation, each text with one ``{}`` where the subject stands.

    Attributes
    ----------
    prompts : tuple of str
        What the answer goes on from.
    questions : tuple of str
        What a user of a chat asks.
    asks : str
        What of the subject is asked for, in a word.
    """

    prompts: tuple[str, ...]
    questions: tuple[str, ...]
    asks: str


@cache
def bundled_wordings() -> Mapping[str, Wordings]:
    """How else one asks for the relations of `bundled_facts`.

    By their names, and by the Wikidata properties that CounterFact names.
    """
    text = resources.files("coachhook_viz.data").joinpath("wordings.json").read_text("utf-8")
    return {
        name: Wordings(
            tuple(known["prompts"]), tuple(known["questions"]), known.get("asks", relation)
        )
        for relation, known in json.loads(text).items()
        for name in (relation, known.get("property"))
        if name is not None
    }


def known_relation(prompt: str) -> str:
    """The relation of `bundled_wordings` that a prompt with one ``{}`` asks for; "" if unknown.

    It reads like one of the known prompts or, if it begins with its subject, goes on from there
    like those of one relation.
    """
    whole, endings = _relations_asked()
    before, _, after = prompt.partition("{}")
    plain = alike(before) in ("", "the", "a", "an")
    return whole.get(alike(prompt)) or (endings.get(alike(after), "") if plain else "")


@cache
def _relations_asked() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Relations by prompt, and by what stands after the subject where that says enough."""
    texts = [(fact.prompt, fact.relation) for fact in bundled_facts()]
    names: dict[Wordings, str] = {}
    for relation, known in bundled_wordings().items():
        name = names.setdefault(known, relation)  # not the property that has the same
        texts += [(text, name) for text in known.prompts + known.questions]
    whole: dict[str, str] = {}
    endings: dict[str, set[str]] = {}
    for text, relation in texts:
        whole.setdefault(alike(text), relation)
        endings.setdefault(alike(text.partition("{}")[2]), set()).add(relation)
    return whole, {
        ending: relations.pop()
        for ending, relations in endings.items()
        if len(relations) == 1 and len(ending.split()) >= _ENOUGH
    }


@cache
def bundled_foils(relation: str = "") -> Wordings:
    """Prompts and questions of which most ask for something else than `relation`.

    About any subject, and for a known relation about subjects of its kind.
    """
    text = resources.files("coachhook_viz.data").joinpath("foils.json").read_text("utf-8")
    foils = json.loads(text)
    of_kind = [g["prompts"] for g in foils["groups"] if relation in g["relations"]]
    return Wordings((*foils["prompts"], *chain(*of_kind)), tuple(foils["questions"]), "")


def bundled_probes(fact: Fact) -> tuple[Probe, ...]:
    """Prompts about the subject of `fact` in relations that its edit must leave alone.

    They are chosen by `Fact.relation`, the bundled facts' or a Wikidata property that CounterFact
    names; what hangs on the edited relation is left out. None for an unknown relation. They have
    no answers: they hold for any subject, so the unedited model says what has to stay.

    Parameters
    ----------
    fact : Fact

    Returns
    -------
    tuple of Probe
        Of the kind "same subject".
    """
    return tuple(
        Probe(entry["prompt"].replace("{}", fact.subject))
        for group in _probe_groups()
        if fact.relation in group["relations"]
        for entry in group["prompts"]
        if fact.relation not in entry["hangs_on"]
    )


@cache
def _probe_groups() -> list[dict[str, Any]]:
    text = resources.files("coachhook_viz.data").joinpath("probes.json").read_text("utf-8")
    groups: list[dict[str, Any]] = json.loads(text)
    return groups
