"""One trial of a sweep: the same facts under one setting, in one order.

Trial       a setting, an order, a seed; small enough to travel
trials_of   all trials of a sweep
Work        what they share: a model that can be loaded elsewhere, facts, rounds, moments
Bench       a process that has the model, and runs trials one after the other
edited      the session that a trial made
Failed      why a trial has no result
"""

from __future__ import annotations

import hashlib
import json
import random
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from operator import index
from threading import Lock

import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.comparing import check_settings, compare, pieces
from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.editing.progress import CancelCallback, EditCancelled, ProgressCallback
from coachhook_viz.errors import SweepError
from coachhook_viz.facts import Fact
from coachhook_viz.models import Architecture, LanguageModel, load_model
from coachhook_viz.session import Session
from coachhook_viz.store.format import describe, difference
from coachhook_viz.threads import one_thread
from coachhook_viz.warned import heard

ORDERS = ("given", "reversed", "shuffled")


@dataclass(frozen=True)
class Trial:
    """All facts under one setting, in one order.

    Attributes
    ----------
    setting : str
        Name of the configuration.
    config : EditConfig
    order : {"given", "reversed", "shuffled"}
    seed : int or None
        Of the shuffle; None where nothing is drawn.
    """

    setting: str
    config: EditConfig
    order: str = "given"
    seed: int | None = None

    @property
    def id(self) -> str:
        """What tells it from the others of a sweep, as part of a file's name."""
        said = json.dumps([self.setting, self.order, self.seed])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        drawn = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.setting}, {self.order}{drawn}"

    def places(self, count: int) -> list[int]:
        """Which of `count` facts is edited first, which second, and so on."""
        places = list(range(count))
        if self.order == "reversed":
            places.reverse()
        elif self.order == "shuffled":
            random.Random(self.seed).shuffle(places)
        return places


def trials_of(
    configs: Mapping[str, EditConfig], orders: Sequence[str] | None, seeds: Sequence[int]
) -> list[Trial]:
    """Each setting in each order; where facts are shuffled, with each seed.

    Parameters
    ----------
    configs : mapping of str to EditConfig
    orders : sequence of str or None
        None: "shuffled" if there are seeds, else "given".
    seeds : sequence of int

    Raises
    ------
    ValueError
        If there is no such order, facts are to be shuffled without a seed, seeds are given and
        nothing is shuffled, or something is named twice.
    """
    try:
        seeds = [index(seed) for seed in seeds]
    except TypeError:
        raise ValueError(
            f"seeds are {seeds!r}: they must be whole numbers, as [0, 1, 2] or range(3)"
        ) from None
    if any(not 0 <= seed < 1 << 63 for seed in seeds):
        raise ValueError(f"seeds are {seeds}: they must be 0 or more, and fit into 64 bits")
    if orders is None:
        orders = ["shuffled" if seeds else "given"]
    orders = [orders] if isinstance(orders, str) or not isinstance(orders, Iterable) else orders
    orders = list(orders)
    if not all(order in ORDERS for order in orders):
        raise ValueError(f"orders are {orders}: use some of {ORDERS}")
    for name, values in (("orders", orders), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} are {values}: each of them once")
    if not orders:
        raise ValueError(f"orders are {orders}: use some of {ORDERS}")
    if ("shuffled" in orders) != bool(seeds):
        raise ValueError(
            "seeds are what facts are shuffled by: give both, as orders=['shuffled'],"
            " seeds=range(5), or neither"
        )
    return [
        Trial(setting, config, order, seed)
        for setting, config in configs.items()
        for order in orders
        for seed in (seeds if order == "shuffled" else [None])
    ]


@dataclass(frozen=True, eq=False)
class Work:
    """What all trials of a sweep share, as it travels to other processes.

    Attributes
    ----------
    version : str
        Of this package.
    model : mapping of str to str
        Name, fingerprint, dtype and lead.
    architecture : Architecture
    facts : tuple of Fact
    rounds : int
    moments : mapping of int to Tensor or None
        None: those of the cache.
    copy : str or None
        A folder that the model is loaded from; None: by its name.
    """

    version: str
    model: Mapping[str, str]
    architecture: Architecture
    facts: tuple[Fact, ...]
    rounds: int
    moments: Mapping[int, Tensor] | None
    copy: str | None = None

    def load(self) -> LanguageModel:
        """The model.

        Raises
        ------
        SweepError
            If it cannot be had in this process, or is another one here, or the package is.
        """
        if (here := metadata.version("coachhook-viz")) != self.version:
            raise SweepError(f"it has version {here} of this package, not {self.version}")
        name = self.model["name"]
        try:
            lm = load_model(
                self.copy or name,
                lead=self.model["lead"],
                dtype=self.model["dtype"],
                architecture=self.architecture,
            )
        except Exception as error:  # other packages say in many ways what fails
            raise SweepError(
                f"the model {name!r} cannot be loaded there: {error}. Each worker loads it by this"
                " name: give a hub id, or a folder that all of them can read (a model that is only"
                " in memory is put into one by lm.model.save_pretrained and"
                " lm.tokenizer.save_pretrained)"
            ) from None
        if reason := difference(self.model, describe(lm)):
            raise SweepError(f"the model there is another one: {reason}")
        return lm


