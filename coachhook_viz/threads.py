"""Keep torch's threads from spinning for long where they wait for each other.

On Linux torch's threads are OpenMP's (libgomp). After each parallel piece of work they spin for
some milliseconds before they sleep. Alone on the machine that is fast. Beside a browser or a video
call each waits, spinning, for one that has no core, thousands of times a second, and an edit takes
minutes instead of seconds. So the spin is bounded: long enough for the gap to the next piece of
work, far shorter than the time for which a core is taken away.

bound_spinning    where torch is not loaded yet: when the package is imported
give_way          where it was: before each piece of work, while other processes need the cores
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event, Lock, Thread

_SPINS = "5000"  # some 0.07 ms, which costs nothing when idle; libgomp's own is 300000
_loaded_before = False
_lock = Lock()
_guest: Event | None = None  # ends the guest thread


def bound_spinning() -> None:
    """Bound the spin by libgomp's own variable, unless the user has chosen or torch is loaded."""
    global _loaded_before
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        _loaded_before = "torch" in sys.modules  # libgomp reads its variables when it is loaded
        if not _loaded_before:
            os.environ["GOMP_SPINCOUNT"] = _SPINS


def give_way() -> None:
    """Have libgomp itself shorten the spin, as it does with more threads than cores.

    A guest thread that has computed something in parallel keeps its workers, asleep, while it
    lives: that makes them more than cores. So short a spin costs a third of the speed when idle;
    so the guest leaves when the other processes do. Does nothing where `bound_spinning` did.
    """
    global _guest
    if not _loaded_before:
        return
    with _lock:
        if _crowded() == (_guest is not None):
            return
        if _guest is not None:
            _guest.set()
            _guest = None
        else:
            _guest = _invite()


def _crowded() -> bool:
    """Whether other processes run on cores that torch's threads need; False where unknown."""
    import torch

    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
        states = [
            stat.read_text().rpartition(")")[2].split()[0]
            for stat in Path("/proc/self/task").glob("*/stat")
        ]
    except (OSError, ValueError, IndexError):  # no Linux, or a thread that just ended
        return False
    return running - states.count("R") + torch.get_num_threads() > (os.cpu_count() or 1)


def _invite() -> Event:
    import torch

    arrived, leave = Event(), Event()

    def stay() -> None:
        torch.ones(1 << 20).add_(1)  # large enough for all threads to get a part
        arrived.set()
        leave.wait()

    Thread(target=stay, name="coachhook_viz guest", daemon=True).start()
    arrived.wait()
    return leave
