"""Let torch's threads give way while other processes need the cores.

On Linux torch's threads are OpenMP's (libgomp). After each parallel piece of work they spin for
some milliseconds before they sleep. Alone on the machine that is fastest. Beside a browser or a
video call each waits, spinning, for one that has no core, thousands of times a second, and an edit
takes minutes instead of seconds. A short spin cures that and costs a seventh of the speed on a
machine that is idle; so it is short only while others compute.

libgomp reads how long to spin once, when torch is loaded. But whenever a process has more OpenMP
threads than the machine has cores, it spins shortly by itself. That is what is used here.

give_way    before each piece of work: spin shortly if other processes need the cores, else long
one_thread  a context in which torch computes on one core
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread

import torch

_CHOSEN = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}  # with these users choose the spin themselves
_lock = Lock()
_guest: Event | None = None  # ends the guest thread


def give_way() -> None:
    """Have a guest thread stay while other processes need the cores, and none otherwise.

    A thread that has computed something in parallel keeps OpenMP threads of its own, asleep, for
    as long as it lives. With the guest's there are more threads than cores.
    """
    global _guest
    if _CHOSEN & os.environ.keys() or torch.get_num_threads() == 1:
        return
    with _lock:
        if _crowded() == (_guest is not None):
            return
        if _guest is not None:
            _guest.set()
            _guest = None
        else:
            _guest = _invite()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the context torch computes on one core: sums are then in the same order everywhere.

    A thread that first computes meanwhile does so on one core from then on.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _crowded() -> bool:
    """Whether other processes run on cores that torch's threads need; False where unknown."""
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
    arrived, leave = Event(), Event()

    def stay() -> None:
        torch.ones(1 << 20).add_(1)  # large enough for all threads to get a part
        arrived.set()
        leave.wait()

    Thread(target=stay, name="coachhook_viz guest", daemon=True).start()
    arrived.wait()
    return leave
