"""One background thread that runs the model, so that the kernel's main thread stays free.

Job       one piece of work: what it is called, how far it has come, how to stop it
Worker    runs jobs one after the other

    worker.submit("edit", lambda job: session.apply(facts, job.progress, job.cancel), show)
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from coachhook_viz.warned import heard

if TYPE_CHECKING:
    from coachhook_viz.editing.progress import Progress

_log = logging.getLogger(__name__)
_TICK = 0.1  # seconds between two reports of one stage
_LAST = 10  # seconds that a process which ends waits for a step to end


@dataclass(eq=False)
class Job:
    """One piece of work, in the queue, running or over.

    Attributes
    ----------
    title : str
        What a person reads while it runs.
    exclusive : bool
        Whether it has the session to itself: buttons that would clash are disabled meanwhile.
    patience : int
        0: a person waits for it; 1: a person watches it come; 2: nobody waits. It makes way for
        what has less, and begins again after that.
    said : Progress or None
        Its last progress message.
    losses : list of float
        Mean losses of the optimisation so far.
    warnings : list of str
        What it was warned of.
    """

    title: str
    work: Callable[[Job], Any]
    done: Callable[[Any], object] | None = None
    failed: Callable[[Exception], object] | None = None
    stopped: Callable[[], object] | None = None
    key: str = ""
    exclusive: bool = False
    patience: int = 0
    said: Progress | None = None
    losses: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _report: Callable[[], None] = lambda: None
    _worked: bool = False
    _told: float = 0.0
    _stage_began: float = 0.0

    def stop(self) -> None:
        """Ask it to end at its next step; before it has begun, it never does."""
        self._stop.set()

    def cancel(self) -> bool:
        """Whether it has been asked to end: the `cancel` callback of what it calls."""
        return self._stop.is_set()

    def progress(self, said: Progress) -> None:
        """The `progress` callback of what it calls."""
        now = time.monotonic()
        fresh = self.said is None or said.stage != self.said.stage
        self.said = said
        if fresh:
            self._stage_began = now
        if said.loss is not None:
            self.losses.append(said.loss)
        if fresh or now - self._told >= _TICK:
            self._told = now
            self._report()

    @property
    def seconds_spent(self) -> float:
        """Time since the stage began; 0 while there is none."""
        return time.monotonic() - self._stage_began if self.said is not None else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left in the stage, as its steps so far have gone; None while nothing is known."""
        if self.said is None or not self.said.step:
            return None
        return self.seconds_spent / self.said.step * (self.said.total - self.said.step)


class Worker:
    """Runs jobs in the order in which they came, one at a time.

    `done` and `failed` of a job are called in the worker's thread. What else goes wrong in them is
    logged, and stops nothing.
    """

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._changed = threading.Condition()
        self._running: Job | None = None
        self._idle = True  # everybody has been told of the last job's end
        self._listeners: list[Callable[[], object]] = []
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> Job | None:
        """The job that runs now."""
        return self._running

    @property
    def exclusive(self) -> Job | None:
        """The job, running or waiting, that changes the session."""
        with self._changed:
            jobs = [self._running, *self._waiting]
        return next((job for job in jobs if job is not None and job.exclusive), None)

    def check_free(self) -> None:
        """Whoever wants to change the session asks this first.

        Raises
        ------
        ValueError
            If a job has the session to itself.
        """
        job = self.exclusive
        if job is not None:
            raise ValueError(f"{job.title}: wait for it, or cancel it")

    def find(self, key: str) -> Job | None:
        """The job with that key, running or waiting; one that has not been stopped, if it can."""
        with self._changed:
            jobs = [self._running, *self._waiting]
        found = [job for job in jobs if job is not None and job.key == key]
        return min(found, key=lambda job: job.cancel(), default=None)

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` whenever a job begins, comes on or ends, until the result is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def submit(
        self,
        title: str,
        work: Callable[[Job], Any],
        done: Callable[[Any], object] | None = None,
        failed: Callable[[Exception], object] | None = None,
        *,
        stopped: Callable[[], object] | None = None,
        key: str = "",
        exclusive: bool = False,
        patience: int = 0,
    ) -> Job:
        """Queue a job: first what has the least patience, of that what changes the session.

        Parameters
        ----------
        title : str
        work : callable
            Called with the job; what it returns goes to `done`, what it raises to `failed`. An
            `EditCancelled` was asked for, and goes to `stopped`.
        done, failed, stopped : callable, optional
        key : str
            A newer job with the same key makes an older one needless: it is stopped.
        exclusive : bool
            Whether it has the session to itself.
        patience : int
            See `Job`.

        Returns
        -------
        Job
        """
        job = Job(title, work, done, failed, stopped, key, exclusive, patience)
        job._report = self._tell
        with self._changed:
            running = self._running
            if key:
                self._waiting = [other for other in self._waiting if other.key != key]
            if running is not None and not running.cancel():
                if key and running.key == key:
                    running.stop()
                elif running.patience > patience and not (running.exclusive or running._worked):
                    running.stop()
                    again = replace(running, said=None, warnings=[], _stop=threading.Event())
                    self._waiting.append(again)
            self._waiting.append(job)
            self._waiting.sort(key=lambda other: (other.patience, not other.exclusive))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coachhook", daemon=True)
                self._thread.start()
                atexit.register(self.stop)
            self._changed.notify_all()
        self._tell()
        return job

    def drop(self, key: str) -> None:
        """Forget the waiting jobs with that key, and stop a running one: nobody wants them."""
        if self.find(key) is None:
            return
        with self._changed:
            self._waiting = [other for other in self._waiting if other.key != key]
            if self._running is not None and self._running.key == key:
                self._running.stop()
            self._changed.notify_all()
        self._tell()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits; whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._idle and not self._waiting, timeout)

    def stop(self) -> None:
        """Stop what runs and forget what waits: torch aborts a process that ends within a step."""
        with self._changed:
            self._waiting = []
            if self._running is not None:
                self._running.stop()
        self.wait(_LAST)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
                self._idle = False
                job = self._running = self._waiting.pop(0)
            if not job.cancel():
                self._tell()
                self._do(job)
            else:
                _call(job.stopped)
            del job  # and with it all that it holds on to
            with self._changed:
                self._running = None
            self._tell()

    def _do(self, job: Job) -> None:
        from coachhook_viz.editing.progress import EditCancelled

        try:
            with heard() as caught:
                result = job.work(job)
            job._worked = True  # what `done` submits must not make it begin again
            job.warnings += dict.fromkeys(map(str, caught))
            if job.done is not None and (job.exclusive or not job.cancel()):  # it has happened
                job.done(result)
        except EditCancelled:
            _call(job.stopped)
        except Exception as error:
            if job.failed is None or not isinstance(error, (ValueError, OSError, RuntimeError)):
                _log.exception("the job %r failed", job.title)
            _call(job.failed, error)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                _log.exception("a listener to the worker failed")


def _call(act: Callable[..., object] | None, *told: object) -> None:
    """Call `act`, if there is one; what goes wrong in it is logged, and stops nothing."""
    if act is not None:
        try:
            act(*told)
        except Exception:
            _log.exception("what follows a job failed")
