"""What a person wants changed: facts, their checks, and how to read them from files.

Fact, Neighbor     a change, and what must not change with it
validate           raises FactError, which names every fact and field that is wrong
find_problems      the same findings as a list, for a form that is being typed into
find_conflicts     facts that ask the same and want different answers
read_facts         CSV, JSON, JSONL; CounterFact and zsRE are recognised by their fields
bundled_facts      the set that ships with the package
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

LONGEST = 2000  # characters of one field


@dataclass(frozen=True)
class Neighbor:
    """A prompt whose answer an edit must leave alone.

    Attributes
    ----------
    prompt : str
    answer : str or None
        Its answer now. None: whatever token the unedited model says next.
    """

    prompt: str
    answer: str | None = None


@dataclass(frozen=True)
class Fact:
    """A change to make: after `prompt` with `subject`, the model should say `target`.

    Attributes
    ----------
    prompt : str
        With one ``{}`` where the subject stands, as in "The capital of {} is".
    subject, target : str
    truth : str or None
        What the model says now, as far as you know.
    paraphrases : tuple of str
        Other wordings, subject filled in, that should get the target too.
    neighbors : tuple of Neighbor
        Prompts that should not change.
    relation : str
        What kind of fact it is, to sort by.
    """

    prompt: str
    subject: str
    target: str
    truth: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    relation: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "paraphrases", tuple(self.paraphrases))
        object.__setattr__(self, "neighbors", tuple(map(_neighbor, self.neighbors)))

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.prompt.replace("{}", self.subject)

    def __str__(self) -> str:
        return f"{self.text} → {self.target}"


def _neighbor(given: Any) -> Neighbor:
    if isinstance(given, Neighbor):
        return given
    if isinstance(given, dict):
        return Neighbor(given["prompt"], given.get("answer"))
    return Neighbor(given) if isinstance(given, str) else Neighbor(*given)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field of one fact: its place in the list, the field, the reason."""

    index: int
    field: str
    reason: str


class FactError(ValueError):
    """Some facts cannot be edited as they are.

    Attributes
    ----------
    problems : tuple of Problem
    """

    def __init__(self, problems: Iterable[Problem], facts: Sequence[Fact]) -> None:
        self.problems = tuple(problems)
        lines = []
        for problem in self.problems:
            name = ""
            if problem.index < len(facts):
                fact = facts[problem.index]
                name = f"fact {problem.index + 1} ({fact.subject!r} in {fact.prompt!r}), "
                name = name if len(name) < 200 else f"{name[:200]}…, "
            lines.append(f"{name}{problem.field}: {problem.reason}")
        super().__init__("; ".join(lines))


def find_problems(facts: Sequence[Fact]) -> list[Problem]:
    """Everything that can be said against the facts one by one, without a model."""
    return [
        Problem(index, field, reason)
        for index, fact in enumerate(facts)
        for field, reason in _problems_of(fact)
    ]


def _problems_of(fact: Fact) -> Iterable[tuple[str, str]]:
    texts: list[tuple[str, Any]] = [(n, getattr(fact, n)) for n in ("prompt", "subject", "target")]
    texts += [("truth", fact.truth)] if fact.truth is not None else []
    texts += [("paraphrases", text) for text in fact.paraphrases]
    for neighbor in fact.neighbors:
        texts.append(("neighbors", neighbor.prompt))
        texts += [("neighbors", neighbor.answer)] if neighbor.answer is not None else []
    wrong = [(field, reason) for field, text in texts if (reason := _wrong_with(text))]
    yield from wrong
    if any(field in ("prompt", "subject", "target", "truth") for field, _ in wrong):
        return
    slots = fact.prompt.count("{}")
    if slots != 1:
        yield "prompt", f"it has {slots} '{{}}'; write exactly one, where the subject stands" + (
            f" (here: {fact.prompt.replace(fact.subject, '{}', 1)!r})"
            if slots == 0 and fact.subject in fact.prompt
            else ""
        )
    for field in ("prompt", "paraphrases", "neighbors"):
        if any(name == field and text != text.rstrip() for name, text in texts):
            yield field, "it ends in a space; the answer brings its own, so leave it out"
    if "{" in fact.subject or "}" in fact.subject:
        yield "subject", "it holds a brace; '{}' belongs into the prompt only"
    if fact.subject != fact.subject.strip():
        yield "subject", "it begins or ends with a space; leave it out"
    if fact.truth is not None and fact.target.strip().lower() == fact.truth.strip().lower():
        yield "target", f"it equals the truth, {fact.truth!r}: nothing would change"


