"""The part of the model that δ reaches, run for many sequences at once.

Nothing before the edited token, and no block up to the last hooked one, depends on δ. So each
sequence is split there. Its prefix runs once and leaves its attention keys and values; its
suffix, which starts at the edited token, runs in every step from the block after the last hooked
layer: one pass for all contexts of all facts still being optimised, whose suffixes share rows (see
`packing`).

Suffixes         losses of some facts, and their slopes, for any δ
suffix_tokens    how many tokens of a fact run in every step
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.forward import Batch, replaced, run_to, with_hidden
from coachhook_viz.editing.hooks import Hook, attached
from coachhook_viz.editing.packing import Packing, share_rows, visible
from coachhook_viz.editing.sites import SITES
from coachhook_viz.editing.tokens import FactTokens, Prompt, length_batches
from coachhook_viz.models import LanguageModel


@dataclass(frozen=True)
class _Sequence:
    """A prompt of a fact's column and, unless the model is to go on as it did, its target.

    Its tokens are numbered on from those of the sequences before it, of which `start` is the sum.
    Without a target, `weight` is what KL(current ‖ initial) counts in its fact's loss: at the
    edited token or, if it is `whole`, at its end.
    """

    fact: int
    column: int
    prompt: Prompt
    target: tuple[int, ...]
    start: int
    weight: float = 0.0
    whole: bool = True

    @property
    def ids(self) -> list[int]:
        return [*self.prompt.ids, *self.target[:-1]]

    @property
    def edited(self) -> int:
        """Number of the edited token."""
        return self.start + self.prompt.edited

    @property
    def prefix(self) -> range:
        return range(self.start, self.edited)

    @property
    def suffix(self) -> range:
        """From the edited token on; what is not whole is read there and needs no more."""
        return range(self.edited, self.start + len(self.ids) if self.whole else self.edited + 1)

    @property
    def read(self) -> range:
        """What predicts the target, or the next token where there is none."""
        return self.suffix[-max(len(self.target), 1) :]


def suffix_tokens(columns: Sequence[FactTokens], config: EditConfig) -> int:
    """How many tokens of one fact's `columns` every step runs."""
    return sum(len(s.suffix) for s in _sequences(columns, [0] * len(columns), config))


def _sequences(
    columns: Sequence[FactTokens], owners: Sequence[int], config: EditConfig
) -> list[_Sequence]:
    sequences: list[_Sequence] = []
    for number, (column, owner) in enumerate(zip(columns, owners, strict=True)):
        prompts: list[tuple[Prompt, tuple[int, ...], float, bool]] = [
            (prompt, column.target, 0.0, True) for prompt in column.contexts
        ]
        if SITES[config.site].keeps_essence:
            prompts.append((column.essence, (), config.kl_weight, False))
        share = config.preserve_weight / max(len(column.preserved), 1)
        prompts += [(prompt, (), share, True) for prompt in column.preserved]
        for prompt, target, weight, whole in prompts:
            start = sequences[-1].suffix.stop if sequences else 0
            sequences.append(_Sequence(owner, number, prompt, target, start, weight, whole))
    return sequences


