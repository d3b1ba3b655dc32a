"""Records of tables: CSV however it is separated, what a spreadsheet puts to paste, and XLSX.

of_table        of a text file
of_sheet        of an Excel file
refuse_twice    names of columns, of which one that is read stands there twice
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from coachhook_viz.reading.layouts import FIELDS, NEEDED, SURPLUS, WHICH, lacking, missing
from coachhook_viz.reading.records import Columns, Records, decoded
from coachhook_viz.reading.values import name_of

_TOLD = re.compile(r"""\s*"?sep=([^\r\n"])"?[^\S\r\n]*(?:[\r\n]+|$)""", re.IGNORECASE)
"""The line in which Excel tells the separator."""


_NO_SEPARATOR = " _-.'\"(){}[]\ufeff\u200b\r\xa0"
_RULE = re.compile(r":?-{2,}:?|")
_ABOVE = 10  # rows among which the headings may stand


def of_table(data: bytes, columns: Columns | None, separators: str = ",;\t") -> Records:
    """The records of a text file with one in each row, and headings in the first one.

    Parameters
    ----------
    data : bytes
        All of it.
    columns : mapping of str to str, optional
        Names of columns by the fields of a fact.
    separators : str
        Between cells; the headings tell which, or that it is another sign; the first one counts
        where they do not.

    Raises
    ------
    ValueError
        If it is malformed or empty, or lacks a column; it says why in plain words.
    """
    text = decoded(data)
    separator = None
    if told := _TOLD.match(text):
        separator, text = told[1], text[told.end() :]
    if not text.strip():
        raise ValueError("it is empty")
    separator = separator or _separator(text, columns, separators)
    try:
        rows = _rows(text, separator)
    except csv.Error:
        if separator != "\t":
            raise
        rows = _rows(text, separator, csv.QUOTE_NONE)  # cells as a spreadsheet puts them to paste
    return _of_rows(rows, columns)


def _rows(text: str, separator: str, quoting: Any = csv.QUOTE_MINIMAL) -> list[list[str]]:
    file = io.StringIO(text, newline="")
    reader = csv.reader(
        file, delimiter=separator, quoting=quoting, strict=True, skipinitialspace=True
    )
    rows, line = [], 1
    try:
        with _cells_up_to(len(text)):
            for row in reader:
                rows.append(row)
                line = reader.line_num + 1
        return rows
    except csv.Error:
        raise _Malformed(
            f"malformed CSV near line {line}: a quote is not closed, or a text goes"
            " on behind its closing quote"
        ) from None


