"""Two sessions beside each other: what one has that the other has not.

diff    facts, settings and answers that differ
Diff    them as a frame, and in a sentence
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import torch

from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import readable
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel
from coachhook_viz.running import as_model
from coachhook_viz.session import Session

COLUMNS = ["kind", "what", "a", "b"]
_ROWS = 32  # prompts that are asked at once


@dataclass(frozen=True, eq=False)
class Diff:
    """How two sessions differ.

    Attributes
    ----------
    frame : DataFrame
        kind : str
            "model", another one or another lead; "added", a fact that only b has in force; "taken
            back", one that only a has; "target", one that both have with other targets;
            "setting"; "answer".
        what : str
            A prompt, or a setting's name; "model" or "lead".
        a, b : str
            What each has there: a target, a value, the likeliest next token; empty if nothing.
    asked : int
        Of how many prompts the answers were compared.
    sentence : str
    """

    frame: pd.DataFrame
    asked: int
    sentence: str

    def __repr__(self) -> str:
        return self.sentence


def diff(a: Session, b: Session, *, budget: int = 200) -> Diff:
    """Compare what two sessions have in force, setting by setting and answer by answer.

    Parameters
    ----------
    a, b : Session
    budget : int
        Most prompts that both are asked: those of facts that differ first, then those of all
        facts in force, their paraphrases and their neighbours. 0: none.

    Returns
    -------
    Diff

    Raises
    ------
    TypeError
        If one of them is no session.
    ValueError
        If the budget is no number of prompts.
    """
    for name, given in (("a", a), ("b", b)):
        if not isinstance(given, Session):
            raise TypeError(
                f"{name} is {type(given).__name__}: diff compares sessions; open a folder with"
                " Session.load(folder, lm)"
            )
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"budget is {budget!r}: it must be a number of prompts, 0 for none")
    rows: list[tuple[str, str, str, str]] = []
    if a.lm is not b.lm and a.lm.fingerprint != b.lm.fingerprint:
        rows.append(("model", "model", a.lm.name, b.lm.name))
    if a.lm.lead != b.lm.lead:
        rows.append(("model", "lead", repr(a.lm.lead), repr(b.lm.lead)))
    one, other = _targets(a.state), _targets(b.state)
    rows += [("added", text, "", other[text]) for text in other if text not in one]
    rows += [("taken back", text, one[text], "") for text in one if text not in other]
    rows += [
        ("target", text, one[text], other[text])
        for text in one
        if text in other and one[text] != other[text]
    ]
    prompts = _prompts([row[1] for row in rows if row[0] != "model"], a, b)[:budget]
    rows += [
        ("setting", field.name, repr(left), repr(right))
        for field in fields(a.config)
        if (left := getattr(a.config, field.name)) != (right := getattr(b.config, field.name))
    ]
    said = _said(a.lm, a.state, prompts), _said(b.lm, b.state, prompts)
    rows += [
        ("answer", prompt, left, right)
        for prompt, left, right in zip(prompts, *said, strict=True)
        if left != right
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS, dtype="object")
    return Diff(frame, len(prompts), _sentence(frame, len(prompts)))


def _targets(state: EditState) -> dict[str, str]:
    """Target by prompt, of edits of the same prompt the last one's."""
    return {fact.text: fact.target for fact in state.facts}


def _prompts(first: Sequence[str], a: Session, b: Session) -> list[str]:
    facts: list[Fact] = [*a.state.facts, *b.state.facts]
    beside = [
        text
        for fact in facts
        for text in (*fact.paraphrases, *(neighbor.prompt for neighbor in fact.neighbors))
    ]
    return list(dict.fromkeys([*first, *(fact.text for fact in facts), *beside]))


@torch.no_grad()
def _said(lm: LanguageModel, state: EditState, prompts: Sequence[str]) -> list[str]:
    """The likeliest next token after each prompt."""
    said: list[str] = []
    model: Any = as_model(lm, state)
    for start in range(0, len(prompts), _ROWS):
        some = prompts[start : start + _ROWS]
        batch = lm.encode(some)
        logits = model(**batch, use_cache=False).logits
        last = batch["attention_mask"].sum(1) - 1
        best = logits[torch.arange(len(some)), last.to(logits.device)].argmax(-1)
        said += [readable(lm, [token])[0] for token in best.tolist()]
    return said


def _sentence(frame: pd.DataFrame, asked: int) -> str:
    count = frame["kind"].value_counts().to_dict()
    parts = [
        f"{number} {one if number == 1 else many}"
        for kind, one, many in (
            ("added", "fact added", "facts added"),
            ("taken back", "fact taken back", "facts taken back"),
            ("target", "fact with another target", "facts with other targets"),
            ("setting", "setting differs", "settings differ"),
        )
        if (number := count.get(kind, 0))
    ]
    there = set(frame.loc[frame["kind"] == "model", "what"])
    parts[:0] = [f"another {what}" for what in ("model", "lead") if what in there]
    if asked:
        parts.append(f"{count.get('answer', 0)} of {asked} answers differ")
    if frame.empty:
        return f"No difference in facts and settings{f', nor in {asked} answers' * bool(asked)}."
    return f"From a to b: {', '.join(parts)}."
