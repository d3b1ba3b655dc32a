"""Facts: enter what the model should say, and see at once what it says now."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.events import Event
from coachhook_viz.facts import Fact, FactError, Neighbor, find_conflicts, find_problems, validate
from coachhook_viz.panels.desk import STATE_EVENTS, Scored, Selected, Staged
from coachhook_viz.panels.grid import Cell, Grid, Kind
from coachhook_viz.panels.panel import Panel, Static, html, row, told
from coachhook_viz.panels.words import count, likely, word
from coachhook_viz.reading import FactFileError, bundled_facts, read_facts
from coachhook_viz.session import Session

_FIELDS = ("prompt", "subject", "target", "truth", "paraphrases", "neighbors")
_EDITABLE = _FIELDS[:3]
_MOST = 200  # facts that are listed: more would keep the page busy
_ANSWER = "=>"  # between a neighbour's prompt and its answer
_HINT = (
    "Write {} in the prompt where the subject goes. Here stands then what the model says now, where"
    " the subject ends, and what the scope allows."
)


class Facts(Panel):
    """Facts to stage for the next round, and those in force with how they hold.

    Parameters
    ----------
    session : Session
    """

    title = "Facts"

    def __init__(self, session: Session) -> None:
        self._fields: dict[str, Any] = {
            "prompt": widgets.Text(description="Prompt", placeholder="The capital of {} is"),
            "subject": widgets.Text(description="Subject", placeholder="Peru"),
            "target": widgets.Text(description="Target", placeholder="Oslo"),
            "truth": widgets.Text(description="Truth (optional)", placeholder="Lima"),
            "paraphrases": widgets.Textarea(
                description="Paraphrases, one a line", rows=2, placeholder="Peru's capital is"
            ),
            "neighbors": widgets.Textarea(
                description=f"Neighbours, one a line: prompt {_ANSWER} answer",
                rows=2,
                placeholder=f"The capital of Chile is {_ANSWER} Santiago",
            ),
        }
        self._wrong = {name: html("", "cv-note", "cv-bad") for name in _FIELDS}
        self._feedback = html(_HINT, "cv-note", "cv-kept", "cv-feedback")
        self._stage = widgets.Button(description="Stage", button_style="primary")
        self._more = widgets.ToggleButton(description="More…")
        self._back = widgets.Button(
            description="Take back", tooltip="the staged fact, into the form", disabled=True
        )
        self._gallery = widgets.Dropdown(
            description="Gallery",
            options=[("five facts of a relation…", ""), *_relations()],
            value="",
        )
        self._upload = widgets.FileUpload(
            description="Open file", accept=".csv,.json,.jsonl", multiple=False
        )
        self._pasted = widgets.Textarea(
            description="Paste CSV or JSON", rows=3, placeholder="prompt,subject,target"
        )
        self._read = widgets.Button(description="Read")
        self._found = html("", "cv-note")  # what was read
        self._list = Grid(
            label="facts: staged and in force",
            picks="row",
            empty="No fact yet. Type one, or take some from the gallery.",
        )
        self._table = Grid(
            label="staged facts as a table", columns=_EDITABLE, empty="No fact is staged."
        )
        self._entries: list[int | None] = []  # per row: a fact's id, None where it is staged
        self._filling = False
        cells = {n: widgets.VBox([self._fields[n], self._wrong[n]]) for n in _FIELDS}
        optional = widgets.VBox(
            [
                *(cells[name] for name in _FIELDS[3:]),
                self._pasted,
                row(self._read, self._upload),
                self._found,
                html("Staged facts; press Enter twice, or click twice, to type.", "cv-note"),
                self._table,
            ]
        )
        optional.add_class("cv-optional")
        optional.layout.display = "none"
        body = [
            row(*(cells[name] for name in _FIELDS[:3]), classes=["cv-fields"]),
            self._feedback,
            row(self._stage, self._back, self._more),
            optional,
            self._gallery,
            self._list,
        ]
        super().__init__(session, body, "what the model should say")
        for field in self._fields.values():
            self.on(field, self._typed)
        for name in _EDITABLE:
            self._fields[name].on_msg(self._entered)
        self.click(self._stage, self.stage)
        self.click(self._back, self._take_back)
        self.click(self._read, self._from_paste)
        self.on(self._more, lambda open_: setattr(optional.layout, "display", _display(open_)))
        self.on(self._gallery, self._from_gallery)
        self.on(self._upload, self._from_file)
        self.on(self._list, self._picked, "selected")
        self._table.on_type(self._edited)
        self._draw()

    @property
    def fact(self) -> Fact:
        """What the form says now, whether or not it can be edited."""
        values = {name: str(field.value) for name, field in self._fields.items()}
        return Fact(
            values["prompt"],
            values["subject"],
            values["target"],
            values["truth"] or None,
            tuple(filter(str.strip, values["paraphrases"].splitlines())),
            tuple(_neighbor(line) for line in values["neighbors"].splitlines() if line.strip()),
        )

    def fill(self, fact: Fact) -> None:
        """Put a fact into the form."""
        values = {
            "prompt": fact.prompt,
            "subject": fact.subject,
            "target": fact.target,
            "truth": fact.truth or "",
            "paraphrases": "\n".join(fact.paraphrases),
            "neighbors": "\n".join(
                n.prompt if n.answer is None else f"{n.prompt} {_ANSWER} {n.answer}"
                for n in fact.neighbors
            ),
        }
        self._filling = True
        try:
            for name, value in values.items():
                self._fields[name].value = value
        finally:
            self._filling = False
        self.later(self._check)

    def stage(self, facts: Sequence[Fact] | None = None) -> None:
        """Stage facts for the next round: those given, or the one in the form."""
        chosen = [self.fact] if facts is None else list(facts)
        self._say_problems({})
        try:
            validate([*self.desk.staged, *chosen])
            if facts is None:
                self.session.check(chosen)
        except FactError as error:
            if facts is None:
                mine = len(self.desk.staged)
                self._say_problems({p.field: p.reason for p in error.problems if p.index >= mine})
            else:
                self.fail(error)
            return
        self.alert()
        self.desk.stage([*self.desk.staged, *chosen], self)
        if facts is None:
            self.fill(Fact("", "", ""))

    def static(self) -> Static:
        """The list as a table."""
        lines = [
            Markup("<tr><td>{}</td><td>{}</td><td>{}</td></tr>").format(mark, str(fact), where)
            for mark, fact, where, _ in self._lines()
        ]
        table = Markup("<table><tr><th></th><th>fact</th><th>round</th></tr>{}</table>")
        return Static(table.format(Markup("").join(lines))) if lines else Static("No fact yet.")

    def code(self) -> str:
        """The facts, as the calls that make them."""
        listed = ",\n".join(f"    {_source(fact)}" for fact in self.desk.staged or [self.fact])
        return f"facts = [\n{listed},\n]"

    def hear(self, event: Event) -> None:
        """Draw the list anew; follow the selection."""
        if isinstance(event, (Staged, Scored, *STATE_EVENTS)):
            self._draw()
            if isinstance(event, STATE_EVENTS):
                self.later(self._check)
        elif isinstance(event, Selected) and event.source is not self:
            fact_id = event.now.fact
            if fact_id != event.before.fact and fact_id in self._entries:
                self._list.selected = [self._entries.index(fact_id), 1]

    def worked(self) -> None:
        """Nothing is staged or removed while a round is being edited."""
        self._stage.disabled = self._read.disabled = self.desk.worker.exclusive is not None

    def _entered(self, field: Any, content: dict[str, Any], buffers: list[bytes]) -> None:
        if content.get("event") == "submit" and not self._stage.disabled:  # the key Enter
            self._do(self.stage)

    def _typed(self, value: str) -> None:
        if not self._filling:
            self.later(self._check)

    def _check(self) -> None:
        """What can be said of the form while it is being typed into."""
        fact = self.fact
        given = {name for name in _FIELDS if str(self._fields[name].value).strip()}
        self._say_problems({p.field: p.reason for p in find_problems([fact]) if p.field in given})
        if not {"prompt", "subject"} <= given or fact.prompt.count("{}") != 1:
            self._feedback.value = _HINT
            return
        self.desk.worker.submit(
            "reading the prompt",
            lambda job: (
                self.session.scope(fact.text, fact.subject),
                self.session.predict(fact.text, top=3),
            ),
            lambda found: self._say_now(fact, *found),
            lambda error: self._feedback.set_trait("value", str(_line("✗", "bad", told(error)))),
            key=f"facts{id(self)}",
        )

    def _say_now(self, fact: Fact, scope: Scope, now: pd.DataFrame) -> None:
        """What the model says now, where the subject ends, what the scope allows, conflicts."""
        lines = []
        count, place = len(scope.tokens), scope.subject_last
        limits = f"{count} tokens, highest possible z {scope.ceiling:.2f}"
        if place is None:
            lines.append(_line("✗", "bad", "The subject is not in the prompt as tokens."))
        else:
            last = word(scope.tokens[place])
            lines.append(_line("✓", "good", f"Subject found; last token “{last}”, {limits}."))
        alpha = float(scope.alpha.max())
        if scope.kind == "zscore" and scope.ceiling < alpha:
            text = f"So short a prompt lowers α from {alpha:.2f} to below {scope.ceiling:.2f}."
            lines.append(_line("!", "warn", text))
        lines.append(Markup("<div>Now the model says {}</div>").format(likely(now)))
        known = [*self.desk.staged, *self.session.state.facts]
        for place, _ in find_conflicts([*known, fact]):
            if (known[place].prompt, known[place].subject) == (fact.prompt, fact.subject):
                text = f"Conflict: a fact there asks the same and wants {known[place].target!r}."
                lines.append(_line("!", "warn", text))
                break
        self._feedback.value = str(Markup("").join(lines))

    def _say_problems(self, problems: dict[str, str]) -> None:
        for name in _FIELDS:
            reason = problems.get(name, "")
            self._wrong[name].value = str(Markup("{}").format(reason[:1].upper() + reason[1:]))
            (self._fields[name].add_class if reason else self._fields[name].remove_class)(
                "cv-wrong"
            )
        rest = [reason for name, reason in problems.items() if name not in _FIELDS]
        self.alert(" ".join(rest))

    def _lines(self) -> list[tuple[str, Fact, str, Kind]]:
        """Mark, fact, round and kind of each row: staged ones first."""
        session = self.session
        lines: list[tuple[str, Fact, str, Kind]] = [
            ("+", fact, "staged", "now") for fact in self.desk.staged
        ]
        rounds = {i: place for place, r in enumerate(session.rounds, 1) for i in r.fact_ids}
        for fact_id, fact in session.facts.items():
            place = rounds[fact_id]
            if fact_id in session.muted:
                lines.append(("–", fact, f"{place}, muted", "muted"))
            elif place > session.position:
                lines.append(("·", fact, f"{place}, undone", "undone"))
            else:
                mark, kind = _holds(self.desk.scores.get(fact_id))
                lines.append((mark, fact, str(place), kind))
        return lines

    def _draw(self) -> None:
        lines = self._lines()
        staged = self.desk.staged
        self._entries = [*[None] * len(staged), *self.session.facts][:_MOST]
        cells = [_row(*line) for line in lines[:_MOST]]
        if more := len(lines) - len(cells):
            cells.append([Cell(), Cell(f"{count(more, 'more fact')}, not listed"), Cell(), Cell()])
        self._list.show(cells)
        self._table.show(
            [
                [Cell(getattr(fact, name), editable=True) for name in _EDITABLE]
                for fact in staged[:_MOST]
            ]
        )

    def _picked(self, at: list[int]) -> None:
        if not at or at[0] >= len(self._entries):
            self._back.disabled = True
            return
        fact_id = self._entries[at[0]]
        self._back.disabled = fact_id is not None
        if fact_id is None:
            self.desk.select(self, prompt=self.desk.staged[at[0]].text)
        else:
            fact = self.session.facts[fact_id]
            self.desk.select(self, fact=fact_id, prompt=fact.text)

    def _take_back(self) -> None:
        selected = self._list.selected
        if selected and selected[0] < len(self.desk.staged):
            staged = list(self.desk.staged)
            fact = staged.pop(selected[0])
            self.fill(fact)
            if fact.truth or fact.paraphrases or fact.neighbors:
                self._more.value = True  # they stay in the form: let them be seen
            self._list.selected = []  # first: from here on a click picks among what is left
            self.desk.stage(staged, self)

    def _edited(self, place: int, column: int, text: str) -> None:
        staged = list(self.desk.staged)
        if place >= len(staged):
            return
        staged[place] = replace(staged[place], **{_EDITABLE[column]: text})  # type: ignore[arg-type]
        with self.saying():
            validate(staged)
            self.desk.stage(staged, self)
        self._draw()

    def _from_gallery(self, relation: str) -> None:
        if relation:
            known = {(f.prompt, f.subject) for f in (*self.desk.staged, *self.session.state.facts)}
            self.stage(
                [
                    fact
                    for fact in bundled_facts()
                    if fact.relation == relation and (fact.prompt, fact.subject) not in known
                ][:5]
            )
            self._gallery.value = ""

    def _from_file(self, files: tuple[Any, ...]) -> None:
        if files:
            self._take(files[0]["name"], bytes(files[0]["content"]))
            self._upload.value = ()

    def _from_paste(self) -> None:
        text = str(self._pasted.value).strip()
        ending = "json" if text.startswith("[") else "jsonl" if text.startswith("{") else "csv"
        self._take(f"pasted.{ending}", text.encode())

    def _take(self, name: str, data: bytes) -> None:
        """Stage the facts of a file; bad records are said, the good ones are taken."""
        try:
            facts, said = _read(name, data)
        except (FactFileError, OSError) as error:
            self._found.value = str(_line("✗", "bad", told(error)))
            return
        known = {(fact.prompt, fact.subject) for fact in self.desk.staged}
        new = {(f.prompt, f.subject): f for f in reversed(facts)}  # the first of each
        kept = [fact for fact in facts if new[fact.prompt, fact.subject] is fact]
        kept = [fact for fact in kept if (fact.prompt, fact.subject) not in known]
        if left := len(facts) - len(kept):
            said.append(
                f"{count(left, 'fact')} left out: an earlier one asks the same. Apply them in"
                " another round."
            )
        before = len(self.desk.staged)
        self.stage(kept)
        staged = len(self.desk.staged) - before
        lines = [_line("✓", "good", f"{count(staged, 'fact')} staged.")] * bool(staged)
        lines += [_line("!", "warn", text) for text in said]
        self._found.value = str(Markup("").join(lines))


def _read(name: str, data: bytes) -> tuple[list[Fact], list[str]]:
    """The good facts of a file's bytes, and what is to be said of the others."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = Path(folder, Path(name).name)
        path.write_bytes(data)
        return read_facts(path), [str(warning.message) for warning in caught]


