"""Keep torch's threads from spinning for long where they wait for each other.

On Linux torch's threads are OpenMP's (libgomp). At the end of each parallel piece of work they
spin for some milliseconds before they sleep. Alone on the machine that is fast. Beside a browser
or a video call each waits, spinning, for one that has no core, thousands of times a second: an
edit takes minutes instead of seconds. So the spin is bounded: long enough for the gap to the
next piece of work, far shorter than the time for which a core is taken away.

bound_spinning                   before torch is loaded: when the package is imported
bound_spinning_of_loaded_torch   where torch was loaded before, which is too late for that
"""

from __future__ import annotations

import os
import sys
from functools import cache
from threading import Event, Thread

_SPINS = "5000"  # about 0.07 ms; libgomp's own is 300000
_loaded_before = False


def bound_spinning() -> None:
    """Bound the spin by libgomp's own variable, unless the user has chosen or torch is loaded."""
    global _loaded_before
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        _loaded_before = "torch" in sys.modules  # libgomp reads its variables when it is loaded
        if not _loaded_before:
            os.environ["GOMP_SPINCOUNT"] = _SPINS


@cache
def bound_spinning_of_loaded_torch() -> None:
    """Have libgomp bound the spin by itself, as it does with more threads than cores.

    A thread that has computed something in parallel keeps its workers, asleep, for as long as it
    lives. One that lives on and does nothing so makes libgomp count more threads than cores.
    """
    if not _loaded_before:
        return
    import torch

    computed = Event()

    def compute_once_and_stay() -> None:
        torch.ones(1 << 20).add_(1)  # large enough for all threads to get a part
        computed.set()
        Event().wait()

    Thread(target=compute_once_and_stay, name="coachhook_viz spin", daemon=True).start()
    computed.wait()
