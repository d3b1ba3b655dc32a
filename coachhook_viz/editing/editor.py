"""One round of CoachHooK, top to bottom as on the method page.

edit_round          a batch of facts, edited at once into a Round
check               what is wrong with a batch, before anything is computed
bare_keys           the keys that facts have in the unedited model
WideScopeWarning    what it says of prompts too short for the z-score scope
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from coachhook_viz.editing.config import OPTIMISATION, EditConfig
from coachhook_viz.editing.forward import Batch, Relay
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.scope import CALIBRATION_MARGIN, ceiling, threshold, z_scores
from coachhook_viz.editing.state import EditState, Factors, LayerState, Round
from coachhook_viz.editing.tokens import (
    FactTokens,
    FirstTokenWarning,
    Prompt,
    length_batches,
    prepare,
)
from coachhook_viz.editing.update import woodbury
from coachhook_viz.editing.values import Targets, optimise_targets
from coachhook_viz.facts import Fact, FactError, Problem, find_problems, validate
from coachhook_viz.models import LanguageModel

_BATCH_OVERHEAD = 25  # tokens that one more batch costs
_WIDE = 1.0  # α below which about a sixth of any prompt's tokens would be in scope


class WideScopeWarning(UserWarning):
    """A short edit prompt has lowered α so far that edits hardly stay local."""


def edit_round(
    lm: LanguageModel,
    state: EditState,
    facts: Sequence[Fact],
    preserved: Mapping[int, Tensor],
    watch: Watch,
) -> Round:
    """Edit `facts` on top of `state`; neither the model nor the state is changed.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
        What is in force; its config must have its context templates.
    facts : sequence of Fact
        The batch, b facts.
    preserved : mapping of int to Tensor
        By layer, ``P = C_{t−1}⁻¹`` (d_key, d_key), float64.
    watch : Watch
        Called before each step.

    Returns
    -------
    Round
        Not numbered yet: its facts count from 0.

    Raises
    ------
    FactError
        If a fact cannot be edited, or its optimisation gives no finite number; it names the fact.
    EditCancelled
        If `watch` says so.

    Warns
    -----
    WideScopeWarning
        If a short prompt lowered α so far that much of every later prompt is in scope.
    """
    started = time.perf_counter()
    config = state.config
    tokens = check(lm, config, facts)

    with attached(lm, {}):  # whatever else hangs on the model is silent meanwhile
        targets = optimise_targets(lm, state.hook_layers(lm.dtype), tokens, config, watch)
        _check_finite(targets, facts)
        factors, alphas, peaks = spread(lm, state, tokens, targets.states, preserved, watch)
    _warn_of_wide_scope(state, alphas, facts, tokens)
    return Round(
        facts=tuple(facts),
        fact_ids=tuple(range(len(facts))),
        factors=factors,
        alphas=alphas,
        peaks=peaks,
        targets=targets.states,
        losses=targets.losses,
        seconds=time.perf_counter() - started,
        settings={name: getattr(config, name) for name in OPTIMISATION},
    )


def check(lm: LanguageModel, config: EditConfig, facts: Sequence[Fact]) -> list[FactTokens]:
    """Tokenise a batch, or name all that is wrong with it.

    Raises
    ------
    FactError
        As `validate` and, if all texts are sound, `tokens.prepare` say.
    """
    problems: list[Problem] = []
    tokens: list[FactTokens] = []
    try:
        validate(facts)
    except FactError as error:
        problems += error.problems
    if not find_problems(facts):
        try:
            tokens = prepare(lm, facts, config.context_templates or (("{}",),))
        except FactError as error:
            problems += error.problems
    if problems:
        raise FactError(sorted(problems, key=lambda problem: problem.index), facts)
    return tokens


def bare_keys(lm: LanguageModel, config: EditConfig, facts: Sequence[Fact]) -> dict[int, Tensor]:
    """Keys (d_key, b) of `facts` at every hooked layer of the unedited model.

    Raises
    ------
    FactError
        If a fact has no tokens to edit.
    """
    with warnings.catch_warnings(), attached(lm, {}):
        warnings.simplefilter("ignore", FirstTokenWarning)
        tokens = prepare(lm, facts, config.context_templates or (("{}",),))
        contexts = _relays(lm, [prompt for fact in tokens for prompt in fact.contexts])
        return {layer: _mean_keys(tokens, contexts, layer) for layer in config.layers}


def _check_finite(targets: Targets, facts: Sequence[Fact]) -> None:
    finite = targets.states.isfinite().all(1) & torch.tensor(targets.losses).isfinite()
    problems = [
        Problem(
            index,
            "target",
            "its optimisation left the range of numbers; load the model in float32 or bfloat16,"
            " or lower learning_rate",
        )
        for index in (~finite).nonzero().flatten().tolist()
    ]
    if problems:
        raise FactError(problems, facts)


def _warn_of_wide_scope(
    state: EditState,
    alphas: Mapping[int, float],
    facts: Sequence[Fact],
    tokens: Sequence[FactTokens],
) -> None:
    low = min(alphas.values())
    if state.config.scope == "zscore" and low < _WIDE <= min(state.alphas.values()):
        count, text = min(
            (len(t.bare.ids), fact.text) for t, fact in zip(tokens, facts, strict=True)
        )
        warnings.warn(
            f"α fell to {low:.2f}, and it never rises: from now on much of every prompt is in"
            f" scope. The round's shortest prompt, {text!r}, has {count} tokens, where no z-score"
            f" can exceed {ceiling(count):.2f}. Undo the round and use a longer prompt, or"
            " scope='match'",
            WideScopeWarning,
            stacklevel=3,
        )


def spread(
    lm: LanguageModel,
    state: EditState,
    facts: Sequence[FactTokens],
    targets: Tensor,
    preserved: Mapping[int, Tensor],
    watch: Watch,
) -> tuple[dict[int, Factors], dict[int, float], dict[int, Tensor]]:
    """Factors of every hooked layer, first to last, their thresholds, and the peaks that set them.

    Each layer takes its share of what is still missing to z: ``R = (z − h_L) / (n − i)``,
    ``A = (C + K Kᵀ)⁻¹ K``.

    With ``calibration="edited"`` its threshold is set at once, on what it sees with the hooks
    before it on. So every edit prompt of the round is in scope at every hooked layer, and the
    layers to come see what this one already gives. The published order, ``calibration="base"``,
    sets all thresholds at the end, on the bare model; where the old ones are above what a short
    prompt can reach, the layers do not see each other and together overshoot z.
    """
    config, dtype = state.config, lm.dtype
    layers: dict[int, LayerState] = dict(state.layers)
    hooks = {layer: layers[layer].temporary(dtype) for layer in layers} if state.rounds else {}
    contexts = _relays(lm, [prompt for fact in facts for prompt in fact.contexts])
    bare = _relays(lm, [fact.bare for fact in facts])
    factors: dict[int, Factors] = {}
    peaks: dict[int, Tensor] = {}
    for i, layer in enumerate(config.layers):
        watch("layers", i, len(config.layers))
        with attached(lm, hooks):
            keys = _mean_keys(facts, contexts, layer)  # (d_key, b)
            reached = _subject_states(bare, layer, config.layers[-1])  # (b, d_model)
        residuals = (targets - reached).T / (len(config.layers) - i)  # (d_model, b)
        directions, _ = woodbury(preserved[layer], keys)  # (d_key, b)
        factors[layer] = Factors(residuals, directions, keys)
        updated = layers[layer].then(factors[layer], layers[layer].alpha)
        if config.calibration == "edited":
            with attached(lm, hooks):
                peaks[layer] = _peaks(bare, layer, updated.delta_weight.to(dtype))
            alpha = threshold(updated.alpha, peaks[layer], CALIBRATION_MARGIN)
            updated = replace(updated, alpha=alpha)
        layers[layer] = updated
        hooks[layer] = updated.validated(dtype, config.scope, config.match_threshold)
    if config.calibration == "base":
        bare = _relays(lm, [fact.bare for fact in facts])
        for layer, updated in layers.items():
            peaks[layer] = _peaks(bare, layer, updated.delta_weight.to(dtype))
            alpha = threshold(updated.alpha, peaks[layer], margin=0.0)
            layers[layer] = replace(updated, alpha=alpha)
    return factors, {layer: updated.alpha for layer, updated in layers.items()}, peaks


_Relays = Sequence[tuple[Sequence[int], Sequence[int], Relay]]
"""Batches of prompts: the prompts' places, their subjects' last tokens, and the passes."""


def _relays(lm: LanguageModel, prompts: Sequence[Prompt]) -> _Relays:
    return [
        (
            rows,
            [prompts[row].subject_last for row in rows],
            Relay(lm, Batch.of([prompts[row].ids for row in rows], lm.device)),
        )
        for rows in length_batches([len(prompt.ids) for prompt in prompts], _BATCH_OVERHEAD)
    ]


def _in_order(found: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Rows of all batches, back in the order of the prompts."""
    order = torch.tensor([row for rows, _ in found for row in rows])
    values = torch.cat([values for _, values in found])
    return values[order.argsort().to(values.device)]


