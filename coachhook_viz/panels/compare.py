"""Compare: the same facts under other settings, side by side."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.config import method_settings
from coachhook_viz.editing.methods import METHODS, name_of
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.events import Configured
from coachhook_viz.measure.drift import Probes, neutral_texts
from coachhook_viz.measure.quality import METRICS, readings
from coachhook_viz.panels.controls import Check, Field, Select, Text, row
from coachhook_viz.panels.desk import STATE_EVENTS, Desk
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.lens import Lens
from coachhook_viz.panels.panel import Static, told
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.recipe import literal
from coachhook_viz.session import Session

_MOST = 200  # facts that are scored, drawn once and for all
_PRESENT = "as it is"
_CHOICES: dict[str, dict[str, Any]] = {
    "z-score scope": {"scope": "zscore"},
    "match scope": {"scope": "match"},
    "no scope": {"scope": "off"},
    "one single round": {"single_round": True},
}
_SCOPES = {
    "zscore": "z-score scope", "match": "match scope", "two-key": "two keys", "off": "no scope",
}  # fmt: skip
_METHODS = [["as it is", ""], *([kind.title, name] for name, kind in METHODS.items())]
_Found = tuple[pd.DataFrame, float, float, str]
"""Readings, perplexity, that of the unedited model, and what else there is to say of the method."""


class Compare(Lens):
    """The facts in force edited anew under other settings, beside the session as it is.

    Parameters
    ----------
    session : Session
    """

    stale_after = (*STATE_EVENTS, Configured)
    takes_choices = True
    title = "Compare"
    help = "the same facts under other settings"

    def __init__(self, session: Session) -> None:
        self._boxes = {name: Check(label=name) for name in _CHOICES}
        self._method = Select(label="Method", options=_METHODS, value="")
        self._scope = Select(label="Its scope", value="off")
        self._weight = Field(label="Covariance weight λ")
        self._layers = Field(label="Layers")
        self._grid = Grid(
            label="Settings side by side",
            picks="nothing",
            columns=["setting", *METRICS, "perplexity"],
        )
        self._note = Text(classes="cv-note")
        self._probes: Probes | None = None
        self._calls: dict[str, dict[str, Any]] = {}  # all that was asked for, by name
        self._found: dict[str, _Found] = {}
        self._said: dict[str, str] = {}  # why there is no result
        self._waiting: list[str] = []  # the first of them runs, or will be the next to
        self._asked = 0  # how many at once
        running = Running(Desk.of(session).worker, "Run")
        body = [
            row(*self._boxes.values(), classes="cv-row cv-choices", role="group", label="Settings"),
            row(
                self._method,
                self._scope,
                self._weight,
                self._layers,
                running.buttons,
                classes="cv-tools",
            ),
            running.said,
            self._grid,
            self._note,
        ]
        super().__init__(session, body, running=running)
        self._offer_scopes()
        self.on(self._method, lambda value: self._offer_scopes())
        for node in (
            *self._boxes.values(), self._method, self._scope, self._weight, self._layers,
        ):  # fmt: skip
            self.on(node, lambda value: self._unsay())
        self.refresh()
        self.worked()

    def refresh(self) -> None:
        """Show what is known of the facts in force, under the settings as they are."""
        config = self.session.config
        self._weight.placeholder = f"{config.covariance_weight:g} as it is"
        self._layers.placeholder = f"{', '.join(map(str, config.layers))} as it is"
        self._found, self._said, self._waiting = {}, {}, []
        for name, call in self._calls.items():
            self.recall(partial(self._add, name), self._of(call))
        self._draw()

    def measure(self) -> None:
        """Edit the facts anew under each chosen setting: `Session.rerun`, then `quality`."""
        chosen = self._chosen()
        if not chosen:
            return
        self._calls = {_PRESENT: {}, **self._calls, **chosen}
        self._waiting = [name for name in (_PRESENT, *chosen) if name not in self._found]
        self._asked = len(self._waiting)
        for name in self._waiting:
            self._said.pop(name, None)
        self._next()

    @property
    def ready(self) -> bool:
        """Whether there are facts, and a setting is chosen."""
        typed = self._weight.value.strip() or self._layers.value.strip()
        chosen = bool(typed or self._method.value) or any(b.value for b in self._boxes.values())
        return chosen and bool(self.session.state.facts)

    def static(self) -> Static:
        """The settings as a picture and as a table."""
        if not self._found:
            return Static("Nothing compared yet.")
        frames = [frame.assign(setting=name) for name, (frame, *_) in self._found.items()]
        lines = [
            Markup("<tr><td>{}</td><td>{:.2f}</td></tr>").format(name, perplexity)
            for name, (_, perplexity, *_) in self._found.items()
        ]
        table = Markup("<table><tr><th>setting</th><th>perplexity</th></tr>{}</table>").format(
            Markup("").join(lines)
        )
        return Static(figures.comparison(pd.concat(frames), backend="matplotlib"), table)

    def code(self) -> str:
        """The calls on `session` that give the table."""
        lines = ["from coachhook_viz.measure.quality import readings", ""]
        for call in [self._calls[name] for name in self._found] or [{}]:
            given = ", ".join(f"{name}={literal(value)}" for name, value in call.items())
            lines += [
                f"other = session.rerun({given})" if call else "other = session",
                "readings(other.quality())",
                "other.drift().query(\"metric == 'perplexity'\")",
            ]
        return "\n".join(lines)

    def worked(self) -> None:
        """How far it has come; what was cancelled says so."""
        super().worked()
        job = self._running.job
        if self._waiting and (job is None or job.cancel()):
            self._said |= dict.fromkeys(self._waiting, "cancelled")
            self._waiting = []
        self._draw()

    def _unsay(self) -> None:
        """Something else is chosen: what was wrong with it is no longer said."""
        self._weight.error = self._layers.error = ""
        self.worked()

    def _chosen(self) -> dict[str, dict[str, Any]]:
        """What is passed to `Session.rerun`, by name; nothing if a field does not hold numbers."""
        chosen = {name: call for name, call in _CHOICES.items() if self._boxes[name].value}
        if self._method.value:
            chosen |= self._under_method()
        for field, read in ((self._weight, _weight), (self._layers, _layers)):
            if text := field.value.strip():
                try:
                    name, call = read(text)
                except ValueError as error:
                    field.error = str(error)
                else:
                    chosen[name] = call
        return {} if self._weight.error or self._layers.error else chosen

    def _under_method(self) -> dict[str, dict[str, Any]]:
        """The chosen method under the chosen scope, with what is known to work for it here."""
        method, scope = self._method.value, self._scope.value
        name = f"{METHODS[method].title}, {_SCOPES[scope]}"
        return {name: under_method(self.session, method, scope)}

    def _offer_scopes(self) -> None:
        """The scopes that the chosen method can have, its publication's first."""
        kind = METHODS[self._method.value or name_of(self.session.config.method)]
        self._scope.options = [[_SCOPES[scope], scope] for scope in kind.scopes]
        self._scope.value = kind.scopes[0]
        self._scope.hidden = not self._method.value

    def _of(self, call: dict[str, Any]) -> Hashable:
        """All that the result of a call depends on."""
        return self.session.state.key, self.session.config, tuple(sorted(call.items()))

    def _next(self) -> None:
        if self._waiting:
            name = self._waiting[0]
            call, place = self._calls[name], self._asked - len(self._waiting) + 1
            self.run(
                f"comparing {place} of {self._asked}, {name}",
                partial(self._result, call),
                partial(self._add, name),
                of=self._of(call),
                patience=2,
                running=self._running,
                fail=partial(self._refuse, name),
            )
        self.worked()

    def _add(self, name: str, found: _Found) -> None:
        self._found[name] = found
        self._over(name)

    def _refuse(self, name: str, error: Exception) -> None:
        self._said[name] = told(error)
        self._over(name)

    def _over(self, name: str) -> None:
        if name in self._waiting:
            self._waiting.remove(name)
            self._next()

    def _result(self, call: dict[str, Any], job: Job) -> _Found:
        other = self.session
        if call:
            other = other.rerun(progress=job.progress, cancel=job.cancel, **call)
        frame = readings(other.quality(_MOST, job.progress, job.cancel))
        bare = EditState.of(self.session.lm, self.session.config)
        if self._probes is None:
            self._probes = Probes(self.session.lm, bare, neutral_texts())
        watch = Watch(job.progress, job.cancel)
        edited, unedited = (self._probes.measure(state, watch) for state in (other.state, bare))
        said = "; ".join(f"layer {at}: {kept}" for at, kept in other.null_spaces().items())
        return frame, _of_text(edited), _of_text(unedited), said and f"Null space of {said}."

    def _draw(self) -> None:
        job = self._running.job
        running = job is not None and job is self.desk.worker.running
        cells = []
        for name in self._calls:
            said = self._said.get(name, "")
            if name in self._waiting:
                said = "running" if running and name == self._waiting[0] else "waiting"
            if name in self._found:
                cells.append([Cell(name), *_scores(*self._found[name])])
            elif said:
                rest = [Cell()] * len(METRICS)
                cells.append([Cell(name, kind="undone"), Cell(said, kind="undone"), *rest])
        self._grid.show(cells, empty=self._empty())
        self._note.hidden = not self._found
        kept = list(dict.fromkeys(said for *_, said in self._found.values() if said))
        for frame, _, unedited, _ in self._found.values():
            self._note.say(
                f"All but the first are edited anew, with the settings as they are now. Mean over"
                f" {count(int(frame['facts'].max()), 'fact')} after the last round, and 95 %"
                f" interval; perplexity of neutral text, {unedited:.2f} before any edit."
                + "".join(f" {said}" for said in kept)
            )
            break

    def _empty(self) -> str:
        if not self.session.state.facts:
            return self.nothing("each row here is a setting and what the same facts reach under it")
        return (
            "Choose settings and press Run: the facts in force are edited anew under each, and"
            " each row here is a setting."
        )


