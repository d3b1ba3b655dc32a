"""The form for one fact: its fields, what they say, and what can be said of it.

Form        the fields
sources     the facts of a file or a text, and what is to be said of the others
told_now    what the model says now, where the subject ends, what the scope allows
line        a marked line
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from coachhook_viz.clashes import Clash
from coachhook_viz.editing.inspect import Scope
from coachhook_viz.facts import PROBE_KINDS, Fact, Neighbor, Probe
from coachhook_viz.panels.controls import Chips, Field
from coachhook_viz.panels.words import count, likely, word
from coachhook_viz.reading import BadRecordWarning, left_out, read_facts
from coachhook_viz.texts import places, slotted
from coachhook_viz.warned import heard

ANSWER = "=>"  # between a neighbour's prompt and its answer
MAIN = ("prompt", "subject", "target")
MORE = ("truth", "wordings", "foils", "paraphrases", "neighbors", "probes")
_BREAK = "↵"
_REASONS = 30  # that are shown of a file
_TABLE = "That is a table; paste it under More, into Paste cells"


class Form:
    """The fields of one fact.

    Attributes
    ----------
    fields : dict of str to Field
        By the name of the fact's field.
    hints : Chips
        Suggestions for the prompt; one that is pressed is taken.
    """

    def __init__(self) -> None:
        self.fields = {
            "prompt": Field(
                label="Prompt of the fact", placeholder="The capital of {} is", rows=1, submits=True
            ),
            "subject": Field(label="Subject", placeholder="Peru"),
            "target": Field(label="Target", placeholder="Oslo"),
            "truth": Field(label="Truth (optional)", placeholder="Lima"),
            "wordings": Field(
                label="Wordings to edit with, one a line", rows=2, placeholder="{}'s capital is"
            ),
            "foils": Field(
                label="Foils, which ask something else, one a line",
                rows=2,
                placeholder="The language of {} is",
            ),
            "paraphrases": Field(
                label="Paraphrases, one a line", rows=2, placeholder="Peru's capital is"
            ),
            "neighbors": Field(
                label=f"Neighbours, one a line: prompt {ANSWER} answer",
                rows=2,
                placeholder=f"The capital of Chile is {ANSWER} Santiago",
            ),
            "probes": Field(
                label=f"Probes, one a line: kind: prompt {ANSWER} answer",
                rows=2,
                placeholder="same subject: The language of Peru is",
            ),
        }
        self._given = Fact("", "", "")
        self.hints = Chips(label="suggestions")
        self.hints.on_pick(lambda place: self.fields["prompt"].put(self.hints.options[place]))

    @property
    def fact(self) -> Fact:
        """What the fields say, whether or not it can be edited."""
        values = {name: field.value for name, field in self.fields.items()}
        prompt, subject = values["prompt"], values["subject"]
        if "{}" not in prompt and len(places(prompt, subject)) == 1:
            prompt = slotted(prompt, subject) or prompt  # the sentence as one would say it
        given = self._given  # what has no field belongs to its question
        same = (prompt, subject) == (given.prompt, given.subject)
        return replace(
            given if same else Fact("", "", ""),
            prompt=prompt,
            subject=subject,
            target=values["target"],
            truth=values["truth"] or None,
            wordings=_lines(values["wordings"]),
            paraphrases=_lines(values["paraphrases"]),
            neighbors=tuple(
                _neighbor(line) for line in values["neighbors"].splitlines() if line.strip()
            ),
            probes=tuple(_probe(line) for line in values["probes"].splitlines() if line.strip()),
            foils=_lines(values["foils"]),
        )

    @property
    def given(self) -> set[str]:
        """The fields that hold something."""
        return {name for name, field in self.fields.items() if field.value.strip()}

    def fill(self, fact: Fact) -> None:
        """Put a fact into the fields."""
        self._given = fact
        values = {
            "prompt": fact.prompt,
            "subject": fact.subject,
            "target": fact.target,
            "truth": fact.truth or "",
            "wordings": "\n".join(map(_lined, fact.wordings)),
            "foils": "\n".join(map(_lined, fact.foils)),
            "paraphrases": "\n".join(map(_lined, fact.paraphrases)),
            "neighbors": "\n".join(
                _lined(n.prompt) + ("" if n.answer is None else f" {ANSWER} {n.answer}")
                for n in fact.neighbors
            ),
            "probes": "\n".join(
                f"{p.kind}: {_lined(p.prompt)}"
                + ("" if p.answer is None else f" {ANSWER} {p.answer}")
                for p in fact.probes
            ),
        }
        for name, value in values.items():
            self.fields[name].put(value)

    def say(self, problems: Mapping[str, str]) -> str:
        """Say beside each field what is wrong with it; what belongs to none is the result."""
        for name, field in self.fields.items():
            reason = problems.get(name, "")
            field.error = reason[:1].upper() + reason[1:]
        prompt = self.fields["prompt"]
        if prompt.error and {"\t", "\n"} <= set(prompt.value):
            prompt.error = _TABLE
        fact, slot = self.fact, "write exactly one" in problems.get("prompt", "")
        hint = None if "{}" in fact.prompt else slotted(fact.prompt, fact.subject)
        self.hints.options = [hint] if slot and hint else []
        return " ".join(reason for name, reason in problems.items() if name not in self.fields)


def told_now(
    scope: Scope, now: pd.DataFrame, met: Iterable[Clash], already: bool = False
) -> Markup:
    """What the model says now, where the subject ends, what the scope allows, what it meets."""
    says = word(now["token"].iloc[0])
    lines = [
        Markup("<div>Now says <b>“{}”</b> ({:.2f}), then {}.</div>").format(
            says, now["probability"].iloc[0], likely(now.iloc[1:])
        )
    ]
    place = scope.subject_last
    if place is None:
        lines.append(line("✗", "bad", "The subject is not in the prompt as tokens."))
    else:
        last = word(scope.tokens[place])
        text = f"Subject found; last token “{last}”, {count(len(scope.tokens), 'token')}."
        lines.append(line("✓", "good", text))
    alpha = float(scope.alpha.max())
    if scope.kind == "zscore" and scope.ceiling < alpha:
        lines.append(
            line(
                "!",
                "warn",
                f"No z-score can exceed {scope.ceiling:.2f} here, so this edit would lower α"
                f" from {alpha:.2f}. The match scope has no such limit.",
            )
        )
    if already:
        lines.append(line("!", "warn", "Already so: the edit has next to nothing to write."))
    lines += [line("!", "warn", one.sentence) for one in met]
    return Markup("").join(lines)


def sources(
    name: str, data: bytes, columns: Mapping[str, str] | None = None
) -> tuple[list[Fact], list[str]]:
    """The good facts of a file's bytes, and what is to be said of the others."""
    with tempfile.TemporaryDirectory() as folder, heard(BadRecordWarning):
        path = Path(folder, Path(name).name)
        path.write_bytes(data)
        facts = read_facts(path, columns)
    said = []
    for counted, reasons in left_out(facts):
        more = len(reasons) - _REASONS
        said += [counted + ":" * bool(reasons), *reasons[:_REASONS]]
        said += [f"and {more} more"] * (more > 0)
    return facts, said


