"""What the layers show of some facts: one token of each prompt, in the order of the prompts.

SeenAt            what one layer shows just before its update, as methods ask for it
Relays            batches of prompts and the passes over them; `relays_of` begins them
read              what each pass gives at a token of its prompts: `subject_place`, `edited_place`
mean_keys         keys, mean over the contexts
highest_scores    the highest z-score of each prompt
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from coachhook_viz.editing.forward import Batch, Relay
from coachhook_viz.editing.gradients import Written
from coachhook_viz.editing.scope import z_scores
from coachhook_viz.editing.tokens import FactTokens, Prompt, length_batches
from coachhook_viz.models import LanguageModel

Relays = Sequence[tuple[Sequence[int], Sequence[Prompt], Relay]]
"""Batches of prompts: the prompts' places, the prompts, and the passes over them."""


class SeenAt:
    """See `methods.Seen`; what is asked for is measured then, under the hooks that hang there."""

    def __init__(
        self,
        lm: LanguageModel,
        columns: Sequence[FactTokens],
        contexts: Relays,
        bare: Relays,
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
        """See `methods.Seen`."""
        if self._written is not None:
            return self._written.keys[self._layer]
        return mean_keys(self._columns, self._contexts, self._layer)

    @cached_property
    def bare_keys(self) -> Tensor:
        """See `methods.Seen`."""
        return self._of_bare(lambda relay: relay.advance(self._layer))

    @cached_property
    def states(self) -> Tensor:
        """See `methods.Seen`."""
        return _edited_states(self._bare, self._layer, self._last).T

    @cached_property
    def bare_outputs(self) -> Tensor:
        """See `methods.Seen`."""
        return self._of_bare(self._said)

    @cached_property
    def outputs(self) -> Tensor:
        """See `methods.Seen`."""
        return _means(self._columns, read(self._contexts, self._said))

    def _of_bare(self, take: Callable[[Relay], Tensor]) -> Tensor:
        return read(self._bare, take).T

    def _said(self, relay: Relay) -> Tensor:
        """What the layer's MLP adds to the hidden states (B, T, d_model), its hook included."""
        lm, layer = self._lm, self._layer
        said: Tensor = lm.down_projection(layer)(relay.advance(layer))
        if lm.written(layer) is not lm.down_projection(layer):
            said = lm.written(layer)(said)
        return (lm.multiplier * said).to(lm.device)


def relays_of(lm: LanguageModel, prompts: Sequence[Prompt], again: Iterable[int] = ()) -> Relays:
    """Passes over `prompts`, in batches; `again`: layers whose keys are read anew each time."""
    return [
        (
            rows,
            [prompts[row] for row in rows],
            Relay(lm, Batch.of([prompts[row].ids for row in rows], lm.device), again),
        )
        for rows in length_batches([len(prompt.ids) for prompt in prompts])
    ]


def subject_place(prompt: Prompt) -> int:
    """The last token of the subject."""
    return prompt.subject_last


def edited_place(prompt: Prompt) -> int:
    """The token that an edit is written at."""
    return prompt.edited


def mean_keys(
    columns: Sequence[FactTokens],
    contexts: Relays,
    layer: int,
    place: Callable[[Prompt], int] = edited_place,
) -> Tensor:
    """Keys (d_key, columns): mean over groups of the mean over a group's contexts."""
    return _means(columns, read(contexts, lambda relay: relay.advance(layer), place))


def read(
    relays: Relays,
    take: Callable[[Relay], Tensor],
    place: Callable[[Prompt], int] = edited_place,
) -> Tensor:
    """What each relay gives (B, T, d), at one token of each prompt (prompts, d), in their order."""
    return _in_order(
        [(rows, _at(take(relay), map(place, prompts))) for rows, prompts, relay in relays]
    )


def highest_scores(relays: Relays, layer: int, delta_weight: Tensor) -> Tensor:
    """Highest z-score (b,) of ‖ΔW k‖ over the tokens of each prompt."""
    found = []
    for rows, _, relay in relays:
        norms = torch.linalg.vector_norm((relay.advance(layer) @ delta_weight.T).float(), dim=-1)
        horizon = torch.full(norms.shape, norms.shape[1] - 1, device=norms.device)
        found.append((rows, z_scores(norms, relay.mask, horizon).amax(1)))
    return _in_order(found).cpu()


def _in_order(found: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Rows of all batches, back in the order of the prompts."""
    order = torch.tensor([row for rows, _ in found for row in rows])
    values = torch.cat([values for _, values in found])
    return values[order.argsort().to(values.device)]


def _means(columns: Sequence[FactTokens], values: Tensor) -> Tensor:
    """Means (d, columns) over groups of the mean over a group's contexts, from (prompts, d)."""
    sizes = [[len(group) for group in column.groups] for column in columns]
    of_columns = values.split([sum(groups) for groups in sizes])
    means = [
        torch.stack([group.mean(0) for group in of_column.split(groups)]).mean(0)
        for of_column, groups in zip(of_columns, sizes, strict=True)
    ]
    return torch.stack(means, dim=1)


def _edited_states(bare: Relays, layer: int, block: int) -> Tensor:
    """Output (columns, d_model) of `block` at the edited token of the bare prompts."""
    found = []
    for rows, prompts, relay in bare:
        relay.advance(layer)
        found.append((rows, _at(relay.states(block), map(edited_place, prompts))))
    return _in_order(found)


def _at(values: Tensor, places: Iterable[int]) -> Tensor:
    """Of (B, T, d), one token of each row, in float64."""
    return values[torch.arange(len(values)), torch.tensor(list(places))].double()
