"""The logit lens: what each block's output would say if it were the last one.

lens         probability and rank of some answers at every block, unedited, edited, one hook off
overtakes    the block from which on an answer is ahead of another
defaults     the answers that are looked up where none are given
Reading      a pass over one prompt whose block outputs are read
read         takes it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from coachhook_viz.editing.forward import Batch, hidden, replaced, with_hidden
from coachhook_viz.editing.hooks import Hook, attached
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import continuation, tokenize
from coachhook_viz.measure.about import about
from coachhook_viz.models import LanguageModel


def lens(
    lm: LanguageModel,
    state: EditState,
    prompt: str,
    answers: Sequence[str] | None = None,
    *,
    without: int | None = None,
    token: int | None = None,
) -> pd.DataFrame:
    """Probability and rank of `answers` at every block's output, through final norm and head.

    The first token of each answer counts. At the last block it is what the model says.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    prompt : str
    answers : sequence of str, optional
        None: truth and target of the fact in force whose subject stands in the prompt.
    without : int, optional
        A hooked layer: the edited model is also read with its hook off.
    token : int, optional
        The place among the prompt's tokens where it is read; None: the last one.

    Returns
    -------
    DataFrame
        block : int
        hooked : bool
            Whether the block holds a hooked layer.
        answer : str
        edited : bool
        without : int or NA
            The layer whose hook is off; NA: none.
        probability : float
        rank : int
            1 for the likeliest.

    Raises
    ------
    ValueError
        If the prompt has no token or too many, an answer has none of its own after it, none is
        given and no fact in force is in the prompt, the layer is not hooked, or there is no such
        token.
    """
    ids = tokenize(lm, prompt)
    chosen = defaults(state, prompt) if answers is None else _listed(answers)
    tokens = {answer: continuation(lm, prompt, answer)[1][0] for answer in chosen}
    if without is not None and without not in state.layers:
        raise ValueError(f"layer {without} is not hooked; hooked are {list(state.layers)}")
    if token is not None and not 0 <= token < len(ids):
        raise ValueError(f"there is no token {token}: the prompt has {len(ids)} tokens, from 0")
    place = len(ids) - 1 if token is None else token
    hooks = state.hook_layers(lm.dtype)
    passes: list[tuple[bool, int | None, Mapping[int, Hook]]] = [(False, None, {})]
    passes.append((True, None, hooks))
    if without is not None:
        passes.append((True, without, {at: hook for at, hook in hooks.items() if at != without}))
    readings = [read(lm, given, ids, [place]) for _, _, given in passes]
    states = torch.cat([reading.states[:, 0] for reading in readings])
    shares = said(lm, states, readings[0].form).log_softmax(-1)  # (passes · blocks, vocabulary)
    own = shares[:, list(tokens.values())]  # (passes · blocks, answers)
    ranks = torch.stack([1 + (shares > own[:, [i]]).sum(1) for i in range(len(tokens))], dim=1)
    rows = [
        (block, block in state.layers, answer, edited, off)
        for edited, off, _ in passes
        for block in range(lm.n_layers)
        for answer in tokens
    ]
    frame = pd.DataFrame(rows, columns=["block", "hooked", "answer", "edited", "without"])
    frame = frame.astype({"without": "Int64"})
    return frame.assign(probability=own.exp().flatten().tolist(), rank=ranks.flatten().tolist())


def defaults(state: EditState, prompt: str) -> list[str]:
    """Truth, where it is known, and target of the fact in force that `prompt` is about.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not state.facts:
        raise ValueError("no fact is in force to take the answers from: give them, answers=(…)")
    places = about(prompt, state.facts)
    if not places:
        raise ValueError(
            f"no subject of a fact in force stands in {prompt!r}: give the answers, answers=(…)"
        )
    fact = state.facts[places[0]]
    return [*filter(None, [fact.truth]), fact.target]


