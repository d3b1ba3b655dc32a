"""The closed form of one layer's update, by the Woodbury identity.

woodbury         A = (C + K Kᵀ)⁻¹ K and the inverse after it, from P = C⁻¹
PreservedKeys    P_t of every hooked layer, for any prefix of rounds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from coachhook_viz.editing.method import Method, solved
from coachhook_viz.editing.methods import AlphaEdit, CoachHook, NullSpace
from coachhook_viz.editing.state import Round


def woodbury(preserved: Tensor, keys: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Directions of an update, and the running inverse after it, in O(d_key² b).

    ``A = P K (I + Kᵀ P K)⁻¹`` and ``P ← P − A (P K)ᵀ``.

    Parameters
    ----------
    preserved : Tensor
        P (d_key, d_key) = C_{t−1}⁻¹, float64.
    keys : Tensor
        K (d_key, b), float64.
    out : Tensor, optional
        Where the inverse goes; it may be `preserved`.

    Returns
    -------
    directions : Tensor
        A (d_key, b) = (C_{t−1} + K Kᵀ)⁻¹ K.
    preserved : Tensor
        P (d_key, d_key) = (C_{t−1} + K Kᵀ)⁻¹.
    """
    pk = preserved @ keys  # (d_key, b)
    directions = solved(pk, keys, rho=1.0)
    return directions, torch.addmm(preserved, directions, pk.T, alpha=-1, out=out)


class _Inverses(Mapping[int, Tensor]):
    """P0 by layer, computed when it is first asked for: a session starts without."""

    def __init__(
        self, moments: Mapping[int, Tensor], covariance_weight: float, method: Method
    ) -> None:
        self._moments = moments
        self._covariance_weight = covariance_weight
        self._method = method
        self._known: dict[int, Tensor] = {}

    def __getitem__(self, layer: int) -> Tensor:
        if layer not in self._known:
            self._known[layer] = self._method.base_inverse(
                self._moments[layer], self._covariance_weight
            )
        return self._known[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)


class PreservedKeys:
    """P_t of every hooked layer, derived from the rounds in force.

    In CoachHooK ``(λ C0 + Σ K Kᵀ)⁻¹``; a method that carries nothing has P0 in every round.

    Parameters
    ----------
    moments : mapping of int to Tensor
        Layer to C0 (d_key, d_key).
    covariance_weight : float
        λ.
    method : Method, optional

    Attributes
    ----------
    base : mapping of int to Tensor
        P0 by layer, before any round: `Method.base_inverse`.
    """

    def __init__(
        self,
        moments: Mapping[int, Tensor],
        covariance_weight: float,
        method: Method | None = None,
    ) -> None:
        method = CoachHook() if method is None else method
        self._method, self._moments = method, moments
        self.base: Mapping[int, Tensor] = _Inverses(moments, covariance_weight, method)
        self._latest: tuple[tuple[Round, ...], Mapping[int, Tensor]] = ((), self.base)

    @property
    def null_spaces(self) -> dict[int, NullSpace]:
        """By layer, the directions that AlphaEdit may use; of no layer for another method."""
        if not isinstance(self._method, AlphaEdit):
            return {}
        return {at: self._method.null_space(moment) for at, moment in self._moments.items()}

    def after(self, rounds: tuple[Round, ...]) -> Mapping[int, Tensor]:
        """P of each layer after `rounds`.

        Rounds added since the last call cost O(d_key² b) each; other rounds start over from C0,
        in the same order and so with the same bits.
        """
        if not self._method.carries:
            return self.base
        known, inverses = self._latest
        if rounds[: len(known)] != known:
            known, inverses = (), self.base
        added = rounds[len(known) :]
        if added:
            inverses = {
                layer: _after(preserved, [r.factors[layer].keys for r in added])
                if layer in added[0].factors  # the subject layer has none
                else preserved
                for layer, preserved in inverses.items()
            }
        self._latest = (rounds, inverses)
        return inverses


def _after(preserved: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """P after rounds of these `keys`, in a matrix of its own."""
    after = preserved.clone()
    for of_round in keys:
        woodbury(after, of_round, out=after)
    return after
