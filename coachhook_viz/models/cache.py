"""The folder where what is fetched or collected once is kept.

cache_dir    where it is
in_turn      a context that one process at a time is in
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from coachhook_viz.errors import WaitingWarning
from coachhook_viz.warned import warn

_PATIENCE = 5.0  # seconds that a process waits for another one before it says so


def cache_dir() -> Path:
    """The user's cache for this package; the variable COACHHOOK_VIZ_CACHE moves it."""
    chosen = os.environ.get("COACHHOOK_VIZ_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("coachhook-viz")


@contextmanager
def in_turn(file: Path, what: str) -> Iterator[None]:
    """Within the context no other process is in it that names the same lock `file`.

    Warns
    -----
    WaitingWarning
        If another one is, for long; `what` it then does, in the message, is what is waited for.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, patience = FileLock(file), _PATIENCE
    while not lock.is_locked:
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            if patience == _PATIENCE:
                warn(
                    f"waiting for another process, which {what}: the wait ends when that is done or"
                    f" the process ends ({file})",
                    WaitingWarning,
                    stacklevel=4,
                )
            patience = 60.0
    try:
        yield
    finally:
        lock.release()