def _listed(answers: Sequence[str]) -> list[str]:
    if isinstance(answers, str):
        raise ValueError(f"answers is one text: give several, ({answers!r},)")
    found = list(dict.fromkeys(answers))
    if not found:
        raise ValueError("there is no answer to look up: give one or more")
    for answer in found:
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"the answer {answer!r} has no token: write a word")
    return found


@dataclass(frozen=True, eq=False)
class Reading:
    """What one pass over a prompt showed.

    Attributes
    ----------
    states : Tensor
        (blocks, places, d_model), the outputs of all blocks.
    keys : mapping of int to Tensor
        By layer that was asked for, (T, d_key).
    spoke : mapping of int to Tensor
        By hooked layer, (T,) bool: where its hook spoke.
    form : Any
        A block's output in the form that the family gives it.
    """

    states: Tensor
    keys: Mapping[int, Tensor]
    spoke: Mapping[int, Tensor]
    form: Any


@torch.no_grad()
def read(
    lm: LanguageModel,
    hooks: Mapping[int, Hook],
    ids: Sequence[int],
    places: Sequence[int],
    keys_of: Sequence[int] = (),
    prompt_length: int | None = None,
) -> Reading:
    """Run a prompt under `hooks` and keep every block's output at some of its tokens.

    Parameters
    ----------
    lm : LanguageModel
    hooks : mapping of int to Hook
    ids : sequence of int
    places : sequence of int
    keys_of : sequence of int
        Layers whose keys are kept.
    prompt_length : int, optional
        Where the tokens go on after a prompt: how many of them are the prompt's.
    """
    batch = Batch.of([ids], lm.device)
    found: list[Tensor] = []
    keys: dict[int, Tensor] = {}
    form: list[Any] = []

    def keep(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, args: keys.update({layer: args[0][0].to(lm.device)})

    def catch(module: nn.Module, args: Any, output: Any) -> None:
        found.append(hidden(output)[0, list(places)].to(lm.device))
        form[:] = [output]

    with attached(lm, hooks) as attachment, ExitStack() as stack:
        if prompt_length is not None:
            attachment.prompt_lengths = torch.tensor([prompt_length], device=lm.device)
        for block in lm.blocks:
            stack.callback(block.register_forward_hook(catch).remove)
        for layer in keys_of:
            handle = lm.down_projection(layer).register_forward_pre_hook(keep(layer))
            stack.callback(handle.remove)
        lm.decoder(**batch.inputs, use_cache=False)
        ran = attachment.tokens
    spoke = {} if ran is None else {layer: where[0] for layer, where in ran.spoke.items()}
    return Reading(torch.stack(found), keys, spoke, form[0])


@torch.no_grad()
def said(lm: LanguageModel, states: Tensor, form: Any) -> Tensor:
    """Logits (n, vocabulary), float32, that the model's own final norm and head make of `states`.

    The model runs with all blocks replaced by one that hands on the states: so whatever a family
    does after its blocks is done here too.

    Parameters
    ----------
    lm : LanguageModel
    states : Tensor
        (n, d_model), outputs of blocks.
    form : Any
        `Reading.form`.
    """
    fed = states[:, None]  # (n, 1, d_model)
    one = torch.zeros(len(states), 1, dtype=torch.long, device=states.device)
    with attached(lm, {}), ExitStack() as stack:
        for block in lm.blocks:
            stack.enter_context(replaced(block, lambda *args, **kwargs: with_hidden(form, fed)))
        logits: Tensor = lm.model(input_ids=one, use_cache=False).logits
    return logits[:, 0].float()


def overtakes(frame: pd.DataFrame, answer: str, other: str, *, edited: bool = True) -> int | None:
    """The block from which on `answer` stays likelier than `other`; None: it is not, at the end.

    Parameters
    ----------
    frame : DataFrame
        What `lens` gives.
    answer, other : str
    edited : bool
    """
    part = frame[(frame["edited"] == edited) & frame["without"].isna()]
    table = part.pivot_table("probability", "block", "answer").sort_index()
    behind = table.index[~(table[answer] > table[other])].tolist()
    first = 1 + max(behind, default=-1)
    return first if first in table.index else None