class _FrozenLayer(DynamicLayer):
    """Cached keys and values of the prefixes: attention sees them, steps do not add to them."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prefix = keys, values
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return (
            torch.cat([self.prefix[0], key_states], dim=-2),
            torch.cat([self.prefix[1], value_states], dim=-2),
        )


@dataclass(frozen=True)
class _Rows:
    """Tokens that run together: R rows of S after P cached ones each."""

    states: Tensor  # (R, S, d_model) outputs of the last hooked block
    positions: Tensor  # (R, S)
    mask: Tensor  # (R, 1, S, P + S), additive


@dataclass(frozen=True)
class _Step:
    """What every step runs and reads while the same facts are active.

    A place is one of the R · S cells of the rows, an owner a fact's index among the active.
    """

    rows: _Rows
    cache: DynamicCache | None  # None where no suffix has a prefix
    edited: Tensor  # (sequences,) places of the edited tokens
    moving: Tensor  # (sequences,) their owners
    read: Tensor  # (targets + kept,) places that predict a target token, then the others'
    targets: Tensor  # (targets,) token ids
    owners: Tensor  # (targets,)
    weights: Tensor  # (targets,) in the owner's mean
    kept: Tensor  # (kept,) places, among all prompts without a target, of the active facts'
    keepers: Tensor  # (kept,) their owners
    keeping: Tensor  # (kept,) what each counts
    counted: Tensor  # (targets,) 1 of a context beside the bare one, else 0


class Suffixes:
    """The part of the model that δ reaches, for every context and KL prompt of some facts.

    Parameters
    ----------
    lm : LanguageModel
    hook_layers : mapping of int to Hook
        Validated hooks of the rounds in force.
    columns : sequence of FactTokens
        Those of one fact stand together.
    config : EditConfig

    Attributes
    ----------
    owners : list of int
        (columns,) the δ of each column, from 0: neighbours of one fact share one where they want
        the same tokens. A target begins with another token after a line break than after a word.
    initial : Tensor
        h (columns, d_model), at the edited token of each column's bare prompt.
    written : Tensor
        (columns, d_model) what the last hooked block's MLP adds to the hidden states there.
    right : list of int
        By active fact, in the last pass: how many target tokens were the likeliest, over all
        contexts but the bare one. All 0 where the method does not ask.
    """

    def __init__(
        self,
        lm: LanguageModel,
        hook_layers: Mapping[int, Hook],
        columns: Sequence[FactTokens],
        config: EditConfig,
    ) -> None:
        self._lm = lm
        self._last = config.layers[-1]
        wanted = [(column.fact, column.target) for column in columns]
        self.owners = [0, *accumulate(int(a != b) for a, b in pairwise(wanted))]
        self._sequences = _sequences(columns, self.owners, config)
        self._fed: Tensor | None = None
        self._form: Any = None
        self._active: list[int] = []
        self._counts = config.method.stop_after > 0
        self.right: list[int] = []
        self._step: _Step  # of the active facts
        self._before: Tensor | None = None  # (all kept, vocabulary) initial log-probabilities
        sizes = torch.tensor([s.suffix.stop - s.start for s in self._sequences])
        self._owner = torch.arange(len(sizes)).repeat_interleave(sizes).to(lm.device)  # (N,)
        self._position = torch.cat([torch.arange(size) for size in sizes]).to(lm.device)
        with torch.no_grad():
            self._states, outputs = self._run_to_last(hook_layers)
            firsts = {s.column: s.edited for s in reversed(self._sequences)}
            bare = [firsts[column] for column in range(len(columns))]
            self.initial, self.written = self._states[bare], outputs[bare]
            with self.skipping_to_suffixes():
                self._cached = self._run_prefixes()

    def _run_to_last(self, hook_layers: Mapping[int, Hook]) -> tuple[Tensor, Tensor]:
        """Outputs (N, d_model) of the last hooked block, and what its MLP adds to them.

        They are run on whole sequences.
        """
        lm, states = self._lm, [torch.empty(0)] * len(self._sequences)
        outputs = list(states)
        said: list[Tensor] = []
        scale = lm.multiplier

        def remember(module: nn.Module, args: Any, output: Any) -> None:
            self._form = output

        handle = lm.blocks[self._last].register_forward_hook(remember)
        with attached(lm, hook_layers) as attachment, ExitStack() as stack:
            stack.callback(handle.remove)
            module = lm.written(self._last)  # after the hook layer's, so with what it adds
            hear = module.register_forward_hook(
                lambda m, args, output: said.append((scale * output).to(lm.device))
            )
            stack.callback(hear.remove)
            lengths = [len(sequence.ids) for sequence in self._sequences]
            for rows in length_batches(lengths):
                batch = Batch.of([self._sequences[row].ids for row in rows], lm.device)
                attachment.prompt_lengths = torch.tensor(
                    [len(self._sequences[row].prompt.ids) for row in rows], device=lm.device
                )
                output, _ = run_to(lm, batch, self._last)
                for row, state, written in zip(rows, output, said.pop(), strict=True):
                    size = self._sequences[row].suffix.stop - self._sequences[row].start
                    states[row], outputs[row] = state[:size], written[:size]
        return torch.cat(states), torch.cat(outputs)

    def _run_prefixes(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Attention keys and values (N, heads, d_head) by block, set at the prefixes' tokens."""
        sizes = [len(sequence.prefix) for sequence in self._sequences]
        if not any(sizes):
            return {}
        rows = self._share_rows(sizes, [0] * len(sizes))
        packing = self._pack([[self._sequences[i].prefix for i in row] for row in rows])
        cache = DynamicCache()
        run = self._rows(packing, cached=self._pack([[] for _ in rows]))
        self._run(run.states, run, cache)
        found: dict[int, tuple[Tensor, Tensor]] = {}  # each where its block is
        for block in range(self._last + 1, self._lm.n_layers):
            layer: Any = cache.layers[block]  # (R, heads, P, d_head)
            keys, values = (
                packing.untake(part.transpose(1, 2), len(self._owner))
                for part in (layer.keys, layer.values)
            )
            found[block] = keys, values
        return found

    @contextmanager
    def skipping_to_suffixes(self) -> Iterator[None]:
        """Within the context, blocks up to the last hooked one just hand on `self._fed`."""

        def hand_on(*args: Any, **kwargs: Any) -> Any:
            return with_hidden(self._form, self._fed)  # type: ignore[arg-type]

        with ExitStack() as stack:
            for block in self._lm.blocks[: self._last + 1]:
                stack.enter_context(replaced(block, hand_on))
            yield

    def losses(self, delta: Tensor, active: list[int]) -> tuple[Tensor, Tensor]:
        """Mean NLL and weighted KL, (active,) each, with `delta` (active, d_model) added.

        To be called within `skipping_to_suffixes`, first with a zero `delta` and all facts.
        """
        if active != self._active:
            self._active, self._step = active, self._prepare(active)
        step = self._step
        states = step.rows.states.flatten(0, 1)  # (R · S, d_model)
        moved = states[step.edited].float() + delta[step.moving]
        states = states.index_put((step.edited,), moved.to(states.dtype))
        output = self._run(states.view_as(step.rows.states), step.rows, step.cache)
        final = output.last_hidden_state.to(delta.device).flatten(0, 1)
        logits = self._head(output, final[step.read]).float()  # (targets + kept, vocabulary)
        at_targets, at_kept = logits.split([len(step.targets), len(step.kept)])
        nll = F.cross_entropy(at_targets, step.targets, reduction="none") * step.weights
        nothing = nll.new_zeros(len(active))
        self.right = [0] * len(active)
        if self._counts:
            hits = (at_targets.argmax(-1) == step.targets) * step.counted
            self.right = nothing.long().index_add(0, step.owners, hits).tolist()
        moved = nothing
        if len(step.kept):
            moved = nothing.index_add(0, step.keepers, step.keeping * self._moved(at_kept, step))
        return nothing.index_add(0, step.owners, nll), moved

    def _moved(self, logits: Tensor, step: _Step) -> Tensor:
        """KL(current ‖ initial) (kept,) of what logits (kept, V) say."""
        now = F.log_softmax(logits, dim=-1)
        if self._before is None:
            self._before = now.detach()
        return (now.exp() * (now - self._before[step.kept])).sum(-1)

    def _run(self, states: Tensor, rows: _Rows, cache: DynamicCache | None) -> Any:
        """What the decoder gives, from `states` (R, S, d_model) after the last hooked block."""
        self._fed = states
        return self._lm.decoder(
            input_ids=torch.zeros_like(rows.positions),
            attention_mask=rows.mask,
            position_ids=rows.positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )

    def _head(self, output: Any, states: Tensor) -> Tensor:
        """Logits (positions, vocabulary) of final hidden states, by the model's own head.

        It is handed an `output` of its decoder with those in it.
        """
        shown = replace(output, last_hidden_state=states.unsqueeze(0))
        with replaced(self._lm.decoder, lambda *args, **kwargs: shown):
            one = torch.zeros(1, 1, dtype=torch.long, device=states.device)
            logits: Tensor = self._lm.model(input_ids=one, use_cache=False).logits
        return logits[0].to(states.device)

    def _prepare(self, active: list[int]) -> _Step:
        """Pack the suffixes of the active facts, and their prefixes' keys and values."""
        owner = {fact: i for i, fact in enumerate(active)}
        sequences = [s for s in self._sequences if s.fact in owner]
        rows = self._share_rows(
            [len(s.suffix) for s in sequences], [len(s.prefix) for s in sequences]
        )
        suffixes = self._pack([[sequences[i].suffix for i in row] for row in rows])  # (R, S)
        # padded on the left, the tokens of a row of one sequence stand where they stand in it
        prefixes = self._pack(
            [[sequences[i].prefix for i in row] for row in rows], "left"
        )  # (R, P)
        cache = None
        if prefixes.tokens.numel():
            cache = DynamicCache()
            cache.layers = [DynamicLayer() for _ in range(self._last + 1)]
            cache.layers += [
                _FrozenLayer(*(prefixes.take(part).transpose(1, 2) for part in parts))
                for parts in self._cached.values()
            ]
            cache.layer_class_to_replicate = None
        contexts = [s for s in sequences if s.target]
        kept = [s for s in sequences if not s.target]
        all_kept = [s.start for s in self._sequences if not s.target]
        owners = [owner[s.fact] for s in contexts for _ in s.target]
        device = self._lm.device
        bare = {min(c.start for c in contexts if c.fact == fact) for fact in active}
        counted = [int(s.start not in bare) for s in contexts for _ in s.target]
        return _Step(
            rows=self._rows(suffixes, prefixes),
            cache=cache,
            edited=suffixes.places([s.edited for s in sequences]),
            moving=torch.tensor([owner[s.fact] for s in sequences], device=device),
            read=suffixes.places([n for s in (*contexts, *kept) for n in s.read]),
            targets=torch.tensor([token for s in contexts for token in s.target], device=device),
            owners=torch.tensor(owners, device=device),
            weights=torch.tensor([1 / owners.count(i) for i in owners], device=device),
            kept=torch.tensor([all_kept.index(s.start) for s in kept], dtype=torch.long).to(device),
            keepers=torch.tensor([owner[s.fact] for s in kept], dtype=torch.long).to(device),
            keeping=torch.tensor([s.weight for s in kept]).to(device),
            counted=torch.tensor(counted, device=device),
        )

    def _share_rows(self, tokens: list[int], cached: list[int]) -> list[list[int]]:
        if self._lm.architecture.by_place:
            return [[i] for i in range(len(tokens))]
        return share_rows(tokens, cached)

    def _pack(self, rows: list[list[range]], padding_side: str = "right") -> Packing:
        return Packing.of(rows, self._lm.device, padding_side)

    def _rows(self, packing: Packing, cached: Packing) -> _Rows:
        states = packing.take(self._states)
        seen = visible(packing.take(self._owner, -1), cached.take(self._owner, -2))
        mask = torch.zeros(seen.shape, dtype=states.dtype, device=states.device)
        mask = mask.masked_fill(~seen, torch.finfo(states.dtype).min).unsqueeze(1)
        return _Rows(states, packing.take(self._position), mask)
