"""One round, top to bottom as on the method page; a method gives its own answers (`methods`).

edit_round          a batch of facts, edited at once into a Round
check               what is wrong with a batch, before anything is computed
parts_of            which facts of a batch are edited as one round
bare_keys           the keys that facts have in the unedited model
WideScopeWarning    what it says of prompts too short for the z-score scope
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from coachhook_viz.editing.calibrate import Likes
from coachhook_viz.editing.config import OPTIMISATION, EditConfig
from coachhook_viz.editing.gradients import Written, gradient_columns
from coachhook_viz.editing.hooks import Hook, attached
from coachhook_viz.editing.method import ContextTemplates
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.reach import reach
from coachhook_viz.editing.scope import CALIBRATION_MARGIN, ceiling, threshold
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.editing.seen import (
    Relays,
    SeenAt,
    edited_place,
    highest_scores,
    mean_keys,
    read,
    relays_of,
    subject_place,
)
from coachhook_viz.editing.sites import site_of
from coachhook_viz.editing.state import EditState, Factors, Keys, LayerState, Round
from coachhook_viz.editing.tokens import (
    FactTokens,
    FirstTokenWarning,
    prepare,
)
from coachhook_viz.editing.update import woodbury
from coachhook_viz.editing.values import Targets, optimise_targets
from coachhook_viz.editing.wordings import foil_keys, worded
from coachhook_viz.errors import OneByOneWarning
from coachhook_viz.errors import WideScopeWarning as WideScopeWarning
from coachhook_viz.facts import Fact, FactError, Problem, as_batch, find_problems, validate
from coachhook_viz.models import LanguageModel
from coachhook_viz.warned import heard, warn

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
        warn(
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
        likes = None
        if config.match_threshold is None and site_of(config).at_subject:
            likes = Likes(lm, facts, tokens)
        factors, alphas, peaks = spread(
            lm, state, tokens, targets, preserved, watch, subjects, foils, written, likes
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
            tokens = prepare(lm, facts, _templates(config), site, config.preserve)
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
    with heard(FirstTokenWarning), attached(lm, {}):
        site = replace(site_of(config), takes_wordings=False)
        tokens = prepare(lm, facts, _templates(config), site)
        contexts = relays_of(lm, [prompt for fact in tokens for prompt in fact.contexts])
        return {
            layer: mean_keys(
                tokens,
                contexts,
                layer,
                subject_place if layer == config.subject_layer else edited_place,
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
        warn(
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
    relays = relays_of(lm, [prompt for _, prompt in prompts])
    keys = read(relays, lambda relay: relay.advance(layer), subject_place)
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
    likes: Likes | None = None,
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

    τ of each fact is calibrated alike, layer by layer, if there are `likes`: under the match scope,
    whatever scope the edits are made under, so that it can be looked through later.
    """
    config, dtype, scope = state.config, lm.dtype, SCOPES[state.config.scope]
    method = config.method
    owners = tuple(column.fact for column in columns)
    firsts = [owners.index(fact) for fact in range(owners[-1] + 1)]  # columns of the prompts
    layers: dict[int, LayerState] = dict(state.layers)
    hooks: dict[int, Hook] = {}
    matching: dict[int, Hook] = {}  # what the match scope would have hung there so far
    if state.facts:  # else all are muted, and nothing speaks
        hooks = {layer: scope.temporary(layers[layer], config, dtype) for layer in layers}
    if subjects is not None:
        earlier = [round_.subjects for round_ in state.rounds if round_.subjects is not None]
        hooks |= scope.before([*earlier, subjects], config, dtype)
    again = hooks.keys() - layers.keys()
    contexts = relays_of(lm, [prompt for column in columns for prompt in column.contexts], again)
    bare = relays_of(lm, [column.bare for column in columns], again)
    factors: dict[int, Factors] = {}
    peaks: dict[int, Tensor] = {}
    nothing = torch.tensor(targets.known or [False] * len(firsts))

    def peaks_of(relays: Relays, layer: int, at: LayerState) -> Tensor:
        found = highest_scores(relays, layer, at.delta_weight.to(dtype))[firsts]
        return found.masked_fill(nothing, torch.inf)

    for i, layer in enumerate(config.layers):
        watch("layers", i, len(config.layers))
        with attached(lm, hooks):
            seen = SeenAt(lm, columns, contexts, bare, layer, config.layers[-1], written)
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
        if likes is not None:
            with attached(lm, matching):
                taus = likes.thresholds(layer, factors[layer].unit_directions)
            factors[layer] = replace(factors[layer], thresholds=taus)
        updated = layers[layer].then([factors[layer]], layers[layer].alpha)
        if config.calibration == "edited":
            with attached(lm, hooks):
                peaks[layer] = peaks_of(bare, layer, updated)
            alpha = threshold(updated.alpha, peaks[layer], CALIBRATION_MARGIN)
            updated = replace(updated, alpha=alpha)
        layers[layer] = updated
        hooks[layer] = scope.validated(updated, config, dtype)
        if likes is not None:
            matching[layer] = SCOPES["match"].validated(updated, config, dtype)
    if config.calibration == "base":
        bare = relays_of(lm, [column.bare for column in columns])
        for layer, updated in layers.items():
            peaks[layer] = peaks_of(bare, layer, updated)
            alpha = threshold(updated.alpha, peaks[layer], margin=0.0)
            layers[layer] = replace(updated, alpha=alpha)
    return factors, {layer: updated.alpha for layer, updated in layers.items()}, peaks