def under_method(session: Session, method: str, scope: str) -> dict[str, Any]:
    """What changes with a method and its scope, with what is known to work for it."""
    config, lm = session.config, session.lm
    if config.site == "subject" and scope != "two-key":
        return {**method_settings(lm, method, config.layers), "scope": scope}
    return {"method": method, "scope": scope}


def _weight(text: str) -> tuple[str, dict[str, Any]]:
    """Name and call of another covariance weight."""
    try:
        return f"covariance weight λ {text}", {"covariance_weight": float(text)}
    except ValueError:
        raise ValueError(f"{text!r} is not a number: write one, as 90.") from None


def _layers(text: str) -> tuple[str, dict[str, Any]]:
    """Name and call of other layers."""
    try:
        layers = tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"{text!r} are no layers: write numbers, as 2, 3, 4.") from None
    return f"layers {', '.join(map(str, layers))}", {"layers": layers}


def _scores(frame: pd.DataFrame, perplexity: float, unedited: float, said: str) -> list[Cell]:
    """What came of a setting at the end, and perplexity."""
    about = f"perplexity {perplexity:.3f}, {unedited:.3f} before any edit. {said}".strip()
    return [*scored(frame[frame["reading"] == "end"]), Cell(f"{perplexity:.2f}", about)]


def scored(ends: pd.DataFrame) -> list[Cell]:
    """Reliability, generality and locality with their intervals, from rows of `readings`."""
    columns = (ends[name].tolist() for name in ("metric", "mean", "low", "high"))
    cells = {
        metric: Cell(
            f"{mean:.2f}  ({low:.2f}–{high:.2f})",
            f"{metric} {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}",
            bar=mean,
        )
        for metric, mean, low, high in zip(*columns, strict=True)
    }
    return [cells.get(metric, Cell("–")) for metric in METRICS]


def _of_text(neutral: pd.DataFrame) -> float:
    return float(neutral.loc[neutral["metric"] == "perplexity", "value"].iloc[0])
