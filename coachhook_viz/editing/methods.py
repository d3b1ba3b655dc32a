"""Closed-form editors as values: what each of them makes of the one form of a round (`method`).

CoachHook, Memit, AlphaEdit, Encore, Emmet, Rome, RRome, UltraEdit    the methods
METHODS      the table of all by name; a new one is a class and an entry
method_of    the method that a name or an instance means
NullSpace    what AlphaEdit keeps of a layer's directions
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from coachhook_viz.editing.inverses import inverse
from coachhook_viz.editing.method import ContextTemplates, Seen, solved
from coachhook_viz.editing.method import Method as Method
from coachhook_viz.errors import NullSpaceWarning
from coachhook_viz.warned import warn

_SPECTRA = 16  # decompositions kept: one a layer, of d_key² numbers each


@dataclass(frozen=True)
class CoachHook(Method):
    """CoachHooK: ``P = (λ C0)⁻¹``, carried; the method page in full."""

    title = "CoachHooK"
    scopes = ("zscore", "match", "two-key", "off")
    sites = ("subject", "answer")


@dataclass(frozen=True)
class Memit(Method):
    """MEMIT (Meng et al. 2023): ``P = (λ C0)⁻¹`` anew in every round.

    Nothing is carried: a round does not spare the keys of earlier ones.
    """

    title = "MEMIT"
    carries = False


@dataclass(frozen=True)
class NullSpace:
    """Directions of a layer that the corpus hardly uses.

    Attributes
    ----------
    rank : int
        How many there are.
    size : int
        d_key, how many there could be.
    energy : float
        Their share of the keys' energy, of the trace of C0.
    basis : Tensor
        U (d_key, rank), orthonormal.
    """

    rank: int
    size: int
    energy: float
    basis: Tensor

    def __str__(self) -> str:
        return f"{self.rank} of {self.size} directions, {self.energy:.2%} of the keys' energy"


@dataclass(frozen=True)
class AlphaEdit(Method):
    """AlphaEdit (Fang et al. 2025): ``P = U Uᵀ / weight``, U the null space of C0; carried.

    λ has no part in it. The published threshold is absolute and so tied to the scale of a model's
    keys; `rank` and `energy` are not. Of the three, one decides: `rank` or `energy` where given.

    Attributes
    ----------
    threshold : float
        U holds the eigenvectors of C0 with an eigenvalue below it.
    weight : float
        The ridge, L2 in the published code.
    rank : int or None
        U holds so many, those of the smallest eigenvalues.
    energy : float or None
        U holds as many as have together at most this share of the trace of C0.

    Warns
    -----
    NullSpaceWarning
        When a layer is first solved, if no direction is in U, or all are.
    """

    threshold: float = 0.02
    weight: float = 10.0
    rank: int | None = None
    energy: float | None = None

    title = "AlphaEdit"
    weighs = False

    def __post_init__(self) -> None:
        self._require("threshold", lambda value: value > 0, "positive")
        self._require("weight", lambda value: value > 0, "positive")
        if self.rank is not None and self.energy is not None:
            raise ValueError("AlphaEdit takes rank or energy, not both")
        if self.rank is not None:
            self._require_count("rank", 1)
        if self.energy is not None:
            self._require("energy", lambda value: 0 < value < 1, "between 0 and 1")

    def null_space(self, moment: Tensor) -> NullSpace:
        """Which directions an edit may use at the layer whose C0 this is."""
        values, vectors = _spectrum(moment)
        total = values.sum()
        if self.rank is not None:
            kept = min(self.rank, len(values))
        elif self.energy is not None:
            kept = int((values.cumsum(0) <= self.energy * total).sum())
        else:
            kept = int((values < self.threshold).sum())
        share = float(values[:kept].sum() / total)
        return NullSpace(kept, len(values), share, vectors[:, :kept])

    def base_inverse(self, moment: Tensor, covariance_weight: float) -> Tensor:
        """``U Uᵀ / weight``; see `Method`."""
        space = self.null_space(moment)
        if space.rank in (0, space.size):
            values, _ = _spectrum(moment)
            does = "it changes nothing" if not space.rank else "it preserves nothing"
            warn(
                f"AlphaEdit's null space has {space}: {does}. The eigenvalues of C0 go from"
                f" {float(values[0]):.2g} to {float(values[-1]):.2g}: choose a threshold among"
                " them, or give energy= or rank=",
                NullSpaceWarning,
                stacklevel=2,
            )
        return space.basis @ space.basis.T / self.weight


@dataclass(frozen=True)
class Encore(Method):
    """ENCORE (Gupta et al. 2025): ``P = (λ C0 + norm_weight I)⁻¹``, carried; another early stop.

    Attributes
    ----------
    norm_weight : float
        The weight of ‖ΔW of a round‖².
    stop_count : int
        Most-probable early stopping: a fact stops at so many passes in which exactly 5 pairs of
        context and target token, of all contexts but the bare one, have the target as the likeliest
        token. 5 is the published constant: with five contexts beside the bare one and a target of
        one token it means all of them. 0: no such stop.
    """

    norm_weight: float = 10.0
    stop_count: int = 0

    title = "ENCORE"

    def __post_init__(self) -> None:
        self._require("norm_weight", lambda value: value >= 0, "zero or more")
        self._require_count("stop_count", 0)

    def base_inverse(self, moment: Tensor, covariance_weight: float) -> Tensor:
        """``(λ C0 + norm_weight I)⁻¹``; see `Method`."""
        return inverse(_with_norm(moment, covariance_weight, self.norm_weight), 1.0)

    def enough(self, right: int) -> bool:
        """Exactly 5, as published; see `Method`."""
        return right == 5

    @property
    def stop_after(self) -> int:
        """See `Method`."""
        return self.stop_count


@dataclass(frozen=True)
class Emmet(Method):
    """EMMET (Gupta et al. 2024): ``P = (λ C0 + norm_weight I)⁻¹`` anew in every round, another ρ.

    With a ridge it is MEMIT with λ · ridge for λ; without, the keys get exactly what R says.

    Attributes
    ----------
    ridge : float
        ρ of a round of several facts. A round of one has none, as published.
    norm_weight : float
        See the formula.
    """

    ridge: float = 0.1
    norm_weight: float = 0.0

    title = "EMMET"
    carries = False

    def __post_init__(self) -> None:
        for name in ("ridge", "norm_weight"):
            self._require(name, lambda value: value >= 0, "zero or more")

    def base_inverse(self, moment: Tensor, covariance_weight: float) -> Tensor:
        """``(λ C0 + norm_weight I)⁻¹``; see `Method`."""
        return inverse(_with_norm(moment, covariance_weight, self.norm_weight), 1.0)

    def rho(self, facts: int) -> float:
        """The ridge, unless there is one fact alone."""
        return self.ridge if facts > 1 else 0.0


@dataclass(frozen=True)
class Rome(Method):
    """ROME (Meng et al. 2022): one fact, one layer, ``a = P k / (k_bareᵀ P k)``, ``P = C0⁻¹``.

    z is what the layer's MLP should say, k the plain mean over all contexts, k_bare the key of the
    bare prompt; R is what is missing to z there. Nothing is carried, and λ cancels.
    """

    title = "ROME"
    aims_at = "mlp"
    carries = False
    one_by_one = True
    weighs = False

    def base_inverse(self, moment: Tensor, covariance_weight: float) -> Tensor:
        """``C0⁻¹``; see `Method`."""
        return inverse(moment, 1.0)

    def rho(self, facts: int) -> float:
        """No ridge: at the key in the division the layer says all of z."""
        return 0.0

    def directions(self, preserved: Tensor, seen: Seen) -> Tensor:
        """``P k / (k_bareᵀ P k)``; see `Method`."""
        pk = preserved @ seen.keys
        return pk / (seen.bare_keys * pk).sum(0)

    def reached(self, seen: Seen) -> Tensor:
        """What the MLP says at the bare prompt; see `Method`."""
        return seen.bare_outputs

    def templates(self, groups: ContextTemplates) -> ContextTemplates:
        """All in one group: a plain mean; see `Method`."""
        return (tuple(template for group in groups for template in group),)


@dataclass(frozen=True)
class RRome(Rome):
    """R-ROME (Gupta et al. 2024): ROME with the mean key in both places, ``a = P k / (kᵀ P k)``.

    R is what is missing to z at the mean over the contexts.
    """

    title = "R-ROME"

    def directions(self, preserved: Tensor, seen: Seen) -> Tensor:
        """``P k / (kᵀ P k)``; see `Method`."""
        return solved(preserved @ seen.keys, seen.keys, 0.0)

    def reached(self, seen: Seen) -> Tensor:
        """What the MLP says, mean over the contexts; see `Method`."""
        return seen.outputs


@dataclass(frozen=True)
class UltraEdit(Method):
    """UltraEdit (Gu et al. 2025): no z, no C0, no subject; one gradient gives R, ``P = I``.

    A fact owns one column for each token of its target, where h is the key that predicts it and g
    the loss's gradient by the layer's output: ``r = −rate ‖ĥ‖² ĝ``, both normalised by running
    statistics that all layers share and all rounds carry on. All layers are solved at once.

    Attributes
    ----------
    rate : float
    minibatch : int
        Facts whose tokens share a mean loss, the longest facts first.
    """

    rate: float = 1e-6
    minibatch: int = 10

    title = "UltraEdit"
    aims_at = "gradient"
    carries = False
    uses_moments = False
    weighs = False

    def __post_init__(self) -> None:
        self._require("rate", lambda value: value > 0, "positive")
        self._require_count("minibatch", 1)

    def base_inverse(self, moment: Tensor, covariance_weight: float) -> Tensor:
        """The identity; see `Method`."""
        return torch.eye(len(moment), dtype=torch.float64, device=moment.device)

    def templates(self, groups: ContextTemplates) -> ContextTemplates:
        """The bare prompt alone; see `Method`."""
        return (("{}",),)


METHODS: dict[str, type[Method]] = {
    "coachhook": CoachHook,
    "memit": Memit,
    "alphaedit": AlphaEdit,
    "encore": Encore,
    "emmet": Emmet,
    "rome": Rome,
    "r-rome": RRome,
    "ultraedit": UltraEdit,
}


def method_of(given: Method | str) -> Method:
    """The method that is given, or that has a name, with its own settings as published.

    Raises
    ------
    ValueError
        If there is none of that name, or the class is not in `METHODS`.
    """
    if isinstance(given, str):
        for name, kind in METHODS.items():
            if _plain(name) == _plain(given):
                return kind()
        raise ValueError(f"there is no method {given!r}: use one of {', '.join(METHODS)}")
    name_of(given)
    return given


def name_of(method: Method) -> str:
    """The name of a method's class in `METHODS`.

    Raises
    ------
    ValueError
        If it is not there.
    """
    for name, kind in METHODS.items():
        if kind is type(method):
            return name
    raise ValueError(
        f"method is {method!r}: use one of {tuple(METHODS)}, or put a class of your own into"
        " methods.METHODS"
    )


def to_fields(method: Method) -> dict[str, Any]:
    """Name and settings of a method, as sessions keep them."""
    return {"name": name_of(method)} | {f.name: getattr(method, f.name) for f in fields(method)}


def from_fields(content: dict[str, Any]) -> Method:
    """The method again; a KeyError, TypeError or ValueError if there is none such."""
    settings = dict(content)
    method = METHODS[settings.pop("name")]
    known = [field.name for field in fields(method)]
    if odd := [name for name in settings if name not in known]:
        has = f"has {', '.join(known)}" if known else "has no settings"
        raise ValueError(f"{method.title} has no setting {odd[0]}: it {has}")
    return method(**settings)


def _with_norm(moment: Tensor, covariance_weight: float, norm_weight: float) -> Tensor:
    """``λ C0 + norm_weight I`` in float64."""
    weighted = covariance_weight * moment.double()
    weighted.diagonal().add_(norm_weight)
    return weighted


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_spectra: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()


def _spectrum(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d_key,), ascending, and eigenvectors (d_key, d_key) of C0; found once."""
    content = hashlib.sha256(moment.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    key = f"{content} {moment.device}"
    if key not in _spectra:
        _spectra[key] = torch.linalg.eigh(moment.double())
        while len(_spectra) > _SPECTRA:
            _spectra.popitem(last=False)
    _spectra.move_to_end(key)
    return _spectra[key]
