"""Work that a click starts: a button for it, one that stops it, and how far it has come.

Running     the three of them, for panels that measure at a click
progress    stage, step, loss and time left of a job, a bar and a curve
"""

from __future__ import annotations

from markupsafe import Markup

from coachhook_viz.panels.controls import Button, Text, row
from coachhook_viz.panels.words import duration
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
    "known": "asking what it knows",
    "trace": "tracing subjects",
    "what else": "asking what else changed",
    "trials": "running trials",
}


class Running:
    """A button, Cancel, and the progress of what the button has started: see `Panel.run`.

    Parameters
    ----------
    worker : Worker
    name : str
        What stands on the button.

    Attributes
    ----------
    button, cancel : Button
    buttons : Group
        Both of them side by side.
    said : Text
        How far it has come.
    key : str
        Of the jobs that it shows, and stops.
    """

    def __init__(self, worker: Worker, name: str) -> None:
        self._worker = worker
        self.key = ""
        self.said = Text()
        self.button = Button(name)
        self.cancel = Button("Cancel", name=f"Cancel: {name.lower()}", hidden=True)
        self.buttons = row(self.button, self.cancel)
        self.cancel.on_click(self.stop)

    @property
    def job(self) -> Job | None:
        """What it has started and is not over."""
        return self._worker.find(self.key) if self.key else None

    def stop(self) -> None:
        """Stop what runs at its next step, and what waits at once."""
        self._worker.drop(self.key)

    def draw(self, ready: bool = True) -> None:
        """Buttons that would clash rest; how far it has come.

        Parameters
        ----------
        ready : bool
            Whether there is anything to be done.
        """
        job = self.job
        self.button.disabled = job is not None or not ready or self._worker.exclusive is not None
        self.cancel.hidden = job is None or job.cancel()
        if job is None:
            self.said.say()
        elif job is self._worker.running:
            self.said.say(progress(job))
        else:
            self.said.say(Markup("<p class='cv-note'>Waiting…</p>"))


def progress(job: Job, seconds: float | None = None) -> Markup:
    """Stage, step, loss and time left, a bar, and the curve of the losses so far.

    Parameters
    ----------
    job : Job
    seconds : float, optional
        Time left, where it is known better than by the stage.
    """
    said = job.said
    if job.cancel():
        return Markup("<p class='cv-note'>Stopping at the next step…</p>")
    if said is None:
        return Markup("<p class='cv-note'>{}…</p>").format(job.title)
    of = f", setting {said.setting}" if said.setting else ""
    stage = STAGES.get(said.stage, said.stage)
    words = f"{job.title}{of}, " if stage == job.title else f"{job.title}{of} · {stage}, "
    words += f"step {said.step} of {said.total}"
    if said.loss is not None:
        words += f" · loss {said.loss:.2f}"
    left = job.seconds_left if seconds is None and not of else seconds
    if left is not None:
        words += f" · {duration(left)} left"
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
