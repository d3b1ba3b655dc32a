"""The inverse that every update starts from.

inverse    (λ C0)⁻¹, also where C0 is singular
usable     whether a matrix can be a moment at all
"""

from __future__ import annotations

import torch
from torch import Tensor

from coachhook_viz.errors import MomentsWarning
from coachhook_viz.warned import warn

_SINGULAR = 1e-13  # smallest pivot of a usable C0, relative to its largest
_RIDGE = 1e-4  # of the mean diagonal, where C0 is singular


def usable(moment: Tensor) -> bool:
    """Whether all values are finite, which their sum shows fast, and the diagonal is not zero."""
    return bool(moment.sum().isfinite()) and bool(moment.diagonal().sum() > 0)


def inverse(moment: Tensor, covariance_weight: float) -> Tensor:
    """``(λ C0)⁻¹`` in float64.

    Raises
    ------
    ValueError
        If `moment` is not a square, finite, non-zero matrix.

    Warns
    -----
    MomentsWarning
        If C0 is singular; a ridge of 1e-4 of its mean diagonal is then added.
    """
    if moment.dim() != 2 or moment.shape[0] != moment.shape[1]:
        raise ValueError(f"C0 must be (d_key, d_key), not {tuple(moment.shape)}")
    weighted = covariance_weight * moment.double()
    scale = weighted.diagonal().mean()
    if not usable(weighted):
        raise ValueError("C0 holds values that are not finite, or is zero")
    factor, failed = torch.linalg.cholesky_ex(weighted)
    pivots = factor.diagonal().square()
    if int(failed) or pivots.min() < _SINGULAR * pivots.max():
        warn(
            f"C0 is singular: {_RIDGE:g} of its mean diagonal was added to it, so directions that"
            " the corpus never used still resist change",
            MomentsWarning,
            stacklevel=2,
        )
        ridge = _RIDGE * scale * torch.eye(len(weighted), dtype=torch.float64, device=scale.device)
        factor = torch.linalg.cholesky(weighted + ridge)
    return torch.cholesky_inverse(factor)
