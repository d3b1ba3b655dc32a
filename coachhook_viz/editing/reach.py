"""How much of the way to its target state an edit got.

reach    of each fact of a round
share    of a way that was to be covered
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import Hook, attached
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.editing.tokens import FactTokens, Prompt, length_batches
from coachhook_viz.models import LanguageModel

_NOTHING = 1e-3  # of ‖h‖: a way that is none, of a fact that the model knew already


def reach(
    lm: LanguageModel, state: EditState, round_: Round, columns: Sequence[FactTokens]
) -> Tensor:
    """How much of the way from h to z each fact of a round got, with its hooks in their scope.

    ``(h′ − h) · (z − h) / ‖z − h‖²`` at the edited token of the bare prompt, where h is the last
    hooked block's output before the round and h′ after it: 1 at z itself, 0 where nothing moved.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
        What was in force below it.
    round_ : Round
    columns : sequence of FactTokens
        Those of its facts, in the order of its columns.

    Returns
    -------
    Tensor
        (b,) float64, on the CPU; 1 where there was nothing to write.
    """
    firsts = [round_.owners.index(fact) for fact in range(len(round_.facts))]
    prompts = [columns[first].bare for first in firsts]
    block = max(state.layers)
    before, after = (
        _states(lm, at.hook_layers(lm.dtype), prompts, block) for at in (state, state.then(round_))
    )
    return share(before, after, round_.targets[firsts]).cpu()


def share(before: Tensor, after: Tensor, target: Tensor) -> Tensor:
    """(n,) how much of the way from `before` to `target` the move to `after` is; (n, d) each."""
    way = target - before
    length = way.norm(dim=1)
    found: Tensor = ((after - before) * way).sum(1) / length.square().clamp_min(1e-300)
    return found.masked_fill(length <= _NOTHING * before.norm(dim=1), 1.0)


def _states(
    lm: LanguageModel, hooks: Mapping[int, Hook], prompts: Sequence[Prompt], block: int
) -> Tensor:
    """Output (prompts, d_model) of `block` at the edited tokens, float64."""
    found: list[Tensor] = [torch.empty(0)] * len(prompts)
    with attached(lm, hooks):
        for rows in length_batches([len(prompt.ids) for prompt in prompts]):
            batch = Batch.of([prompts[row].ids for row in rows], lm.device)
            states, _ = run_to(lm, batch, block)
            for place, row in enumerate(rows):
                found[row] = states[place, prompts[row].edited].double()
    return torch.stack(found)