def _mean_keys(facts: Sequence[FactTokens], contexts: _Relays, layer: int) -> Tensor:
    """Keys (d_key, b): mean over groups of the mean over a group's contexts."""
    keys = _in_order([(rows, _at(relay.advance(layer), last)) for rows, last, relay in contexts])
    sizes = [[len(group) for group in fact.groups] for fact in facts]
    of_facts = keys.split([sum(groups) for groups in sizes])
    means = [
        torch.stack([group.mean(0) for group in of_fact.split(groups)]).mean(0)
        for of_fact, groups in zip(of_facts, sizes, strict=True)
    ]
    return torch.stack(means, dim=1)


def _subject_states(bare: _Relays, layer: int, block: int) -> Tensor:
    """Output (b, d_model) of `block` at the subject's last token of the bare prompts."""
    found = []
    for rows, last, relay in bare:
        relay.advance(layer)
        found.append((rows, _at(relay.states(block), last)))
    return _in_order(found)


def _at(values: Tensor, last: Sequence[int]) -> Tensor:
    """Of (B, T, d), the token `last` of each row, in float64."""
    return values[torch.arange(len(last)), torch.tensor(last)].double()


def _peaks(relays: _Relays, layer: int, delta_weight: Tensor) -> Tensor:
    """Highest z-score (b,) of ‖ΔW k‖ over the tokens of each prompt."""
    found = []
    for rows, _, relay in relays:
        norms = torch.linalg.vector_norm((relay.advance(layer) @ delta_weight.T).float(), dim=-1)
        horizon = torch.full(norms.shape, norms.shape[1] - 1, device=norms.device)
        found.append((rows, z_scores(norms, relay.mask, horizon).amax(1)))
    return _in_order(found).cpu()
