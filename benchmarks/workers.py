"""Trials an hour of a sweep with one worker and with several, on this machine.

    python benchmarks/workers.py                  1 and 2 workers
    python benchmarks/workers.py --workers 1 4 8

Workers are started, and have imported torch, before the clock starts; loading the model is within.
Each trial edits four bundled facts in another order. All but the seconds must be the same to the
bit, or it fails. On a machine that others use the seconds say little: the load stands beside them,
and the CPU time of all workers, which says what n workers would reach on n free cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from importlib import import_module
from pathlib import Path

import pandas as pd
from distributed import Client, LocalCluster

import coachhook_viz as cv

HEADER = (
    "| workers | trials | seconds | trials an hour | of n × one worker | CPU seconds a trial"
    " | load before, after |\n| --- | --- | --- | --- | --- | --- | --- |"
)


def swept(client: Client, lm: cv.LanguageModel, folder: Path, seeds: range) -> pd.DataFrame:
    """Four facts in two rounds, once for each seed."""
    facts, config = cv.bundled_facts()[:4], cv.EditConfig.for_model(lm)
    options = {"rounds": 2, "seeds": seeds, "client": client, "progress": lambda said: None}
    return cv.sweep(lm, facts, {"default": config}, folder=folder, **options)


def measure(lm: cv.LanguageModel, workers: int, trials: int) -> tuple[float, float, pd.DataFrame]:
    """Seconds and CPU seconds for so many trials, and what came of them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        client.run(_import)
        spent = -sum(client.run(time.process_time).values())
        started = time.perf_counter()
        frame = swept(client, lm, Path(folder) / "sweep", range(trials))
        seconds = time.perf_counter() - started
        return seconds, spent + sum(client.run(time.process_time).values()), frame


def _import() -> None:
    import_module("coachhook_viz.trials")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    lm = cv.load_model()
    print(HEADER)
    first: tuple[float, pd.DataFrame] | None = None
    for workers in arguments.workers:
        before = os.getloadavg()[0]
        seconds, spent, frame = measure(lm, workers, arguments.trials)
        rate = 3600 * arguments.trials / seconds
        if first is None:
            first = rate / workers, frame
        exact = frame["metric"] != "seconds"
        assert frame[exact].equals(first[1][exact]), f"{workers} workers found something else"
        share = rate / workers / first[0]
        load = f"{before:.1f}, {os.getloadavg()[0]:.1f}"
        numbers = f"{arguments.trials} | {seconds:.0f} | {rate:.0f} | {share:.2f}"
        numbers += f" | {spent / arguments.trials:.1f} | {load}"
        print(f"| {workers} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
