"""What stands in the fields of a record, as the texts that a fact is made of.

Odd        a field that a fact cannot do without is none; the message says which and why
Record     the fields of one record by name, and what had to be left out of it
name_of    a field's name without regard to case, spaces and hyphens
absent     whether a value stands for nothing
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from coachhook_viz.facts import Neighbor
from coachhook_viz.warned import hushed

ANSWER_NAMES = ("answer", "target", "ground_truth", "truth", "ans", "target_true")
"""What the answer to a neighbour's or probe's prompt is called."""
_WRAPPED = ("str", "value")  # {"str": …} of CounterFact, {"value": …} of RippleEdits
_LONGEST = 100_000  # of a cell that may hold a list
_NOTHING = ("NAType", "NaTType")
_EMPTY_CELLS = frozenset({"nan", "nat", "<na>", "#n/a", "n/a", "null", "none"})
"""What tools write into a cell of a table that holds nothing."""


class Odd(ValueError):
    """A record is no fact, and why."""


class Number(str):
    """A number of a JSON file, as it is written there."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        super().__init__()


class Twice(dict[str, Any]):
    """A JSON object that names fields twice: which ones."""

    def __init__(self, fields: Mapping[str, Any], twice: Iterable[str]) -> None:
        super().__init__(fields)
        self.twice = tuple(twice)


@lru_cache(maxsize=4096)
def name_of(field: object) -> str:
    """A field's name without regard to case, spaces and hyphens: "Target new" is "target_new"."""
    text = str(field).replace("\ufeff", "").replace("\u200b", "")
    return re.sub(r"[\s\-_]+", "_", text.strip().strip("\"':*").strip()).casefold()


def absent(value: Any) -> bool:
    """Whether a value stands for nothing: null, NaN, empty."""
    if value is None or type(value).__name__ in _NOTHING:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | tuple | Mapping):
        return not value
    return isinstance(value, Real | Decimal) and math.isnan(value)


def plain_lines(text: str) -> str:
    """A text with its line breaks as one character, whichever system wrote them."""
    return re.sub("\r\n?", "\n", text)


def one_line(text: str) -> str:
    """Public sets hold stray line breaks and spaces, which mean nothing."""
    return " ".join(text.split())


def prompt_of(text: str) -> str:
    """A prompt of a public set: its own line breaks and tabs stay, stray ones do not."""
    text = plain_lines(text)
    if any(character in text.strip() for character in "\n\t"):
        return text.strip(" \u00a0")
    return one_line(text)


def own_prompt(text: str) -> str:
    """A prompt as its writer has it, but for spaces around it."""
    return plain_lines(text).strip(" \u00a0")


def called(value: Any) -> str:
    """What a value is, in plain words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Real | Decimal) and not math.isfinite(value):
        return "an infinite number"
    if isinstance(value, Number | Real | Decimal):
        return "a number"
    if isinstance(value, Mapping):
        return "an object with fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, date | time):
        return "a date; write it as text"
    return "a text" if isinstance(value, str) else f"of the type {type(value).__name__}"


def text_of(value: Any) -> str:
    """A text, a number as text, or the one text of a list or object that holds no other.

    Raises
    ------
    Odd
        With the reason.
    """
    if absent(value):
        raise Odd("it is empty")
    if isinstance(value, str):
        whole = isinstance(value, Number) and re.fullmatch(r"-?\d+\.0", value)
        return value[:-2] if whole else str(value)
    if isinstance(value, Mapping):
        for name in _WRAPPED:
            if name in value:
                return text_of(value[name])
    if isinstance(value, list | tuple) and len(value) == 1:
        return text_of(value[0])
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
    if number and math.isfinite(value):
        return str(value).removesuffix(".0")
    some = isinstance(value, list | tuple)
    said = f"{called(value)} texts; write one of them" if some else called(value)
    raise Odd(f"it must be a text, but it is {said}")


def first_of(value: Any) -> Any:
    """The first of an answer's spellings, however deep in lists; None if there is none."""
    if isinstance(value, list | tuple):
        return next((found for one in value if not absent(found := first_of(one))), None)
    return None if absent(value) else value


def several(value: Any) -> Iterator[Any]:
    """The values of a list, however deep in lists; a value that is no list alone."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from several(one)
    elif not absent(value):
        yield value


def listed_objects(value: Any) -> list[Any]:
    """The values of a list, or one value; objects may lie side by side, in lists of their parts."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, Mapping) or isinstance(value, Twice):
        return [] if absent(value) else [value]
    prompts = value.get("prompt")
    if not isinstance(prompts, list | tuple):
        return [value]

    def at(part: Any, place: int) -> Any:
        if not isinstance(part, list | tuple):
            return part
        return part[place] if place < len(part) else None

    return [{k: at(part, place) for k, part in value.items()} for place in range(len(prompts))]


