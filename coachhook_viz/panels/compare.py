"""Compare: the same facts under other settings, side by side."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from coachhook_viz import figures
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.events import Configured, Event
from coachhook_viz.measure.drift import Probes, neutral_texts
from coachhook_viz.measure.quality import METRICS, readings
from coachhook_viz.panels.desk import STATE_EVENTS, Desk
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel, Static, html, row, told
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.words import count
from coachhook_viz.panels.worker import Job
from coachhook_viz.session import Session

_MOST = 200  # facts that are scored, drawn once and for all
_PRESENT = "as it is"
_CHOICES: dict[str, dict[str, Any]] = {
    "z-score scope": {"scope": "zscore"},
    "match scope": {"scope": "match"},
    "no scope": {"scope": "off"},
    "one single round": {"single_round": True},
}


class Compare(Panel):
    """The facts in force edited anew under other settings, beside the session as it is.

    Parameters
    ----------
    session : Session
    """

    title = "Compare"

    def __init__(self, session: Session) -> None:
        self._boxes = {name: widgets.Checkbox(description=name, indent=False) for name in _CHOICES}
        self._weight = widgets.Text(description="Other λ")
        self._layers = widgets.Text(description="Other layers")
        self._running = Running(Desk.of(session).worker, "Run")
        self._grid = Grid(
            label="settings side by side",
            picks="nothing",
            columns=["setting", *METRICS, "perplexity"],
            empty="Choose settings, and run: the facts in force are edited anew under each.",
        )
        self._note = html("", "cv-note")
        self._probes: Probes | None = None
        self._unedited = 0.0  # perplexity
        self._found: dict[str, tuple[pd.DataFrame, float]] = {}
        self._calls: dict[str, dict[str, Any]] = {}
        self._said: dict[str, str] = {}
        tools = row(self._weight, self._layers, self._running.buttons, classes=["cv-tools"])
        boxes = row(*self._boxes.values(), classes=["cv-row", "cv-choices"])
        body = [boxes, tools, self._running.said, self._grid, self._note]
        super().__init__(session, body, "the same facts under other settings")
        self.click(self._running.button, self.run)
        for widget in (*self._boxes.values(), self._weight, self._layers):
            self.on(widget, lambda value: self.worked())
        self._draw_settings()
        self.worked()

    @property
    def choices(self) -> dict[str, dict[str, Any]]:
        """What is chosen: by name, what is passed to `Session.rerun`.

        Raises
        ------
        ValueError
            If a field does not hold numbers.
        """
        chosen = {name: _CHOICES[name] for name, box in self._boxes.items() if box.value}
        if text := self._weight.value.strip():
            try:
                chosen[f"λ {text}"] = {"covariance_weight": float(text)}
            except ValueError:
                raise ValueError(f"Other λ: {text!r} is not a number.") from None
        if text := self._layers.value.strip():
            try:
                layers = tuple(int(part) for part in text.replace(",", " ").split())
            except ValueError:
                raise ValueError(
                    f"Other layers: write numbers, as 2, 3, 4; not {text!r}."
                ) from None
            chosen[f"layers {', '.join(map(str, layers))}"] = {"layers": layers}
        return chosen

    def run(self) -> None:
        """Edit the facts anew under each chosen setting: `Session.rerun`, then `quality`."""
        with self.desk.drawing:  # what runs at once says so after "waiting"
            new = {name: call for name, call in self.choices.items() if name not in self._found}
            if _PRESENT not in self._found:
                new = {_PRESENT: {}, **new}
            self._calls |= new
            for place, (name, call) in enumerate(new.items(), 1):
                self._submit(f"comparing {place} of {len(new)}, {name}", name, call)
            self._said = dict.fromkeys(new, "waiting")
            self._draw()
            self.worked()

    def static(self) -> Static:
        """The settings as a picture and as a table."""
        if not self._found:
            return Static("Nothing compared yet.")
        frames = [frame.assign(setting=name) for name, (frame, _) in self._found.items()]
        lines = [
            Markup("<tr><td>{}</td><td>{:.2f}</td></tr>").format(name, perplexity)
            for name, (_, perplexity) in self._found.items()
        ]
        table = Markup("<table><tr><th>setting</th><th>perplexity</th></tr>{}</table>").format(
            Markup("").join(lines)
        )
        return Static(figures.comparison(pd.concat(frames), backend="matplotlib"), table)

    def code(self) -> str:
        """The calls that give the table."""
        lines = ["from coachhook_viz.measure.quality import readings", ""]
        for call in [self._calls[name] for name in self._found] or [{}]:
            given = ", ".join(f"{name}={value!r}" for name, value in call.items())
            lines += [
                f"other = session.rerun({given})" if call else "other = session",
                "readings(other.quality())",
                "other.drift().query(\"metric == 'perplexity'\")",
            ]
        return "\n".join(lines)

    def hear(self, event: Event) -> None:
        """Results are of the facts that were in force: forget them when others are."""
        if isinstance(event, STATE_EVENTS):
            self._running.stop()
            self._found, self._calls, self._said = {}, {}, {}
            self._draw()
            self.worked()
        elif isinstance(event, Configured):
            self._draw_settings()

    def worked(self) -> None:
        """How far it has come."""
        chosen = any(box.value for box in self._boxes.values())
        chosen = chosen or bool(self._weight.value.strip() or self._layers.value.strip())
        self._running.draw(chosen and bool(self.session.state.facts))
        waiting = {name for name, said in self._said.items() if said in ("waiting", "running")}
        if waiting and not self._running.jobs:
            self._said |= dict.fromkeys(waiting, "cancelled")
            self._draw()

    def _submit(self, title: str, name: str, call: dict[str, Any]) -> None:
        def work(job: Job) -> tuple[pd.DataFrame, float]:
            self._say(name, "running")
            other = self.session
            if call:
                other = other.rerun(progress=job.progress, cancel=job.cancel, **call)
            frame = other.quality(_MOST, job.progress, job.cancel)
            return readings(frame), self._perplexity(other.state, Watch(job.progress, job.cancel))

        def done(found: tuple[pd.DataFrame, float]) -> None:
            with self.desk.drawing:
                self._found[name] = found
                self._said.pop(name, None)
                self._draw()

        self._running.submit(title, work, done, lambda error: self._say(name, told(error)))

    def _perplexity(self, state: EditState, watch: Watch) -> float:
        """That of neutral text, as `Session.drift` has it for the last round."""
        bare = EditState.of(self.session.lm, state.config)
        if self._probes is None:
            self._probes = Probes(self.session.lm, bare, neutral_texts())
            self._unedited = _of_text(self._probes.measure(bare))
        return _of_text(self._probes.measure(state, watch))

    def _say(self, name: str, said: str) -> None:
        with self.desk.drawing:
            self._said[name] = said
            self._draw()

    def _draw_settings(self) -> None:
        """What another λ and other layers would differ from."""
        config = self.session.config
        self._weight.placeholder = f"{config.covariance_weight:g} as it is"
        self._layers.placeholder = f"{', '.join(map(str, config.layers))} as it is"

    def _draw(self) -> None:
        cells = [[Cell(name), *_scores(*found)] for name, found in self._found.items()]
        cells += [
            [Cell(name, kind="undone"), Cell(said, kind="undone"), *[Cell()] * len(METRICS)]
            for name, said in self._said.items()
        ]
        self._grid.show(cells)
        facts = next((frame["facts"].max() for frame, _ in self._found.values()), 0)
        self._note.value = (
            f"All but the first are edited anew, with the settings as they are now. Mean over"
            f" {count(int(facts), 'fact')} after the last round, and 95 % interval;"
            f" perplexity of neutral text, {self._unedited:.2f} before any edit."
            if self._found
            else ""
        )


def _scores(frame: pd.DataFrame, perplexity: float) -> list[Cell]:
    """Reliability, generality and locality at the end with their intervals, and perplexity."""
    end = frame[frame["reading"] == "end"]
    columns = (end[name].tolist() for name in ("metric", "mean", "low", "high"))
    cells = {
        metric: Cell(
            f"{mean:.2f}  ({low:.2f}–{high:.2f})",
            f"{metric} {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}",
            bar=mean,
        )
        for metric, mean, low, high in zip(*columns, strict=True)
    }
    return [*(cells.get(metric, Cell("–")) for metric in METRICS), Cell(f"{perplexity:.2f}")]


def _of_text(neutral: pd.DataFrame) -> float:
    return float(neutral.loc[neutral["metric"] == "perplexity", "value"].iloc[0])
