"""Trials on the workers of a Dask cluster, which dask.distributed runs.

connected     a context with a client: the one that was given, or one of a cluster on this machine
outcomes      each trial with its result, as they come
workers_here  how many processes this machine has cores and memory for
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import pandas as pd
import psutil
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, WorkerPlugin, get_worker, wait
from distributed.scheduler import KilledWorker
from distributed.system import MEMORY_LIMIT

from coachhook_viz.errors import SweepError
from coachhook_viz.trials import Bench, Failed, Trial, Work

_PATIENCE = 10  # seconds for a scheduler to answer
_TICK = 0.3  # seconds between two looks at `cancel`
_SHARE = 0.8  # of the free memory


def workers_here(bytes_needed: int) -> int:
    """How many processes of that size this machine has cores and free memory for; at least one."""
    free = min(psutil.virtual_memory().available, MEMORY_LIMIT)
    return int(max(1, min(CPU_COUNT, _SHARE * free // bytes_needed)))


@contextmanager
def connected(client: Client | str | None, workers: int) -> Iterator[Client]:
    """Within the context there is a client.

    Parameters
    ----------
    client : Client, str or None
        A client, or a scheduler's address; None: a cluster of processes on this machine, with one
        thread each, which ends with the context.
    workers : int
        Of the cluster on this machine.

    Raises
    ------
    SweepError
        If no scheduler answers.
    """
    if client is None:
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=None,  # the number of workers is the limit
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as own,
        ):
            yield own
        return
    if isinstance(client, str):
        try:
            own = Client(client, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise SweepError(
                f"no Dask scheduler answers at {client!r} ({error}). Is it running, and can this"
                " machine reach it?"
            ) from error
        with own:
            yield own
        return
    if getattr(client, "asynchronous", True):
        raise SweepError(f"client is {client!r}: give a dask.distributed Client, or an address")
    if client.status != "running":
        raise SweepError(
            f"client is {client.status}: its scheduler cannot be reached. Make another"
        )
    yield client


class _Plugin(WorkerPlugin):
    """The bench of a worker; it hears when nobody wants a trial any more."""

    def __init__(self, work: Work, name: str) -> None:
        self.name = name
        self._work = work

    def setup(self, worker: Any) -> None:
        self.address = worker.address
        self.unwanted: set[str] = set()
        self.bench = Bench(self._work)

    def transition(self, key: Any, start: str, finish: str, **other: Any) -> None:
        if start == "executing":  # it is done, or cancelled
            self.unwanted.add(str(key))


def _run(name: str, trial: Trial) -> pd.DataFrame | Failed:
    worker = get_worker()
    plugin: Any = worker.plugins[name]
    key = str(worker.get_current_task())
    plugin.unwanted.discard(key)
    try:
        found: pd.DataFrame | Failed = plugin.bench.run(trial, lambda: key in plugin.unwanted)
    except SweepError as error:
        raise SweepError(f"the worker {plugin.address}: {error}") from None
    return found


def outcomes(
    client: Client, work: Work, trials: Sequence[Trial], look: Callable[[int], object]
) -> Iterator[tuple[Trial, pd.DataFrame | Failed]]:
    """Each trial with its result, in the order in which they come.

    A trial whose worker dies is given to another one; one that has ended several workers has
    failed.

    Parameters
    ----------
    client : Client
    work : Work
    trials : sequence of Trial
    look : callable
        Called several times a second with how many are done; what it raises ends the trials that
        run, too.

    Raises
    ------
    SweepError
        If the workers cannot be made ready, one of them has not the model, or the scheduler is
        gone.
    """
    name = f"coachhook_viz-{uuid4().hex[:8]}"
    waiting: dict[Any, Trial] = {}
    try:
        with _reaching():
            _register(client, _Plugin(work, name))
            for trial in trials:
                key = f"{name}-{trial.id}"
                waiting[client.submit(_run, name, trial, key=key, pure=False)] = trial
        while waiting:
            look(len(trials) - len(waiting))
            with _reaching():
                try:
                    done = wait(list(waiting), timeout=_TICK, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    continue
            for future in sorted(done, key=lambda one: one.status == "error"):  # keep what there is
                with _reaching():
                    found = _outcome(future)
                yield waiting.pop(future), found
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.cancel(list(waiting), force=True)
            client.unregister_worker_plugin(name)


def _register(client: Client, plugin: _Plugin) -> None:
    try:
        client.register_plugin(plugin)
    except (OSError, TimeoutError):
        raise
    except Exception as error:
        raise SweepError(
            f"the workers could not be made ready ({type(error).__name__}: {error}). Each of them"
            " needs this package, in the same version"
        ) from error


def _outcome(future: Any) -> pd.DataFrame | Failed:
    error = future.exception() if future.status == "error" else None
    if error is None:
        return future.result()  # type: ignore[no-any-return]
    if isinstance(error, SweepError):
        raise error
    if isinstance(error, KilledWorker):
        said = "each worker that ran it died, perhaps for want of memory"
        return Failed(said, f"{said}\n{error}")
    return Failed(f"{type(error).__name__}: {error}", repr(error))


@contextmanager
def _reaching() -> Iterator[None]:
    """Within the context a scheduler that is gone is said to be."""
    try:
        yield
    except (
        OSError, TimeoutError, concurrent.futures.CancelledError, asyncio.CancelledError,
    ) as error:  # fmt: skip
        raise SweepError(
            f"the Dask scheduler is gone ({type(error).__name__}). What is finished is kept: start"
            " it again, and call again"
        ) from error
