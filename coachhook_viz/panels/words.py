"""How panels call facts and tokens, and lists of them.

word     a token, in a sentence
named    a fact, as short as it can be told
brief    the beginning of a text
likely   the likeliest next tokens
count    a number of things
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
