"""The bar of the playground: where the session stands, always in view, and what it can hand out.

Bar    model, timeline, undo and redo, facts, scope, hooks, what runs; and, unfolded, files
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from coachhook_viz.autosave import Autosave, Kept, recent
from coachhook_viz.events import Event
from coachhook_viz.figures.style import Picture
from coachhook_viz.measure.quality import holds
from coachhook_viz.panels.controls import Button, Choice, Field, Select, Text, Toggle, row
from coachhook_viz.panels.desk import STATE_EVENTS, Selected
from coachhook_viz.panels.grid import Grid
from coachhook_viz.panels.panel import Panel, Static
from coachhook_viz.panels.rounds import timeline
from coachhook_viz.panels.scope import rules_of
from coachhook_viz.panels.words import count, duration

if TYPE_CHECKING:
    from coachhook_viz.panels.playground import Playground

_UNSAVED = "Not saved."


class Bar(Panel):
    """Where the session stands, and what is done with it as a whole.

    Parameters
    ----------
    playground : Playground
        What is saved, opened, presented and handed out.
    autosave : Autosave
    """

    title = "coachhook"

    def __init__(self, playground: Playground, autosave: Autosave) -> None:
        assert playground.session is not None
        session = playground.session
        self._playground = playground
        self._autosave = autosave
        self._model = Text(classes="cv-pill")
        self._line = Grid(label="rounds in force", look="timeline")
        self._undo = Button("↶ Undo", name="Undo")
        self._redo = Button("↷ Redo", name="Redo")
        self._facts = Text(classes="cv-pill")
        self._beside = Text(classes="cv-note cv-beside", label="what else changed")
        self._rule = Choice(label="scope", options=rules_of(session), value=session.config.scope)
        self._hooks = Toggle(label="Hooks on", value=True, tip="what the model says without them")
        self._more = Toggle(label="⋯", expands=True, name="Files and sharing")
        self._status = Text(classes="cv-status", live="polite", label="what runs")
        self._cancel = Button("Cancel", name="Cancel what runs", hidden=True)
        self._note = Text(classes="cv-note", live="polite")
        self._report = Button("Share report", tip="one HTML file that opens anywhere")
        self._code = Button("Code", tip="a Python file that makes this session again")
        self._data = Button("Data (CSV)", tip="the facts, and how well each holds")
        self._picture = Button("Picture", tip="of the lens that is shown, as PNG")
        self._present = Toggle(label="Presentation", tip="large type, only Ask and one lens")
        self._folder = Field(label="Session folder", placeholder="my session")
        self._save = Button("Save", name="Save the session")
        self._open = Button("Open", name="Open the session")
        self._earlier = Select(label="Earlier sessions", hidden=True)
        self._kept: list[Kept] = []
        exports = (self._report, self._code, self._data, self._picture, self._present)
        files = row(
            row(*exports),
            row(self._folder, self._save, self._open, self._earlier, classes="cv-row cv-keep"),
            classes="cv-files",
            hidden=True,
        )
        body = [
            row(
                self._model,
                self._line,
                self._undo,
                self._redo,
                self._facts,
                Text(classes="cv-space"),
                self._rule,
                self._hooks,
                self._more,
                row(self._status, self._cancel, classes="cv-busy"),
                classes="cv-strip",
            ),
            files,
            self._beside,
            self._note,
        ]
        super().__init__(session, body)
        self.on(self._line, self._gone_to, "selected")
        self.click(self._undo, lambda: self._change(session.undo))
        self.click(self._redo, lambda: self._change(session.redo))
        self.on(self._rule, lambda rule: self.desk.judge(self, rule, failed=self._failed))
        self.on(self._hooks, lambda on: self.desk.judge(self, hooks=on))
        self.on(self._more, lambda shown: self._unfold(files, shown))
        self.click(self._cancel, self._stop)
        self.click(self._report, self._share)
        self.click(self._code, self._hand_code)
        self.click(self._data, self._hand_data)
        self.click(self._picture, self._hand_picture)
        self.on(self._present, playground.present)
        self.click(self._save, lambda: playground.save(self._folder.value))
        self.click(self._open, lambda: playground.load(self._folder.value))
        self.on(self._earlier, self._open_earlier)
        self._ends.append(autosave.on_saved(self._saved))
        self._saved()
        self.refresh()
        self.worked()

    def hear(self, event: Event) -> None:
        """Say where the session stands now."""
        if isinstance(event, STATE_EVENTS):
            self.tell()  # it was of before
            self._saved()
        if not isinstance(event, Selected):
            self.refresh()
            self.worked()

    def refresh(self) -> None:
        """Say where the session stands."""
        session, desk = self.session, self.desk
        facts = len(session.state.facts)
        branch = f" · {session.current_branch}" if len(session.branches) > 1 else ""
        self._model.say(f"{session.lm.name}{branch}")
        self._line.show(timeline(desk), selected=[0, session.position])
        self._rule.options = rules_of(session)
        self._rule.value = desk.rule
        self._hooks.value = desk.hooks
        self._hooks.label = f"Hooks {'on' if desk.hooks else 'off'}"
        scores = [desk.scores[i] for i in session.state.fact_ids if i in desk.scores]
        holding = sum(holds(score["reliability"]) for score in scores)
        hold = Markup(", <span class='cv-good'>{} {}</span>").format(
            holding, "holds" if holding == 1 else "hold"
        )
        in_force = {i for round_ in session.rounds[: session.position] for i in round_.fact_ids}
        muted = len(in_force & session.muted)
        said = Markup("{}{}{}").format(
            count(facts, "fact"), hold if scores else "", f", {muted} muted" if muted else ""
        )
        if session.rounds and desk.rule != session.config.scope:
            own = next(
                text for text, value, _ in rules_of(session) if value == session.config.scope
            )
            said += Markup(" <span class='cv-note'>edited under {}</span>").format(own)
        self._facts.say(said)
        self._beside.say(f"Kept: {desk.beside}." if desk.beside else "")
        self._beside.hidden = not desk.beside

    def worked(self) -> None:
        """What runs, and how long it will take."""
        session, worker = self.session, self.desk.worker
        busy = worker.exclusive is not None
        self._undo.disabled = busy or not session.position
        self._redo.disabled = busy or session.position == len(session.rounds)
        job = worker.exclusive or worker.running
        if job is None:
            self._status.classes = "cv-status"
            self._status.say("idle")
            self._cancel.hidden = True
            return
        left = self.desk.applying.seconds_left if self.desk.applying.running else None
        left = job.seconds_left if left is None else left
        self._status.classes = "cv-status cv-working"
        first = f"{duration(left)} left: " if left is not None and job.said is not None else ""
        self._status.say(f"{first}{job.title}…")
        self._cancel.hidden = not (job.exclusive or job.said is not None)

    def tell(self, text: str = "") -> None:
        """Say something below the bar."""
        self._note.say(text)

    def static(self) -> Static:
        """Where the session stands."""
        return Static(Markup("{} · {}").format(self.session.lm.name, self.desk.standing))

    def picture(self) -> Markup:
        """Where the session stands."""
        return Markup("<p>{} · {} · {}</p>").format(
            self.session.lm.name, self.desk.standing, Markup(self._facts.html)
        )

    def code(self) -> str:
        """The session, as the calls that make it."""
        return self.session.code()

    def _saved(self) -> None:
        """What could not be saved has to be seen."""
        autosave = self._autosave
        if autosave.error:
            self._do(lambda: self.tell(f"{_UNSAVED} {autosave.error}"))
        elif autosave.moved:
            self._do(lambda: self.tell(autosave.moved))
        elif self._note.html.startswith(_UNSAVED):
            self._do(self.tell)

    def _unfold(self, files: object, shown: bool) -> None:
        files.hidden = not shown  # type: ignore[attr-defined]
        if shown:
            self._kept = recent()
            self._earlier.options = [
                ["open one…", ""],
                *([f"{kept.sentence}, {kept.model}", str(kept.folder)] for kept in self._kept),
            ]
            self._earlier.value = ""
            self._earlier.hidden = not self._kept

    def _open_earlier(self, folder: str) -> None:
        if folder:
            self._playground.load(folder)

    def _stop(self) -> None:
        job = self.desk.worker.exclusive or self.desk.worker.running
        if job is not None:
            job.stop()
            self.worked()

    def _change(self, act: Callable[..., object]) -> None:
        try:
            self.desk.worker.check_free()
            act(source=self)
        except Exception:
            self.refresh()  # what was picked is not what is
            raise

    def _gone_to(self, at: list[int]) -> None:
        if at and at[1] != self.session.position:
            self._change(lambda source: self.session.go_to(at[1], source=source))

    def _share(self) -> None:
        from coachhook_viz.html_report import render

        self.desk.worker.check_free()
        self.desk.worker.submit(
            "writing the report",
            lambda job: render(self.session, progress=job.progress, cancel=job.cancel),
            lambda page: self._report.download("report.html", page.encode(), "text/html"),
            self._failed,
            exclusive=True,  # it goes from state to state
        )

    def _hand_code(self) -> None:
        self._code.download("session.py", self._playground.code().encode(), "text/x-python")

    def _hand_data(self) -> None:
        self.run(
            "scoring the facts",
            lambda job: self._playground.data().to_csv(index=False),
            self._hand_csv,
        )

    def _hand_csv(self, text: str) -> None:
        self._data.download("facts.csv", text.encode(), "text/csv")

    def _hand_picture(self) -> None:
        lens, ask = self._playground.lens, self._playground.ask
        parts = [*lens.static().parts, *ask.static().parts]
        picture = next((part for part in parts if isinstance(part, Picture)), None)
        if picture is None:
            raise ValueError("There is no picture yet: ask something first.")
        self._picture.download("picture.png", picture._repr_png_(), "image/png")


def folder_of(name: str | Path) -> Path:
    """The folder that a person has named.

    Raises
    ------
    ValueError
        If it has no name, or a longer one than folders can have.
    """
    if not str(name).strip():
        raise ValueError("give the folder a name")
    if any(len(part.encode()) > 255 for part in Path(name).parts):
        raise ValueError("the name is too long for a folder; 255 characters are the most")
    return Path(name).expanduser()
