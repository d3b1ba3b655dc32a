"""What an edit has changed beside what was asked for.

WhatElse     asks the model, and remembers what the unedited one said
tally        how many prompts of each kind stayed
headline     the same in a line
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.hooks import RelationKeys, attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.editing.sites import site_of
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import length_batches, subject_last_token, tokenize
from coachhook_viz.facts import Fact
from coachhook_viz.measure.about import stands
from coachhook_viz.measure.beside import CHANGE, KINDS, Beside, drawn, questions
from coachhook_viz.measure.drift import neutral_texts
from coachhook_viz.measure.metrics import SURE
from coachhook_viz.models import LanguageModel

STAGE = "what else"
_BATCH_ROWS = 64
_LEAST_SURE = 0.25  # share of prompts that the model can answer, at the worst
_SAME = 0.01  # relative change of a text's perplexity that counts as none
_COLUMNS = {
    "kind": "object",
    "prompt": "object",
    "before": "object",
    "after": "object",
    "kept": "bool",
    "fired": "bool",
    "fact": "Int64",
    "of": "Int64",
    "p_before": "float64",
    "p_after": "float64",
    "x": "float64",
    "y": "float64",
}


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one prompt showed: likeliest token, the probability looked up, and its key."""

    top: int
    chance: float
    fired: bool
    fact: int | None  # place of the one that gave most
    key: Tensor | None


@dataclass
class _Steps:
    """Where the batches stand that have been run."""

    watch: Watch
    step: int
    total: int

    def next(self) -> None:
        """Before a batch."""
        self.watch(STAGE, min(self.step, self.total - 1), self.total)
        self.step += 1


