"""Running parts of a model: up to a block, from a block on, and the head alone.

Batch            token ids of some sequences, right-padded
run_to           blocks 0 … l, returning l's output and the keys of any layers
Relay            the same in stages, none of which runs a block again that an earlier one has run
replaced         a context in which a module's forward, or another method, is another function
hidden           the hidden states in a block's output, whichever form the family gives it
with_hidden      the same output with other hidden states
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coachhook_viz.models import LanguageModel


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences: `ids` and `mask` (bool), both (B, T)."""

    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Batch:
        """Pad token id `sequences` to the longest; what a pad holds never matters."""
        longest = max(map(len, sequences))
        ids = torch.tensor([[*s, *[0] * (longest - len(s))] for s in sequences])
        mask = torch.tensor([[True] * len(s) + [False] * (longest - len(s)) for s in sequences])
        return cls(ids.to(device), mask.to(device))

    @property
    def inputs(self) -> dict[str, Any]:
        """Keyword arguments for the model."""
        return {"input_ids": self.ids, "attention_mask": self.mask.long()}


class _Stop(Exception):
    """Ends a forward pass at the block that is needed."""


def hidden(output: Any) -> Tensor:
    """Hidden states (B, T, d_model) in a block's output, which some families wrap in a tuple."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def with_hidden(output: Any, states: Tensor) -> Any:
    """A block output of the same form with other hidden `states`."""
    return (states, *output[1:]) if isinstance(output, tuple) else states


@torch.no_grad()
def run_to(
    lm: LanguageModel, batch: Batch, block: int, keys_of: Iterable[int] = ()
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run blocks 0 … `block` and nothing after.

    Returns
    -------
    states : Tensor
        (B, T, d_model), the output of `block`.
    keys : dict
        Layer to (B, T, d_key), the down projection's input, for each layer of `keys_of`.
    """
    keys: dict[int, Tensor] = {}
    found: list[Tensor] = []

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        found.append(hidden(output).to(lm.device))
        raise _Stop

    def keep(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, args: keys.update({layer: args[0].to(lm.device)})

    with ExitStack() as stack:
        for layer in keys_of:
            handle = lm.down_projection(layer).register_forward_pre_hook(keep(layer))
            stack.callback(handle.remove)
        stack.callback(lm.blocks[block].register_forward_hook(stop).remove)
        with suppress(_Stop):
            lm.decoder(**batch.inputs, use_cache=False)
    return found[0], keys


class Relay:
    """A pass over one batch that is taken up again, block by block, where it had got to.

    While hooks change only at the block it stands at and after it, running on from there gives
    what running from the start would.

    Parameters
    ----------
    lm : LanguageModel
    batch : Batch
    again : iterable of int
        Layers whose down projections are run again on what they saw, for the sake of their hooks,
        when the blocks that hold them are passed over.
    """

    def __init__(self, lm: LanguageModel, batch: Batch, again: Iterable[int] = ()) -> None:
        self.mask = batch.mask
        self._lm = lm
        self._batch = batch
        self._block = 0
        self._entry: Any = None  # output of the block before; None at the first
        self._again = tuple(again)
        self._saw: dict[int, Tensor] = {}

    def advance(self, block: int) -> Tensor:
        """Go on to `block` and stand there; the keys (B, T, d_key) of its down projection."""
        passed: list[Any] = []
        with ExitStack() as stack:
            if block > self._block:
                before = self._lm.blocks[block - 1]
                handle = before.register_forward_hook(lambda m, args, output: passed.append(output))
                stack.callback(handle.remove)
            _, keys = self._run(block, [block, *(at for at in self._again if at < block)])
        self._saw |= {layer: keys[layer] for layer in self._again if layer in keys}
        self._block, self._entry = block, passed[0] if passed else self._entry
        return keys[block]

    def states(self, block: int) -> Tensor:
        """Output (B, T, d_model) of a later `block`, without going there."""
        return self._run(block, [])[0]

    def _run(self, block: int, keys_of: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        with ExitStack() as stack:
            for number, passed in enumerate(self._lm.blocks[: self._block]):
                stack.enter_context(replaced(passed, partial(self._hand_on, number)))
            return run_to(self._lm, self._batch, block, keys_of)

    def _hand_on(self, number: int, *args: Any, **kwargs: Any) -> Any:
        """What a block that is passed over gives: what stands at the end of all of them."""
        if number in self._saw:
            given = self._lm.down_projection(number)(self._saw[number])
            if self._lm.written(number) is not self._lm.down_projection(number):
                self._lm.written(number)(given)
        return self._entry


@contextmanager
def replaced(
    module: nn.Module, method: Callable[..., Any], name: str = "forward"
) -> Iterator[None]:
    """Within the context, a module's method of that name is `method`; restored whatever happens."""
    own = module.__dict__.get(name)
    module.__dict__[name] = method
    try:
        yield
    finally:
        if own is None:
            del module.__dict__[name]
        else:
            module.__dict__[name] = own
