"""Several sequences in one row, blind to each other: one pass for all, with hardly a pad.

share_rows      which sequences share a row
Packing         where each token of the rows comes from, and where each token went
visible         which cells each cell attends to
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapreplace

import torch
from torch import Tensor, nn

_ATTENTION = 300  # keys whose attention costs as much as all else that a token costs
_LENGTHS = 32  # how many lengths of rows are tried


def share_rows(tokens: Sequence[int], cached: Sequence[int]) -> list[list[int]]:
    """Deal sequences out to rows of nearly the same number of tokens.

    Short rows need many pads to be of the same length; in long ones attention is spent on the keys
    of other sequences. What costs least is tried out.

    Parameters
    ----------
    tokens, cached : sequence of int
        How many tokens of each sequence run, and how many are cached.

    Returns
    -------
    list of list of int
        Indices of the sequences of each row.
    """
    order = sorted(range(len(tokens)), key=lambda i: (tokens[i], cached[i]), reverse=True)

    def dealt(count: int) -> list[list[int]]:
        rows: list[list[int]] = [[] for _ in range(count)]
        emptiest = [(0, 0, row) for row in range(count)]  # heap of tokens, cached, row
        for index in order:
            filled, past, row = emptiest[0]
            rows[row].append(index)
            heapreplace(emptiest, (filled + tokens[index], past + cached[index], row))
        return rows

    def cost(rows: list[list[int]]) -> int:
        length = max(sum(tokens[i] for i in row) for row in rows)
        past = max(sum(cached[i] for i in row) for row in rows)
        return len(rows) * length * (_ATTENTION + length + past)

    lengths = range(max(tokens), max(tokens) + _LENGTHS)
    return min((dealt(-(-sum(tokens) // length)) for length in lengths), key=cost)


@dataclass(frozen=True)
class Packing:
    """Numbered tokens in rows of equal length; `tokens` (R, S) is -1 at pads."""

    tokens: Tensor

    @classmethod
    def of(
        cls, rows: Iterable[Iterable[range]], device: torch.device, padding_side: str = "right"
    ) -> Packing:
        """Pack rows of runs of consecutive token numbers."""
        numbers = [torch.tensor([n for run in row for n in run], dtype=torch.long) for row in rows]
        padded = nn.utils.rnn.pad_sequence(numbers, True, -1, padding_side)
        return cls(padded.to(device))

    def take(self, values: Tensor, pad: int = 0) -> Tensor:
        """Values (R, S, ...) of the tokens, from those of all tokens (N, ...)."""
        tokens = self.tokens.to(values.device)
        taken = values.new_full((*tokens.shape, *values.shape[1:]), pad)
        taken[tokens >= 0] = values[tokens[tokens >= 0]]
        return taken

    def untake(self, taken: Tensor, count: int) -> Tensor:
        """Values (N, ...) of all `count` tokens, from those (R, S, ...) of some; 0 elsewhere."""
        tokens = self.tokens.to(taken.device)
        values = taken.new_zeros(count, *taken.shape[2:])
        values[tokens[tokens >= 0]] = taken[tokens >= 0]
        return values

    def places(self, tokens: Iterable[int]) -> Tensor:
        """Where the given tokens are among all R · S cells, row after row."""
        place = {token: i for i, token in enumerate(self.tokens.flatten().tolist())}
        return torch.tensor([place[token] for token in tokens], device=self.tokens.device)


def visible(owners: Tensor, cached: Tensor) -> Tensor:
    """Which cells (R, S, P + S) each cell attends to: those before it of its own sequence.

    Parameters
    ----------
    owners : Tensor
        (R, S), the sequence of each cell, -1 in pads. Pads see pads, so that they are defined.
    cached : Tensor
        (R, P), the same for the cells that are cached, all before the others.
    """
    of = owners[:, :, None]
    return torch.cat([of == cached[:, None], (of == owners[:, None]).tril()], dim=2)
