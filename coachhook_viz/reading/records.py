"""What a file holds before it is facts: its text, and its records.

Records    the records of a file
decoded    a file's text from its bytes
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
Columns = Mapping[str, str]


@dataclass(frozen=True)
class Records:
    """What a file holds.

    Attributes
    ----------
    all : list
        Its records in their order.
    table : bool
        Whether they are rows of a table.
    broken : dict of int to str
        By number, from 1, records that could not be read at all, and why; None stands in `all`.
    said : list of str
        What else is to be said of the file.
    """

    all: list[Any]
    table: bool = False
    broken: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def decoded(data: bytes) -> str:
    """A file's text: UTF-8, or whatever its first bytes say; Excel writes UTF-16."""
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), None)
    if encoding is None:
        head = data[:400]
        for name, place in (("utf-16-le", 1), ("utf-16-be", 0)):
            if len(head) >= 4 and head[place::2].count(0) > 0.6 * len(head[place::2]):
                encoding = name
    try:
        return data.decode(encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save it as UTF-8 (in Excel as CSV UTF-8)") from None