def _wrong_with(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"it must be text, not {type(text).__name__}"
    if not text.strip():
        return "it is empty"
    if len(text) > LONGEST:
        return f"it has {len(text)} characters; shorten it to {LONGEST} or fewer"
    for character in text:
        # Letters of any script and emoji (whose joiners are of class Cf) may stand anywhere.
        hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        if hidden or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
            return f"it holds the control character U+{ord(character):04X}; take it out"
    if not any(unicodedata.category(c)[0] not in "ZC" for c in text):
        return "it holds no visible character"
    return None


def find_conflicts(facts: Sequence[Fact]) -> list[tuple[int, int]]:
    """Pairs of places in the list with the same prompt and subject but another target."""
    asked: dict[tuple[str, str], list[int]] = {}
    conflicts = []
    for index, fact in enumerate(facts):
        before = asked.setdefault((fact.prompt, fact.subject), [])
        conflicts += [(i, index) for i in before if facts[i].target.strip() != fact.target.strip()]
        before.append(index)
    return conflicts


def validate(facts: Sequence[Fact]) -> None:
    """Check a batch of facts that is to be edited at once.

    Raises
    ------
    FactError
        Naming every fact and field that is wrong: see `find_problems`; an empty batch; two facts
        of it that ask the same.
    """
    if not facts:
        raise FactError([Problem(0, "facts", "the batch is empty; give at least one fact")], facts)
    problems = find_problems(facts)
    if not problems:
        seen: dict[tuple[str, str], int] = {}
        for index, fact in enumerate(facts):
            first = seen.setdefault((fact.prompt, fact.subject), index)
            if first != index:
                same = facts[first].target.strip() == fact.target.strip()
                reason = (
                    f"fact {first + 1} of this batch asks the same and wants"
                    f" {'the same' if same else repr(facts[first].target)}: keep one of them"
                    f"{'' if same else ', or apply them in different rounds'}"
                )
                problems.append(Problem(index, "target", reason))
    if problems:
        raise FactError(problems, facts)


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


def read_facts(path: str | Path) -> FactList:
    """Read facts from a CSV, JSON or JSONL file.

    CSV needs the columns prompt, subject and target, and may have truth, relation, paraphrases
    (separated by ``|``) and neighbors (``prompt => answer``, separated by ``|``). JSON is a list
    of objects with the fields of `Fact`, JSONL one object a line. Records of CounterFact (the
    original layout and the flat one) and zsRE are recognised by their fields.

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
    facts, rejected = [], []
    for number, record in enumerate(records, start=1):
        try:
            fact = _fact_of(record)
            if problems := list(_problems_of(fact)):
                raise ValueError("; ".join(f"{field}: {reason}" for field, reason in problems))
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


def _csv_records(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = set(reader.fieldnames or ())
    missing = {"prompt", "subject", "target"} - columns
    if missing:
        raise ValueError(
            f"the column {', '.join(sorted(missing))} is missing: the first line must name the"
            f" columns prompt, subject, target and, if you like, {', '.join(_OPTIONAL)}"
        )
    try:
        return [{k: v for k, v in row.items() if k in _FIELDS and v} for row in reader]
    except csv.Error as error:
        raise ValueError(f"malformed CSV near line {reader.line_num}: {error}") from None


def _json_records(text: str) -> list[Any]:
    records = json.loads(text)
    if isinstance(records, dict) and isinstance(records.get("facts"), list):
        records = records["facts"]
    if not isinstance(records, list):
        raise ValueError("it must hold a list of records, or an object with a list 'facts'")
    return records


def _jsonl_records(text: str) -> list[Any]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    records = []
    for number, line in lines:
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
    return records


_FIELDS = tuple(field.name for field in fields(Fact))
_OPTIONAL = _FIELDS[3:]


def _with_slot(prompt: str, subject: str) -> str:
    if subject not in prompt:
        raise ValueError(f"subject: {subject!r} is not in the prompt {prompt!r}")
    return prompt.replace(subject, "{}", 1)


def _own(record: dict[str, Any]) -> Fact:
    values = {name: record[name] for name in _FIELDS if record.get(name) is not None}
    if isinstance(values.get("paraphrases"), str):  # a CSV cell
        values["paraphrases"] = [p.strip() for p in values["paraphrases"].split("|") if p.strip()]
    if isinstance(values.get("neighbors"), str):
        pairs = [pair.partition("=>") for pair in values["neighbors"].split("|") if pair.strip()]
        values["neighbors"] = [(p.strip(), answer.strip() or None) for p, _, answer in pairs]
    stripped = {k: v.strip() if isinstance(v, str) else v for k, v in values.items()}
    for name in ("prompt", "subject", "target"):
        stripped.setdefault(name, "")
    return Fact(**stripped)


def _counterfact_flat(record: dict[str, Any]) -> Fact:
    neighbor = Neighbor(record["locality_prompt"].strip(), record["locality_ground_truth"])
    return Fact(
        _with_slot(record["prompt"].strip(), record["subject"]),
        record["subject"],
        record["target_new"],
        record["ground_truth"],
        (record["rephrase_prompt"].strip(),),
        (neighbor,),
    )


def _counterfact(record: dict[str, Any]) -> Fact:
    rewrite = record["requested_rewrite"]
    truth = rewrite["target_true"]["str"]
    return Fact(
        rewrite["prompt"].strip(),
        rewrite["subject"],
        rewrite["target_new"]["str"],
        truth,
        tuple(text.strip() for text in record.get("paraphrase_prompts", ())),
        tuple(Neighbor(text.strip(), truth) for text in record.get("neighborhood_prompts", ())),
        rewrite.get("relation_id", ""),
    )


def _zsre(record: dict[str, Any]) -> Fact:
    question = record["loc"].removeprefix("nq question: ").strip()
    return Fact(
        _with_slot(record["src"].strip(), record["subject"]),
        record["subject"],
        record["alt"],
        record["answers"][0],
        (record["rephrase"].strip(),),
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