def from_cell(value: Any) -> Any:
    """A value of a table's cell: a list or an object where the cell holds one as text.

    Raises
    ------
    Odd
        If it looks like a list but cannot be taken apart.
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        return value
    text = value.strip()
    if not _CONTAINER.match(text) or text[-1:] not in ("]", "}", ")"):
        return value
    for parse in (json.loads, _literal):
        try:
            found = parse(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if not isinstance(found, list | dict):
            return value
        return found
    if _TORN.fullmatch(text):
        raise Odd("it is a list that cannot be taken apart; save the file as JSON")
    return value


def _literal(text: str) -> Any:
    """A list or an object as Python writes it, "nan" among it."""
    with hushed():  # of odd escapes, say
        return _value_of(ast.parse(text, mode="eval").body, text)


def _value_of(node: ast.AST, text: str) -> Any:
    match node:
        case ast.Constant(value=str() as value):
            # numpy writes lists without commas, of which Python would make one text
            if not _ONE_LITERAL.fullmatch(ast.get_source_segment(text, node) or ""):
                raise ValueError("it is a list without commas")
            return value
        case ast.Constant(value=None | int() | float() as value):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return [_value_of(part, text) for part in parts]
        case ast.Call(func=ast.Name(id=name), args=[part, *_]) if name in _LISTS:
            return _value_of(part, text)
        case ast.Call(func=ast.Name(id="Neighbor" | "Probe"), args=[], keywords=parts):
            return {str(part.arg): _value_of(part.value, text) for part in parts}
        case ast.Dict(keys=keys, values=values):
            pairs = [(key, value) for key, value in zip(keys, values, strict=True) if key]
            return {_value_of(key, text): _value_of(value, text) for key, value in pairs}
        case ast.Name(id="nan" | "NaN" | "null" | "NaT"):
            return None
        case ast.Name(id="true" | "false" as name):
            return name == "true"
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.UnaryOp):
            return -_value_of(operand, text)
    raise ValueError("it is no list")


_LISTS = ("array", "set", "frozenset", "deque", "dict_keys", "dict_values")
_CONTAINER = re.compile(rf"({'|'.join(_LISTS)})?[\[{{(]")
_TORN = re.compile(
    r"""\[\s*(['"].*(['"]|nan|None|\.\.\.)|([A-Z]\w*|array|\w*set|deque)\(.*\))\s*,?\s*\]"""
    r"""|\(\s*(['"].*['"]|array\(.*\))\s*,?\s*\)""",
    re.DOTALL,
)
_ONE_LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield key
            yield from _leaves(one)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


class Record:
    """The fields of one record, by `name_of` their names.

    Parameters
    ----------
    fields : mapping
    table : bool
        Whether they are cells of a table, which may hold lists as text.
    within : Record, optional
        The record that this one is a part of.
    place : str
        What the part is called in messages.

    Attributes
    ----------
    notes : list of str
        What was left out, and why.
    numbers_are_texts : bool
        Whether "[1998]" is the text that it is, and no list of a number as in public sets.
    """

    numbers_are_texts = False

    def __init__(
        self, fields: Any, table: bool = False, within: Record | None = None, place: str = ""
    ) -> None:
        self.table: bool = table if within is None else within.table
        self.notes: list[str] = [] if within is None else within.notes
        self._place = place
        self._fields: dict[str, Any] = {}
        self._twice: set[str] = set()  # which costs the record only where one of them is read
        self._read: dict[str, Any] = {}  # with lists taken apart, so that it is noted once
        if not isinstance(fields, Mapping):
            raise Odd(f"{place}{': ' * bool(place)}it must be an object with named fields, not"
                      f" {called(fields)}")  # fmt: skip
        if isinstance(fields, Twice):
            self._twice |= {name_of(name) for name in fields.twice}
        for key, value in fields.items():
            name = name_of(key)
            if name in self._fields:
                self._twice.add(name)
            self._fields[name] = value
        if within is not None:
            self._once(*self._twice)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def _once(self, *names: str) -> None:
        if twice := [name for name in names if name in self._twice]:
            raise Odd(f"{self._named(twice[0])}: it stands there twice; keep one")

    def _named(self, name: str) -> str:
        return f"{self._place}, {name}" if self._place else name

    @property
    def names(self) -> list[str]:
        """The names of the fields that there are."""
        return list(self._fields)

    def note(self, field: str, reason: str) -> None:
        """Something is left out: say where and why."""
        self.notes.append(f"{self._named(field)}: {reason}")

    def raw(self, *names: str) -> Any:
        """What stands in the first of the fields that holds anything; None if none does."""
        self._once(*names)
        return next((self._fields[n] for n in names if not absent(self._fields.get(n))), None)

    def value(self, field: str) -> Any:
        """What stands in an optional field; a list written as text is taken apart."""
        if field not in self._read:
            try:
                self._read[field] = self._taken_apart(self._filled(field))
            except Odd as odd:
                self.note(field, str(odd))
                self._read[field] = None
        return self._read[field]

    def _taken_apart(self, value: Any) -> Any:
        found = from_cell(value)
        leaves = [one for one in _leaves(found) if not absent(one)]
        numbers = leaves and not any(isinstance(one, str) for one in leaves)
        return value if self.numbers_are_texts and isinstance(value, str) and numbers else found

    def _filled(self, field: str) -> Any:
        """What stands in a field; None where a table's cell only says that nothing does."""
        value = self.raw(field)
        empty = self.table and isinstance(value, str) and value.strip().lower() in _EMPTY_CELLS
        return None if empty else value

    def needed(self, field: str) -> Any:
        """What stands in a field that must hold something, with lists written as text taken apart.

        Raises
        ------
        Odd
            If it holds nothing.
        """
        try:
            value = from_cell(self.raw(field))
        except Odd as odd:
            raise Odd(f"{self._named(field)}: {odd}") from None
        if absent(value):
            raise Odd(f"{self._named(field)}: it is empty")
        return value

    def texts(self, *names: str) -> list[str]:
        """The texts of fields that a fact cannot do without.

        Raises
        ------
        Odd
            Naming each that there is not.
        """
        self._once(*names)
        found, wrong = [], []
        for name in names:
            if name not in self._fields:
                wrong.append(f"{self._named(name)}: it is missing")
                continue
            try:
                found.append(text_of(self._whole(self._fields[name])))
            except Odd as odd:
                wrong.append(f"{self._named(name)}: {odd}")
        if wrong:
            raise Odd("; ".join(wrong))
        return found

    def _whole(self, value: Any) -> Any:
        """A value; the list of texts that a text holds, but "{}" and "[1]" are texts."""
        found = from_cell(value)
        if not self.table and isinstance(found, Mapping) and not set(_WRAPPED) & set(found):
            return value
        return found if any(isinstance(one, str) for one in _leaves(found)) else value

    def maybe(self, *names: str) -> str | None:
        """The text of the first of some optional fields that holds one; of spellings the first."""
        for name in names:
            if (value := first_of(self.value(name))) is not None:
                return self.optional(name, value)
        return None

    def optional(self, field: str, value: Any) -> str | None:
        """A value that a fact can do without, as text; if it is none, that is noted."""
        value = first_of(value)
        if value is None:
            return None
        try:
            return text_of(value).strip()
        except Odd as odd:
            self.note(field, f"{odd}")
            return None

    def prompts(self, *names: str, shape: Callable[[str], str] = one_line) -> list[str]:
        """The prompts of optional fields: each may hold one, or lists of them."""
        found = []
        for name in names:
            for number, value in enumerate(several(self.value(name)), start=1):
                prompt = self.prompt(name, value, number)
                if prompt is not None:
                    found.append(shape(prompt))
        return found

    def prompt(self, field: str, value: Any, number: int) -> str | None:
        """One of the prompts of an optional field; if it is none, that is noted."""
        if isinstance(value, Mapping) and not absent(value.get("prompt")):
            value = value["prompt"]
        if isinstance(value, str) and not isinstance(value, Number):
            return value
        if absent(value) or isinstance(value, Mapping):
            self.note(field, f"number {number} has no prompt")
        else:
            self.note(field, f"number {number} must be a text, but it is {called(value)}")
        return None

    def neighbors(self, field: str, shape: Callable[[str], str] = one_line) -> list[Neighbor]:
        """The neighbours of an optional field: texts, objects, or pairs of prompt and answer."""
        value = listed_objects(self.value(field))
        found = []
        for number, one in enumerate(value, start=1):
            while isinstance(one, list | tuple) and len(one) == 1:
                one = one[0]
            if absent(one):
                continue
            prompt, answer = one, None
            if isinstance(one, list | tuple):
                prompt, answer = one[0], one[1]
                if len(one) > 2:
                    self.note(field, f"number {number} is {called(one)}, not prompt and answer")
                    continue
            elif isinstance(one, Mapping):
                part = self.part(field, one, number)
                if part is None:
                    continue
                prompt, answer = part.raw("prompt"), part.raw(*ANSWER_NAMES)
                if absent(prompt):
                    self.note(field, f"number {number} has no prompt")
                    continue
                if odd := [name for name in part.names if name not in ("prompt", *ANSWER_NAMES)]:
                    self.note(field, f"number {number} has {', '.join(odd)}, which was left out")
            text = self.prompt(field, prompt, number)
            if text is not None:
                said = self.optional(f"{field}, answer of number {number}", answer)
                found.append(Neighbor(shape(text), said))
        return found

    def part(self, field: str, value: Any, number: int) -> Record | None:
        """An object within an optional field as a record; if it is none, that is noted."""
        try:
            return Record(value, within=self)
        except Odd as odd:
            self.note(field, f"number {number}: {odd}")
            return None
