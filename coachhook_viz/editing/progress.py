"""What a long computation says while it runs, and how it is told to stop.

Progress        one message: stage, step of total, loss
Watch           the pair of callbacks, as the editing code carries them
Bar             a progress callback that draws a bar, in a terminal or a notebook
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from coachhook_viz.errors import EditCancelled as EditCancelled

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Progress:
    """One progress message.

    Attributes
    ----------
    stage : str
        Of a session and a round "contexts", "moments", "targets", "layers"; of measurements
        "quality", "drift", "keys", "scope", "what else"; of a guide "known", "keys" and "trace"
        before those; "report"; of a sweep "trials".
    step, total : int
        `step` of `total` is about to run; both count within the stage.
    loss : float or None
        Mean loss over the facts still being optimised (stage "targets" only).
    round, rounds : int or None
        `round` of `rounds` is being edited (`Session.apply_in_rounds` and `compare` only).
    setting : str or None
        What `compare` calls the configuration; which one of how many `guide` tries.
    """

    stage: str
    step: int
    total: int
    loss: float | None = None
    round: int | None = None
    rounds: int | None = None
    setting: str | None = None


ProgressCallback = Callable[[Progress], object]
CancelCallback = Callable[[], bool]


@dataclass(frozen=True)
class Watch:
    """Reports each step to `progress` and asks `cancel` whether to go on."""

    progress: ProgressCallback | None = None
    cancel: CancelCallback | None = None

    def __call__(self, stage: str, step: int, total: int, loss: float | None = None) -> None:
        """Say that `step` of `total` is about to run, unless the caller wants to stop."""
        self.stop_if_asked(stage, step, total)
        if self.progress is not None:
            self.progress(Progress(stage, step, total, loss))

    def stop_if_asked(self, stage: str, step: int, total: int) -> None:
        """Raise `EditCancelled` if the caller wants to stop: for within a long step."""
        if self.cancel is not None and self.cancel():
            raise EditCancelled(f"cancelled at {stage}, step {step} of {total}")


class Bar:
    """A progress bar, one stage after the other.

    Examples
    --------
    >>> with Bar() as bar:
    ...     session.apply(facts, progress=bar)
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Draw `progress`."""
        place = f"{progress.setting}, " if progress.setting else ""
        place += f"round {progress.round} of {progress.rounds}, " if progress.rounds else ""
        if place + progress.stage != self._stage:
            self.__exit__(None, None, None)
            self._stage = place + progress.stage
            self._bar = tqdm(
                desc=f"{place}{progress.stage}", total=progress.total, leave=False, delay=0.3
            )
        self._bar.update(progress.step - self._bar.n)
        if progress.loss is not None:
            self._bar.set_postfix(loss=f"{progress.loss:.2f}")
