"""What a closed-form editor answers: the protocol of a method, with CoachHooK's answers.

Every method adds ``ΔW += R Aᵀ`` with ``A = P K (ρ I + Kᵀ P K)⁻¹``. It gives three answers: the base
inverse P; the directions A, and whether P carries on to the next round; and what R aims at.

Method       the protocol
Seen         what a layer shows before its update
solved       A, from P K and K
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from coachhook_viz.editing.inverses import inverse

ContextTemplates = tuple[tuple[str, ...], ...]


class Seen(Protocol):
    """What one layer shows of a round's b facts just before its update, as columns, in float64."""

    @property
    def keys(self) -> Tensor:
        """K (d_key, b): mean keys over the contexts."""

    @property
    def bare_keys(self) -> Tensor:
        """(d_key, b): keys of the bare prompts."""

    @property
    def states(self) -> Tensor:
        """(d_model, b): output of the last hooked block at the bare prompts."""

    @property
    def bare_outputs(self) -> Tensor:
        """(d_model, b): what this layer's MLP adds to the hidden states at the bare prompts."""

    @property
    def outputs(self) -> Tensor:
        """(d_model, b): the same, mean over the contexts."""


@dataclass(frozen=True)
class Method:
    """How a round is solved. A subclass is a frozen dataclass of the method's own settings.

    What is not answered by a subclass is as in CoachHooK: ``P = (λ C0)⁻¹``, carried from round to
    round, ``ρ = 1``, and R aims at a target hidden state z of the last hooked block.

    Attributes
    ----------
    title : str
        The method's name as papers write it.
    aims_at : {"block", "mlp", "gradient"}
        Where z lives: the last hooked block's output; the output of the edited layer's MLP; or
        there is no z, and a gradient gives R.
    carries : bool
        Whether later rounds preserve the keys of earlier ones: ``P ← P − A (P K)ᵀ``.
    one_by_one : bool
        Whether a round has one fact and one layer.
    uses_moments : bool
        Whether C0 has a part in it: else none is collected.
    weighs : bool
        Whether λ, `EditConfig.covariance_weight`, has a part in it.
    scopes, sites : tuple of str
        The scopes and sites it can have; `scopes` begins with that of the publication.
    """

    title: ClassVar[str] = ""
    aims_at: ClassVar[Literal["block", "mlp", "gradient"]] = "block"
    carries: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = False
    uses_moments: ClassVar[bool] = True
    weighs: ClassVar[bool] = True
    scopes: ClassVar[tuple[str, ...]] = ("off", "zscore", "match")
    sites: ClassVar[tuple[str, ...]] = ("subject",)

    def base_inverse(self, moment: Tensor, covariance_weight: float) -> Tensor:
        """P before any round (d_key, d_key), float64, from C0 and λ."""
        return inverse(moment, covariance_weight)

    def rho(self, facts: int) -> float:
        """ρ of a round of so many facts."""
        return 1.0

    def directions(self, preserved: Tensor, seen: Seen) -> Tensor:
        """A (d_key, b) = ``P K (ρ I + Kᵀ P K)⁻¹``."""
        return solved(preserved @ seen.keys, seen.keys, self.rho(seen.keys.shape[1]))

    def reached(self, seen: Seen) -> Tensor:
        """What there is already of the target (d_model, b): R is what is missing to z."""
        return seen.states

    def templates(self, groups: ContextTemplates) -> ContextTemplates:
        """The context templates in the groups whose means' mean is a key."""
        return groups

    def enough(self, right: int) -> bool:
        """Whether a pass of the target's optimisation counts towards an early stop.

        Parameters
        ----------
        right : int
            Target tokens that are the likeliest ones, over all contexts but the bare one.
        """
        return False

    @property
    def stop_after(self) -> int:
        """Stop a fact at so many passes that are `enough`; 0: never."""
        return 0

    def check(self, layers: tuple[int, ...], scope: str, site: str) -> None:
        """Raise ValueError if the method cannot have these layers, this scope or this site."""
        if self.one_by_one and len(layers) != 1:
            raise ValueError(
                f"layers is {layers}: {self.title} edits one layer. Give one, as layers=(5,)"
            )
        for name, value, allowed in (("scope", scope, self.scopes), ("site", site, self.sites)):
            if value not in allowed:
                raise ValueError(
                    f"{name} is {value!r}: {self.title} has no such {name}."
                    f" Use {' or '.join(map(repr, allowed))}, or method='coachhook'"
                )

    def _require(self, name: str, holds: Callable[[float], bool], wanted: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not holds(value):
            raise ValueError(f"{name} of {self.title} is {value!r}: it must be {wanted}")

    def _require_count(self, name: str, least: int) -> None:
        wanted = f"a whole number from {least}"
        self._require(name, lambda value: isinstance(value, int) and value >= least, wanted)


def solved(pk: Tensor, keys: Tensor, rho: float) -> Tensor:
    """``A = P K (ρ I + Kᵀ P K)⁻¹`` (d_key, b), from P K and K (d_key, b).

    Where equal keys leave no inverse, as two facts of one subject may without a ridge, it is the
    pseudo-inverse, as published.
    """
    core = keys.T @ pk  # (b, b)
    core.diagonal().add_(rho)
    solution, failed = torch.linalg.solve_ex(core, pk, left=False)
    if int(failed):
        solution = pk @ torch.linalg.pinv(core, hermitian=True)
    directions: Tensor = solution
    return directions
