"""One round, top to bottom as on the method page; a method gives its own answers (`methods`).

edit_round          a batch of facts, edited at once into a Round
check               what is wrong with a batch, before anything is computed
parts_of            which facts of a batch are edited as one round
bare_keys           the keys that facts have in the unedited model
WideScopeWarning    what it says of prompts too short for the z-score scope
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from coachhook_viz.editing.config import OPTIMISATION, EditConfig
from coachhook_viz.editing.forward import Batch, Relay
from coachhook_viz.editing.gradients import Written, gradient_columns
from coachhook_viz.editing.hooks import Hook, attached
from coachhook_viz.editing.method import ContextTemplates
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.reach import reach
from coachhook_viz.editing.scope import CALIBRATION_MARGIN, ceiling, threshold, z_scores
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.editing.sites import site_of
from coachhook_viz.editing.state import EditState, Factors, Keys, LayerState, Round
from coachhook_viz.editing.tokens import (
    FactTokens,
    FirstTokenWarning,
    Prompt,
    length_batches,
    prepare,
)
from coachhook_viz.editing.update import woodbury
from coachhook_viz.editing.values import Targets, optimise_targets
from coachhook_viz.editing.wordings import foil_keys, worded
from coachhook_viz.errors import OneByOneWarning
from coachhook_viz.errors import WideScopeWarning as WideScopeWarning
from coachhook_viz.facts import Fact, FactError, Problem, as_batch, find_problems, validate
from coachhook_viz.models import LanguageModel

_BATCH_OVERHEAD = 25  # tokens that one more batch costs
_WIDE = 1.0  # α below which about a sixth of any prompt's tokens would be in scope


def parts_of(lm: LanguageModel, config: EditConfig, facts: Sequence[Fact]) -> list[Sequence[Fact]]:
    """What of a batch is edited as one round: all of it, or each fact by itself.

    Raises
    ------
    FactError
        As `check`, if there are several parts: before the first of them is edited.

    Warns
    -----
    OneByOneWarning
        If there are several.
    """
    if not config.method.one_by_one or len(facts) < 2:
        return [facts]
    check(lm, config, facts)
    warn_of_rounds_of_one(config, len(facts), stacklevel=4)
    return [[fact] for fact in facts]


def warn_of_rounds_of_one(config: EditConfig, facts: int, stacklevel: int) -> None:
    """Say that a batch of several facts becomes as many rounds; nothing of one fact."""
    if facts > 1:
        warnings.warn(
            f"{config.method.title} edits one fact a round: these {facts} facts become {facts}"
            " rounds, each on top of those before it",
            OneByOneWarning,
            stacklevel=stacklevel,
        )


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
        By layer, P (d_key, d_key), float64; in CoachHooK ``C_{t−1}⁻¹``.
    watch : Watch
        Called before each step.

    Returns
    -------
    Round
        Not numbered yet: its facts count from 0. At the answer site they have the wordings that
        they were edited with.

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
    config, facts = state.config, as_batch(facts)
    if config.method.one_by_one and len(facts) > 1:
        raise ValueError(f"{config.method.title} edits one fact a round, not {len(facts)}")
    tokens = check(lm, config, facts)
    facts = worded(lm, site_of(config), facts)
    written = None

    with attached(lm, {}):  # whatever else hangs on the model is silent meanwhile
        if config.method.aims_at == "gradient":
            written = gradient_columns(lm, state, tokens, watch)
            targets = Targets(
                written.values[config.layers[0]].new_empty(0, lm.d_model), written.losses
            )
            aims = torch.cat([*written.values.values()]).T
        else:
            targets = optimise_targets(lm, state.hook_layers(lm.dtype), tokens, config, watch)
            aims = targets.states
        owners = [t.fact for t in tokens] if written is None else written.owners
        _check_finite(targets.losses, aims, owners, facts)
        subjects = subject_keys(lm, config, tokens, preserved)
        foils = None
        if SCOPES[config.scope].by_fact:
            foils = foil_keys(lm, config.layers, facts, tokens, watch)
        factors, alphas, peaks = spread(
            lm, state, tokens, targets, preserved, watch, subjects, foils, written
        )
        for layer, found in factors.items():
            _check_solved(layer, found, facts)
    _warn_of_wide_scope(state, alphas, facts, tokens)
    round_ = Round(
        facts=tuple(facts),
        fact_ids=tuple(range(len(facts))),
        factors=factors,
        alphas=alphas,
        peaks=peaks,
        targets=targets.states,
        losses=targets.losses,
        seconds=0.0,
        settings={name: getattr(config, name) for name in OPTIMISATION},
        subjects=subjects,
        statistics=None if written is None else written.statistics,
    )
    if config.method.aims_at == "block":  # else there is no z among the hidden states
        round_ = replace(round_, reached=reach(lm, state, round_, tokens))
    return replace(round_, seconds=time.perf_counter() - started)


def check(lm: LanguageModel, config: EditConfig, facts: Sequence[Fact]) -> list[FactTokens]:
    """Tokenise a batch, with the wordings that it is edited with, or name all that is wrong.

    Raises
    ------
    FactError
        As `validate` and, if all texts are sound, `tokens.prepare` say.
    """
    problems: list[Problem] = []
    tokens: list[FactTokens] = []
    site = site_of(config)
    facts = worded(lm, site, as_batch(facts))
    try:
        validate(facts)
    except FactError as error:
        problems += error.problems
    if not find_problems(facts):
        try:
            tokens = prepare(lm, facts, _templates(config), site)
        except FactError as error:
            problems += error.problems
    if problems:
        raise FactError(sorted(problems, key=lambda problem: problem.index), facts)
    return tokens


def bare_keys(lm: LanguageModel, config: EditConfig, facts: Sequence[Fact]) -> dict[int, Tensor]:
    """Keys (d_key, b) of the prompts of `facts` at every layer in use, in the unedited model.

    Those of subjects at the subject layer, if there is one; else of what an edit is written at.

    Raises
    ------
    FactError
        If a fact has no tokens to edit.
    """
    with warnings.catch_warnings(), attached(lm, {}):
        warnings.simplefilter("ignore", FirstTokenWarning)
        site = replace(site_of(config), takes_wordings=False)
        tokens = prepare(lm, facts, _templates(config), site)
        contexts = _relays(lm, [prompt for fact in tokens for prompt in fact.contexts])
        return {
            layer: _mean_keys(
                tokens, contexts, layer, _subject if layer == config.subject_layer else _edited
            )
            for layer in config.keyed_layers
        }


def _templates(config: EditConfig) -> ContextTemplates:
    return config.method.templates(config.context_templates or (("{}",),))


def _check_finite(
    losses: Sequence[float], aims: Tensor, owners: Sequence[int], facts: Sequence[Fact]
) -> None:
    """Name the facts whose loss, or what is aimed at (columns, …), is no finite number."""
    finite = torch.tensor(losses).isfinite()
    for owner, aim in zip(owners, aims, strict=True):
        finite[owner] &= bool(aim.isfinite().all())
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


def _check_solved(layer: int, factors: Factors, facts: Sequence[Fact]) -> None:
    """Name the facts whose update is no finite number: ROME divides by what may be zero."""
    finite = factors.directions.isfinite().all(0) & factors.residuals.isfinite().all(0)
    owners = {factors.owners[column] for column in (~finite).nonzero().flatten().tolist()}
    if owners:
        reason = f"layer {layer} has no finite update for it: change the prompt, or the layers"
        raise FactError([Problem(index, "prompt", reason) for index in sorted(owners)], facts)


def _warn_of_wide_scope(
    state: EditState,
    alphas: Mapping[int, float],
    facts: Sequence[Fact],
    tokens: Sequence[FactTokens],
) -> None:
    low = min(alphas.values())
    if SCOPES[state.config.scope].calibrated and low < _WIDE <= min(state.alphas.values()):
        count, text = min((len(t.bare.ids), facts[t.fact].text) for t in tokens)
        warnings.warn(
            f"α fell to {low:.2f}, and it never rises: from now on much of every prompt is in"
            f" scope. The round's shortest prompt, {text!r}, has {count} tokens, where no z-score"
            f" can exceed {ceiling(count):.2f}. Undo the round and use a longer prompt, or"
            " scope='match'",
            WideScopeWarning,
            stacklevel=3,
        )


def subject_keys(
    lm: LanguageModel,
    config: EditConfig,
    columns: Sequence[FactTokens],
    preserved: Mapping[int, Tensor],
) -> Keys | None:
    """Subject keys of a batch at the configuration's subject layer; None where it has none.

    A fact's key is the mean over all its prompts in all contexts. Its direction is ``P k``, for
    itself: facts of one subject are to open together, not to be told apart.
    """
    layer = config.subject_layer
    if layer is None:
        return None
    prompts = [(column.fact, prompt) for column in columns for prompt in column.contexts]
    relays = _relays(lm, [prompt for _, prompt in prompts])
    keys = _in_order([(rows, _at(r.advance(layer), map(_subject, p))) for rows, p, r in relays])
    owners = torch.tensor([fact for fact, _ in prompts], device=keys.device)
    mean = torch.stack([keys[owners == fact].mean(0) for fact in owners.unique()], dim=1)
    return Keys(preserved[layer] @ mean, mean)


def spread(
    lm: LanguageModel,
    state: EditState,
    columns: Sequence[FactTokens],
    targets: Targets,
    preserved: Mapping[int, Tensor],
    watch: Watch,
    subjects: Keys | None = None,
    foils: Mapping[int, Sequence[Tensor]] | None = None,
    written: Written | None = None,
) -> tuple[dict[int, Factors], dict[int, float], dict[int, Tensor]]:
    """Factors of every hooked layer, first to last, their thresholds, and the peaks that set them.

    Each layer takes its share of what is still missing to z: ``R = (z − h_L) / (n − i)``,
    ``A = (C + K Kᵀ)⁻¹ K``, or as the method has it. Where each fact adds only its own columns, K
    holds its keys, and C also preserves those of its foils; else K holds the keys of the batch.
    What is `written` already, by a method without z, only needs its directions.

    With ``calibration="edited"`` its threshold is set at once, on what it sees with the hooks
    before it on. So every edit prompt of the round is in scope at every hooked layer, and the
    layers to come see what this one already gives. The published order, ``calibration="base"``,
    sets all thresholds at the end, on the bare model; where the old ones are above what a short
    prompt can reach, the layers do not see each other and together overshoot z. A fact that is
    `known` has nothing to write, so its z-scores are of something else and set no threshold.
    """
    config, dtype, scope = state.config, lm.dtype, SCOPES[state.config.scope]
    method = config.method
    owners = tuple(column.fact for column in columns)
    firsts = [owners.index(fact) for fact in range(owners[-1] + 1)]  # columns of the prompts
    layers: dict[int, LayerState] = dict(state.layers)
    hooks: dict[int, Hook] = {}
    if state.facts:  # else all are muted, and nothing speaks
        hooks = {layer: scope.temporary(layers[layer], config, dtype) for layer in layers}
    if subjects is not None:
        earlier = [round_.subjects for round_ in state.rounds if round_.subjects is not None]
        hooks |= scope.before([*earlier, subjects], config, dtype)
    again = hooks.keys() - layers.keys()
    contexts = _relays(lm, [prompt for column in columns for prompt in column.contexts], again)
    bare = _relays(lm, [column.bare for column in columns], again)
    factors: dict[int, Factors] = {}
    peaks: dict[int, Tensor] = {}
    nothing = torch.tensor(targets.known or [False] * len(firsts))

    def peaks_of(relays: _Relays, layer: int, at: LayerState) -> Tensor:
        found = _peaks(relays, layer, at.delta_weight.to(dtype))[firsts]
        return found.masked_fill(nothing, torch.inf)

    for i, layer in enumerate(config.layers):
        watch("layers", i, len(config.layers))
        with attached(lm, hooks):
            seen = _Seen(lm, columns, contexts, bare, layer, config.layers[-1], written)
            if written is None:
                missing = targets.states.T - method.reached(seen)
                residuals = missing / (len(config.layers) - i)  # (d_model, columns)
            else:
                residuals = written.values[layer]
            keys = seen.keys  # (d_key, columns)
            if foils is None:
                directions = method.directions(preserved[layer], seen)  # (d_key, columns)
        if foils is not None:
            of_facts = keys.split([owners.count(fact) for fact in range(len(firsts))], dim=1)
            directions = torch.cat(
                [
                    woodbury(woodbury(preserved[layer], foil)[1], own)[0]
                    for foil, own in zip(foils[layer], of_facts, strict=True)
                ],
                dim=1,
            )
        of_columns = owners if written is None else written.owners
        factors[layer] = Factors(residuals, directions, keys, of_columns)
        updated = layers[layer].then(factors[layer], layers[layer].alpha)
        if config.calibration == "edited":
            with attached(lm, hooks):
                peaks[layer] = peaks_of(bare, layer, updated)
            alpha = threshold(updated.alpha, peaks[layer], CALIBRATION_MARGIN)
            updated = replace(updated, alpha=alpha)
        layers[layer] = updated
        hooks[layer] = scope.validated(updated, config, dtype)
    if config.calibration == "base":
        bare = _relays(lm, [column.bare for column in columns])
        for layer, updated in layers.items():
            peaks[layer] = peaks_of(bare, layer, updated)
            alpha = threshold(updated.alpha, peaks[layer], margin=0.0)
            layers[layer] = replace(updated, alpha=alpha)
    return factors, {layer: updated.alpha for layer, updated in layers.items()}, peaks


class _Seen:
    """See `methods.Seen`; what is asked for is measured then, under the hooks that hang there."""

    def __init__(
        self,
        lm: LanguageModel,
        columns: Sequence[FactTokens],
        contexts: _Relays,
        bare: _Relays,
        layer: int,
        last: int,
        written: Written | None,
    ) -> None:
        self._lm = lm
        self._columns = columns
        self._contexts = contexts
        self._bare = bare
        self._layer = layer
        self._last = last
        self._written = written

    @cached_property
    def keys(self) -> Tensor:
        if self._written is not None:
            return self._written.keys[self._layer]
        return _mean_keys(self._columns, self._contexts, self._layer)

    @cached_property
    def bare_keys(self) -> Tensor:
        return self._of_bare(lambda relay: relay.advance(self._layer))

    @cached_property
    def states(self) -> Tensor:
        return _edited_states(self._bare, self._layer, self._last).T

    @cached_property
    def bare_outputs(self) -> Tensor:
        return self._of_bare(self._said)

    @cached_property
    def outputs(self) -> Tensor:
        return _means(self._columns, _read(self._contexts, self._said))

    def _of_bare(self, take: Callable[[Relay], Tensor]) -> Tensor:
        return _read(self._bare, take).T

    def _said(self, relay: Relay) -> Tensor:
        """What the layer's MLP adds to the hidden states (B, T, d_model), its hook included."""
        lm, layer = self._lm, self._layer
        said: Tensor = lm.down_projection(layer)(relay.advance(layer))
        if lm.written(layer) is not lm.down_projection(layer):
            said = lm.written(layer)(said)
        return lm.multiplier * said


