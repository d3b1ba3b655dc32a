"""How panels call facts and tokens, and lists of them.

word        a token, in a sentence
named       a fact, as short as it can be told
brief       the beginning of a text
likely      the likeliest next tokens
count       a number of things
duration    a time
short       a score, where there is little room
"""

from __future__ import annotations

import pandas as pd

from coachhook_viz.facts import Fact
from coachhook_viz.figures.style import visible


def word(token: str) -> str:
    """``"Rome"``, for `" Rome"`; white space alone is made visible."""
    return token.strip() or visible(token)


def named(fact: Fact) -> str:
    """``"France → Rome"``."""
    return f"{fact.subject} → {fact.target}"


def brief(text: str, longest: int = 14) -> str:
    """The beginning of a text, where there is little room."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def likely(frame: pd.DataFrame) -> str:
    """``"Rome 0.97 · the 0.01"``, from what `Session.predict` gives."""
    pairs = zip(frame["token"], frame["probability"], strict=True)
    return " · ".join(f"{word(token)} {p:.2f}" for token, p in pairs)


def count(number: int, thing: str) -> str:
    """``"1 fact"``, ``"2 facts"``."""
    return f"{number} {thing}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """``"8 s"``, ``"2 min"``, ``"12 h"``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.0f} h"


def short(value: float) -> str:
    """``".43"``, ``"1"``, for a score of two digits where there is little room."""
    text = f"{value:.2f}"
    return "1" if text == "1.00" else "0" if text == "0.00" else text.removeprefix("0")
