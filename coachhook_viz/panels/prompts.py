"""Several prompts at once: does the hook speak where it should, and does the answer change.

COLUMNS      of the table
prompts_of   the prompts that belong to a fact, and what kind of prompt each is
Checked      one prompt: where the hook speaks, what the model says, and its line in the table
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coachhook_viz.edited_model import EditedModel
from coachhook_viz.editing.inspect import Scope
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact
from coachhook_viz.measure.scope_quality import near_misses
from coachhook_viz.panels.grid import Cell
from coachhook_viz.panels.words import count, word
from coachhook_viz.session import Session

COLUMNS = ("prompt", "kind", "subject", "scope", "says", "where, or why not")
_MEANT = ("edit", "paraphrase")  # kinds of prompts on which the hook should speak


def prompts_of(fact: Fact, others: Sequence[str]) -> dict[str, str]:
    """Prompts, each with its kind; a near miss has the look-alike among the subjects `others`."""
    alike = near_misses({0: fact}, others).values()
    return {
        fact.text: "edit",
        **dict.fromkeys(fact.paraphrases, "paraphrase"),
        **{neighbor.prompt: "neighbour" for neighbor in fact.neighbors},
        **{fact.prompt.replace("{}", other): "near miss" for other in alike},
    }


@dataclass(frozen=True, eq=False)
class Checked:
    """One prompt: where the hook speaks, and what the model says, unedited and now."""

    reading: Scope
    before: str
    now: str

    @classmethod
    def read(cls, session: Session, state: EditState, prompt: str) -> Checked:
        """Ask the model, under `state`."""
        edited = EditedModel(session.lm, state)
        before, now = (
            model.predict(prompt, top=1)["token"].iloc[0]
            for model in (session.edited_model(0), edited)
        )
        return cls(edited.scope(prompt), word(before), word(now))

    def line(self, kind: str) -> list[Cell]:
        """Its cells, by `COLUMNS`; of an unknown kind nothing is held against it."""
        reading, place = self.reading, self.reading.subject_last
        reached = reading.in_scope.any(0)
        fired, changed = bool(reached.any()), self.now != self.before
        where = ", ".join(word(t) for t, hit in zip(reading.tokens, reached, strict=True) if hit)
        meant = kind in _MEANT
        wrong = bool(kind) and fired != meant
        harmed = bool(kind) and not meant and changed
        return [
            Cell(
                reading.prompt,
                f"{count(len(reading.tokens), 'token')}: no z-score exceeds {reading.ceiling:.2f}.",
            ),
            Cell(kind),
            Cell("–" if place is None else "●" if reached[place] else "○"),
            Cell(
                "● fired" if fired else "○ silent",
                f"It should {'stay silent' if fired else 'fire'} here." if wrong else "",
                kind="missed" if wrong else "holds" if kind else "",
            ),
            Cell(
                f"{self.before} → {self.now}" if changed else self.now,
                "It should say what it said before." if harmed else "",
                kind="missed" if harmed else "holds" if kind and not meant else "",
            ),
            Cell(where if fired else reading.explain()),
        ]