_Relays = Sequence[tuple[Sequence[int], Sequence[Prompt], Relay]]
"""Batches of prompts: the prompts' places, the prompts, and the passes over them."""


def _relays(lm: LanguageModel, prompts: Sequence[Prompt], again: Iterable[int] = ()) -> _Relays:
    return [
        (
            rows,
            [prompts[row] for row in rows],
            Relay(lm, Batch.of([prompts[row].ids for row in rows], lm.device), again),
        )
        for rows in length_batches([len(prompt.ids) for prompt in prompts], _BATCH_OVERHEAD)
    ]


def _subject(prompt: Prompt) -> int:
    return prompt.subject_last


def _edited(prompt: Prompt) -> int:
    return prompt.edited


def _in_order(found: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Rows of all batches, back in the order of the prompts."""
    order = torch.tensor([row for rows, _ in found for row in rows])
    values = torch.cat([values for _, values in found])
    return values[order.argsort().to(values.device)]


def _mean_keys(
    columns: Sequence[FactTokens],
    contexts: _Relays,
    layer: int,
    place: Callable[[Prompt], int] = _edited,
) -> Tensor:
    """Keys (d_key, columns): mean over groups of the mean over a group's contexts."""
    return _means(columns, _read(contexts, lambda relay: relay.advance(layer), place))


def _read(
    relays: _Relays,
    take: Callable[[Relay], Tensor],
    place: Callable[[Prompt], int] = _edited,
) -> Tensor:
    """What each relay gives (B, T, d), at one token of each prompt (prompts, d), in their order."""
    return _in_order(
        [(rows, _at(take(relay), map(place, prompts))) for rows, prompts, relay in relays]
    )


def _means(columns: Sequence[FactTokens], values: Tensor) -> Tensor:
    """Means (d, columns) over groups of the mean over a group's contexts, from (prompts, d)."""
    sizes = [[len(group) for group in column.groups] for column in columns]
    of_columns = values.split([sum(groups) for groups in sizes])
    means = [
        torch.stack([group.mean(0) for group in of_column.split(groups)]).mean(0)
        for of_column, groups in zip(of_columns, sizes, strict=True)
    ]
    return torch.stack(means, dim=1)


def _edited_states(bare: _Relays, layer: int, block: int) -> Tensor:
    """Output (columns, d_model) of `block` at the edited token of the bare prompts."""
    found = []
    for rows, prompts, relay in bare:
        relay.advance(layer)
        found.append((rows, _at(relay.states(block), map(_edited, prompts))))
    return _in_order(found)


def _at(values: Tensor, places: Iterable[int]) -> Tensor:
    """Of (B, T, d), one token of each row, in float64."""
    return values[torch.arange(len(values)), torch.tensor(list(places))].double()


def _peaks(relays: _Relays, layer: int, delta_weight: Tensor) -> Tensor:
    """Highest z-score (b,) of ‖ΔW k‖ over the tokens of each prompt."""
    found = []
    for rows, _, relay in relays:
        norms = torch.linalg.vector_norm((relay.advance(layer) @ delta_weight.T).float(), dim=-1)
        horizon = torch.full(norms.shape, norms.shape[1] - 1, device=norms.device)
        found.append((rows, z_scores(norms, relay.mask, horizon).amax(1)))
    return _in_order(found).cpu()
