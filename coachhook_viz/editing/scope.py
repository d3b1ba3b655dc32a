"""The local editing scope: at which tokens a hook layer speaks.

z_scores     how far each token's ‖ΔW k‖ stands out from its sequence
ceiling      the highest z-score that n tokens allow
threshold    the calibrated α of one layer after a round
Tokens       what a scope has to know of the tokens in the running pass
ZScore, Match, everywhere      the rules: keys and hook outputs in, in-scope mask out
NEVER        where a fact opens that no token opens
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

MATCH_THRESHOLD = 0.5  # τ of the match scope where none is calibrated
CALIBRATION_MARGIN = 0.2  # below α: later rounds shift z-scores a little, and their prompts stay in
NEVER = torch.iinfo(torch.long).max
_FLAT = 1e-6  # norms that differ by less, relatively, are equal: nothing stands out


@dataclass
class Tokens:
    """The tokens of the running pass, and the sequences that they continue.

    Attributes
    ----------
    mask : Tensor
        (B, N) bool: the real tokens among all N so far, cached ones and pads included.
    new : int
        The last `new` of the N are in the running pass.
    horizon : Tensor
        (B, new) long: the last token that each new token is judged together with.
    norms : dict
        Layer to (B, N) ‖ΔW k‖ so far; what cached decoding carries from step to step.
    opened : Tensor or None
        (B, facts) long: the token, of the N, that opened each fact, or `NEVER`; what cached
        decoding carries under the two-key scope, which sets it.
    spoke : dict
        Layer to (B, new) bool: where its hook spoke.
    """

    mask: Tensor
    new: int
    horizon: Tensor
    norms: dict[int, Tensor] = field(default_factory=dict)
    opened: Tensor | None = None
    spoke: dict[int, Tensor] = field(default_factory=dict)

    def open(self, seen: Tensor) -> None:
        """Open facts from the first new token on that shows their subject, ``seen`` (B, new, F)."""
        seen = seen.to(self.mask.device) & self.mask[:, -self.new :, None]
        first = self.mask.shape[1] - self.new + seen.long().argmax(1)
        first = first.masked_fill(~seen.any(1), NEVER)
        self.opened = first if self.opened is None else torch.minimum(self.opened, first)

    def may_speak(self) -> Tensor:
        """(B,) bool: whether a hook has spoken in a row or, under two keys, a fact is open."""
        rows = [(where & self.mask[:, -self.new :]).any(1) for where in self.spoke.values()]
        if self.opened is not None:
            rows.append((self.opened < NEVER).any(1))
        return torch.stack(rows).any(0)

    def is_open(self) -> Tensor:
        """(B, new, facts) bool: which facts each new token finds open.

        Raises
        ------
        RuntimeError
            If no hook has looked for subjects in this pass.
        """
        if self.opened is None:
            raise RuntimeError("a hook of the two-key scope ran without the one before it")
        total = self.mask.shape[1]
        places = torch.arange(total - self.new, total, device=self.mask.device)
        return self.opened[:, None] <= places[None, :, None]


Rule = Callable[[int, Tensor, Tensor, Tokens], Tensor]
"""(layer, keys (B, T, d_key), hook outputs (B, T, d_model), tokens) to in scope (B, T) bool."""


def z_scores(norms: Tensor, mask: Tensor, horizon: Tensor) -> Tensor:
    """z-score of each new token's norm among the real tokens up to its horizon.

    Parameters
    ----------
    norms : Tensor
        (B, N): ``n_j = ‖ΔW k_j‖₂`` of all tokens so far.
    mask : Tensor
        (B, N) bool: real tokens; pads never count.
    horizon : Tensor
        (B, T) long, for the last T of the N tokens: token j is compared with the real tokens
        0 … horizon_j. The published rule is horizon N − 1 for all.

    Returns
    -------
    Tensor
        (B, T) float64, ``(n_j − mean) / std`` with the sample standard deviation (n − 1);
        0 where fewer than two tokens or equal norms leave nothing to stand out, −inf at pads.
    """
    new = horizon.shape[1]
    real = mask.double()
    centre = (norms.double() * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1)
    shifted = (norms.double() - centre) * real  # small numbers keep the running sums exact
    count = real.cumsum(1).gather(1, horizon)
    total = shifted.cumsum(1).gather(1, horizon)
    squares = shifted.square().cumsum(1).gather(1, horizon)
    mean = total / count.clamp_min(1)
    std = ((squares - count * mean.square()) / (count - 1).clamp_min(1)).clamp_min(0).sqrt()
    flat = (count < 2) | (std <= _FLAT * (mean + centre).abs())
    z = ((shifted[:, -new:] - mean) / std.masked_fill(flat, 1)).masked_fill(flat, 0)
    return z.masked_fill(~mask[:, -new:], -torch.inf)


def ceiling(tokens: int) -> float:
    """Highest z-score any of `tokens` tokens can have, ``(n − 1) / √n``."""
    return (tokens - 1) / math.sqrt(tokens)


def threshold(alpha: float, peaks: Tensor, margin: float) -> float:
    """The layer's new threshold, ``min(α, min over prompts − margin)``: it never rises.

    Parameters
    ----------
    alpha : float
        Threshold of the previous round.
    peaks : Tensor
        (b,) highest z-score of each of the round's edit prompts; infinite where there is nothing
        to write, which then sets no threshold.
    margin : float
        Distance to keep below the lowest peak.
    """
    return min(alpha, float(peaks.min()) - margin)


def everywhere(layer: int, keys: Tensor, outputs: Tensor, tokens: Tokens) -> Tensor:
    """Every token is in scope: the temporary hook, and scope "off"."""
    return torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)


@dataclass(frozen=True)
class ZScore:
    """The published rule: in scope where the z-score of ‖ΔW k‖ reaches `alpha`."""

    alpha: float

    def __call__(self, layer: int, keys: Tensor, outputs: Tensor, tokens: Tokens) -> Tensor:
        """See `Rule`; remembers the norms in `tokens` for the steps of cached decoding."""
        norms = torch.linalg.vector_norm(outputs.detach().float(), dim=-1).to(tokens.mask.device)
        past = tokens.mask.shape[1] - tokens.new
        if past:  # those of the running pass may be there too, if it runs a block again
            norms = torch.cat([tokens.norms[layer][:, :past], norms], dim=1)
        tokens.norms[layer] = norms
        return (z_scores(norms, tokens.mask, tokens.horizon) >= self.alpha).to(outputs.device)


@dataclass(frozen=True)
class Match:
    """The rule of this project: in scope where some edit recognises its own key.

    Attributes
    ----------
    unit_directions : Tensor
        (d_key, columns): ``a_i / (a_i · k_i)``, so that a fact's match at its own key is 1.
    thresholds : Tensor
        (columns,) τ, the match that each needs.
    """

    unit_directions: Tensor
    thresholds: Tensor

    def __call__(self, layer: int, keys: Tensor, outputs: Tensor, tokens: Tokens) -> Tensor:
        """See `Rule`."""
        return (keys @ self.unit_directions >= self.thresholds).any(-1)
