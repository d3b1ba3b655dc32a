"""The facts of a file, of records or of a data frame.

read_facts    the good ones; what was left out is said
columns_of    which columns are which, as a person writes it
FactList      those, with what was left out
left_out      that in words
Rejected      a record that is no fact, or a part of one that was left out
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from coachhook_viz.errors import BadRecordWarning, FactFileError
from coachhook_viz.facts import Fact
from coachhook_viz.reading.documents import listed, of_json, rows_of
from coachhook_viz.reading.layouts import FIELDS, check_columns, facts_of, renamed
from coachhook_viz.reading.records import Columns, Records, decoded
from coachhook_viz.reading.tables import of_sheet, of_table, refuse_twice
from coachhook_viz.reading.values import Odd, called
from coachhook_viz.warned import warn

COLUMNS = "prompt = question, target = answer"
"""How `columns_of` wants it, for example."""
_SHOWN = 5  # reasons that a warning names
_READERS: dict[str, Callable[[bytes, Columns | None], Records]] = {
    ".csv": of_table,
    ".tsv": partial(of_table, separators="\t,;"),
    ".txt": of_table,
    ".json": of_json,
    ".jsonl": of_json,
    ".ndjson": of_json,
    ".xlsx": of_sheet,
}
"""By the ending of a file's name."""
_JSON = re.compile(r"""\s*(\[\s*[\[{"'\]]|\{\s*["'}])""")
"""How JSON begins; "[Facts of May]" is a title."""


@dataclass(frozen=True)
class Rejected:
    """A record, by its number from 1, that is no fact, or has a part that was left out; and why."""

    record: int
    reason: str


class FactList(list[Fact]):
    """The facts of a file.

    Attributes
    ----------
    rejected : tuple of Rejected
        The records that were left out.
    omitted : tuple of Rejected
        What was left out of records that are facts without it: optional fields, or parts of them.
    records : list of int
        The number of each fact's record in the file, from 1; a record can hold several facts.
    notes : tuple of str
        What else is to be said of the file.
    """

    def __init__(
        self,
        facts: Iterable[Fact] = (),
        rejected: Iterable[Rejected] = (),
        records: Iterable[int] = (),
        omitted: Iterable[Rejected] = (),
        notes: Iterable[str] = (),
    ) -> None:
        super().__init__(facts)
        self.rejected = tuple(rejected)
        self.records = list(records)
        self.omitted = tuple(omitted)
        self.notes = tuple(notes)


def read_facts(source: Any, columns: Mapping[str, str] | None = None) -> FactList:
    """Read facts from a table or a JSON file.

    Tables are CSV and TSV, separated by commas, semicolons, tabs or another sign, and XLSX where
    openpyxl is installed; their first line names the columns, in any case, and a title may stand
    above it. JSON is a list of objects, or one object a line. The columns or fields are those of
    `Fact`: prompt, subject and target, and if you like truth, relation, paraphrases, wordings and
    foils (in a table separated by ``|``), neighbors (``prompt => answer``, separated by ``|``) and
    probes (``kind: prompt => answer``, separated by ``|``). Where a prompt has no ``{}``, the
    subject has to stand in it. Prompts may hold line breaks, in a table within quotes; one that
    ends in a line break keeps it.

    The layouts of CounterFact (nested and flat), AlphaEdit, EasyEdit, zsRE, KnowEdit, MQuAKE,
    RippleEdits and WikiBigEdit are recognised by their fields, in tables, too; known_1000 where a
    field target_new is added. A MQuAKE record gives one fact for each of its edits; its questions
    stand with the last of them.

    Parameters
    ----------
    source : str, Path, list of dict or DataFrame
        A file, which ends in .csv, .tsv, .txt, .json, .jsonl, .ndjson or .xlsx; or its records, in
        any container that a JSON file may hold them in.
    columns : mapping of str to str, optional
        For any other layout: what fields of a fact are called there, as in ``{"prompt": "question",
        "subject": "entity", "target": "new answer"}``; a field within others with dots between the
        names.

    Returns
    -------
    FactList
        The good records; the others are in its `rejected`.

    Raises
    ------
    FactFileError
        If the file cannot be read, is of another kind, is malformed or empty, or lacks a column.

    Warns
    -----
    BadRecordWarning
        If some records, or optional fields of records, were left out.
    """
    name = "the records"
    try:
        chosen = _fields_first(columns)
        if isinstance(source, str | os.PathLike):
            name = Path(source).name or "the file"
            path = _path(str(source))
            data = path.read_bytes()
            if not data.strip():
                raise ValueError("it is empty")
            records = _reader(path, data)(data, chosen)
        else:
            records = _given(source, chosen)
        found = _read(records, chosen)
    except OSError as error:
        raise FactFileError(f"{name}: it cannot be read: {error.strerror}") from None
    except RecursionError:
        raise FactFileError(f"{name}: it is nested too deeply") from None
    except ValueError as error:
        raise FactFileError(f"{name}: {error}") from None
    if said := _warning(found):
        warn(f"{name}: {said}", BadRecordWarning, stacklevel=2)
    return found


