"""Facts from files: CSV, JSON, JSONL, CounterFact, zsRE, and the set that ships with the package.

read_facts         a file's facts; layouts are recognised by their fields
bundled_facts      the facts written for this package
bundled_wordings   how else one asks for what they are about, by relation
bundled_foils      how one asks for anything else
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
from itertools import count, islice
from pathlib import Path
from typing import Any

from coachhook_viz.facts import Fact, Neighbor, find_problems


@dataclass(frozen=True)
class Rejected:
    """A record that could not be read as a fact: its number, from 1, and why."""

    record: int
    reason: str


class BadRecordWarning(UserWarning):
    """Some records of a file were left out; the message numbers them and says why."""


class FactFileError(ValueError):
    """A file of facts could not be read at all; the message names it and says why."""


class FactList(list[Fact]):
    """The facts of a file, and in `rejected` the records that were left out."""

    def __init__(self, facts: Iterable[Fact] = (), rejected: Iterable[Rejected] = ()) -> None:
        super().__init__(facts)
        self.rejected = tuple(rejected)

    @property
    def records(self) -> list[int]:
        """The number of each fact's record in the file, from 1."""
        left_out = {rejected.record for rejected in self.rejected}
        numbers = (number for number in count(1) if number not in left_out)
        return list(islice(numbers, len(self)))


def read_facts(path: str | Path) -> FactList:
    """Read facts from a CSV, JSON or JSONL file.

    CSV needs the columns prompt, subject and target, and may have truth, relation, paraphrases and
    wordings (separated by ``|``) and neighbors (``prompt => answer``, separated by ``|``). JSON is
    a list of objects with the fields of `Fact`, JSONL one object a line. Prompts may hold line
    breaks, in CSV within quotes; one that ends in a line break keeps it. Records of CounterFact
    (the original layout and the flat one) and zsRE are recognised by their fields.

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
    facts, rejected = [], []
    for number, record in enumerate(records, start=1):
        try:
            fact = _with_plain_breaks(_fact_of(record))
            if problems := find_problems([fact]):
                raise ValueError("; ".join(f"{p.field}: {p.reason}" for p in problems))
            facts.append(fact)
        except (ValueError, TypeError, KeyError, IndexError) as error:
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
    return FactList(facts, rejected)


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
    for name in ("paraphrases", "neighbors", "wordings"):
        if isinstance(values.get(name), str) and "<|" in values[name]:
            raise ValueError(f"{name}: it holds '<|', but in a cell | separates texts; use JSON")
    for name in ("paraphrases", "wordings"):
        if isinstance(values.get(name), str):  # a CSV cell
            values[name] = [p.strip() for p in values[name].split("|") if p.strip()]
    if isinstance(values.get("neighbors"), str):
        pairs = [pair.partition("=>") for pair in values["neighbors"].split("|") if pair.strip()]
        values["neighbors"] = [(p.strip(), answer.strip() or None) for p, _, answer in pairs]
    stripped: dict[str, Any] = {
        k: v.strip(" \u00a0" if k == "prompt" else None) if isinstance(v, str) else v
        for k, v in values.items()
    }
    for name in ("prompt", "subject", "target"):
        stripped.setdefault(name, "")
    return Fact(**stripped)


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
    )


def _line(text: str) -> str:
    """Public sets hold stray line breaks and spaces, which mean nothing."""
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


# A record is of the first layout all of whose fields it has.
_LAYOUTS: tuple[tuple[frozenset[str], Callable[[dict[str, Any]], Fact]], ...] = (
    (frozenset({"requested_rewrite"}), _counterfact),
    (
        frozenset({"target_new", "ground_truth", "rephrase_prompt", "locality_prompt"}),
        _counterfact_flat,
    ),
    (frozenset({"src", "alt", "answers", "loc", "loc_ans"}), _zsre),
    (frozenset(), _own),
)


def _fact_of(record: Any) -> Fact:
    if not isinstance(record, dict):
        raise ValueError(f"it must be an object with named fields, not {type(record).__name__}")
    return next(convert for known, convert in _LAYOUTS if known <= set(record))(record)
