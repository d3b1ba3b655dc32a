"""Settings × orders × seeds on as many processes and machines as there are.

sweep         all trials, kept in a folder as they finish
at_the_end    what came of each setting: means and intervals after the last round
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from torch import Tensor

from coachhook_viz.comparing import COLUMNS, check_settings, ready
from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.moments import cached_moments, check_moments
from coachhook_viz.editing.progress import (
    Bar,
    CancelCallback,
    EditCancelled,
    ProgressCallback,
    Watch,
)
from coachhook_viz.errors import FailedTrialWarning, SweepError
from coachhook_viz.facts import Fact, FactError, as_batch
from coachhook_viz.measure.quality import METRICS, readings
from coachhook_viz.models import LanguageModel, is_local, load_model
from coachhook_viz.store.format import describe
from coachhook_viz.store.sweeps import SweepFolder, sweep_of
from coachhook_viz.trials import Bench, Failed, Trial, Work, bytes_needed, trials_of
from coachhook_viz.warned import warn

_EXTRA = ("distributed", "pyarrow")


def sweep(
    model: LanguageModel | str,
    facts: Iterable[Fact] | Fact,
    configs: Mapping[str, EditConfig],
    *,
    folder: str | Path,
    orders: Sequence[str] | None = None,
    seeds: Sequence[int] = (),
    rounds: int = 1,
    client: Any = None,
    moments: Mapping[int, Tensor] | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """Edit the same facts under each setting, in each order, as `compare` does, on many processes.

    A trial is one setting, one order and one seed. Each is written to the folder as soon as it is
    finished, so a sweep that was ended in any way goes on where it was when it is called again,
    and one that is called with more settings, orders or seeds finds the others done. A trial that
    fails costs no other, and is tried again in the next call. Needs the extra `sweep`.

    A trial runs on one core and shares nothing with others but the model and second moments. On
    CPUs of one kind results are the same to the bit, however many workers there are; "seconds" is
    measured, and is not.

    Parameters
    ----------
    model : LanguageModel or str
        Or its name, for `load_model`. The workers of a client load it once each, by its name;
        processes of this machine also take one that is only in memory.
    facts : iterable of Fact, or one Fact
    configs : mapping of str to EditConfig
        Settings by name.
    folder : str or Path
        New, empty, or that of the same sweep.
    orders : sequence of {"given", "reversed", "shuffled"}, optional
        In which order the facts are edited, and with it which of them share a round. None:
        "shuffled" if there are seeds, else "given".
    seeds : sequence of int
        The facts are shuffled once for each. Nothing else is drawn: editing has no chance in it.
    rounds : int
        As in `compare`.
    client : optional
        A `distributed.Client` of any Dask cluster, or its scheduler's address. Workers have this
        package and can load the model. None: processes on this machine, as many as it has cores
        and free memory for; where that is one, and for a model on a GPU, this process itself.
    moments : mapping of int to Tensor, optional
        As in `Session`. None: from each machine's cache, or collected there once.
    progress : callable, optional
        As in `Session.apply`, stage "trials". None draws a bar, and prints the address of Dask's
        dashboard.
    cancel : callable, optional
        As in `Session.apply`.

    Returns
    -------
    DataFrame
        What `compare` gives, of all trials that are finished, and two more columns:
        order : str
        seed : int or NA
            NA: nothing was shuffled. `fact` counts in `facts`, whatever the order.

    Raises
    ------
    ValueError
        If there is no setting, a setting does not fit the model, or orders, seeds or rounds make
        no sense.
    FactError
        If a fact cannot be edited under one of the settings. Both before anything is computed.
    SweepError
        If the extra is not installed; the folder holds another sweep, is in use, or cannot be
        written to; no scheduler answers; a worker has not the model. What is finished is kept.
    EditCancelled
        If `cancel` answered True. What is finished is kept.

    Warns
    -----
    FailedTrialWarning
        If trials failed.
    """
    _require_extra()
    place = SweepFolder(folder)
    lm = model if isinstance(model, LanguageModel) else load_model(model)
    facts = as_batch(facts)
    with Bar() as bar:
        watch = Watch(progress or bar, cancel)
        check_settings(lm, configs, facts, rounds)
        trials = trials_of(ready(lm, configs, watch), orders, seeds)
        _check_orders(lm, facts, rounds, trials)
        layers = sorted({layer for trial in trials for layer in _layers(trial.config)})
        if moments is not None:
            check_moments(moments, lm, layers)
            moments = {layer: given.cpu() for layer, given in moments.items()}  # they travel
        elif layers:
            cached_moments(lm, layers, watch)  # once, and not by each worker
        used = {trial.setting: trial.config for trial in trials}
        version = metadata.version("coachhook-viz")
        content = sweep_of(version, describe(lm), facts, rounds, moments, used)
        work = Work(version, content["model"], lm.architecture, tuple(facts), rounds, moments)
        with place.opened(content):
            left = [trial for trial in trials if place.result(trial.id) is None]
            try:
                failed = _run(lm, work, left, client, place, watch, tell=progress is None)
            except EditCancelled as error:
                raise EditCancelled(
                    f"{error}. What is finished is kept in {place.path}: call again to go on"
                ) from None
            found = [place.result(trial.id) for trial in trials]
    if failed:
        _warn(failed, len(trials), place)
    done = [frame for frame in found if frame is not None]
    columns = [COLUMNS[0], "order", "seed", *COLUMNS[1:]]
    return pd.concat(done, ignore_index=True) if done else pd.DataFrame(columns=columns)


def at_the_end(frame: pd.DataFrame) -> pd.DataFrame:
    """Reliability, generality and locality of each setting after the last round.

    Parameters
    ----------
    frame : DataFrame
        What `sweep` or `compare` gives.

    Returns
    -------
    DataFrame
        As `measure.quality.readings`, with a column `setting`: for `figures.comparison`. A fact
        counts once, by its mean over orders and seeds; so the interval says how sure the mean over
        facts is.
    """
    end = frame[(frame["round"] == frame["round"].max()) & frame["metric"].isin(METRICS)]
    facts = end.groupby(["setting", "fact", "metric"], sort=False)["value"].mean().reset_index()
    facts = facts.assign(round=1, edited=2)  # then `readings` has nothing but the end to read
    parts = [readings(of).assign(setting=name) for name, of in facts.groupby("setting", sort=False)]
    return pd.concat(parts) if parts else readings(facts).assign(setting="")


def _require_extra() -> None:
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise SweepError(
            f"a sweep needs {' and '.join(missing)}: pip install 'coachhook_viz[sweep]'"
        )


def _check_orders(
    lm: LanguageModel, facts: Sequence[Fact], rounds: int, trials: Sequence[Trial]
) -> None:
    """Refuse an order in which facts share a round that cannot."""
    for trial in trials:
        if trial.setting == trials[0].setting and trial.order != "given":
            places = trial.places(len(facts))
            try:
                order = [facts[place] for place in places]
                check_settings(lm, {trial.setting: trial.config}, order, rounds)
            except FactError as error:
                problems = [replace(one, index=places[one.index]) for one in error.problems]
                raise FactError(problems, facts) from None


def _layers(config: EditConfig) -> Sequence[int]:
    """Those that it needs the moments of."""
    return config.keyed_layers if config.method.uses_moments else ()


def _run(
    lm: LanguageModel,
    work: Work,
    left: Sequence[Trial],
    client: Any,
    place: SweepFolder,
    watch: Watch,
    tell: bool,
) -> dict[Trial, Failed]:
    """Run what is left and keep it; what failed."""
    failed: dict[Trial, Failed] = {}
    for trial, found in _outcomes(lm, work, left, client, watch, tell):
        if isinstance(found, Failed):
            failed[trial] = found
            place.keep_failure(trial.id, found.text)
        else:
            place.keep(trial.id, found)
    return failed


def _outcomes(
    lm: LanguageModel,
    work: Work,
    left: Sequence[Trial],
    client: Any,
    watch: Watch,
    tell: bool,
) -> Iterator[tuple[Trial, pd.DataFrame | Failed]]:
    from coachhook_viz import cluster  # it takes a second

    def look(done: int) -> None:
        watch("trials", done, len(left))

    workers = 1
    if client is None and lm.device.type == "cpu":
        needed = bytes_needed(lm, [trial.config for trial in left])
        workers = min(cluster.workers_here(needed), len(left))
    if client is None and workers < 2:
        bench = Bench(work, lm)
        for done, trial in enumerate(left):
            look(done)
            yield trial, bench.run(trial, partial(_ticked, look, done))
    elif left:
        look(0)
        with ExitStack() as stack:
            if client is None and not is_local(lm.name):
                work = replace(work, copy=stack.enter_context(_copied(lm)))
            connected = stack.enter_context(cluster.connected(client, workers))
            if tell:
                print(f"Dask's dashboard: {connected.dashboard_link}")
            yield from cluster.outcomes(connected, work, left, look)


def _ticked(look: Callable[[int], object], done: int) -> bool:
    """Never cancels: what `look` raises does, and it is seen that something goes on."""
    look(done)
    return False


@contextmanager
def _copied(lm: LanguageModel) -> Iterator[str]:
    """Within the context the model is in a folder, for processes that cannot load it by its name.

    So nobody asks the hub for it, either.
    """
    with TemporaryDirectory(prefix="coachhook_viz-") as folder:
        try:
            lm.model.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
        except OSError as error:
            raise SweepError(
                f"{lm.name} could not be copied for the other processes ({error}). Put it into a"
                " folder with lm.model.save_pretrained and lm.tokenizer.save_pretrained, and load"
                " it from there"
            ) from error
        yield folder


def _warn(failed: Mapping[Trial, Failed], count: int, place: SweepFolder) -> None:
    said = "; ".join(f"{trial}: {found.error}" for trial, found in list(failed.items())[:_SAID])
    more = f"; and {len(failed) - _SAID} more" if len(failed) > _SAID else ""
    warn(
        f"{len(failed)} of {count} trials failed, and will be tried again the next time: {said}"
        f"{more}. All that they said is in {place.path / 'failed'}",
        FailedTrialWarning,
        stacklevel=3,
    )


_SAID = 5  # failed trials that a warning names