def columns_of(text: str) -> dict[str, str]:
    """`columns` of `read_facts` from a text as "prompt = question, target = answer".

    Raises
    ------
    ValueError
        If a part of it is none, or a field stands there twice.
    """
    found: dict[str, str] = {}
    for part in re.split(r"[,;\n]", text):
        field, sign, column = (one.strip() for one in part.partition("="))
        if not part.strip():
            continue
        if not (field and sign and column):
            raise ValueError(f"write field = column, as {COLUMNS}; not {part.strip()!r}")
        if field.lower() in found:
            raise ValueError(f"the field {field} stands there twice; keep one of them")
        found[field.lower()] = column
    return found


def _read(records: Records, columns: Mapping[str, str] | None) -> FactList:
    facts: list[Fact] = []
    rejected: list[Rejected] = []
    omitted: list[Rejected] = []
    numbers: list[int] = []
    if columns is not None:
        check_columns(records.all, columns)
    for number, record in enumerate(records.all, start=1):
        if number in records.broken:
            rejected.append(Rejected(number, records.broken[number]))
            continue
        try:
            if columns is not None and isinstance(record, Mapping):
                record = renamed(record, columns)
            found, notes = facts_of(record, records.table)
        except Odd as odd:
            rejected.append(Rejected(number, str(odd)))
            continue
        facts += found
        numbers += [number] * len(found)
        omitted += [Rejected(number, note) for note in notes]
    if records.broken and not facts:
        raise ValueError(next(iter(records.broken.values())))
    return FactList(facts, rejected, numbers, omitted, records.said)


def left_out(facts: FactList) -> list[tuple[str, list[str]]]:
    """What was left out of a file: how much in words, and why; records of one reason together.

    Parameters
    ----------
    facts : FactList
    """
    total = len({*facts.records}) + len(facts.rejected)
    records, fields = len(facts.rejected), len(facts.omitted)
    counted = (
        (f"{records} of {total} records left out", facts.rejected),
        (f"{fields} field{'s' * (fields > 1)} left out", facts.omitted),
    )
    found = []
    for said, parts in counted:
        why: dict[str, list[int]] = {}
        for part in parts:
            why.setdefault(part.reason, []).append(part.record)
        if parts:
            found.append((said, [f"{_numbered(n)}: {reason}" for reason, n in why.items()]))
    return [*((note, []) for note in facts.notes), *found]


def _warning(facts: FactList) -> str:
    """What was left out in one line, of many reasons the first ones."""
    told = []
    for said, reasons in left_out(facts):
        more = len(reasons) - _SHOWN
        attribute = "rejected" if " of " in said else "omitted"
        end = f" and {more} more, see .{attribute}" if more > 0 else ""
        told.append(f"{said}: {'; '.join(reasons[:_SHOWN])}{end}" if reasons else said)
    return "; ".join(told)