def _display(open_: bool) -> str:
    return "" if open_ else "none"


def _row(mark: str, fact: Fact, where: str, kind: Kind) -> list[Cell]:
    """The fact in one line, its subject standing out."""
    words = {"holds": "it holds", "partly": "it holds in part", "missed": "it does not hold"}
    detail = f"{fact}: {words.get(kind, where)}"
    start = max(fact.prompt.find("{}"), 0)
    said: Kind = kind if kind in ("muted", "undone") else ""
    return [
        Cell(mark, detail, kind=kind),
        Cell(fact.text, detail, kind=said, strong=(start, start + len(fact.subject))),
        Cell(f"→ {fact.target}", detail, kind=said or "aim"),
        Cell(where, detail, kind="undone"),
    ]


def _relations() -> list[tuple[str, str]]:
    relations = dict.fromkeys(fact.relation for fact in bundled_facts())
    return [(relation.replace("_", " "), relation) for relation in relations]


def _holds(scores: dict[str, float] | None) -> tuple[str, Kind]:
    if scores is None:
        return "…", ""
    share = scores["reliability"]
    return ("●", "holds") if share == 1 else ("◐", "partly") if share > 0 else ("○", "missed")


def _line(mark: str, kind: str, text: str) -> Markup:
    return Markup("<div class='cv-{}'>{} {}</div>").format(kind, mark, text)


def _neighbor(line: str) -> Neighbor:
    prompt, arrow, answer = line.partition(_ANSWER)
    return Neighbor(prompt.strip(), answer.strip() if arrow else None)


def _source(fact: Fact) -> str:
    parts = [repr(fact.prompt), repr(fact.subject), repr(fact.target)]
    for name in ("truth", "paraphrases"):
        if value := getattr(fact, name):
            parts.append(f"{name}={value!r}")
    if fact.neighbors:
        pairs = tuple((n.prompt, n.answer) for n in fact.neighbors)
        parts.append(f"neighbors={pairs!r}")
    return f"cv.Fact({', '.join(parts)})"
