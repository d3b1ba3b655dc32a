"""What a long computation says while it runs, and how it is told to stop.

Progress        one message: stage, step of total, loss
EditCancelled   raised when the caller's `cancel` answered True
Watch           the pair of callbacks, as the editing code carries them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One progress message.

    Attributes
    ----------
    stage : str
        "contexts", "moments", "targets", "layers" or "scope".
    step, total : int
        `step` of `total` is about to run; both count within the stage.
    loss : float or None
        Mean loss over the facts still being optimised (stage "targets" only).
    """

    stage: str
    step: int
    total: int
    loss: float | None = None


ProgressCallback = Callable[[Progress], object]
CancelCallback = Callable[[], bool]


class EditCancelled(Exception):
    """The caller's `cancel` answered True; nothing was changed."""


@dataclass(frozen=True)
class Watch:
    """Reports each step to `progress` and asks `cancel` whether to go on."""

    progress: ProgressCallback | None = None
    cancel: CancelCallback | None = None

    def __call__(self, stage: str, step: int, total: int, loss: float | None = None) -> None:
        if self.cancel is not None and self.cancel():
            raise EditCancelled(f"cancelled at {stage}, step {step} of {total}")
        if self.progress is not None:
            self.progress(Progress(stage, step, total, loss))
