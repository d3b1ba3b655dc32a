"""Facts from files: CSV, JSON, JSONL, six public layouts, and the set that ships with the package.

read_facts         a file's facts; layouts are recognised by their fields
bundled_facts      the facts written for this package
bundled_wordings   how else one asks for what they are about, by relation
bundled_foils      how one asks for anything else
bundled_probes     prompts about a fact's subject in other relations
"""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from coachhook_viz.errors import BadRecordWarning as BadRecordWarning
from coachhook_viz.errors import FactFileError as FactFileError
from coachhook_viz.facts import Fact, Neighbor, Probe, alike, find_problems


@dataclass(frozen=True)
class Rejected:
    """A record that could not be read as a fact: its number, from 1, and why."""

    record: int
    reason: str


class FactList(list[Fact]):
    """The facts of a file.

    Attributes
    ----------
    rejected : tuple of Rejected
        The records that were left out.
    records : list of int
        The number of each fact's record in the file, from 1; a record can hold several facts.
    """

    def __init__(
        self,
        facts: Iterable[Fact] = (),
        rejected: Iterable[Rejected] = (),
        records: Iterable[int] = (),
    ) -> None:
        super().__init__(facts)
        self.rejected = tuple(rejected)
        self.records = list(records)


def read_facts(path: str | Path) -> FactList:
    """Read facts from a CSV, JSON or JSONL file.

    CSV needs the columns prompt, subject and target, and may have truth, relation, paraphrases and
    wordings (separated by ``|``), neighbors (``prompt => answer``, separated by ``|``) and probes
    (``kind: prompt => answer``, separated by ``|``). JSON is a list of objects with the fields of
    `Fact`, JSONL one object a line. Prompts may hold line breaks, in CSV within quotes; one that
    ends in a line break keeps it. Records of CounterFact (the original layout and the flat one),
    zsRE, RippleEdits, MQuAKE and KnowEdit are recognised by their fields. A MQuAKE record gives one
    fact for each of its edits; its questions stand with the last of them.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    FactList
        The good records; the others are in its `rejected`.

    Raises
    ------
    FactFileError
        If the file cannot be read, is of another kind, or is malformed.

    Warns
    -----
    BadRecordWarning
        If some records were left out.
    """
    path = Path(path)
    readers = {".csv": _csv_records, ".json": _json_records, ".jsonl": _jsonl_records}
    if path.suffix.lower() not in readers:
        raise FactFileError(f"{path.name}: use a file that ends in {', '.join(readers)}")
    try:
        records = readers[path.suffix.lower()](path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise FactFileError(f"{path.name}: it is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise FactFileError(f"{path.name}: it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FactFileError(f"{path.name}: {error}") from None
    except RecursionError:
        raise FactFileError(f"{path.name}: it is nested too deeply") from None
    facts: list[Fact] = []
    rejected: list[Rejected] = []
    numbers: list[int] = []
    for number, record in enumerate(records, start=1):
        try:
            found = [_with_plain_breaks(fact) for fact in _facts_of(record)]
            if problems := find_problems(found):
                raise ValueError("; ".join(f"{p.field}: {p.reason}" for p in problems))
            facts += found
            numbers += [number] * len(found)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
            rejected.append(Rejected(number, reason))
    if rejected:
        first = "; ".join(f"record {r.record}: {r.reason}" for r in rejected[:5])
        more = f" and {len(rejected) - 5} more, see .rejected" if len(rejected) > 5 else ""
        warnings.warn(
            f"{path.name}: {len(rejected)} of {len(records)} records left out: {first}{more}",
            BadRecordWarning,
            stacklevel=2,
        )
    return FactList(facts, rejected, numbers)


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
    """

    prompts: tuple[str, ...]
    questions: tuple[str, ...]


@cache
def bundled_wordings() -> Mapping[str, Wordings]:
    """How else one asks for the relations of `bundled_facts`, by their names."""
    text = resources.files("coachhook_viz.data").joinpath("wordings.json").read_text("utf-8")
    return {
        relation: Wordings(tuple(known["prompts"]), tuple(known["questions"]))
        for relation, known in json.loads(text).items()
    }


@cache
def bundled_foils() -> Wordings:
    """Prompts and questions about any subject, most of which ask for something else than a fact."""
    text = resources.files("coachhook_viz.data").joinpath("foils.json").read_text("utf-8")
    foils = json.loads(text)
    return Wordings(tuple(foils["prompts"]), tuple(foils["questions"]))


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


def _csv_records(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_SURPLUS, strict=True)
    columns = set(reader.fieldnames or ())
    missing = {"prompt", "subject", "target"} - columns
    if missing:
        raise ValueError(
            f"the column {', '.join(sorted(missing))} is missing: the first line must name the"
            f" columns prompt, subject, target and, if you like, {', '.join(_OPTIONAL)}"
        )
    try:
        return [{k: v for k, v in row.items() if k in (*_FIELDS, _SURPLUS) and v} for row in reader]
    except csv.Error as error:
        raise ValueError(f"malformed CSV near line {reader.line_num + 1}: {error}") from None


def _json_records(text: str) -> list[Any]:
    records = json.loads(text)
    if isinstance(records, dict) and isinstance(records.get("facts"), list):
        records = records["facts"]
    if not isinstance(records, list):
        raise ValueError("it must hold a list of records, or an object with a list 'facts'")
    return records


def _jsonl_records(text: str) -> list[Any]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    records = []
    for number, line in lines:
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
    return records


_SURPLUS = "cells beyond the columns"
_FIELDS = tuple(field.name for field in fields(Fact))
_OPTIONAL = _FIELDS[3:]


def _with_slot(prompt: str, subject: str) -> str:
    whole_words = rf"(?<!\w){re.escape(subject)}(?!\w)"
    found = re.search(whole_words, prompt) or re.search(re.escape(subject), prompt)
    if found is None:
        raise ValueError(f"subject: {subject!r} is not in the prompt {prompt!r}")
    return prompt[: found.start()] + "{}" + prompt[found.end() :]


def _own(record: dict[str, Any]) -> Fact:
    if _SURPLUS in record:
        raise ValueError("it has more cells than columns; put quotes around texts with commas")
    values = {name: record[name] for name in _FIELDS if record.get(name) is not None}
    for name in ("paraphrases", "neighbors", "wordings", "probes"):
        if isinstance(values.get(name), str) and "<|" in values[name]:
            raise ValueError(f"{name}: it holds '<|', but in a cell | separates texts; use JSON")
    for name in ("paraphrases", "wordings"):
        if isinstance(values.get(name), str):  # a CSV cell
            values[name] = [p.strip() for p in values[name].split("|") if p.strip()]
    if isinstance(values.get("neighbors"), str):
        pairs = [pair.partition("=>") for pair in values["neighbors"].split("|") if pair.strip()]
        values["neighbors"] = [(p.strip(), answer.strip() or None) for p, _, answer in pairs]
    if isinstance(values.get("probes"), str):
        values["probes"] = [_probe_cell(text) for text in values["probes"].split("|")]
    stripped: dict[str, Any] = {
        k: v.strip(" \u00a0" if k == "prompt" else None) if isinstance(v, str) else v
        for k, v in values.items()
    }
    for name in ("prompt", "subject", "target"):
        stripped.setdefault(name, "")
    return Fact(**stripped)


def _probe_cell(text: str) -> Probe:
    kind, _, rest = text.partition(":")
    prompt, _, answer = rest.partition("=>")
    return Probe(prompt.strip(), answer.strip() or None, kind.strip())


def _with_plain_breaks(fact: Fact) -> Fact:
    """The fact with its prompts' line breaks as one character, whichever system wrote them."""

    def plain(text: Any) -> Any:
        return re.sub("\r\n?", "\n", text) if isinstance(text, str) else text

    return replace(
        fact,
        prompt=plain(fact.prompt),
        paraphrases=tuple(map(plain, fact.paraphrases)),
        neighbors=tuple(Neighbor(plain(n.prompt), n.answer) for n in fact.neighbors),
        wordings=tuple(map(plain, fact.wordings)),
        probes=tuple(replace(probe, prompt=plain(probe.prompt)) for probe in fact.probes),
    )


def _line(text: Any) -> str:
    """Public sets hold stray line breaks and spaces, which mean nothing."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} stands where a text belongs")
    return " ".join(text.split())


def _counterfact_flat(record: dict[str, Any]) -> Fact:
    return Fact(
        _with_slot(_line(record["prompt"]), record["subject"]),
        record["subject"],
        record["target_new"],
        record["ground_truth"],
        (_line(record["rephrase_prompt"]),),
        (Neighbor(_line(record["locality_prompt"]), record["locality_ground_truth"]),),
    )


def _counterfact(record: dict[str, Any]) -> Fact:
    rewrite = record["requested_rewrite"]
    truth = rewrite["target_true"]["str"]
    return Fact(
        _line(rewrite["prompt"]),
        rewrite["subject"],
        rewrite["target_new"]["str"],
        truth,
        tuple(map(_line, record.get("paraphrase_prompts", ()))),
        tuple(Neighbor(_line(text), truth) for text in record.get("neighborhood_prompts", ())),
        rewrite.get("relation_id", ""),
    )


def _zsre(record: dict[str, Any]) -> Fact:
    question = _line(record["loc"].removeprefix("nq question: "))
    return Fact(
        _with_slot(_line(record["src"]), record["subject"]),
        record["subject"],
        record["alt"],
        record["answers"][0],
        (_line(record["rephrase"]),),
        (Neighbor(question, record["loc_ans"]),),
    )


_PROBED = {
    "Relation_Specificity": "same subject",
    "Relation_Specifity": "same subject",  # some copies spell it so
    "Forgetfulness": "same subject",
    "Logical_Generalization": "portability",
    "Compositionality_I": "portability",
    "Compositionality_II": "portability",
    "Reasoning": "portability",
    "Subject_Aliasing": "portability",
}
"""The kind of `Probe` by the name that RippleEdits and KnowEdit give to a list of tests."""


def _probes(named: Iterable[tuple[str, Any, Any]]) -> tuple[Probe, ...]:
    """Probes from names of tests, prompts and answers; each prompt once, those without answer not.

    RippleEdits repeats prompts, and has tests whose answer nobody knows.
    """
    found: dict[tuple[str, str], Probe] = {}
    for name, prompt, given in named:
        answer = _first(given)
        if name in _PROBED and answer.strip():
            probe = Probe(_line(prompt), _line(answer), _PROBED[name])
            found.setdefault((probe.kind, alike(probe.prompt)), probe)
    return tuple(found.values())


def _first(given: Any) -> str:
    """The first of an answer's spellings, however deep in lists; empty if there is none."""
    while isinstance(given, list):
        given = given[0] if given else ""
    return str(given)


# RippleEdits gives whole sentences; subject and target are told from the frames it writes them in.
_FRAMES = (
    r"The number of children (?P<subject>.+?) has is",
    r"The name of the award (?P<subject>.+?) won is",
    r"The (?:names? of the )?(?:RELATIONs?|\w+(?: \w+)*?) (?:of|in|which) (?P<subject>.+?)"
    r"(?: is (?:associated with|a member of|part of|the capital of)| plays in)? (?:is|are)",
    r"(?P<subject>.+?) (?:follows|is followed by)",
)


def _sentence(edit: dict[str, Any]) -> tuple[str, str, str]:
    """Prompt with the slot, subject and target of a RippleEdits sentence."""
    text = _line(edit["prompt"])
    relation = re.escape(edit["relation"].lower().replace("_", " "))
    for frame in _FRAMES:
        found = re.fullmatch(frame.replace("RELATION", relation) + r" (?P<target>.+?)\.?", text)
        if found:
            start, stop = found.span("subject")
            prompt = text[:start] + "{}" + text[stop : found.start("target")].rstrip()
            return prompt, found["subject"], found["target"]
    raise ValueError(f"edit: no subject can be told in {text!r}")


def _ripple_edits(record: dict[str, Any]) -> Fact:
    edit = record["edit"]
    prompt, subject, target = _sentence(edit)
    before = edit.get("original_fact", edit.get("previous_fact"))  # files and the authors' code
    tests = [
        (name, query["prompt"], [answer["value"] for answer in query["answers"]])
        for name in _PROBED
        for test in record.get(name, ())
        for query in test["test_queries"]
    ]
    return Fact(
        prompt,
        subject,
        target,
        None if before is None else _sentence(before)[2],
        relation=edit["relation"],
        probes=_probes(tests),
    )


def _knowedit(record: dict[str, Any]) -> Fact:
    rephrased = record.get("rephrase_prompt", record.get("rephrase", []))
    tests = [
        (name, test["prompt"], test["ground_truth"])
        for part in ("portability", "locality")
        for name, given in (record.get(part) or {}).items()
        for test in given
    ]
    return Fact(
        _with_slot(_line(record["prompt"]), record["subject"]),
        record["subject"],
        record["target_new"],
        _first(record.get("ground_truth", "")) or None,
        tuple(map(_line, [rephrased] if isinstance(rephrased, str) else rephrased)),
        probes=_probes(tests),
    )


def _mquake(record: dict[str, Any]) -> list[Fact]:
    facts = [
        Fact(
            _line(edit["prompt"]),
            edit["subject"],
            edit["target_new"]["str"],
            edit["target_true"]["str"],
            (_line(edit["question"]),),
            relation=edit.get("relation_id", ""),
        )
        for edit in record["requested_rewrite"]
    ]
    if not facts:
        raise ValueError("requested_rewrite: it is empty")
    # They follow from all edits of the record: only with the last one can they be answered.
    tests = [("Reasoning", question, record["new_answer"]) for question in record["questions"]]
    return [*facts[:-1], replace(facts[-1], probes=_probes(tests))]


# A record is of the first layout all of whose fields it has.
_LAYOUTS: tuple[tuple[frozenset[str], Callable[[dict[str, Any]], Fact | list[Fact]]], ...] = (
    (frozenset({"requested_rewrite", "questions", "new_answer"}), _mquake),
    (frozenset({"requested_rewrite"}), _counterfact),
    (frozenset({"example_type", "edit"}), _ripple_edits),
    (frozenset({"prompt", "subject", "target_new", "locality"}), _knowedit),
    (
        frozenset({"target_new", "ground_truth", "rephrase_prompt", "locality_prompt"}),
        _counterfact_flat,
    ),
    (frozenset({"src", "alt", "answers", "loc", "loc_ans"}), _zsre),
    (frozenset(), _own),
)


def _facts_of(record: Any) -> list[Fact]:
    if not isinstance(record, dict):
        raise ValueError(f"it must be an object with named fields, not {type(record).__name__}")
    found = next(convert for known, convert in _LAYOUTS if known <= set(record))(record)
    return found if isinstance(found, list) else [found]
