"""Facts: enter what the model should say, see at once what it says now, and apply it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from coachhook_viz.editing.inspect import Scope
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import Round
from coachhook_viz.events import Event, RoundApplied
from coachhook_viz.facts import Fact, FactError, find_problems, validate
from coachhook_viz.measure.answers import already
from coachhook_viz.panels.controls import (
    Button,
    Chips,
    Field,
    ListBox,
    Select,
    Text,
    Toggle,
    Upload,
    column,
    row,
)
from coachhook_viz.panels.desk import STATE_EVENTS, Scored, Selected, Staged
from coachhook_viz.panels.form import MAIN, MORE, Form, line, sources, told_now
from coachhook_viz.panels.listing import FILTERS, SORTS, Listing
from coachhook_viz.panels.meeting import Meeting
from coachhook_viz.panels.panel import Panel, Static, told
from coachhook_viz.panels.running import progress
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.reading import COLUMNS, WHICH, FactFileError, bundled_facts, columns_of
from coachhook_viz.recipe import fact_source
from coachhook_viz.session import Session

_HINT = "Write {} where the subject goes. What the model says now will stand here."
_WHICH = "prompt = …, subject = …, target = …, in Columns of other names under More"


class Facts(Panel):
    """Facts to apply now or to stage, and those in force with how they hold.

    Parameters
    ----------
    session : Session
    """

    title = "Facts"
    help = "what the model should say"

    def __init__(self, session: Session) -> None:
        self._form = Form()
        self._fields, self._hints = self._form.fields, self._form.hints
        self._feedback = Text(_HINT, "cv-note cv-feedback", live="polite", label="about the fact")
        self._now = Button("Apply now", "primary", tip="one round with this fact alone")
        self._stage = Button("Stage", tip="keep it for a round with others")
        self._more = Toggle(label="More", expands=True, name="More fields of a fact")
        self._upload = Upload(
            "Open file", ".csv,.tsv,.txt,.json,.jsonl,.xlsx", tip="facts as a table, JSON or JSONL"
        )
        self._gallery = Select(
            label="Gallery", options=[["Five facts from…", ""], *_relations()], classes="cv-bare"
        )
        self._pasted = Field(
            label="Paste cells, CSV or JSON", rows=3, placeholder="prompt,subject,target"
        )
        self._columns = Field(label="Columns of other names", placeholder=COLUMNS)
        self._read = Button("Read", name="Read what was pasted")
        self._found = Text(live="polite")  # what was read
        self._search = Field(label="Search facts", placeholder="Search facts…", classes="cv-bare")
        self._filter = Select(label="Show facts", options=FILTERS, value="all", classes="cv-bare")
        self._sort = Select(label="Sort facts", options=SORTS, value="order", classes="cv-bare")
        self._list = ListBox(
            label="facts: staged and in force",
            empty="Your facts will stand here.",
        )
        self._mute = Button("Mute", hidden=True)
        self._why = Button("Why?", hidden=True, tip="why the fact does not hold")
        self._back = Button("Take back", hidden=True, tip="the staged fact, into the form")
        self._clear = Button("Clear staged", "quiet", hidden=True)
        self._apply = Button("Apply", "primary", hidden=True)
        self._size = Field(label="in rounds of", value="10", classes="cv-inline")
        self._expected = Text(classes="cv-note")
        self._pause = Button("Pause", hidden=True, tip="after the round that runs")
        self._cancel = Button("Cancel", name="Cancel the round", hidden=True)
        self._progress = Text(classes="cv-progress-box")
        self._ended = Text(classes="cv-note", live="polite")
        self._saved = Text(classes="cv-note")
        self._listing = Listing(session)
        self._optional = column(
            *(self._fields[name] for name in MORE),
            self._pasted,
            self._columns,
            row(self._read),
            classes="cv-optional",
            hidden=True,
        )
        self._tools = row(self._search, self._filter, self._sort, classes="cv-tools-list")
        self._already = Text(classes="cv-note cv-warn", live="polite")
        self._met = Text(classes="cv-note cv-warn", live="polite")
        self._offers = Chips(label="what to do with facts that are edited already")
        self._meeting = Meeting(session)
        self._about: list[Fact] = []  # what the form says, while a person has to decide on it
        body = [
            column(
                self._fields["prompt"],
                row(self._fields["subject"], self._fields["target"], classes="cv-fields"),
                row(self._now, self._stage, self._more),
                row(self._gallery, self._upload, classes="cv-sources"),
                self._feedback,
                self._hints,
                self._optional,
                self._found,
                classes="cv-composer",
            ),
            self._tools,
            self._list,
            column(
                row(self._why, self._mute, self._back),
                self._already,
                self._met,
                self._offers,
                self._progress,
                row(
                    self._apply,
                    self._size,
                    self._expected,
                    self._pause,
                    self._cancel,
                    self._clear,
                ),
                self._ended,
                self._saved,
                classes="cv-foot",
            ),
        ]
        super().__init__(session, body)
        for field in self._fields.values():
            self.on(field, lambda value: self.later(self._check))
        for name in MAIN:
            self._fields[name].on_enter(lambda: self._do(self.stage))
        self.click(self._now, self.apply_now)
        self.click(self._stage, self.stage)
        self.click(self._read, self._from_paste)
        self.click(self._mute, self._toggle_mute)
        self.click(self._why, self._ask_why)
        self.click(self._back, self._take_back)
        self.click(self._clear, lambda: self.desk.stage([], self))
        self.click(self._apply, self.apply)
        self.click(self._pause, self._toggle_pause)
        self.click(self._cancel, self.desk.applying.cancel)
        self.on(self._more, lambda shown: setattr(self._optional, "hidden", not shown))
        self.on(self._gallery, self._from_gallery)
        self._upload.on_file(lambda name, data: self._do(lambda: self._take(name, data)))
        self._offers.on_pick(lambda place: self._do(lambda: self._settle(place)))
        for node in (self._search, self._filter, self._sort):
            self.on(node, lambda value: self.refresh())
        self.on(self._size, lambda size: setattr(self._size, "error", ""))
        self.on(self._list, self._picked, "chosen")
        self._list.on_again(lambda key: self._do(lambda: self._look_at(key)))
        if self.desk.autosave is not None:
            self._ends.append(self.desk.autosave.on_saved(self._say_saved))
            self._say_saved()
        self.refresh()
        self.worked()

    @property
    def fact(self) -> Fact:
        """What the form says now, whether or not it can be edited."""
        return self._form.fact

    def fill(self, fact: Fact) -> None:
        """Put a fact into the form."""
        self._form.fill(fact)

    def stage(self, facts: Sequence[Fact] | None = None) -> None:
        """Stage facts for the next round: those given, or the one in the form."""
        chosen = [self.fact] if facts is None else list(facts)
        if facts is None and not self._sound(chosen[0]):
            return
        validate(chosen) if len(chosen) == 1 else None
        self.alert()
        self.desk.stage([*self.desk.staged, *chosen], self)
        if facts is None:
            self.fill(Fact("", "", ""))

    def apply_now(self) -> None:
        """Write the fact in the form as one round, in the background."""
        fact = self.fact
        if not self._sound(fact):
            return
        if any(clash.kind != "subject" for clash in self._meeting.asks([fact])):
            self._about = [fact]
            self._say_meeting()
            return
        self._write([fact])

    def apply(self) -> None:
        """Write the staged facts, in rounds of the size that stands beside the button."""
        facts = self.desk.staged
        size = self._rounds_of(len(facts))
        if size:
            self.desk.applying.begin(facts, size, replacing=self._meeting.replacing)

    def static(self) -> Static:
        """The list as a table."""
        lines = [
            Markup("<tr><td>{}</td><td>{}</td><td>{}</td></tr>").format(
                line.mark, str(line.fact), line.where
            )
            for line in self._listing.all(self.desk)
        ]
        table = Markup("<table><tr><th></th><th>fact</th><th>round</th></tr>{}</table>")
        return Static(table.format(Markup("").join(lines))) if lines else Static("No fact yet.")

    def code(self) -> str:
        """The facts, as the calls that make them."""
        listed = ",\n".join(f"    {fact_source(fact)}" for fact in self.desk.staged or [self.fact])
        return f"facts = [\n{listed},\n]"

    def hear(self, event: Event) -> None:
        """Draw the list anew; follow the selection."""
        if isinstance(event, Staged) and event.source is not self.desk.applying:
            self.desk.applying.said = ""  # it was of what was staged
        if isinstance(event, RoundApplied):
            self._meeting.forget(event.round.facts)
        if isinstance(event, (Staged, Scored, *STATE_EVENTS)):
            if not self.desk.staged:
                self._found.say()
            self.refresh()
            self.worked()
            if isinstance(event, STATE_EVENTS):
                self.later(self._check)
        elif isinstance(event, Selected) and event.source is not self:
            key = f"f{event.now.fact}"
            if event.now.fact != event.before.fact and key in self._listing.shown:
                self._list.chosen = [key]
                self._draw_chosen()

    def refresh(self) -> None:
        """The list as it is now."""
        desk = self.desk
        lines = self._listing.choose(desk, self._search.value, self._filter.value, self._sort.value)
        chosen = [key for key in self._list.chosen if key in self._listing.shown]
        with self._list.together():
            self._list.chosen = chosen
            self._list.rows = [line.plain() for line in lines]
        some = bool(desk.staged or desk.session.facts)
        self._tools.hidden = not some
        self._list.empty = (
            "No fact fits the search."
            if some
            else "Your facts will stand here. Type one above, take five from the gallery, open a"
            " file, or paste a table under More."
        )
        staged = len(desk.staged)
        self._apply.hidden = not staged
        self._apply.label = f"Apply {staged}" if staged else "Apply"
        self._expected.say(desk.applying.expected(staged))
        self._draw_chosen()
        self._say_meeting()
        self._read_staged()

    def worked(self) -> None:
        """Nothing is staged or removed while a round is being edited; how far it has come."""
        worker, applying = self.desk.worker, self.desk.applying
        busy, staged = worker.exclusive is not None, len(self.desk.staged)
        self._size.hidden = busy or staged < 2
        self._clear.hidden = self._expected.hidden = busy or not staged
        for button in (self._now, self._read, self._apply, self._mute, self._clear, self._back):
            button.disabled = busy
        job = worker.exclusive
        said = Markup("")
        if job is not None:
            said = progress(job, applying.seconds_left if applying.running else None)
            if applying.pausing:
                said += Markup("<p class='cv-note'>It pauses after this round.</p>")
        self._progress.say(said)
        self._progress.hidden = not said
        self._pause.hidden = not (applying.running and applying.rounds > 1)
        self._pause.label = "Go on" if applying.pausing else "Pause"
        self._cancel.hidden = not busy
        self._ended.say("" if busy else applying.said)
        self._ended.hidden = busy or not applying.said

    def _say_saved(self) -> None:
        """When the session was last saved; the bar says what could not be."""
        autosave = self.desk.autosave
        if autosave is not None and autosave.saved is not None and not autosave.error:
            at = f"Saved at {autosave.saved.astimezone():%H:%M:%S}, {self.desk.standing}."
            self._do(lambda: self._saved.say(at))

    def _sound(self, fact: Fact) -> bool:
        """Whether the fact in the form can be edited; if not, what is wrong with which field."""
        self._say_problems({})
        try:
            validate([fact])
            self.session.check([fact])
        except FactError as error:
            self._say_problems({problem.field: problem.reason for problem in error.problems})
            return False
        return True

    def _write(self, facts: list[Fact]) -> None:
        """Apply what the form says, and make room for the next."""
        self.desk.applying.begin(
            facts,
            None,
            lambda round_: self._do(lambda: self._look(round_)),
            replacing=self._meeting.replacing,
        )
        self.fill(Fact("", "", ""))

    def _look(self, round_: Round) -> None:
        """Ask and Scope look at the first fact of a round."""
        self.desk.select(self, prompt=round_.facts[0].text)

    def _rounds_of(self, staged: int) -> int:
        """Facts in a round; 0 where the field does not say."""
        text = self._size.value.strip()
        if staged < 2:
            return staged
        if not text.isdecimal() or not int(text):
            self._size.error = f"Write a whole number of facts, as 10, not {text!r}."
            return 0
        return int(text)

    def _toggle_pause(self) -> None:
        applying = self.desk.applying
        (applying.go_on if applying.pausing else applying.pause)()
        self.worked()

    def _check(self) -> None:
        """What can be said of the form while it is being typed into."""
        fact = self.fact
        given = self._form.given
        filled = len(given.intersection(MORE))
        self._more.label = f"More ({filled})" if filled else "More"
        if self._about and self._about != [fact]:
            self._about = []
            self._say_meeting()
        self._say_problems({p.field: p.reason for p in find_problems([fact]) if p.field in given})
        if not {"prompt", "subject"} <= given or fact.prompt.count("{}") != 1:
            self._feedback.say(_HINT)
            self.forget(self._say_now)
            return
        state = self.session.state
        self.run(
            "reading the prompt",
            lambda job: (
                fact,
                self.session.scope(fact.text, fact.subject, state),
                self.session.predict(fact.text, top=3, state=state),
                "target" in given and already(self.session.lm, state, [fact])[0],
            ),
            self._say_now,
            of=(fact, state.key),
            fail=self._cannot_read,
        )

    def _cannot_read(self, error: Exception) -> None:
        self._feedback.say(line("✗", "bad", told(error)))

    def _say_now(self, found: tuple[Fact, Scope, pd.DataFrame, bool]) -> None:
        """What the model says now, where the subject ends, what the scope allows."""
        fact, scope, now, so = found
        self._feedback.say(told_now(scope, now, self._meeting.of([fact]), so))

    def _say_problems(self, problems: dict[str, str]) -> None:
        self.alert(self._form.say(problems))

    def _say_meeting(self) -> None:
        """Facts that meet edits in force: say it, and offer what can be done."""
        said = self._meeting.say(self._about or self.desk.staged)
        self._met.say(said)
        self._met.hidden = not said
        self._offers.options = list(Meeting.OFFERS) if said else []

    def _read_staged(self) -> None:
        """Staged facts that the model says already: an edit has nothing to do for them."""
        facts, state = self.desk.staged, self.session.state
        if not facts:
            self.forget(self._say_already)
            self._say_already([])
            return

        def read(job: Job) -> list[Fact]:
            said = already(self.session.lm, state, facts, Watch(job.progress, job.cancel))
            return [fact for fact, so in zip(facts, said, strict=True) if so]

        self.run(
            "reading what the model says already",
            read,
            self._say_already,
            of=(facts, state.key),
            patience=2,
            fail=lambda error: None,  # facts that cannot be asked are refused when applied
        )

    def _say_already(self, facts: Sequence[Fact]) -> None:
        said = "; ".join(f"{fact.subject} → {fact.target}" for fact in facts[:3])
        more = f" and {len(facts) - 3} more" if len(facts) > 3 else ""
        self._already.say(f"Already so, next to nothing to write: {said}{more}." if facts else "")
        self._already.hidden = not facts

    def _settle(self, place: int) -> None:
        """What a person has chosen for facts that meet edits in force."""
        self.desk.worker.check_free()
        form, self._about = bool(self._about), []
        facts = self._meeting.settle(place)
        if not form:
            self.desk.stage(facts, self)
        elif facts:
            self._write(facts)
        else:
            self.fill(Fact("", "", ""))
        self._say_meeting()

    def _picked(self, chosen: list[str]) -> None:
        there = [key for key in chosen if key in self._listing.shown]
        if there != chosen:  # one is gone since
            self._list.chosen = there
            return
        self._draw_chosen()
        if len(chosen) != 1:
            return
        ids = self._chosen_ids()
        if not ids or ids[0] != self.desk.selection.fact:  # else it was selected elsewhere
            self._look_at(chosen[0])

    def _look_at(self, key: str) -> None:
        """Ask and the lenses look at a fact of the list."""
        ids = self._chosen_ids()
        text = self._listing.fact(key).text
        self.desk.select(self, fact=ids[0] if ids else None, prompt=text)

    def _draw_chosen(self) -> None:
        """What can be done with the rows that are chosen."""
        facts = self._chosen_ids()
        staged = [key for key in self._list.chosen if key.startswith("s")]
        muted = bool(facts) and all(i in self.session.muted for i in facts)
        some = f" {len(facts)}" if len(facts) > 1 else ""
        lines = [self._listing.shown[key] for key in self._list.chosen]
        self._why.hidden = len(lines) != 1 or lines[0].kind not in ("partly", "missed")
        self._mute.hidden, self._back.hidden = not facts, not staged
        self._mute.label = f"{'Unmute' if muted else 'Mute'}{some or ' fact'}"
        self._back.label = f"Take {len(staged)} back" if len(staged) > 1 else "Take back"

    def _chosen_ids(self) -> list[int]:
        return [int(key[1:]) for key in self._list.chosen if key.startswith("f")]

    def _ask_why(self) -> None:
        """Why the chosen fact does not hold."""
        fact = self._listing.fact(self._list.chosen[0])
        self.desk.ask_why(self, fact.text, fact.target)

    def _toggle_mute(self) -> None:
        self.desk.worker.check_free()
        facts = self._chosen_ids()
        unmute = all(i in self.session.muted for i in facts)
        for fact_id in facts:
            (self.session.unmute if unmute else self.session.mute)(fact_id, source=self)

    def _take_back(self) -> None:
        """Of one staged fact into the form, of several off the stage."""
        keys = [key for key in self._list.chosen if key.startswith("s")]
        facts = [self._listing.fact(key) for key in keys]
        if len(facts) == 1:
            self.fill(facts[0])
        self._list.chosen = []
        staged = list(self.desk.staged)
        for fact in facts:
            staged.remove(fact)
        self.desk.stage(staged, self)

    def _from_gallery(self, relation: str) -> None:
        if relation:
            known = {(f.prompt, f.subject) for f in (*self.desk.staged, *self.session.state.facts)}
            new = [
                fact
                for fact in bundled_facts()
                if fact.relation == relation and (fact.prompt, fact.subject) not in known
            ][:5]
            self._gallery.value = ""
            if not new:
                self.alert("All facts of that relation are staged or in force.")
                return
            self.stage(new)

    def _from_paste(self) -> None:
        text = self._pasted.value.strip("\r\n ")
        ending = "json" if text.startswith("[") else "jsonl" if text.startswith("{") else "csv"
        if self._take(f"pasted.{ending}", text.encode()):
            self._pasted.put("")

    def _take(self, name: str, data: bytes) -> bool:
        """Stage the facts of a file; bad records are said, the good ones are taken.

        The result is whether all of it was.
        """
        self._columns.error = ""
        try:
            columns = columns_of(self._columns.value)
        except ValueError as error:
            self._columns.error = told(error)
            return False
        try:
            facts, said = sources(name, data, columns)
        except (FactFileError, OSError) as error:
            self._found.say(line("✗", "bad", told(error).replace(WHICH, _WHICH)))
            return False
        said = [text.replace(WHICH, _WHICH) for text in said]
        staged = {(fact.prompt, fact.subject, fact.target) for fact in self.desk.staged}
        kept = list({(f.prompt, f.subject, f.target): f for f in facts}.values())
        kept = [fact for fact in kept if (fact.prompt, fact.subject, fact.target) not in staged]
        if left := len(facts) - len(kept):
            said.append(f"{count(left, 'fact')} left out: the same fact is staged already.")
        if kept:
            self.stage(kept)
        lines = [line("✓", "good", f"{count(len(kept), 'fact')} staged from {name}.")] * bool(kept)
        lines += [line("!", "warn", text) for text in said]
        self._found.say(Markup("").join(lines))
        return bool(kept) and not said


def _relations() -> list[list[str]]:
    relations = dict.fromkeys(fact.relation for fact in bundled_facts())
    return [[relation.replace("_", " "), relation] for relation in relations]
