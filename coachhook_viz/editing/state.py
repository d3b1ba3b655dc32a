"""Immutable values that pass between the floors: what was edited, and what is in force.

Factors      one layer's update of one round: ΔW += R Aᵀ
Keys         subject keys of one round, under the two-key scope
Statistics   UltraEdit's running mean and spread, after one round
Round        a batch of facts edited at once: their factors and thresholds
LayerState   one layer under some rounds: ΔW and α
EditState    a prefix of the list of rounds, ready to hang on a model
key_of       what a state can be told from others of its session by
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig, ScopeKind
from coachhook_viz.editing.hooks import Hook
from coachhook_viz.editing.scope import MATCH_THRESHOLD
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel


@dataclass(frozen=True, eq=False)
class Factors:
    """One layer's update of one round, ``ΔW += R Aᵀ``, in columns that each belong to a fact.

    Attributes
    ----------
    residuals : Tensor
        R (d_model, columns), float64.
    directions : Tensor
        A (d_key, columns), float64.
    keys : Tensor
        K (d_key, columns), float64.
    owners : tuple of int
        The place in the round of each column's fact, ascending. Not given: column i is fact i's.
    thresholds : Tensor
        (columns,) τ that each was calibrated to, float64, see `editing.calibrate`. Not given:
        `MATCH_THRESHOLD` for each.
    """

    residuals: Tensor
    directions: Tensor
    keys: Tensor
    owners: tuple[int, ...] = ()
    thresholds: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not self.owners:
            object.__setattr__(self, "owners", tuple(range(self.keys.shape[1])))
        if self.thresholds is None:
            plain = torch.full_like(self.keys[0], MATCH_THRESHOLD)
            object.__setattr__(self, "thresholds", plain)

    @property
    def unit_directions(self) -> Tensor:
        """(d_key, columns): a_i / (a_i · k_i), whose product with a key is its match with it.

        Zero where a column has no direction, as in an empty null space: it matches nothing.
        """
        own = (self.directions * self.keys).sum(0)
        return self.directions / own.masked_fill(own == 0, 1)

    def by_fact(self, terms: Tensor) -> Tensor:
        """Sums (facts, …) over the columns of each fact, from one term a column (columns, …)."""
        owners = torch.tensor(self.owners, dtype=torch.long, device=terms.device)
        facts = 1 + max(self.owners, default=-1)
        return terms.new_zeros(facts, *terms.shape[1:]).index_add(0, owners, terms)

    @property
    def own_matches(self) -> Tensor:
        """(facts,) ``Σ_c a_c · k`` over a fact's columns c, mean over its own keys k."""
        products = self.keys.T @ self.directions  # (keys, columns)
        owners = torch.tensor(self.owners, device=products.device)
        same = owners[:, None] == owners
        counts = self.by_fact(torch.ones_like(products[:, 0]))
        return self.by_fact((products * same).sum(1)) / counts

    def columns(self, kept: Sequence[int]) -> Factors:
        """Only the columns of the facts at the places `kept`, which then count from 0."""
        new = {place: number for number, place in enumerate(kept)}
        columns = [column for column, owner in enumerate(self.owners) if owner in new]
        return Factors(
            self.residuals[:, columns],
            self.directions[:, columns],
            self.keys[:, columns],
            tuple(new[self.owners[column]] for column in columns),
            self.thresholds[columns],
        )


@dataclass(frozen=True, eq=False)
class Keys:
    """Subject keys of one round's b facts, which open them under the two-key scope.

    Attributes
    ----------
    directions : Tensor
        (d_key, b), float64: ``P k``, each for itself.
    keys : Tensor
        (d_key, b), float64.
    """

    directions: Tensor
    keys: Tensor

    @property
    def unit_directions(self) -> Tensor:
        """(d_key, b): a_i / (a_i · k_i), whose product with a key is the fact's match with it."""
        return self.directions / (self.directions * self.keys).sum(0)

    def columns(self, kept: Sequence[int]) -> Keys:
        """Only the facts at the places `kept`."""
        return Keys(self.directions[:, kept], self.keys[:, kept])


