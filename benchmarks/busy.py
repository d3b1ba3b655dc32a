"""One edit beside busy processes, as many as there are cores, and without them.

    python benchmarks/busy.py [--repeats 5] [--skip-without]

Rows: with the package giving way (see its `threads`), torch imported before it or by it; and
without, that is with libgomp's own spin throughout, where the busy one can take minutes. All times
are of one run, each in a process of its own that has edited once before; idle ones take turns, and
the fastest counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

SETUPS: dict[str, tuple[str, dict[str, str]]] = {
    "giving way": ("", {}),
    "giving way, torch imported first": ("import torch", {}),
    "without": ("", {"GOMP_SPINCOUNT": "300000"}),  # libgomp's own, now as the user's choice
}
CHILD = """
import sys, time
import coachhook_viz as cv

session = cv.Session(cv.load_model())
for number, _ in enumerate(sys.stdin):
    started = time.perf_counter()
    session.apply(cv.bundled_facts()[number % 2 : number % 2 + 1])
    seconds = time.perf_counter() - started
    session.undo()
    print(seconds, flush=True)
"""
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:  # whatever ends this benchmark ends it too
    pass
"""


class Child:
    """A process that edits two facts in turn, one each time it is asked to."""

    def __init__(self, first: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", first + CHILD],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.edits(1)

    def edits(self, times: int = 2) -> float:
        """Mean seconds of some edits, one after the other."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        seconds = []
        for _ in range(times):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            seconds.append(float(self.process.stdout.readline()))
        return statistics.mean(seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-without", action="store_true", help="which takes minutes if busy")
    arguments = parser.parse_args()
    children = {name: Child(*setup) for name, setup in SETUPS.items()}
    idle: dict[str, list[float]] = {name: [] for name in SETUPS}
    for _ in range(arguments.repeats):  # in turn, so that a slow minute hits all of them
        for name, child in children.items():
            idle[name].append(child.edits())
    load = [sys.executable, "-c", BUSY]
    busy = [subprocess.Popen(load) for _ in range(os.cpu_count() or 1)]
    print("| | idle, s | against without | beside busy processes, s | against idle |")
    print("| --- | ---: | ---: | ---: | ---: |")
    try:
        alone = min(idle["without"])
        for name, child in children.items():
            seconds = min(idle[name])
            beside = "", ""
            if name != "without":
                slow = child.edits(6)
                beside = f"{slow:.2f}", f"{slow / seconds:.2f}"
            elif not arguments.skip_without:
                slow = child.edits(1)
                beside = f"{slow:.2f}", f"{slow / seconds:.2f}"
            row = (f"{seconds:.2f}", f"{seconds / alone:.3f}", *beside)
            print(f"| {name} | {' | '.join(row)} |", flush=True)
    finally:
        for process in (*busy, *(child.process for child in children.values())):
            process.kill()


if __name__ == "__main__":
    main()
