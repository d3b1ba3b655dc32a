"""What a method without target hidden states writes: keys and values of one gradient.

Written             columns of every hooked layer, one a target token
gradient_columns    them, for a batch of facts, by UltraEdit's rule
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.methods import UltraEdit
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState, Statistics
from coachhook_viz.editing.tokens import FactTokens
from coachhook_viz.models import LanguageModel
from coachhook_viz.threads import give_way


@dataclass(frozen=True)
class Written:
    """Columns by layer, those of a fact together and in the order of its target's tokens.

    Attributes
    ----------
    owners : tuple of int
        The fact of each column.
    keys : dict
        Layer to K (d_key, columns), float64.
    values : dict
        Layer to R (d_model, columns), float64.
    losses : tuple of float
        Each fact's mean NLL of its target's tokens, before the edit.
    statistics : Statistics
        After these columns.
    """

    owners: tuple[int, ...]
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    losses: tuple[float, ...]
    statistics: Statistics


def gradient_columns(
    lm: LanguageModel, state: EditState, facts: Sequence[FactTokens], watch: Watch
) -> Written:
    """Keys h at the tokens that predict a target, and values ``−rate ‖ĥ‖² ĝ`` from gradients g.

    All layers are read on the model as `state` has it. ĥ and ĝ are normalised by the statistics
    after all of the round's columns, which go on from those of the last round in force.
    """
    method = state.config.method
    assert isinstance(method, UltraEdit)
    layers = state.config.layers
    last = [r.statistics for r in state.rounds if r.statistics is not None]
    found = last[-1] if last else Statistics.none(lm.d_key + lm.d_model, lm.device)
    order = sorted(range(len(facts)), key=lambda i: -_length(facts[i]))  # stable, as published
    parts = [order[i : i + method.minibatch] for i in range(0, len(order), method.minibatch)]
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    owners: list[int] = []
    losses = [0.0] * len(facts)
    for step, part in enumerate(parts):
        watch("targets", step, len(parts))
        give_way()
        chosen = [facts[i] for i in part]
        columns, nll = _backward(lm, state, chosen)
        for layer in layers:
            rows[layer].append(columns[layer])
            found = found.then(columns[layer])
        sizes = [len(fact.target) for fact in chosen]
        owners += [i for i, size in zip(part, sizes, strict=True) for _ in range(size)]
        for i, own in zip(part, nll.split(sizes), strict=True):
            losses[i] = float(own.mean())
    in_order = sorted(range(len(owners)), key=lambda column: owners[column])
    keys, values = {}, {}
    for layer in layers:
        both = torch.cat(rows[layer])[in_order]  # (columns, d_key + d_model)
        normal = (both - found.mean) / found.std
        sizes_ = [lm.d_key, lm.d_model]
        (h, _), (h_hat, g_hat) = both.split(sizes_, 1), normal.split(sizes_, 1)
        keys[layer] = h.T
        values[layer] = (-method.rate * h_hat.square().sum(1, keepdim=True) * g_hat).T
    return Written(tuple(sorted(owners)), keys, values, tuple(losses), found)


def _length(fact: FactTokens) -> int:
    return len(fact.bare.ids) + len(fact.target)


def _backward(
    lm: LanguageModel, state: EditState, facts: Sequence[FactTokens]
) -> tuple[dict[int, Tensor], Tensor]:
    """By layer, keys and gradients (tokens, d_key + d_model) of one minibatch; NLL (tokens,)."""
    batch = Batch.of([[*fact.bare.ids, *fact.target[:-1]] for fact in facts], lm.device)
    places = [
        (row, len(fact.bare.ids) - 1 + token)
        for row, fact in enumerate(facts)
        for token in range(len(fact.target))
    ]
    at = tuple(torch.tensor(places, device=lm.device).T)
    wanted = torch.tensor([t for fact in facts for t in fact.target], device=lm.device)
    keys: dict[int, Tensor] = {}
    moved: dict[int, Tensor] = {}

    def keep(layer: int, module: nn.Module, args: Any) -> None:
        keys[layer] = args[0].detach().to(lm.device)

    def move(layer: int, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        moved[layer] = torch.zeros_like(output, requires_grad=True)
        return output + moved[layer]

    with attached(lm, state.hook_layers(lm.dtype)) as attachment, ExitStack() as stack:
        attachment.prompt_lengths = torch.tensor(
            [len(fact.bare.ids) for fact in facts], device=lm.device
        )
        for layer in state.config.layers:
            down, written = lm.down_projection(layer), lm.written(layer)
            stack.callback(down.register_forward_pre_hook(partial(keep, layer)).remove)
            # after the hook layer's own hook: the edited output
            stack.callback(written.register_forward_hook(partial(move, layer)).remove)
        with torch.enable_grad():
            logits = lm.model(**batch.inputs, use_cache=False).logits[at].float()
            nll = F.cross_entropy(logits, wanted, reduction="none")
            slopes = torch.autograd.grad(nll.mean(), list(moved.values()))
    gradients = {layer: slope.to(lm.device) for layer, slope in zip(moved, slopes, strict=True)}
    return {
        layer: torch.cat([keys[layer][at], gradients[layer][at] / lm.multiplier], dim=1).double()
        for layer in state.config.layers
    }, nll.detach().cpu()
