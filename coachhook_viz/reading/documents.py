"""Records of JSON: a list, an object that holds one or is one, columns, or one object a line.

of_json    of a file
listed     of what a file holds, whichever container they are in
rows_of    of a list, whose records may be lists or stand within other objects
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from coachhook_viz.reading.layouts import SURPLUS, missing
from coachhook_viz.reading.records import Columns, Records, decoded
from coachhook_viz.reading.tables import refuse_twice
from coachhook_viz.reading.values import Number, Twice, absent, called, name_of


def of_json(data: bytes, columns: Columns | None) -> Records:
    """The records of a JSON file, or of one with an object a line.

    Parameters
    ----------
    data : bytes
        All of it.
    columns : mapping of str to str, optional
        Names of columns by the fields of a fact.

    Raises
    ------
    ValueError
        If it is malformed or empty; it says why in plain words.
    """
    text = decoded(data)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        content = _parsed(text)
    except json.JSONDecodeError as error:
        if text.lstrip()[:1] == "[" and error.msg != "Extra data":
            raise ValueError(_malformed(error)) from None
        return _lines(text, error, columns)
    records = listed(content, columns)
    if not records:
        raise ValueError("it is empty: there is no record in it")
    return Records(records)


def _lines(text: str, error: json.JSONDecodeError, columns: Columns | None) -> Records:
    """JSON lines; of a file that holds none, what `error` says of the whole."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    records: list[Any] = []
    broken: dict[int, str] = {}
    for number, line in lines:
        try:
            records.append(_parsed(line.strip().removesuffix(",")))
        except json.JSONDecodeError as wrong:
            records.append(None)
            broken[len(records)] = f"line {number} is not JSON: {_cause(wrong)}"
    if broken and (several := _streamed(text)) is not None:
        return Records(rows_of(several, columns))
    filled = sum(isinstance(record, dict | list) for record in records)
    if filled < max(len(broken), 1) or not records[1:]:
        raise ValueError(_malformed(error))
    return Records(records if broken else rows_of(records, columns), broken=broken)


def _streamed(text: str) -> list[Any] | None:
    """Objects that follow each other, each on as many lines as it likes; None if they are not."""
    at, found = 0, list[Any]()
    while (at := _filled(text, at)) < len(text):
        try:
            one, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError:
            return None
        found.append(one)
    return found


def _filled(text: str, at: int) -> int:
    """The next place from `at` where something stands."""
    found = re.compile(r"\S").search(text, at)
    return len(text) if found is None else found.start()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counts = Counter(name for name, _ in pairs)
    return Twice(found, [name for name, count in counts.items() if count > 1])


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=Number,
    parse_float=Number,
    parse_constant=lambda name: None if name == "NaN" else float(name),
)


def _parsed(text: str) -> Any:
    found = _DECODER.decode(text)
    if type(found) is str:  # JSON that was written as a text of JSON
        with suppress(json.JSONDecodeError):
            return _DECODER.decode(found)
    return found


def _malformed(error: json.JSONDecodeError) -> str:
    return f"it is not JSON, near line {error.lineno}, character {error.colno}: {_cause(error)}"