def _numbered(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"record {numbers[0]}"
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return f"records {', '.join(map(str, numbers[:3]))}{more}"


def _fields_first(columns: Mapping[str, str] | None) -> dict[str, str] | None:
    """Columns by fields; the other way round, as pandas renames them, is understood, too."""
    if not columns:
        return None
    if not isinstance(columns, Mapping) or not all(
        isinstance(name, str) for pair in columns.items() for name in pair
    ):
        raise ValueError("columns must be a dict of names, as {'prompt': 'question'}")
    given = dict(columns)
    if not set(given) <= set(FIELDS) and set(given.values()) <= set(FIELDS):
        turned = {field: column for column, field in given.items()}
        if len(turned) < len(given):
            raise ValueError("columns: two columns are called the same field; keep one of them")
        given = turned
    if unknown := [name for name in given if name not in FIELDS]:
        raise ValueError(
            f"columns: a fact has no field {', '.join(map(repr, unknown))}; it has"
            f" {', '.join(FIELDS)}"
        )
    return given


def _path(text: str) -> Path:
    """The path of a file that can be read."""
    if not text.strip():
        raise ValueError("its path is empty")
    if "://" in text:
        raise ValueError(f"{text[:60]!r} is an address; download the file, and give its path")
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise ValueError("it is a folder; give a file in it")
    if path.suffix.lower() not in _READERS:
        hint = {".gz": "unpack it first", ".zip": "unpack it first", ".xls": "save it as .xlsx"}
        raise ValueError(
            hint.get(path.suffix.lower(), f"use a file that ends in {', '.join(_READERS)}")
        )
    return path


def _reader(path: Path, data: bytes) -> Callable[[bytes, Columns | None], Records]:
    """How a file is read: by its name, but for one that is seen to hold something else."""
    named = path.suffix.lower()
    if data.startswith(b"\x1f\x8b"):
        raise ValueError("it is packed; unpack it first")
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):  # of an Excel file, new or old
        return of_sheet
    text = named in (".csv", ".tsv", ".txt")
    return of_json if text and _JSON.match(decoded(data)) else _READERS[named]


def _given(source: Any, columns: Columns | None) -> Records:
    """The records of a list, a data frame, or whatever container a JSON file may hold."""
    if hasattr(source, "columns") and hasattr(source, "to_dict"):
        named = [name for name in source.index.names if name is not None]
        if named and not {*named} & {*source.columns}:
            source = source.reset_index()
        refuse_twice(map(str, source.columns), columns)
        source = source.loc[:, ~source.columns.duplicated()]  # of unused ones
        rows = [_plain(record) for record in source.to_dict("records")]
        if not rows:
            raise ValueError("it is empty: there is no row in it")
        return Records(rows, table=True)
    if isinstance(source, Fact) or hasattr(source, "to_dict"):  # a row of a data frame
        source = _record(source)
    if isinstance(source, Mapping):
        source = listed(_plain(source), columns)
    if isinstance(source, bytes) or hasattr(source, "read") or not isinstance(source, Iterable):
        raise ValueError(
            f"give the path of a file, a list of dicts or a DataFrame; this is {called(source)}"
        )
    records: list[Any] = []
    broken: dict[int, str] = {}
    for number, one in enumerate(source, start=1):
        try:
            records.append(_record(one))
        except RecursionError:
            records.append(None)
            broken[number] = "it is nested too deeply"
    if not records:
        raise ValueError("it is empty: there is no record in it")
    return Records(records if broken else rows_of(records, columns), broken=broken)


def _record(value: Any) -> Any:
    """A record as an object with named fields, if it is one of another kind."""
    if isinstance(value, Fact):
        return asdict(value)
    if hasattr(value, "_asdict"):  # a named tuple
        return _plain(value._asdict())
    return _plain(value.to_dict() if hasattr(value, "to_dict") else value)


def _plain(value: Any) -> Any:
    """A value without arrays."""
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return [_plain(one) for one in value] if several else value
