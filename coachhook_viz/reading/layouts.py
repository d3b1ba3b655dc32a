"""The layouts that facts come in, and the facts of one record.

facts_of     the facts of a record, and what was left out of it
missing      what a table's headings lack for the layout that they are of
lacking      that in words
renamed      a record whose columns have names of their own
FIELDS       the fields of a fact
NEEDED       those that it cannot do without
WHICH        how code says which column is which
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from coachhook_viz.facts import Fact, Neighbor, Probe, find_problems
from coachhook_viz.reading import public_sets
from coachhook_viz.reading.values import (
    ANSWER_NAMES,
    Odd,
    Record,
    Twice,
    absent,
    listed_objects,
    name_of,
    own_prompt,
)
from coachhook_viz.texts import slotted

FIELDS = tuple(field.name for field in fields(Fact))
NEEDED = FIELDS[:3]
WHICH = "columns={'prompt': …, 'subject': …, 'target': …}"
"""In an error, where panel and command line say it in their own way."""
SURPLUS = "cells_beyond_the_columns"
"""The name under which a table's row keeps what stands beyond its headings."""


def facts_of(record: Any, table: bool = False) -> tuple[list[Fact], list[str]]:
    """The facts of one record of whatever layout, and what was left out of it.

    Parameters
    ----------
    record : object
        Of a JSON file whatever stands there.
    table : bool
        Whether it is a row of a table.

    Returns
    -------
    list of Fact, list of str

    Raises
    ------
    Odd
        If it is no fact; the message names the fields that are wrong.
    """
    try:
        given = Record(record, table)
        if given.raw(SURPLUS) is not None:
            raise Odd("it has more cells than columns; put quotes around texts with commas")
        made = _layout(given.names).facts(given)
        return [_sound(fact, given) for fact in made], given.notes
    except RecursionError:
        raise Odd("it is nested too deeply") from None


def missing(headings: Collection[str]) -> list[str]:
    """The columns that a table lacks, by `name_of` its headings, for the layout that it is of."""
    return [name for name in _layout(headings).needs if name not in headings]


def lacking(columns: Sequence[str]) -> str:
    """``"the columns a, b are missing"``."""
    several = len(columns) > 1
    of, verb = ("columns", "are") if several else ("column", "is")
    return f"the {of} {', '.join(columns)} {verb} missing"


