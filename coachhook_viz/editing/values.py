"""Target hidden states z: what the last hooked layer should say where an edit is written.

optimise_targets    z of a batch of facts, method page "One round", step 2
sharing_targets     a context in which what was optimised once on the unedited model is taken again
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from coachhook_viz.editing.config import OPTIMISATION, EditConfig
from coachhook_viz.editing.hooks import Hook
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.suffixes import Suffixes, suffix_tokens
from coachhook_viz.editing.tokens import FactTokens
from coachhook_viz.models import LanguageModel
from coachhook_viz.threads import give_way

_CHUNK_TOKENS = {"cpu": 320}  # suffix tokens optimised together: on 2 cores a step takes a second
_CHUNK_ELSEWHERE = 2048  # which bounds memory
_NOTHING = 1e-3  # of ‖h‖: a δ that writes nothing
_SAID = 0.1  # NLL of a target that the model says already: p 0.9 a token


@dataclass(frozen=True)
class Targets:
    """Result of the optimisation.

    Attributes
    ----------
    states : Tensor
        z (columns, d_model), float64.
    losses : tuple of float
        Each fact's last one, the mean over its δ.
    known : tuple of bool
        By fact, whether the model says its target already, so that there is next to nothing to
        write, and what is written tells nothing of where it stands out.
    """

    states: Tensor
    losses: tuple[float, ...]
    known: tuple[bool, ...] = ()


def optimise_targets(
    lm: LanguageModel,
    hook_layers: Mapping[int, Hook],
    columns: Sequence[FactTokens],
    config: EditConfig,
    watch: Watch,
) -> Targets:
    """Optimise δ for each fact, ``z = h + δ`` at the edited token of each of its columns.

    Columns that want the target as other tokens, as after a line break, have a δ of their own.

    Minimises, per fact, the mean target-token NLL over its contexts
    + kl_weight · KL(current ‖ initial) at the KL prompt's subject
    + preserve_weight · its mean at the ends of the prompts to preserve
    + weight_decay · ‖δ‖ / ‖h‖², with ‖δ‖ ≤ clamp_factor · ‖h‖, where h is that of its first column.
    At the answer site there is no KL term. h is the last hooked block's output or, for a method
    that aims there, its MLP's: a push on that is the same push on the block's.

    Parameters
    ----------
    lm : LanguageModel
    hook_layers : mapping of int to Hook
        Validated hooks of the rounds in force.
    columns : sequence of FactTokens
        Those of one fact stand together.
    config : EditConfig
    watch : Watch
        Called before each forward pass, stage "targets".

    Raises
    ------
    EditCancelled
        If `watch` says so.
    """
    shared = _SHARED.get()
    of = None if shared is None or hook_layers else _wanted(lm, columns, config)
    if shared is not None and of in shared:
        watch.stop_if_asked("targets", 0, config.steps)
        return shared[of]
    chunks: list[list[FactTokens]] = [[]]
    space = room = _CHUNK_TOKENS.get(lm.device.type, _CHUNK_ELSEWHERE)
    for _, of_fact in groupby(columns, lambda column: column.fact):
        fact = list(of_fact)
        size = suffix_tokens(fact, config)
        if chunks[-1] and size > room:
            chunks.append([])
            room = space
        chunks[-1] += fact
        room -= size
    found = [
        _optimise(lm, hook_layers, chunk, config, watch, (i, len(chunks)))
        for i, chunk in enumerate(chunks)
    ]
    together = Targets(
        torch.cat([targets.states for targets in found]),
        tuple(loss for targets in found for loss in targets.losses),
        tuple(known for targets in found for known in targets.known),
    )
    if shared is not None and of is not None:
        shared[of] = together
    return together


_SHARED: ContextVar[dict[Hashable, Targets] | None] = ContextVar("shared targets", default=None)


@contextmanager
def sharing_targets() -> Iterator[None]:
    """Within the context, the same targets on the unedited model are optimised only once."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def _wanted(lm: LanguageModel, columns: Sequence[FactTokens], config: EditConfig) -> Hashable:
    """All that z depends on while no edit is in force."""
    method = config.method
    stop = method if method.stop_after else None
    optimisation = tuple(getattr(config, name) for name in (*OPTIMISATION, "preserve_weight"))
    place = (config.site, config.layers[-1], method.aims_at)
    return id(lm), tuple(columns), place, optimisation, stop


def _optimise(
    lm: LanguageModel,
    hook_layers: Mapping[int, Hook],
    columns: Sequence[FactTokens],
    config: EditConfig,
    watch: Watch,
    chunk: tuple[int, int],
) -> Targets:
    total = config.steps * chunk[1]
    watch("targets", config.steps * chunk[0], total)
    problem = Suffixes(lm, hook_layers, columns, config)
    initial = (problem.written if config.method.aims_at == "mlp" else problem.initial).float()
    owners = problem.owners  # (columns,)
    count = owners[-1] + 1
    firsts = [owners.index(i) for i in range(count)]
    norm = initial[firsts].norm(dim=1)  # (deltas,)
    deltas = [torch.zeros_like(initial[0], requires_grad=True) for _ in range(count)]
    adam = torch.optim.Adam(deltas, lr=config.learning_rate)
    losses = torch.zeros(count)
    before = torch.zeros(count)  # NLL without an edit
    passes = [0] * count  # that are enough for the method to stop early
    active = list(range(count))

    with torch.enable_grad(), problem.skipping_to_suffixes():
        for step in range(config.steps):
            if step:
                watch(
                    "targets", config.steps * chunk[0] + step, total, float(losses[active].mean())
                )
            give_way()  # in each step: the edits of many facts take minutes
            delta = torch.stack([deltas[i] for i in active])  # (active, d_model)
            nll, moved = problem.losses(delta, active)  # (active,) each
            decay = delta.norm(dim=1) / norm[active].square()
            loss = nll + moved + config.weight_decay * decay
            losses[active] = loss.detach().cpu()
            if step == 0:
                before = nll.detach().cpu()
            for i, right in zip(active, problem.right, strict=True):
                passes[i] += config.method.enough(right)
            stopped = {i for i in active if 0 < config.method.stop_after <= passes[i]}
            going = [i for i in active if not losses[i] < config.stop_loss and i not in stopped]
            if step == config.steps - 1 or not going:
                break
            watch.stop_if_asked("targets", step, total)
            adam.zero_grad(set_to_none=True)
            loss.sum().backward()
            for i in set(active) - set(going):
                deltas[i].grad = None  # so that Adam leaves it, momentum and all
            adam.step()
            with torch.no_grad():
                for i in going:
                    deltas[i].mul_((config.clamp_factor * norm[i] / deltas[i].norm()).clamp(max=1))
            active = going
    delta = torch.stack(deltas).detach()
    nothing = (delta.norm(dim=1) <= _NOTHING * norm).cpu() | (before <= _SAID)
    states = initial.double() + delta.double()[owners]
    facts = torch.tensor([columns[first].fact for first in firsts])
    of_facts = [facts == fact for fact in facts.unique()]
    return Targets(
        states,
        tuple(float(losses[own].mean()) for own in of_facts),
        tuple(bool(nothing[own].all()) for own in of_facts),
    )
