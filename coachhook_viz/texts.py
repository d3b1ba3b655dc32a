"""Texts as people write them: where words begin, what stands before an answer, what reads the same.

BREAKS      what a prompt may end in, after which an answer begins without a space
alike       the same for texts that read the same
places      where a name stands in a text, as whole words
parts       whether no word goes on across a place
slotted     a text with ``{}`` where a name stands in it
joined      an answer behind its prompt, with the space that belongs there or with none
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

BREAKS = ("\n", "\t")
"""What a prompt may end in; the answer then begins without a space of its own."""

_SPACELESS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3005, 0x3007),  # 々〆〇
    (0x3040, 0x312F),  # kana, Bopomofo
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # kana of half width
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""Scripts that write no spaces between words."""
_HANGUL = ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF))
"""Written with spaces, but a noun's particles stand right behind it."""
_WIDE = ((0x3001, 0x303F), (0xFE10, 0xFE1F), (0xFE30, 0xFE4F), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20),
         (0xFF3B, 0xFF40), (0xFF5B, 0xFF65))  # fmt: skip
"""Punctuation of full width, which brings its own room."""
_OPENING = "¿¡"
_APART = "&*#@_§¶†‡•‣"
"""Punctuation that begins a word of its own."""
_CLITIC = re.compile(r"['’](?:s|t|d|m|ll|re|ve)(?!\w)", re.IGNORECASE)


def alike(text: str) -> str:
    """The same for all texts that differ in case, spaces or how an accent is stored only."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def places(text: str, name: str) -> list[tuple[int, int]]:
    """Where `name` stands in `text` as whole words: start and stop of each place.

    "cat" does not stand in "located". Scripts that write no spaces have no such bounds, nor has
    Korean, whose particles follow a noun without one. If it stands nowhere as it is written, spaces
    and how accents are stored do not count.

    Parameters
    ----------
    text, name : str

    Returns
    -------
    list of (int, int)
        In their order.
    """
    found = list(_whole(text, name))
    if found or not name.strip():
        return found
    folded, owners = _folded(text)
    wanted, _ = _folded(name.strip())
    return [(owners[start][0], owners[stop - 1][1]) for start, stop in _whole(folded, wanted)]


def slotted(text: str, name: str) -> str | None:
    """`text` with ``{}`` in place of `name`, where it stands first; None if it stands nowhere."""
    for start, stop in places(text, name)[:1]:
        return f"{text[:start]}{{}}{text[stop:]}"
    return None


def _whole(text: str, name: str) -> Iterator[tuple[int, int]]:
    start = text.find(name) if name else -1
    while start >= 0:
        stop = start + len(name)
        if parts(text, start) and parts(text, stop):
            yield start, stop
            start = text.find(name, stop)
        else:
            start = text.find(name, start + 1)


def parts(text: str, at: int) -> bool:
    """Whether no word of `text` goes on across the place `at`; see `places`."""
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if unicodedata.category(after)[0] == "M" or "\u200d" in (before, after):
        return False  # the marks of a letter, the parts of an emoji
    if not (_of_word(before) and _of_word(after)):
        return True
    return any(_within(c, (*_SPACELESS, *_HANGUL)) for c in (before, after))


def _of_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"


@lru_cache(maxsize=1024)
def _folded(text: str) -> tuple[str, list[tuple[int, int]]]:
    """`text` in NFC with single spaces, and start and stop of where each character comes from."""
    folded: list[str] = []
    owners: list[tuple[int, int]] = []
    for found in re.finditer(r"\s+|\S", text):
        start, stop = found.span()
        character = found[0]
        if character.isspace():
            folded.append(" ")
            owners.append((start, stop))
            continue
        base = folded[-1] if folded else ""
        composed = unicodedata.normalize("NFC", base + character)
        if base and base != " " and len(composed) == 1:  # an accent, or a part of a syllable
            folded[-1], owners[-1] = composed, (owners[-1][0], stop)
            continue
        for one in unicodedata.normalize("NFC", character):
            folded.append(one)
            owners.append((start, stop))
    return "".join(folded), owners


def joined(prompt: str, answer: str) -> str:
    """`answer` behind `prompt`: with one space between them, where the script writes one there.

    None stands behind a line break, a tab, an opening quote or bracket; behind what goes on with
    the word after it, as in "well-"; before punctuation that belongs to the word before it, as in
    ", Italy"; and between words of a script without spaces.

    Parameters
    ----------
    prompt : str
        As it is, with no space at its end.
    answer : str
        Spaces around it do not count.
    """
    answer = answer.strip()
    close = (
        prompt.endswith(BREAKS)
        or _opens(prompt)
        or _goes_on(prompt, answer)
        or _closes(answer)
        or _spaceless(prompt, answer)
    )
    return f"{prompt}{answer}" if close else f"{prompt} {answer}"


def _opens(prompt: str) -> bool:
    """Whether a prompt ends in an opening quote or bracket."""
    last, before = prompt[-1:], prompt[-2:-1]
    if last in ('"', "'", "`"):  # which of the two it is, only its place tells
        opened = not before or before.isspace() or before == "="
        opened = opened or unicodedata.category(before) in ("Ps", "Pi")
        return opened or _within(before, _SPACELESS)
    return bool(last) and (last in _OPENING or unicodedata.category(last) in ("Ps", "Pi"))


def _goes_on(prompt: str, answer: str) -> bool:
    """Whether a prompt ends in a sign that a word goes on behind: "well-", "and/", "$"."""
    last, before = prompt[-1:], prompt[-2:-1]
    if not last or not answer:
        return False
    if unicodedata.category(last) == "Sc":
        return not before.isalnum() and answer[0].isdigit()
    if last == "@":
        return not before or before.isspace()
    return last in "-\u2010\u2011–—/" and (before.isalnum() or before == last == "/")


def _closes(answer: str) -> bool:
    """Whether an answer begins with punctuation that belongs to what stands before it."""
    first, second = answer[:1], answer[1:2]
    if not first or unicodedata.category(first)[0] != "P":
        return False
    if first in "'’":
        return _CLITIC.match(answer) is not None
    if first in "-–—":  # not the sign of a number, nor a dash between spaces
        return second.isalpha()
    if first == ".":
        return not second.isdigit()
    kind = unicodedata.category(first)
    return first not in f'"{_OPENING}{_APART}' and kind not in ("Ps", "Pi")


def _spaceless(prompt: str, answer: str) -> bool:
    """Whether no space stands between words of the scripts of both, or at full-width marks."""
    last, first = prompt[-1:], answer[:1]
    if not last or not first:
        return False
    if _within(last, _WIDE) or _within(first, _WIDE):
        return True
    if last.isdigit():  # 1984年 is Japanese, wherever it is cut
        last = next((c for c in reversed(prompt) if c.isalpha()), last)
    word = next((c for c in answer if c.isalpha()), last if first.isdigit() else first)
    return _within(last, _SPACELESS) and _within(word, _SPACELESS)


def _within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)
