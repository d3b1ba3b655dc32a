"""A plain implementation of the published procedure, to compare with.

One fact at a time, every forward pass whole and padded, every update a direct solve: what the
method page says, with none of what "Fast and exact" allows. The hook speaks at every token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coachhook_viz import EditConfig, Fact, LanguageModel
from coachhook_viz.editing.forward import Batch, hidden, with_hidden
from coachhook_viz.editing.tokens import FactTokens, prepare


def plain_round(
    lm: LanguageModel, config: EditConfig, facts: Sequence[Fact], moments: Mapping[int, Tensor]
) -> tuple[Tensor, dict[int, Tensor]]:
    """One round on the unedited model.

    Returns
    -------
    targets : Tensor
        z (b, d_model), float64.
    delta_weights : dict
        Layer to ΔW (d_model, d_key), float64.
    """
    assert config.context_templates is not None
    tokens = prepare(lm, facts, config.context_templates)
    targets = torch.stack([_target(lm, config, fact) for fact in tokens])
    delta_weights: dict[int, Tensor] = {}
    for i, layer in enumerate(config.layers):
        keys, reached = _keys_and_states(lm, config, tokens, layer, delta_weights)
        residuals = (targets - reached) / (len(config.layers) - i)  # (b, d_model)
        preserved = config.covariance_weight * moments[layer].double()
        solved = torch.linalg.solve(preserved + keys @ keys.T, keys)  # (d_key, b)
        delta_weights[layer] = residuals.T @ solved.T
    return targets, delta_weights


def _target(lm: LanguageModel, config: EditConfig, fact: FactTokens) -> Tensor:
    contexts = len(fact.contexts)
    prompts = [*fact.contexts, fact.essence]
    batch = Batch.of(
        [[*p.ids, *fact.target[:-1]] for p in fact.contexts] + [list(fact.essence.ids)], lm.device
    )
    rows = torch.arange(len(prompts), device=lm.device)
    last = torch.tensor([prompt.subject_last for prompt in prompts], device=lm.device)
    starts = torch.tensor([len(prompt.ids) - 1 for prompt in fact.contexts], device=lm.device)
    places = starts[:, None] + torch.arange(len(fact.target), device=lm.device)
    wanted = torch.tensor([fact.target] * contexts, device=lm.device)
    delta = torch.zeros(lm.d_model, device=lm.device, requires_grad=True)
    initial: list[Tensor] = []

    def add(module: object, args: object, output: object) -> object:
        states = hidden(output)
        if not initial:
            initial.append(states[0, last[0]].detach().clone())
        moved = states.clone()
        moved[rows, last] += delta
        return with_hidden(output, moved)

    handle = lm.blocks[config.layers[-1]].register_forward_hook(add)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    before: Tensor | None = None
    try:
        for step in range(config.steps):
            adam.zero_grad()
            log_p = lm.model(**batch.inputs, use_cache=False).logits.float().log_softmax(-1)
            chosen = log_p[rows[:contexts, None], places].gather(2, wanted[:, :, None])
            now = log_p[contexts, last[contexts]]
            before = now.detach() if before is None else before
            norm = initial[0].norm()
            loss = (
                -chosen.mean()
                + config.kl_weight * (now.exp() * (now - before)).sum()
                + config.weight_decay * delta.norm() / norm**2
            )
            if loss < config.stop_loss or step == config.steps - 1:
                break
            loss.backward()
            adam.step()
            with torch.no_grad():
                delta.mul_((config.clamp_factor * norm / delta.norm()).clamp(max=1))
    finally:
        handle.remove()
    return initial[0].double() + delta.detach().double()


@torch.no_grad()
def _keys_and_states(
    lm: LanguageModel,
    config: EditConfig,
    facts: Sequence[FactTokens],
    layer: int,
    delta_weights: Mapping[int, Tensor],
) -> tuple[Tensor, Tensor]:
    """Mean keys (d_key, b) at `layer` and states (b, d_model) at the last hooked block."""
    prompts = [prompt for fact in facts for prompt in fact.contexts]
    batch = Batch.of([prompt.ids for prompt in prompts], lm.device)
    last = torch.tensor([prompt.subject_last for prompt in prompts], device=lm.device)
    rows = torch.arange(len(prompts), device=lm.device)
    seen: dict[str, Tensor] = {}
    hooks = [
        lm.down_projection(layer).register_forward_pre_hook(
            lambda module, args: seen.update(keys=args[0][rows, last])
        ),
        lm.blocks[config.layers[-1]].register_forward_hook(
            lambda module, args, output: seen.update(states=hidden(output)[rows, last])
        ),
    ]
    for hooked, delta_weight in delta_weights.items():
        weight = (delta_weight / lm.multiplier).to(lm.dtype)
        keys: list[Tensor] = []
        hooks += [
            lm.down_projection(hooked).register_forward_pre_hook(
                lambda module, args, keys=keys: keys.append(args[0])
            ),
            lm.written(hooked).register_forward_hook(
                lambda module, args, output, keys=keys, weight=weight: (
                    output + keys.pop() @ weight.T
                )
            ),
        ]
    try:
        lm.model(**batch.inputs, use_cache=False)
    finally:
        for handle in hooks:
            handle.remove()
    sizes = [len(group) for group in facts[0].groups]
    taken = seen["keys"].double().reshape(len(facts), -1, lm.d_key)  # (b, contexts, d_key)
    mean = torch.stack([group.mean(1) for group in taken.split(sizes, dim=1)]).mean(0)
    return mean.T, seen["states"].double().reshape(len(facts), -1, lm.d_model)[:, 0]