def _cause(error: json.JSONDecodeError) -> str:
    """Why a text is no JSON, in plain words."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if error.msg.startswith("Unterminated") or not after:
        return "it ends in the middle; was it cut off?"
    if error.msg.startswith("Invalid control"):
        return "a text holds a line break or a tab; write \\n or \\t there"
    if error.msg.startswith("Invalid \\"):
        return "a text holds a single \\; write \\\\"
    if (before.endswith(",") and after[0] in "]}") or (
        after.startswith(",") and after[1:].lstrip()[:1] in ("]", "}")
    ):
        return "there is a comma before a closing bracket; take it out"
    if after[0] in "'‘’“”" or before[-1:] in ("'", "“", "”"):
        return 'texts and names stand in double quotes, as "prompt"'
    if error.msg == "Extra data":
        return "more follows after its end"
    return f"{after[:20]!r} does not belong there, or something before it is missing"


def listed(content: Any, columns: Columns | None) -> list[Any]:
    """The records of what a JSON file holds, in whichever container they are.

    Raises
    ------
    ValueError
        If it holds none, or several lists of them.
    """
    if isinstance(content, list):
        return rows_of(content, columns)
    if not isinstance(content, dict):
        raise ValueError(f"it must hold a list of records, or objects, but it is {called(content)}")
    names = {name_of(name) for name in content}
    wanted = {name_of(column).partition(".")[0] for column in (columns or {}).values()}
    if (columns and wanted <= names) or (names and not missing(names)):
        return _of_columns(content)
    if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
        return _split(content["columns"], content["data"], columns)  # pandas, orient="split"
    lists = [value for value in content.values() if isinstance(value, list)]
    of_records = dict(_lists_of_records(content, columns))
    sure = {p: rows for p, rows in of_records.items() if any(_holds(one, columns) for one in rows)}
    of_records = sure or of_records
    if len(of_records) == 1:
        return rows_of(next(iter(of_records.values())), columns)
    if len(of_records) > 1:
        raise ValueError(f"it holds several lists of records, {', '.join(of_records)}; keep one")
    if not lists and _by_ids(content, columns):
        return rows_of(list(content.values()), columns)
    if len(lists) == len(content) == 1:
        return rows_of(lists[0], columns)
    if content:
        return rows_of([content], columns)
    raise ValueError("it must hold a list of records, or an object with a list 'facts'")


def rows_of(content: list[Any], columns: Columns | None) -> list[Any]:
    """The records of a list: of lists of them, of rows below headings, or within other objects."""
    if content and all(isinstance(one, list) for one in content):
        first, *rows = content
        if all(type(name) is str for name in first) and _is_record(dict.fromkeys(first), columns):
            return _split(first, rows, columns)
        inner = [one for part in content for one in part]
        if any(isinstance(one, dict) for one in inner):
            return rows_of(inner, columns)
    return [_bare(one, columns) for one in content]


def _bare(record: Any, columns: Columns | None) -> Any:
    """A record without an object around it, whose other fields are its own, too."""
    if not isinstance(record, dict) or isinstance(record, Twice) or _is_record(record, columns):
        return record
    within = [key for key, value in record.items() if _is_record(value, columns)]
    if len(within) != 1 or isinstance(bare := record[within[0]], Twice):
        return record
    taken = {name_of(name) for name in (*bare, within[0])}
    return {**{key: one for key, one in record.items() if name_of(key) not in taken}, **bare}


def _lists_of_records(
    content: dict[str, Any], columns: Columns | None, place: str = ""
) -> Iterator[tuple[str, list[Any]]]:
    """The lists of records in an object, however deep, and where they stand."""
    for key, value in content.items():
        if _are_records(key, value, columns):
            yield f"{place}{key}", value
        elif isinstance(value, dict) and not _is_record(value, columns):
            yield from _lists_of_records(value, columns, f"{place}{key}.")


def _are_records(key: str, value: Any, columns: Columns | None) -> bool:
    """Whether a list within an object is one of records, by what it is called or holds."""
    if not isinstance(value, list) or not any(isinstance(one, dict) for one in value):
        return False
    return any(_is_record(one, columns) for one in value) or name_of(key) in (
        "facts",
        "data",
        "records",
        "rows",
        "examples",
        "edits",
        "train",
    )


def _holds(value: Any, columns: Columns | None) -> bool:
    """Whether a value is a record, or has one around it."""
    return _is_record(_bare(value, columns), columns)


def _is_record(value: Any, columns: Columns | None) -> bool:
    if not isinstance(value, dict):
        return False
    names = {name_of(name) for name in value}
    wanted = {name_of(column).partition(".")[0] for column in (columns or {}).values()}
    return wanted <= names if columns else not missing(names)


def _by_ids(content: dict[str, Any], columns: Columns | None) -> bool:
    """Whether an object holds records by their ids, some of them empty."""
    values = list(content.values())
    if all(isinstance(value, dict) for value in values):
        return bool(values)
    return all(isinstance(value, dict) or absent(value) for value in values) and any(
        _is_record(value, columns) for value in values
    )


def _of_columns(content: dict[str, Any]) -> list[Any]:
    """One record, or those of columns: lists side by side, or objects by the rows' names.

    Beside lists of subjects what is no list is of all rows.
    """
    values = list(content.values())
    lists = {name: value for name, value in content.items() if isinstance(value, list)}
    side_by_side = len({len(value) for value in lists.values()}) == 1
    if side_by_side and (len(lists) == len(values) or "subject" in map(name_of, lists)):
        rows = zip(*lists.values(), strict=True)
        return [{**content, **dict(zip(lists, row, strict=True))} for row in rows]
    by_row = all(isinstance(value, dict) for value in values)
    if by_row and len({tuple(v) for v in values}) == 1 and not {"str", "prompt"} & set(values[0]):
        return [{name: content[name][row] for name in content} for row in values[0]]
    return [content]


def _split(headings: list[Any], rows: list[Any], columns: Columns | None) -> list[Any]:
    """The records of rows below headings, of which unused ones may stand there twice."""
    names = [str(name) for name in headings]
    refuse_twice(names, columns)
    found = []
    for row in rows:
        if not isinstance(row, list):
            found.append(row)
            continue
        record = dict(zip(names, row, strict=False))
        if any(not absent(cell) for cell in row[len(names) :]):
            record[SURPLUS] = row[len(names) :]
        found.append(record)
    return found