@contextmanager
def _cells_up_to(length: int) -> Iterator[None]:
    """A context in which the csv module takes cells as long as that."""
    limit = csv.field_size_limit(length + 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


class _Malformed(csv.Error, ValueError):
    """A table whose quotes do not fit."""


def _separator(text: str, columns: Columns | None, separators: str) -> str:
    """Which of the separators makes the most of the headings columns that are known."""
    head = "\n".join(re.split(r"[\r\n]+", text.strip())[:_ABOVE])

    def known(separator: str) -> tuple[bool, int, int]:
        try:
            with _cells_up_to(len(head)):
                rows = list(csv.reader(io.StringIO(head, newline=""), delimiter=separator))
        except csv.Error:
            return False, 0, 0
        wanted = {*FIELDS, *map(name_of, (columns or {}).values())}
        return max(
            (_complete(row, columns), len({name_of(cell) for cell in row} & wanted), len(row))
            for row in rows
        )

    best = max(separators, key=known)
    if known(best)[0]:
        return best
    signs = (sign for sign in dict.fromkeys(head) if not sign.isalnum())
    others = (sign for sign in signs if sign not in _NO_SEPARATOR and known(sign)[0])
    return next(others, best)


def _complete(headings: list[Any], columns: Columns | None) -> bool:
    """Whether a row names all columns that a fact needs."""
    names = {name_of(cell) for cell in headings if _text(cell)}
    roots = {name.partition(".")[0] for name in names}
    if columns is None:
        return bool(names) and not missing(roots)
    given = {name_of(column) for column in columns.values()}
    return {*given, *(field for field in NEEDED if field not in columns)} <= names | roots


def _of_rows(rows: list[list[Any]], columns: Columns | None) -> Records:
    """Records of a table's rows, whose first one has the headings; empty rows are none."""
    filled = [row for row in rows if any(_text(cell) for cell in row)]
    # without the lines of a Markdown table
    filled = [row for row in filled if not all(_RULE.fullmatch(_text(cell)) for cell in row)]
    if not filled:
        raise ValueError("it is empty")
    above = [n for n, row in enumerate(filled[:_ABOVE]) if _complete(row, columns)][:1]
    filled = filled[above[0] if above else 0 :]  # a title may stand above the headings
    headings = [_text(cell) for cell in filled[0]]
    _check_headings(headings, columns)
    if len(filled) == 1:
        raise ValueError("it is empty: there is no row below the headings")
    records = []
    for row in filled[1:]:
        record: dict[str, Any] = {}
        for heading, cell in zip(headings, [*row, *[""] * len(headings)], strict=False):
            if heading:
                _place(record, heading, cell)
        if any(_text(cell) for cell in row[len(headings) :]):
            record[SURPLUS] = row[len(headings) :]
        records.append(record)
    return Records(records, table=True)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _check_headings(headings: list[str], columns: Columns | None) -> None:
    """Refuse a table that lacks what a fact needs, or has it twice."""
    names = [name_of(heading) for heading in headings if heading]
    roots = {name.partition(".")[0] for name in names}
    shown = ", ".join(heading for heading in headings if heading) or "none"
    if columns is None:
        lost = missing(roots)
    else:
        lost = [c for c in columns.values() if name_of(c) not in {*names, *roots}]
        lost += [f for f in NEEDED if f not in columns and f not in names]
    if lost:
        raise ValueError(
            f"{lacking(lost)}: it has the columns {shown}; a fact needs {', '.join(NEEDED)}."
            f" Name them so in the first line, or say which column is which: {WHICH}"
        )
    refuse_twice(names, columns)


def refuse_twice(headings: Iterable[str], columns: Columns | None) -> None:
    """Refuse headings of which one that is read stands there twice.

    Raises
    ------
    ValueError
        Naming it.
    """
    wanted = map(name_of, columns.values()) if columns is not None else ()
    used = {*FIELDS, *wanted} if columns is not None else _USED
    counts = Counter(map(name_of, headings))
    twice = [n for n, count in counts.items() if count > 1 and n.partition(".")[0] in used]
    if twice:
        raise ValueError(f"the column {', '.join(twice)} stands there twice; keep one of them")


def _place(record: dict[str, Any], heading: str, cell: Any) -> None:
    """Put a cell under its heading, "a.b" as an object within `a`, as pandas flattens it."""
    first, dot, rest = heading.partition(".")
    if dot and name_of(first) in _NESTED:
        within = record.setdefault(first, {})
        if isinstance(within, dict):
            _place_path(within, rest.split("."), cell)
            return
    record.setdefault(heading, cell)


def _place_path(within: dict[str, Any], path: list[str], cell: Any) -> None:
    for name in path[:-1]:
        inner = within.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        within = inner
    within.setdefault(path[-1], cell)


_NESTED = ("requested_rewrite", "edit", "target_new", "target_true", "portability", "locality")
_USED = frozenset(
    {
        *FIELDS, *_NESTED, "src", "alt", "answers", "answer", "loc", "loc_ans", "rephrase",
        "update", "ans", "personas", "mhop", "mhop_ans", "template", "attribute", "ground_truth",
        "rephrase_prompt", "locality_prompt", "locality_ground_truth", "paraphrase_prompts",
        "neighborhood_prompts", "questions", "new_answer", "relation_id",
    }
)  # fmt: skip
"""Columns that some layout reads: of these there may be one."""


def of_sheet(data: bytes, columns: Columns | None) -> Records:
    """The records of the first sheet of an Excel file that holds any.

    Parameters
    ----------
    data : bytes
        All of it.
    columns : mapping of str to str, optional
        Names of columns by the fields of a fact.

    Raises
    ------
    ValueError
        If it is malformed or empty, or openpyxl is not installed; it says why in plain words.
    """
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError(
            "openpyxl, which reads Excel's files, is not installed: run pip install openpyxl, or"
            " save the file as CSV"
        ) from None
    try:
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = {sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)]
                  for sheet in book.worksheets}  # fmt: skip
    except Exception:  # whatever a damaged archive leads to
        raise ValueError("it cannot be read as an Excel file; save it anew, or as CSV") from None
    filled = {
        title: rows for title, rows in sheets.items() if any(_text(c) for row in rows for c in row)
    }
    if not filled:
        raise ValueError("it is empty")
    title = next(iter(filled))
    said = [f"only the sheet {title!r} was read; the others hold something, too"]
    found = _of_rows(filled[title], columns)
    return Records(found.all, table=True, said=said * (len(filled) > 1))
