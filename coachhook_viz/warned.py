"""What this package warns of, and who hears it.

`warnings.catch_warnings` changes what the whole process does with warnings. Where two threads are
within it at once, the one may hear what the other should, and what was before may never come back,
so that a notebook's own warnings are lost for good. So a thread that wants to hear the warnings of
this package, or nothing of them, says so for itself alone.

warn     as `warnings.warn`, unless the thread hears it
heard    a context with a list of what is warned of in it, which nobody else is told
hushed   a short context in which other packages' warnings are not told
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

_Hearing = tuple[tuple[type[Warning], ...], list[Warning]]

_hearing: ContextVar[tuple[_Hearing, ...]] = ContextVar("hearing", default=())
_lock = Lock()


def warn(message: str, category: type[Warning] = UserWarning, stacklevel: int = 1) -> None:
    """As `warnings.warn`; what `heard` listens to goes there instead."""
    for categories, said in reversed(_hearing.get()):
        if issubclass(category, categories):
            said.append(category(message))
            return
    warnings.warn(message, category, stacklevel=stacklevel + 1)


@contextmanager
def heard(*categories: type[Warning]) -> Iterator[list[Warning]]:
    """Within the context this thread's warnings of some kinds, or all, go into a list."""
    said: list[Warning] = []
    before = _hearing.set((*_hearing.get(), (categories or (Warning,), said)))
    try:
        yield said
    finally:
        _hearing.reset(before)


@contextmanager
def hushed() -> Iterator[None]:
    """Within the context, which has to be short, no warning is told; one thread at a time."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