@dataclass(frozen=True)
class Failed:
    """Why a trial has no result.

    Attributes
    ----------
    error : str
        In a line.
    text : str
        With where it happened.
    """

    error: str
    text: str


class Bench:
    """Runs trials, one after the other, each as if it were the only one.

    Nothing that one trial has computed is used by another but the model and second moments. So a
    result is the same to the bit wherever it was found, and after whatever.

    Parameters
    ----------
    work : Work
    lm : LanguageModel, optional
        None: loaded for the first trial.
    """

    def __init__(self, work: Work, lm: LanguageModel | None = None) -> None:
        self._work = work
        self._lm = lm
        self._moments: dict[int, Tensor] = {}
        self._lock = Lock()

    def run(self, trial: Trial, cancel: CancelCallback | None = None) -> pd.DataFrame | Failed:
        """What `compare` gives of the trial's setting, with its order and seed.

        Raises
        ------
        SweepError
            If the model cannot be had, see `Work.load`.
        EditCancelled
            If `cancel` answered True.
        """
        work = self._work
        with self._lock, one_thread(), heard():  # of trials, which nobody keeps
            if self._lm is None:
                self._lm = work.load()
            try:
                places = trial.places(len(work.facts))
                frame = compare(
                    self._lm,
                    [work.facts[place] for place in places],
                    {trial.setting: trial.config},
                    work.rounds,
                    moments=self._moments_of(self._lm, trial.config),
                    progress=lambda said: None,
                    cancel=cancel,
                )
            except EditCancelled:
                raise
            except Exception as error:
                said = " ".join(str(error).split())
                return Failed(f"{type(error).__name__}: {said}", traceback.format_exc())
        frame["fact"] = frame["fact"].map(dict(enumerate(places))).astype("Int64")
        frame.insert(1, "order", trial.order)
        frame.insert(2, "seed", pd.Series(trial.seed, frame.index, dtype="Int64"))
        return frame

    def _moments_of(self, lm: LanguageModel, config: EditConfig) -> Mapping[int, Tensor]:
        if self._work.moments is not None:
            return {layer: given.to(lm.device) for layer, given in self._work.moments.items()}
        wanted = config.keyed_layers if config.method.uses_moments else ()
        new = [layer for layer in wanted if layer not in self._moments]
        self._moments |= cached_moments(lm, new) if new else {}
        return self._moments


def edited(
    lm: LanguageModel,
    trial: Trial,
    facts: Sequence[Fact],
    rounds: int,
    moments: Mapping[int, Tensor] | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> Session:
    """A trial's facts edited once more, in its order and its rounds, as a session.

    On more than one core: the last bits of a sum may differ from the trial's.

    Parameters
    ----------
    lm : LanguageModel
    trial : Trial
    facts : sequence of Fact
    rounds : int
    moments : mapping of int to Tensor, optional
        As in `Session`.
    progress, cancel : callables, optional
        As in `Session.apply`.

    Raises
    ------
    FactError, EditCancelled
        As `Session.apply`.
    """
    session = Session(lm, trial.config, moments, progress=progress, cancel=cancel)
    order = [facts[place] for place in trial.places(len(facts))]
    for part in check_settings(lm, {trial.setting: trial.config}, order, rounds):
        for batch in pieces(trial.config, part):
            session.apply(batch, progress, cancel)
    return session


def bytes_needed(lm: LanguageModel, configs: Sequence[EditConfig]) -> int:
    """How much memory one more process takes that runs trials, roughly."""
    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    layers = {layer for config in configs for layer in config.keyed_layers}
    matrix = lm.d_key * lm.d_key * torch.float64.itemsize
    return _PYTHON + 2 * weights + _MATRICES * len(layers) * matrix


_PYTHON = 1 << 30  # torch and the rest
_MATRICES = 6  # of (d_key, d_key) that a layer holds at once: C0, P, and what they are made of
