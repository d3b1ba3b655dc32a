"""What follows many prompts under one state, and whether a hook spoke on the way.

Reply            what became of one prompt
replies          asks many prompts at once
continuations    texts after many prompts, greedy ones or drawn ones
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import length_batches, readable, tokenize
from coachhook_viz.measure.drawing import drawn
from coachhook_viz.models import LanguageModel

_BATCH_ROWS = 64
_TEXTS = 16  # prompts that are gone on from at once


@dataclass(frozen=True)
class Reply:
    """What follows a prompt.

    Attributes
    ----------
    tokens : tuple of str
        The likeliest next tokens, likeliest first.
    ids : tuple of int
        Their ids.
    probabilities : tuple of float
    spoke : bool
        Whether any hook layer spoke at any token of the prompt.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    spoke: bool


@torch.no_grad()
def replies(
    lm: LanguageModel,
    state: EditState,
    prompts: Sequence[str],
    top: int = 5,
    watch: Watch | None = None,
    stage: str = "report",
) -> dict[str, Reply]:
    """What the model says after each of `prompts` under `state`; equal ones run once.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    prompts : sequence of str
    top : int
        How many next tokens.
    watch : Watch, optional
        Asked before each batch whether to stop.
    stage : str
        What it is asked about.
    """
    distinct = list(dict.fromkeys(prompts))
    ids = [tokenize(lm, prompt) for prompt in distinct]
    batches = [
        rows[start : start + _BATCH_ROWS]
        for rows in length_batches([len(row) for row in ids])
        for start in range(0, len(rows), _BATCH_ROWS)
    ]
    found: dict[str, Reply] = {}
    with attached(lm, state.hook_layers(lm.dtype)) as attachment:
        for step, rows in enumerate(batches):
            if watch is not None:
                watch.stop_if_asked(stage, step, len(batches))
            batch = Batch.of([ids[row] for row in rows], lm.device)
            last = batch.mask.sum(1) - 1
            places = last.unique()
            logits = lm.model(
                **batch.inputs, use_cache=False, logits_to_keep=places.tolist()
            ).logits
            at = torch.searchsorted(places, last)
            ends = logits[torch.arange(len(rows), device=lm.device), at]  # (rows, vocabulary)
            spoke = torch.zeros_like(batch.mask)
            for at_layer in attachment.tokens.spoke.values() if attachment.tokens else ():
                spoke |= at_layer & batch.mask
            shares, best = ends.float().softmax(-1).topk(top)
            for i, row in enumerate(rows):
                found[distinct[row]] = Reply(
                    tuple(readable(lm, [token])[0] for token in best[i].tolist()),
                    tuple(best[i].tolist()),
                    tuple(shares[i].tolist()),
                    bool(spoke[i].any()),
                )
    return found


@torch.no_grad()
def continuations(
    lm: LanguageModel,
    state: EditState,
    prompts: Sequence[str],
    max_new_tokens: int,
    watch: Watch | None = None,
    stage: str = "report",
    among: int = 1,
) -> dict[str, str]:
    """Texts after `prompts` under `state`, several at once.

    Parameters
    ----------
    lm, state, prompts, watch, stage
        As in `replies`.
    max_new_tokens : int
    among : int
        Draw each token among this many likeliest ones, by their probabilities. A prompt has draws
        of its own, so that its text is the same in any batch. 1: the likeliest, greedily.
    """
    distinct = sorted(dict.fromkeys(prompts), key=len)  # alike in length: few pads
    found: dict[str, str] = {}
    with attached(lm, state.hook_layers(lm.dtype)):
        for start in range(0, len(distinct), _TEXTS):
            if watch is not None:
                watch.stop_if_asked(stage, start, len(distinct))
            chosen = distinct[start : start + _TEXTS]
            inputs = lm.encode(chosen, padding_side="left")
            output = lm.generate(
                **inputs,
                logits_processor=drawn(chosen, among),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # the model's own settings may have another
            )
            texts = lm.tokenizer.batch_decode(
                output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            found |= dict(zip(chosen, texts, strict=True))
    return found
