"""Texts drawn by chance, the same ones each time: the draws hang on the prompt alone.

drawn    what makes `generate` draw so
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList


def drawn(prompts: Sequence[str], among: int) -> LogitsProcessorList:
    """Processors with which greedy generation draws each token among the likeliest ones.

    Parameters
    ----------
    prompts : sequence of str
        Of the rows of the batch, in their order.
    among : int
        How many of the likeliest tokens; 1 leaves generation greedy.
    """
    return LogitsProcessorList([_Drawn(prompts, among)] if among > 1 else [])


class _Drawn(LogitsProcessor):
    """Leaves one token a row.

    The likeliest of logits with Gumbel noise on top is a draw from their softmax.
    """

    def __init__(self, prompts: Sequence[str], among: int) -> None:
        self._among = among
        self._generators = [torch.Generator().manual_seed(_seed(prompt)) for prompt in prompts]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best = scores.float().topk(self._among)  # (rows, among)
        uniform = torch.stack([torch.rand(self._among, generator=g) for g in self._generators])
        noise = -(-uniform.log()).log()
        place = (best.values + noise.to(scores.device)).argmax(1, keepdim=True)
        alone = torch.full_like(scores, -torch.inf)
        return alone.scatter(1, best.indices.gather(1, place), 0.0)


def _seed(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7])
