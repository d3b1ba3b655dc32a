"""Reliability, generality and locality, token by token under teacher forcing.

quality     one row a fact and metric
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import continuation, length_batches, tokenize
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel

_BATCH_OVERHEAD = 25  # tokens that one more batch costs
_BATCH_ROWS = 64


def quality(
    lm: LanguageModel, state: EditState, facts: Sequence[Fact], watch: Watch | None = None
) -> pd.DataFrame:
    """Score `facts` under `state`.

    The scope is the one that cached decoding has: answer tokens never change what the prompt's
    own tokens were judged to be.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    facts : sequence of Fact
    watch : Watch, optional
        Called before each batch, stage "quality".

    Returns
    -------
    DataFrame
        fact : int
            Index into `facts`.
        metric : str
            "reliability": share of target tokens that are the argmax after the edit prompt;
            "generality": the same, mean over the paraphrases;
            "locality": share of the neighbours' answer tokens whose argmax is that of the
            unedited model (of the next token alone where a neighbour has no answer).
        value : float
            In [0, 1]. A fact without paraphrases or neighbours has no such row.
    """
    asked: list[tuple[int, str, str, str | None]] = []
    for i, fact in enumerate(facts):
        asked.append((i, "reliability", fact.text, fact.target))
        asked += [(i, "generality", paraphrase, fact.target) for paraphrase in fact.paraphrases]
        asked += [(i, "locality", n.prompt, n.answer) for n in fact.neighbors]
    sequences = [
        (tokenize(lm, prompt), []) if answer is None else continuation(lm, prompt, answer)
        for _, _, prompt, answer in asked
    ]
    edited = top_tokens(lm, state, sequences, watch)
    local = [i for i, (_, metric, _, _) in enumerate(asked) if metric == "locality"]
    bare = EditState.of(lm, state.config)
    unedited = dict(
        zip(local, top_tokens(lm, bare, [sequences[i] for i in local], watch), strict=True)
    )
    rows = []
    for i, (fact_index, metric, _, _) in enumerate(asked):
        wanted = unedited[i] if i in unedited else torch.tensor(sequences[i][1])
        rows.append((fact_index, metric, float((edited[i] == wanted).float().mean())))
    frame = pd.DataFrame(rows, columns=["fact", "metric", "value"])
    return frame.groupby(["fact", "metric"], sort=False)["value"].mean().reset_index()


@torch.no_grad()
def top_tokens(
    lm: LanguageModel,
    state: EditState,
    sequences: Sequence[tuple[list[int], list[int]]],
    watch: Watch | None = None,
) -> list[Tensor]:
    """The model's own top token where each answer token stands, given all before it.

    Parameters
    ----------
    sequences : sequence of (prompt ids, answer ids)
        With an empty answer, the top token after the prompt.

    Returns
    -------
    list of Tensor
        (max(answer tokens, 1),) long each, on the CPU.
    """
    found = [torch.empty(0)] * len(sequences)
    lengths = [len(prompt) + max(len(answer) - 1, 0) for prompt, answer in sequences]
    rows_of = [
        rows[start : start + _BATCH_ROWS]
        for rows in length_batches(lengths, _BATCH_OVERHEAD)
        for start in range(0, len(rows), _BATCH_ROWS)
    ]
    with attached(lm, state.hook_layers(lm.dtype)) as attachment:
        for step, rows in enumerate(rows_of):
            if watch is not None:
                watch("quality", step, len(rows_of))
            batch = Batch.of([sequences[r][0] + sequences[r][1][:-1] for r in rows], lm.device)
            prompts = [len(sequences[row][0]) for row in rows]
            attachment.prompt_lengths = torch.tensor(prompts, device=lm.device)
            positions = torch.arange(min(prompts) - 1, batch.ids.shape[1], device=lm.device)
            logits = lm.model(**batch.inputs, use_cache=False, logits_to_keep=positions).logits
            top = logits.argmax(-1).cpu()  # (rows, positions)
            for i, row in enumerate(rows):
                first = prompts[i] - min(prompts)
                found[row] = top[i, first : first + max(len(sequences[row][1]), 1)]
    return found