@dataclass(frozen=True, eq=False)
class Statistics:
    """Running statistics of rows (d,), which a round hands on to the next.

    Attributes
    ----------
    count : int
        Rows so far, n.
    mean : Tensor
        (d,), float64.
    squares : Tensor
        S (d,), float64, of which the standard deviation is ``√(S / (n − 1))``.
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def none(cls, width: int, device: torch.device) -> Statistics:
        """Of no row."""
        zero = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(0, zero, zero)

    @property
    def std(self) -> Tensor:
        """(d,), 1 where nothing has been spread out yet."""
        std = (self.squares / max(self.count - 1, 1)).sqrt()
        return std.masked_fill(std == 0, 1)

    def then(self, rows: Tensor) -> Statistics:
        """With more `rows` (r, d), by the published sum.

        ``S += r · var + n r d² / (n + r)`` with the sample variance, which is 0 for one row.
        """
        new = len(rows)
        spread = rows.var(0) if new > 1 else torch.zeros_like(self.squares)
        shift = rows.mean(0) - self.mean
        count = self.count + new
        return Statistics(
            count,
            self.mean + shift * new / count,
            self.squares + new * spread + shift.square() * self.count * new / count,
        )


@dataclass(frozen=True, eq=False)
class Round:
    """One batch of facts, edited at once.

    Attributes
    ----------
    facts : tuple of Fact
        The b facts.
    fact_ids : tuple of int
        Their numbers in the session, never given twice.
    factors : mapping of int to Factors
        By hooked layer.
    alphas : mapping of int to float
        Scope threshold of each hooked layer after this round.
    peaks : mapping of int to Tensor
        By hooked layer, each edit prompt's highest z-score (b,), which set the threshold; infinite
        for a fact that the model knew already.
    targets : Tensor
        Target hidden states z (columns, d_model), float64; of the MLP's output in ROME and R-ROME,
        none (0, d_model) in UltraEdit.
    losses : tuple of float
        Loss of each fact at its last optimisation step.
    seconds : float
        Wall time that the round took.
    number : int
        The round's number in the session, from 1, never given twice.
    settings : mapping of str to float or None
        The target optimisation's, see `config.OPTIMISATION`; empty in sessions of early versions.
    muted : frozenset of int
        Ids of facts below it that were muted while it was computed.
    subjects : Keys or None
        Subject keys at the configuration's subject layer, if it has one.
    statistics : Statistics or None
        UltraEdit's after the round.
    reached : Tensor or None
        (b,) how much of the way to its target state each fact got, see `editing.reach`: 1 all of
        it. None for methods that aim elsewhere, and in sessions of early versions.
    """

    facts: tuple[Fact, ...]
    fact_ids: tuple[int, ...]
    factors: Mapping[int, Factors]
    alphas: Mapping[int, float]
    peaks: Mapping[int, Tensor]
    targets: Tensor
    losses: tuple[float, ...]
    seconds: float
    number: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    muted: frozenset[int] = frozenset()
    subjects: Keys | None = None
    statistics: Statistics | None = None
    reached: Tensor | None = None

    @property
    def owners(self) -> tuple[int, ...]:
        """The place in the round of the fact of each column, alike at all layers."""
        return next((factors.owners for factors in self.factors.values()), ())

    def __repr__(self) -> str:
        facts = f"{len(self.facts)} fact{'s' * (len(self.facts) != 1)}"
        return f"<round {self.number}: {facts}, {self.seconds:.1f} s>"

    def without(self, muted: Collection[int]) -> Round:
        """The round with the columns of some facts dropped; its thresholds stay."""
        kept = [i for i, fact_id in enumerate(self.fact_ids) if fact_id not in muted]
        if len(kept) == len(self.facts):
            return self
        columns = [column for column, owner in enumerate(self.owners) if owner in kept]
        return replace(
            self,
            facts=tuple(self.facts[i] for i in kept),
            fact_ids=tuple(self.fact_ids[i] for i in kept),
            factors={layer: factors.columns(kept) for layer, factors in self.factors.items()},
            peaks={layer: peaks[kept] for layer, peaks in self.peaks.items()},
            targets=self.targets[columns] if len(self.targets) else self.targets,
            losses=tuple(self.losses[i] for i in kept),
            subjects=None if self.subjects is None else self.subjects.columns(kept),
            reached=None if self.reached is None else self.reached[kept],
        )


@dataclass(frozen=True, eq=False)
class LayerState:
    """One hooked layer under some rounds: ΔW (d_model, d_key) in float64, and α."""

    delta_weight: Tensor
    alpha: float
    factors: tuple[Factors, ...] = ()

    def then(self, updates: Sequence[Factors], alpha: float) -> LayerState:
        """The layer after more updates; always this same sum, so every path is bit-equal."""
        delta_weight = self.delta_weight.clone()
        for factors in updates:  # in place: a matrix less for each
            delta_weight.addmm_(factors.residuals, factors.directions.T)
        return LayerState(delta_weight, alpha, (*self.factors, *updates))

    @property
    def columns(self) -> Factors:
        """The columns of all facts in force; their owners count through all rounds."""
        d_model, d_key = self.delta_weight.shape
        none = [self.delta_weight.new_zeros(rows, 0) for rows in (d_model, d_key, d_key)]
        owners: list[int] = []
        for factors in self.factors:
            first = 1 + owners[-1] if owners else 0
            owners += [first + owner for owner in factors.owners]
        parts = [none, *([f.residuals, f.directions, f.keys] for f in self.factors)]
        residuals, directions, keys = (torch.cat(p, dim=1) for p in zip(*parts, strict=True))
        thresholds = torch.cat([keys.new_zeros(0), *(f.thresholds for f in self.factors)])
        return Factors(residuals, directions, keys, tuple(owners), thresholds)

    def match_thresholds(self, one: float | None) -> Tensor:
        """(columns,) τ of the match scope: `one` for all, or what each was calibrated to."""
        calibrated = self.columns.thresholds
        return calibrated if one is None else torch.full_like(calibrated, one)


@dataclass(frozen=True, eq=False)
class EditState:
    """The factors and thresholds in force: a prefix of the rounds, minus muted facts.

    Build one with `EditState.of`, or from another with `then`.

    Attributes
    ----------
    config : EditConfig
    rounds : tuple of Round
    layers : mapping of int to LayerState
        By hooked layer.
    """

    config: EditConfig
    rounds: tuple[Round, ...]
    layers: Mapping[int, LayerState]

    @classmethod
    def of(cls, lm: LanguageModel, config: EditConfig, rounds: Iterable[Round] = ()) -> EditState:
        """The state of `lm` after `rounds`; with none, the untouched model."""
        zero = torch.zeros(lm.d_model, lm.d_key, dtype=torch.float64, device=lm.device)
        state = cls(config, (), {layer: LayerState(zero, config.alpha) for layer in config.layers})
        return state.then(*rounds)

    def then(self, *rounds: Round) -> EditState:
        """The state after more rounds."""
        if not rounds:
            return self
        layers = {
            layer: before.then([r.factors[layer] for r in rounds], rounds[-1].alphas[layer])
            for layer, before in self.layers.items()
        }
        return EditState(self.config, (*self.rounds, *rounds), layers)

    def judged(
        self,
        scope: ScopeKind | None = None,
        match_threshold: float | None = None,
        alphas: Mapping[int, float] | None = None,
    ) -> EditState:
        """The same edits under another rule of where they speak.

        Parameters
        ----------
        scope : {"zscore", "match", "two-key", "off"}, optional
            None: as it is.
        match_threshold : float, optional
            τ of the match and two-key scopes, one for all facts; None: as it is.
        alphas : mapping of int to float, optional
            Thresholds of some hooked layers; the others stay.

        Raises
        ------
        ValueError
            If there is no such scope, or these edits have no two keys; τ is out of its range; or a
            layer is not hooked.
        """
        alphas = {} if alphas is None else alphas
        if not alphas.keys() <= self.layers.keys():
            raise ValueError(f"alphas for layers {list(alphas)}; hooked are {list(self.layers)}")
        config = replace(
            self.config,
            scope=self.config.scope if scope is None else scope,
            match_threshold=(
                self.config.match_threshold if match_threshold is None else match_threshold
            ),
        )
        layers = {
            layer: replace(at, alpha=alphas.get(layer, at.alpha))
            for layer, at in self.layers.items()
        }
        return EditState(config, self.rounds, layers)

    @property
    def key(self) -> Hashable:
        """What results can be kept by: states of one session with the same key say the same."""
        return key_of(self.config, self.rounds, self.alphas)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts in force, as their columns' owners count them."""
        return tuple(fact for round_ in self.rounds for fact in round_.facts)

    @property
    def fact_ids(self) -> tuple[int, ...]:
        """The numbers of `facts` in the session."""
        return tuple(fact_id for round_ in self.rounds for fact_id in round_.fact_ids)

    @property
    def alphas(self) -> dict[int, float]:
        """Scope threshold in force, by hooked layer."""
        return {layer: state.alpha for layer, state in self.layers.items()}

    def hook_layers(self, dtype: torch.dtype) -> dict[int, Hook]:
        """Validated hooks in a model's `dtype`, by layer; none while no fact is in force."""
        if not self.facts:
            return {}
        scope = SCOPES[self.config.scope]
        subjects = [round_.subjects for round_ in self.rounds if round_.subjects is not None]
        return scope.before(subjects, self.config, dtype) | {
            layer: scope.validated(at, self.config, dtype) for layer, at in self.layers.items()
        }


def key_of(
    config: EditConfig, rounds: Sequence[Round], alphas: Mapping[int, float] | None = None
) -> Hashable:
    """`EditState.key` of a state that need not have been derived.

    Parameters
    ----------
    config : EditConfig
    rounds : sequence of Round
    alphas : mapping of int to float, optional
        Thresholds by hooked layer; None: those that the rounds have set.
    """
    if alphas is None:
        alphas = rounds[-1].alphas if rounds else dict.fromkeys(config.layers, config.alpha)
    numbers = tuple((r.number, r.fact_ids) for r in rounds)  # numbers never come twice
    rule = (config.scope, config.match_threshold, config.subject_threshold, config.layers)
    return numbers, rule, tuple(alphas.items())