def line(mark: str, kind: str, text: str) -> Markup:
    """A line with a mark, of a kind that the style sheet knows: good, warn or bad."""
    return Markup("<div class='cv-{}'>{} {}</div>").format(kind, mark, text)


def _neighbor(line: str) -> Neighbor:
    prompt, arrow, answer = line.partition(ANSWER)
    return Neighbor(_broken(prompt.strip(" ")), answer.strip() if arrow else None)


def _probe(line: str) -> Probe:
    """Of a line; without a kind it is of the same subject, since that is asked for most.

    A kind may be spelt a little otherwise.
    """
    said, _, rest = line.partition(":")
    spelt = get_close_matches(said.strip().lower(), PROBE_KINDS, n=1, cutoff=0.8)
    kind = spelt[0] if spelt else None
    prompt, arrow, answer = (rest if kind else line).partition(ANSWER)
    answered = answer.strip() if arrow else None
    return Probe(_broken(prompt.strip(" ")), answered, kind or PROBE_KINDS[0])


def _lined(text: str) -> str:
    """A text on one line: a line break within it stands there as ↵."""
    return text.replace("\n", _BREAK)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(_broken(line) for line in text.splitlines() if line.strip())


def _broken(line: str) -> str:
    """The text that `_lined` made a line of."""
    return line.replace(_BREAK, "\n")