def renamed(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A record with the fields of a fact, which `columns` gives the names of.

    What else the record calls as a field of a fact counts, too.

    Raises
    ------
    Odd
        If one of them stands there twice.
    """
    found = {key: value for key, value in record.items() if name_of(key) in FIELDS}
    used = {*FIELDS, *(name_of(column).partition(".")[0] for column in columns.values())}
    if isinstance(record, Twice) and (twice := [n for n in record.twice if name_of(n) in used]):
        raise Odd(f"{twice[0]}: it stands there twice; keep one")
    for field, column in columns.items():
        found = {key: value for key, value in found.items() if name_of(key) != field}
        found[field] = _at(record, column)
    if SURPLUS in record:
        found[SURPLUS] = record[SURPLUS]
    return found


def check_columns(records: Iterable[Any], columns: Mapping[str, str]) -> None:
    """Refuse names of columns that no record has.

    Raises
    ------
    ValueError
    """
    lost, names = dict(columns), dict[str, None]()
    for record in records:
        if isinstance(record, Mapping):
            names |= dict.fromkeys(map(str, record))
            lost = {f: column for f, column in lost.items() if _at(record, column) is None}
        if not lost:
            return
    if names:
        raise ValueError(f"{lacking(list(lost.values()))}: it has {_listed(list(names))}")


def _at(record: Any, column: str) -> Any:
    """What stands in a column, or along a path of names with dots between them; None if nothing."""
    if not isinstance(record, Mapping):
        return None
    for wanted in (lambda key: key == column, lambda key: name_of(key) == name_of(column)):
        if (key := next(filter(wanted, record), None)) is not None:
            return record[key]
    first, _, rest = column.partition(".")
    return _at(_at(record, first), rest) if rest else None


def _sound(fact: Fact, record: Record) -> Fact:
    """The fact without those of its optional parts that something is wrong with; they are noted."""
    if not find_problems([fact]):
        return fact
    kept = Fact(fact.prompt, fact.subject, fact.target)
    if problems := find_problems([kept]):
        raise Odd("; ".join(f"{problem.field}: {problem.reason}" for problem in problems))
    for field in FIELDS[3:]:
        value = getattr(fact, field)
        for number, one in enumerate(value if isinstance(value, tuple) else (value,), start=1):
            if absent(one):
                continue
            part: Any = (*getattr(kept, field), one) if isinstance(value, tuple) else one
            tried = replace(kept, **{field: part})
            problems = find_problems([tried])
            if any(problem.field == "target" for problem in problems):
                raise Odd(f"target: {problems[0].reason}")  # it is the truth
            if not problems:
                kept = tried
                continue
            reason = re.sub(r"^number \d+: ", "", problems[0].reason)
            where = f"number {number}: " if isinstance(value, tuple) else ""
            record.note(field, f"{where}{reason}")
    return kept


def _own(record: Record) -> list[Fact]:
    found = [name for name in NEEDED if name in record]
    if len(found) < len(NEEDED):
        raise Odd(
            f"it has {_listed(record.names)}; a fact needs {', '.join(NEEDED)}: say which is which"
            f" with {WHICH}"
        )
    record.numbers_are_texts = True
    prompt, subject, target = record.texts(*NEEDED)
    subject = subject.strip()
    prompt = own_prompt(prompt)
    if "{}" not in prompt:
        prompt = slotted(prompt, subject) or prompt
    neighbors = _cells(record, "neighbors", _neighbor_cell)
    probes = _cells(record, "probes", _probe_cell)
    return [
        Fact(
            prompt,
            subject,
            target.strip(),
            record.maybe("truth"),
            _own_prompts(record, "paraphrases"),
            tuple(record.neighbors("neighbors", own_prompt) if neighbors is None else neighbors),
            record.maybe("relation") or "",
            _own_prompts(record, "wordings"),
            tuple(_own_probes(record) if probes is None else probes),
            _own_prompts(record, "foils"),
        )
    ]


def _own_prompts(record: Record, field: str) -> tuple[str, ...]:
    cells = _cells(record, field, str.strip)
    return tuple(record.prompts(field, shape=own_prompt) if cells is None else cells)


def _cells(record: Record, field: str, read: Callable[[str], Any]) -> list[Any] | None:
    """What a table's cell holds, separated by ``|``; None if it is no such cell."""
    value = record.value(field)
    if not record.table or not isinstance(value, str):
        return None
    if "<|" in value:
        record.note(field, "it holds '<|', but in a cell | separates texts; use JSON")
        return []
    return [read(plain) for text in value.split("|") if (plain := own_prompt(text)).strip()]


def _neighbor_cell(text: str) -> Neighbor:
    prompt, _, answer = text.partition("=>")
    return Neighbor(own_prompt(prompt), answer.strip() or None)


def _probe_cell(text: str) -> Probe:
    kind, _, rest = text.partition(":")
    prompt, _, answer = rest.partition("=>")
    return Probe(own_prompt(prompt), answer.strip() or None, kind.strip())


def _own_probes(record: Record) -> list[Probe]:
    found = []
    for number, one in enumerate(listed_objects(record.value("probes")), start=1):
        if absent(one):
            continue
        parts = dict(zip(("prompt", "answer", "kind"), one, strict=False)) if _is_list(one) else one
        if isinstance(parts, Mapping):
            if (part := record.part("probes", parts, number)) is None:
                continue
            prompt, kind = part.raw("prompt"), part.raw("kind")
            answer = record.optional(f"probes, answer of number {number}", part.raw(*ANSWER_NAMES))
        else:
            prompt, answer, kind = parts, None, None
        text = record.prompt("probes", prompt, number)
        if text is not None:
            found.append(Probe(own_prompt(text), answer, Probe.kind if kind is None else kind))
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


# --- which layout a record is of ---


@dataclass(frozen=True)
class _Layout:
    """A layout: the fields that tell it, those that a fact of it needs, and how it is read."""

    told_by: frozenset[str]
    needs: tuple[str, ...]
    facts: Callable[[Record], list[Fact]]


# A record is of the first layout all of whose telling fields it has.
_LAYOUTS = (
    _Layout(frozenset({"requested_rewrite"}), ("requested_rewrite",), public_sets.rewrites),
    _Layout(frozenset({"edit", "example_type"}), ("edit",), public_sets.ripple_edits),
    _Layout(frozenset({"src", "alt"}), ("subject", "src", "alt"), public_sets.zsre),
    _Layout(frozenset({"src", "answers"}), ("subject", "src", "alt"), public_sets.zsre),
    _Layout(frozenset({"update", "ans"}), ("subject", "update", "ans"), public_sets.wiki_big_edit),
    _Layout(
        frozenset({"template", "attribute"}),
        ("subject", "template", "attribute"),
        public_sets.known,
    ),
    _Layout(frozenset({"target_new"}), ("prompt", "subject", "target_new"), public_sets.flat),
    _Layout(frozenset(), NEEDED, _own),
)


def _layout(names: Collection[str]) -> _Layout:
    return next(layout for layout in _LAYOUTS if layout.told_by <= set(names))


def _listed(names: Collection[str]) -> str:
    """Names in a row; of many the first."""
    shown = [name if len(name) <= 40 else f"{name[:40]}…" for name in list(names)[:12]]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"the fields {', '.join(shown)}{more}" if names else "no field"