class WhatElse:
    """Asks a model about what lies beside its edits.

    Parameters
    ----------
    lm : LanguageModel
    bare : EditState
        With no round.
    preserved : mapping of int to Tensor
        By layer, ``P0 = (λ C0)⁻¹`` (d_key, d_key).
    """

    def __init__(self, lm: LanguageModel, bare: EditState, preserved: Mapping[int, Tensor]) -> None:
        self._lm = lm
        self._bare = bare
        self._preserved = preserved
        self._layer = min(bare.layers)
        self._known: dict[Beside, _Seen] = {}
        self._whitener: Tensor | None = None

    def measure(
        self, state: EditState, facts: Mapping[int, Fact], budget: int, watch: Watch
    ) -> pd.DataFrame:
        """Ask all that lies beside some facts in force, before and after.

        Parameters
        ----------
        state : EditState
        facts : mapping of int to Fact
            By id.
        budget : int
            Most prompts that are asked.
        watch : Watch
            Called before each batch, stage "what else".

        Returns
        -------
        DataFrame
            As `Session.what_else` has it.
        """
        asked = questions(facts, state.facts)
        asked = [one for one in asked if self._readable(one.prompt)]
        texts = [Beside("text", text) for text in neutral_texts() if self._readable(text)]
        sure, begun = self._sure(asked, texts, budget, watch)
        chosen = [*drawn(sure, budget), *texts]
        before = [self._known[one] for one in chosen]
        after = self._after(state, chosen, before, watch, begun)
        places = self._map([seen.key for seen in before])
        rows = [
            self._row(one, was, after[one], state, place)
            for one, was, place in zip(chosen, before, places, strict=True)
        ]
        frame = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
        frame.attrs["sampled"] = f"{len(chosen) - len(texts)} of {len(asked)} prompts"
        return frame

    def _sure(
        self, asked: Sequence[Beside], texts: Sequence[Beside], budget: int, watch: Watch
    ) -> tuple[list[Beside], int]:
        """Prompts that the unedited model can answer, `budget` if there are so many; batches run.

        What it cannot answer is not known before it is asked: as many again are drawn for it.
        """
        begun, wanted = 0, budget
        while True:
            pool = drawn(asked, wanted)
            new = [one for one in (*pool, *texts) if one not in self._known]
            batches = len(self._batches(new))
            steps = begun + batches + len(self._batches([*pool[:budget], *texts]))
            tops = dict.fromkeys(new)
            self._known |= self._ask(self._bare, tops, _Steps(watch, begun, steps))
            begun += batches
            sure = [one for one in pool if not one.made or self._known[one].chance >= SURE]
            if len(sure) >= budget or wanted >= len(asked):
                return sure, begun
            share = max(len(sure) / len(pool), _LEAST_SURE)
            wanted += math.ceil((budget - len(sure)) / share)

    def _after(
        self,
        state: EditState,
        chosen: Sequence[Beside],
        before: Sequence[_Seen],
        watch: Watch,
        begun: int,
    ) -> dict[Beside, _Seen]:
        """What the edited model says: what no hook speaks on, it says as before."""
        steps = _Steps(watch, begun, begun + len(self._batches(chosen)))
        told = set(chosen)
        block = SCOPES[state.config.scope].tells_after(state.config)
        if block is not None and state.facts:
            told = self._may_speak(state, chosen, block, steps)
        silent = {
            one: replace(was, fired=False, fact=None)
            for one, was in zip(chosen, before, strict=True)
            if one not in told
        }
        tops = {one: was.top for one, was in zip(chosen, before, strict=True) if one in told}
        return silent | self._ask(state, tops, steps)

    @torch.no_grad()
    def _may_speak(
        self, state: EditState, chosen: Sequence[Beside], block: int, steps: _Steps
    ) -> set[Beside]:
        """Prompts on which some hook may speak, as `block` shows."""
        lm, found = self._lm, set()
        with attached(lm, state.hook_layers(lm.dtype)) as attachment:
            for rows in self._batches(chosen):
                steps.watch.stop_if_asked(STAGE, steps.step, steps.total)
                batch = Batch.of([lm.token_ids(chosen[row].prompt) for row in rows], lm.device)
                run_to(lm, batch, block)
                assert attachment.tokens is not None
                speaks = attachment.tokens.may_speak()
                found |= {chosen[row] for row, may in zip(rows, speaks, strict=True) if may}
        return found

    def _row(
        self, one: Beside, was: _Seen, now: _Seen, state: EditState, place: tuple[float, float]
    ) -> tuple[object, ...]:
        decode: Callable[[list[int]], str] = self._lm.tokenizer.decode
        fact = None if now.fact is None else state.fact_ids[now.fact]
        told: tuple[object, object, bool] = (
            decode([was.top]),
            decode([now.top]),
            was.top == now.top,
        )
        if one.kind == "text":
            told = (
                f"{1 / was.chance:.1f}",
                f"{1 / now.chance:.1f}",
                abs(was.chance / now.chance - 1) < _SAME,
            )
        return (
            *(one.kind, one.prompt, *told, now.fired, fact, one.fact),
            *(was.chance, now.chance, *place),
        )

    def _readable(self, prompt: str) -> bool:
        try:
            return bool(tokenize(self._lm, prompt))
        except ValueError:
            return False

    def _batches(self, asked: Sequence[Beside]) -> list[list[int]]:
        lengths = [len(self._lm.token_ids(one.prompt)) for one in asked]
        found = []
        for text in (False, True):  # of texts all logits are read, of prompts the last
            places = [i for i, one in enumerate(asked) if (one.kind == "text") == text]
            split = length_batches([lengths[i] for i in places]) if places else []
            found += [
                [places[row] for row in rows[start : start + _BATCH_ROWS]]
                for rows in split
                for start in range(0, len(rows), _BATCH_ROWS)
            ]
        return found

    @torch.no_grad()
    def _ask(
        self, state: EditState, looked_up: Mapping[Beside, int | None], steps: _Steps
    ) -> dict[Beside, _Seen]:
        """What the model says under `state`, and the chance of the tokens that are looked up.

        None: of its likeliest. Of a neutral text it is the geometric mean of its tokens'
        probabilities.
        """
        asked = list(looked_up)
        lm, hooks = self._lm, state.hook_layers(self._lm.dtype)
        layers = {self._layer, *state.layers} if hooks else {self._layer}
        caught: dict[int, Tensor] = {}
        found: dict[Beside, _Seen] = {}

        def catch(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda module, args: caught.update({layer: args[0].to(lm.device)})

        with attached(lm, hooks) as attachment:
            handles = [lm.down_projection(at).register_forward_pre_hook(catch(at)) for at in layers]
            try:
                for rows in self._batches(asked):
                    steps.next()
                    chosen = [asked[row] for row in rows]
                    batch = Batch.of([lm.token_ids(one.prompt) for one in chosen], lm.device)
                    whole = any(one.kind == "text" for one in chosen)
                    last = batch.mask.sum(1) - 1
                    read = torch.arange(batch.ids.shape[1]) if whole else last.unique()
                    read = read.to(lm.device)
                    logits = lm.model(
                        **batch.inputs, use_cache=False, logits_to_keep=read.tolist()
                    ).logits
                    at = torch.searchsorted(read, last)
                    for i, one in enumerate(chosen):
                        shares = logits[i, at[i]].float().log_softmax(-1)
                        top = int(shares.argmax())
                        wanted = looked_up[one]
                        chance = float(shares[top if wanted is None else wanted].exp())
                        if one.kind == "text":
                            chance = _mean(logits[i].float(), batch.ids[i], int(last[i]))
                        spoke = self._spoke(attachment.tokens, i, int(last[i]))
                        keys = {layer: keys[i] for layer, keys in caught.items()}
                        fact = self._whose(state, hooks, keys, spoke, attachment.tokens, i)
                        key = None
                        if not hooks:
                            key = keys[self._layer][self._place(one, int(last[i]))].double()
                        found[one] = _Seen(top, chance, bool(spoke), fact, key)
            finally:
                for handle in handles:
                    handle.remove()
        return found

    def _spoke(self, tokens: Any, row: int, last: int) -> dict[int, Tensor]:
        """By layer that spoke in a row at all, the mask (T,) of its tokens."""
        if tokens is None:
            return {}
        found = {layer: where[row].clone() for layer, where in tokens.spoke.items()}
        for where in found.values():
            where[last + 1 :] = False
        return {layer: where for layer, where in found.items() if bool(where.any())}

    def _whose(
        self,
        state: EditState,
        hooks: Mapping[int, Any],
        keys: Mapping[int, Tensor],
        spoke: Mapping[int, Tensor],
        tokens: Any,
        row: int,
    ) -> int | None:
        """Place of the fact that gave most where the hooks spoke."""
        total = torch.zeros(len(state.facts), dtype=torch.float64)
        for layer, where in spoke.items():
            columns = state.layers[layer].columns
            along = columns.directions.T @ keys[layer][where].double().T  # (columns, tokens)
            terms = along.abs() * columns.residuals.norm(dim=0)[:, None]
            by_fact = columns.by_fact(terms)
            hook = hooks[layer]
            if isinstance(hook, RelationKeys):
                speaks = hook.speaking(keys[layer][None] @ hook.directions, _row(tokens, row))[0]
                by_fact = by_fact * speaks[where].T
            total += by_fact.sum(1).cpu()
        return int(total.argmax()) if spoke else None

    def _place(self, one: Beside, last: int) -> int:
        """The token whose key stands for a prompt: where an edit of it would be written."""
        place = stands(one.prompt, one.subject)
        if place is None or not site_of(self._bare.config).at_subject:
            return last
        found = subject_last_token(self._lm, one.prompt, *place)
        return last if found is None else found

    def _map(self, keys: Sequence[Tensor | None]) -> list[tuple[float, float]]:
        """Two principal components of the whitened keys, ``P0^½ k``."""
        if self._whitener is None:
            self._whitener = _root(self._preserved[self._layer])
        stacked = torch.stack([key for key in keys if key is not None])  # (prompts, d_key)
        white = stacked @ self._whitener
        white = torch.nn.functional.normalize(white, dim=1)
        centred = white - white.mean(0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        flat = torch.zeros(len(centred), 2, dtype=centred.dtype)
        found = (centred @ axes[:2].T).cpu()
        flat[:, : found.shape[1]] = found
        return [(float(x), float(y)) for x, y in flat.tolist()]


def _root(matrix: Tensor) -> Tensor:
    """L with ``L Lᵀ`` the matrix; AlphaEdit's P0 has no full rank."""
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        values, vectors = torch.linalg.eigh(matrix)
        root = vectors * values.clamp_min(0).sqrt()
    return root


def _row(tokens: Any, row: int) -> Any:
    """What is known of one row of a batch."""
    opened = None if tokens.opened is None else tokens.opened[row : row + 1]
    return replace(tokens, mask=tokens.mask[row : row + 1], opened=opened)


def _mean(logits: Tensor, ids: Tensor, last: int) -> float:
    """Geometric mean of a text's tokens' probabilities, each given all before it."""
    if not last:
        return 1.0
    shares = logits[:last].log_softmax(-1).gather(1, ids[1 : last + 1, None])
    return float(shares.mean().exp())


def tally(frame: pd.DataFrame) -> pd.DataFrame:
    """How many prompts of each kind stayed as they were: kind, kept, prompts, fired, should.

    Parameters
    ----------
    frame : DataFrame
        What `Session.what_else` gives.
    """
    table = frame.groupby("kind", sort=False).agg(
        kept=("kept", "sum"), prompts=("kept", "size"), fired=("fired", "sum")
    )
    table = table.reindex([kind for kind in KINDS if kind in table.index])
    table["should"] = ["change" if kind in CHANGE else "stay" for kind in table.index]
    return table


def headline(frame: pd.DataFrame) -> str:
    """``"same subject 9 of 23, neighbours 24 of 25, text + 0.4 %"``: what stayed.

    Parameters
    ----------
    frame : DataFrame
        What `Session.what_else` gives.
    """
    counts = tally(frame)[["kept", "prompts"]].T.to_dict("list")
    names = {"same subject": "same subject", "neighbour": "neighbours", "bundled": "bundled facts"}
    told = [
        "{} {} of {}".format(name, *counts[kind]) for kind, name in names.items() if kind in counts
    ]
    texts = frame[frame["kind"] == "text"]
    if len(texts):
        change = float(np.exp(np.log(texts["p_before"] / texts["p_after"]).mean())) - 1
        told.append(f"text perplexity {100 * change:+.1f} %")
    return ", ".join(told)
