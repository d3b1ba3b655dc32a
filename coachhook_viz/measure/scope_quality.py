"""Where the scope should have spoken and where it did: edit prompts to lexical near misses.

scope_quality    one row a prompt
confusion        the table of should and did
near_misses      for a fact, the other subject that looks most like its own, if any looks alike
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import pandas as pd

from coachhook_viz.editing.inspect import read_scope
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel

KINDS = ("edit", "paraphrase", "neighbour", "near miss")
_ALIKE = 0.6  # share of equal letters: Houston and Boston 0.77, Italy and Istanbul 0.62
_COLUMNS = ["fact", "kind", "prompt", "should", "at_subject", "anywhere", "tokens", "reason"]


def scope_quality(
    lm: LanguageModel,
    state: EditState,
    facts: Mapping[int, Fact],
    others: Sequence[str],
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Read the scope on every prompt of some facts in force.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    facts : mapping of int to Fact
        By id.
    others : sequence of str
        Subjects to make near misses with, where they look like a fact's own; those that are edited
        themselves are left out.
    watch : Watch, optional
        Called before each fact, stage "scope".

    Returns
    -------
    DataFrame
        fact : int
        kind : str
            "edit", "paraphrase", "neighbour" or "near miss".
        prompt : str
        should : bool
            Whether the hook should speak: on edit prompts and paraphrases.
        at_subject : bool or NA
            Whether it does at the subject's last token, at any hooked layer; NA where the prompt
            does not name the subject.
        anywhere : bool
            Whether it does at any token.
        tokens : int
        reason : str
            Where nothing is in scope, why.
    """
    rows = []
    edited = {fact.subject for fact in state.facts}
    missed = near_misses(facts, [other for other in others if other not in edited])
    for step, (fact_id, fact) in enumerate(facts.items()):
        if watch is not None:
            watch("scope", step, len(facts))
        prompts = [("edit", fact.text, fact.subject)]
        prompts += [("paraphrase", prompt, fact.subject) for prompt in fact.paraphrases]
        prompts += [("neighbour", neighbor.prompt, "") for neighbor in fact.neighbors]
        if fact_id in missed:
            other = missed[fact_id]
            prompts.append(("near miss", fact.prompt.replace("{}", other), other))
        for kind, prompt, subject in prompts:
            scope = read_scope(lm, state, prompt, subject)
            reached, place = scope.in_scope.any(0), scope.subject_last
            at_subject = pd.NA if place is None else bool(reached[place])
            anywhere = bool(reached.any())
            rows.append(
                (
                    fact_id,
                    kind,
                    prompt,
                    kind in ("edit", "paraphrase"),
                    at_subject,
                    anywhere,
                    len(scope.tokens),
                    "" if anywhere else scope.explain(),
                )
            )
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"at_subject": "boolean"})


def confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """Prompts by kind: in scope or not, at the subject's last token and anywhere.

    Parameters
    ----------
    frame : DataFrame
        What `scope_quality` gives.

    Returns
    -------
    DataFrame
        Indexed by kind: should (bool), prompts, at_subject and anywhere (int), subjects (prompts
        that name one).
    """
    table = frame.groupby("kind").agg(
        should=("should", "first"),
        prompts=("prompt", "size"),
        subjects=("at_subject", "count"),
        at_subject=("at_subject", "sum"),
        anywhere=("anywhere", "sum"),
    )
    return table.reindex([kind for kind in KINDS if kind in table.index])


def near_misses(facts: Mapping[int, Fact], others: Sequence[str]) -> dict[int, str]:
    """By fact, the one of `others` that looks most like its subject; no entry where none does."""
    pool = list(dict.fromkeys(others))
    found = {}
    for fact_id, fact in facts.items():
        close = difflib.get_close_matches(fact.subject, pool, n=1, cutoff=_ALIKE)
        if close:
            found[fact_id] = close[0]
    return found
