"""Facts written round after round, each round a job of its own, so that a person can look between.

Applying    begin, pause, go on, cancel; what is finished stays
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from coachhook_viz.facts import Fact
from coachhook_viz.panels.words import count, duration
from coachhook_viz.panels.worker import Job

if TYPE_CHECKING:
    from coachhook_viz.editing.state import Round
    from coachhook_viz.panels.desk import Desk


class Applying:
    """The rounds that are being written: `Session.apply_in_rounds`, one round at a time.

    Attributes
    ----------
    left : tuple of Fact
        What has not been written yet, the round that runs included.
    done, rounds : int
        Rounds that are finished, and of how many.
    pausing : bool
        Whether it stops after the round that runs.
    said : str
        How it ended.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._size = 1
        self._job: Job | None = None
        self._active = False
        self._each: list[float] = []  # seconds a fact, by round
        self._replacing: dict[Fact, int] = {}
        self.left: tuple[Fact, ...] = ()
        self.done = self.rounds = 0
        self.pausing = False
        self.said = ""

    @property
    def running(self) -> bool:
        """Whether a round is being written, or about to be."""
        return self._active

    def begin(
        self,
        facts: Sequence[Fact],
        size: int | None = None,
        then: Callable[[Round], object] | None = None,
        *,
        replacing: Mapping[Fact, int] | None = None,
    ) -> None:
        """Write `facts` in rounds of `size`; all at once if it is None.

        Parameters
        ----------
        facts : sequence of Fact
        size : int, optional
        then : callable, optional
            Called with each round that is finished.
        replacing : mapping of Fact to int, optional
            Edits, by id, that are muted when the round of such a fact begins; should that not be
            finished, they speak again.

        Raises
        ------
        ValueError
            If a round is being written.
        """
        self._desk.worker.check_free()
        self.left = tuple(facts)
        self._size = max(len(self.left) if size is None else size, 1)
        self.done, self.rounds = 0, -(-len(self.left) // self._size)
        self._each = []
        self._replacing = dict(replacing or {})
        self.pausing, self.said = False, ""
        self._next(then)

    def pause(self) -> None:
        """Stop after the round that runs; what is left stays staged."""
        self.pausing = True

    def go_on(self) -> None:
        """Take `pause` back."""
        self.pausing = False

    def cancel(self) -> None:
        """Stop the round that runs at its next step; what is finished stays."""
        if self._active and self._job is not None:
            self._job.stop()

    @property
    def cancelled(self) -> bool:
        """Whether it has been asked to stop."""
        return self._active and self._job is not None and self._job.cancel()

    def expected(self, facts: int) -> str:
        """How long so many facts will take, as the rounds of this session have gone."""
        rounds = self._desk.session.rounds
        written = sum(len(round_.facts) for round_ in rounds)
        if not written or not facts:
            return ""
        return f"about {duration(sum(round_.seconds for round_ in rounds) / written * facts)}"

    @property
    def seconds_left(self) -> float | None:
        """Time left for all that has not been written; None while nothing is known."""
        if not self._each:
            return None
        return sum(self._each) / len(self._each) * len(self.left)

    def _next(self, then: Callable[[Round], object] | None) -> None:
        facts = self.left[: self._size]
        self._active = True
        place = f", round {self.done + 1} of {self.rounds}" if self.rounds > 1 else ""
        self._job = self._desk.worker.submit(
            f"editing {count(len(facts), 'fact')}{place}",
            partial(self._write, facts),
            lambda round_: self._finished(facts, round_, then),
            self._failed,
            stopped=self._stopped,
            exclusive=True,
            patience=self.done > 0,  # a later round lets what a person asks for go first
        )

    def _write(self, facts: Sequence[Fact], job: Job) -> Round:
        session = self._desk.session
        if not self.done:  # as in `Session.apply_in_rounds`: one that cannot be edited is said now
            session.check(self.left, self._size)
        replaced = {self._replacing[fact] for fact in facts if fact in self._replacing}
        muted = sorted(replaced & set(session.state.fact_ids))
        for fact_id in muted:
            session.mute(fact_id, source=self)
        try:
            return session.apply(facts, job.progress, job.cancel, source=self)
        except BaseException:
            for fact_id in muted:
                session.unmute(fact_id, source=self)
            raise

    def _finished(
        self, facts: Sequence[Fact], round_: Round, then: Callable[[Round], object] | None
    ) -> None:
        desk, job = self._desk, self._job
        self.done += 1
        self._each.append(round_.seconds / len(round_.facts))
        self.left = self.left[len(facts) :]
        self._active = False
        # not the round's own: two keys add wordings to facts, some methods make several rounds
        written = list(facts)
        staged = []
        for fact in desk.staged:
            if fact in written:
                written.remove(fact)
            else:
                staged.append(fact)
        if job is not None:
            self.said = " ".join(job.warnings)
        more = bool(self.left) and not self.pausing and not (job is not None and job.cancel())
        if more:
            self._next(then)
        elif self.left:
            self.said = f"Paused: {count(len(self.left), 'fact')} left."
        if len(staged) != len(desk.staged):
            desk.stage(staged, self)
        first = round_.fact_ids[0], round_.facts[0].text
        desk.select(self, round=desk.session.position, fact=first[0], prompt=first[1])
        if then is not None:
            then(round_)

    def _stopped(self) -> None:
        self._active = False
        kept = f"{count(self.done, 'round')} finished and kept" if self.done else "nothing changed"
        self.said = f"Cancelled: {kept}."

    def _failed(self, error: Exception) -> None:
        from coachhook_viz.panels.panel import told

        self._active = False
        self.said = told(error)
