"""Work that a click starts: a button for it, one that stops it, and how far it has come.

Running     the three of them, for panels that measure at a click
progress    stage, step, loss and time left of a job, a bar and a curve
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from markupsafe import Markup

from coachhook_viz.panels.panel import html, row
from coachhook_viz.panels.worker import Job, Worker

STAGES = {
    "contexts": "sampling contexts",
    "moments": "collecting second moments",
    "targets": "finding target states",
    "layers": "writing the layers",
    "quality": "scoring",
    "scope": "reading scopes",
    "drift": "measuring drift",
    "probes": "reading neutral text",
    "keys": "reading keys",
}


class Running:
    """A button, Cancel, and the progress of the jobs that the button has started.

    Parameters
    ----------
    worker : Worker
    name : str
        What stands on the button.

    Attributes
    ----------
    button, cancel : Button
    buttons : Box
        Both of them side by side.
    said : HTML
        How far it has come.
    """

    def __init__(self, worker: Worker, name: str) -> None:
        self._worker = worker
        self._jobs: list[Job] = []
        self._over: set[Job] = set()
        self._ready = True
        self.said = html("")
        self.button = widgets.Button(description=name)
        self.cancel = widgets.Button(description="Cancel", disabled=True)
        self.buttons = row(self.button, self.cancel)
        self.cancel.on_click(lambda button: self.stop())

    @property
    def jobs(self) -> list[Job]:
        """Those that wait or run."""
        return [job for job in self._jobs if job not in self._over and not job.cancel()]

    def submit(
        self,
        title: str,
        work: Callable[[Job], Any],
        done: Callable[[Any], object],
        failed: Callable[[Exception], object],
    ) -> Job:
        """Queue a job: `Worker.submit`."""
        begun: list[Job] = []

        def begin(job: Job) -> Any:
            begun.append(job)
            return work(job)

        def then(act: Callable[[Any], object]) -> Callable[[Any], object]:
            def end(result: Any) -> None:
                self._over.update(begun)
                act(result)

            return end

        job = self._worker.submit(title, begin, then(done), then(failed))
        self._jobs = [*self.jobs, job]
        return job

    def stop(self) -> None:
        """Stop what runs at its next step, and what waits at once."""
        for job in self.jobs:
            job.stop()
        self.draw(self._ready)

    def draw(self, ready: bool = True) -> None:
        """Buttons that would clash rest; how far it has come.

        Parameters
        ----------
        ready : bool
            Whether there is anything to be done.
        """
        self._ready = ready
        jobs, running = self.jobs, self._worker.running
        self.button.disabled = bool(jobs) or not ready or self._worker.exclusive is not None
        self.cancel.disabled = not jobs
        if running is not None and running in self._jobs:
            self.said.value = str(progress(running))
        else:
            self.said.value = str(Markup("<p class='cv-note'>Waiting…</p>")) if jobs else ""


def progress(job: Job) -> Markup:
    """Stage, step, loss and time left, a bar, and the curve of the losses so far."""
    said = job.said
    if job.cancel():
        return Markup("<p class='cv-note'>Stopping at the next step…</p>")
    if said is None:
        return Markup("<p class='cv-note'>{}…</p>").format(job.title)
    words = f"{job.title} · {STAGES.get(said.stage, said.stage)}, step {said.step} of {said.total}"
    if said.loss is not None:
        words += f" · loss {said.loss:.2f}"
    left = job.seconds_left
    if left is not None:
        words += f" · {left:.0f} s left"
    share = 100 * said.step / max(said.total, 1)
    bar = Markup(
        "<p class='cv-note'>{}</p><div class='cv-progress' role='progressbar' aria-label='{}'"
        " aria-valuenow='{:.0f}' aria-valuemin='0' aria-valuemax='100'>"
        "<div style='width:{:.0f}%'></div></div>"
    ).format(words, job.title, share, share)
    return bar + _curve(job.losses)


def _curve(losses: list[float]) -> Markup:
    if len(losses) < 2:
        return Markup("")
    top = max(losses) or 1
    points = " ".join(
        f"{100 * i / (len(losses) - 1):.1f},{30 - 28 * loss / top:.1f}"
        for i, loss in enumerate(losses)
    )
    return Markup(
        "<svg class='cv-spark' viewBox='0 0 100 32' preserveAspectRatio='none' role='img'"
        " aria-label='loss, falling from {:.2f} to {:.2f}'><polyline points='{}'/></svg>"
    ).format(losses[0], losses[-1], points)
