"""Target hidden states z: what the last hooked layer should say at each subject.

Nothing before the subject's last token, and no block up to the last hooked one, depends on δ.
So each sequence is split there. Its prefix runs once and leaves its attention keys and values;
its suffix, which starts at the subject's last token, runs in every step from the block after the
last hooked layer, in one batch (or few) for all contexts of all facts still being optimised.

optimise_targets    z of a batch of facts, method page "One round", step 2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.forward import Batch, replaced, run_to, with_hidden
from coachhook_viz.editing.hooks import HookLayer, attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.tokens import FactTokens, Prompt, length_batches
from coachhook_viz.models import LanguageModel

_BATCH_OVERHEAD = 25  # tokens that one more batch costs: reading every weight once more
_CHUNK_TOKENS = 2048  # suffix tokens that are optimised together, which bounds memory


@dataclass(frozen=True)
class Targets:
    """Result of the optimisation: z (b, d_model) float64, and each fact's last loss."""

    states: Tensor
    losses: tuple[float, ...]


@dataclass(frozen=True)
class _Sequence:
    """A prompt of fact `fact` and, unless it is the KL prompt, the target that it should get."""

    fact: int
    prompt: Prompt
    target: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt.ids, *self.target[:-1]]

    @property
    def suffix(self) -> int:
        """Tokens from the subject's last on; the KL prompt is read there and needs no more."""
        return len(self.ids) - self.prompt.subject_last if self.target else 1


def optimise_targets(
    lm: LanguageModel,
    hook_layers: Mapping[int, HookLayer],
    facts: Sequence[FactTokens],
    config: EditConfig,
    watch: Watch,
) -> Targets:
    """Optimise δ for each fact, ``z = h + δ`` at the subject's last token.

    Minimises, per fact, the mean target-token NLL over its contexts
    + kl_weight · KL(current ‖ initial) at the KL prompt's subject
    + weight_decay · ‖δ‖ / ‖h‖², with ‖δ‖ ≤ clamp_factor · ‖h‖.

    Parameters
    ----------
    lm : LanguageModel
    hook_layers : mapping of int to HookLayer
        Validated hook layers of the rounds in force.
    facts : sequence of FactTokens
    config : EditConfig
    watch : Watch
        Called before each forward pass, stage "targets".

    Raises
    ------
    EditCancelled
        If `watch` says so.
    """
    chunks: list[list[FactTokens]] = [[]]
    room = _CHUNK_TOKENS
    for fact in facts:
        size = sum(s.suffix for s in _sequences([fact]))
        if chunks[-1] and size > room:
            chunks.append([])
            room = _CHUNK_TOKENS
        chunks[-1].append(fact)
        room -= size
    found = [
        _optimise(lm, hook_layers, chunk, config, watch, (i, len(chunks)))
        for i, chunk in enumerate(chunks)
    ]
    return Targets(
        torch.cat([targets.states for targets in found]),
        tuple(loss for targets in found for loss in targets.losses),
    )


def _sequences(facts: Sequence[FactTokens]) -> list[_Sequence]:
    return [
        sequence
        for index, fact in enumerate(facts)
        for sequence in (
            *(_Sequence(index, prompt, fact.target) for prompt in fact.contexts),
            _Sequence(index, fact.essence, ()),
        )
    ]


def _optimise(
    lm: LanguageModel,
    hook_layers: Mapping[int, HookLayer],
    facts: Sequence[FactTokens],
    config: EditConfig,
    watch: Watch,
    chunk: tuple[int, int],
) -> Targets:
    count = len(facts)
    total = config.steps * chunk[1]
    watch("targets", config.steps * chunk[0], total)
    problem = _Suffixes(lm, hook_layers, facts, config)
    initial = problem.initial.float()  # h (b, d_model)
    norm = initial.norm(dim=1)
    deltas = [torch.zeros_like(row, requires_grad=True) for row in initial]
    adam = torch.optim.Adam(deltas, lr=config.learning_rate)
    losses = torch.zeros(count)
    active = list(range(count))

    with torch.enable_grad(), problem.skipping_to_suffixes():
        for step in range(config.steps):
            if step:
                watch(
                    "targets", config.steps * chunk[0] + step, total, float(losses[active].mean())
                )
            delta = torch.stack([deltas[i] for i in active])  # (active, d_model)
            nll, kl = problem.losses(delta, active)  # (active,) each
            decay = delta.norm(dim=1) / norm[active].square()
            loss = nll + config.kl_weight * kl + config.weight_decay * decay
            losses[active] = loss.detach().cpu()
            going = [i for i in active if not losses[i] < config.stop_loss]
            if step == config.steps - 1 or not going:
                break
            adam.zero_grad(set_to_none=True)
            loss.sum().backward()
            for stopped in set(active) - set(going):
                deltas[stopped].grad = None  # so that Adam leaves it, momentum and all
            adam.step()
            with torch.no_grad():
                for i in going:
                    deltas[i].mul_((config.clamp_factor * norm[i] / deltas[i].norm()).clamp(max=1))
            active = going
    states = initial.double() + torch.stack(deltas).detach().double()
    return Targets(states, tuple(losses.tolist()))


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
class _Batch:
    """Suffixes that run together, aligned at their end; B rows of S tokens after P cached ones."""

    sequences: list[_Sequence]
    states: Tensor  # (B, S, d_model) outputs of the last hooked block
    first: Tensor  # (B,) where each suffix starts: the subject's last token
    positions: Tensor  # (B, S)
    mask: Tensor  # (B, 1, S, P + S), additive
    cache: DynamicCache | None  # None where no suffix has a prefix

    def read(self, states: Tensor) -> Tensor:
        """Final hidden states (B, S, d_model) at the positions that predict a target, in order."""
        size = states.shape[1]
        return torch.cat(
            [
                states[row, size - max(len(sequence.target), 1) :]
                for row, sequence in enumerate(self.sequences)
            ]
        )


class _Suffixes:
    """The part of the model that δ reaches, for every context and KL prompt of some facts."""

    def __init__(
        self,
        lm: LanguageModel,
        hook_layers: Mapping[int, HookLayer],
        facts: Sequence[FactTokens],
        config: EditConfig,
    ) -> None:
        self._lm = lm
        self._last = config.layers[-1]
        self._sequences = _sequences(facts)
        self._fed: Tensor | None = None
        self._form: Any = None
        self._active: list[int] = []
        self._batches: list[_Batch] = []
        self._before: dict[int, Tensor] = {}  # fact to initial log-probabilities at the KL prompt
        with torch.no_grad():
            states = self._run_to_last(hook_layers)
            first = [
                state[sequence.prompt.subject_last]
                for sequence, state in zip(self._sequences, states, strict=True)
            ]
            owners = [sequence.fact for sequence in self._sequences]
            self.initial = torch.stack([first[owners.index(i)] for i in range(len(facts))])
            self._states = [
                state[sequence.prompt.subject_last :][: sequence.suffix]
                for sequence, state in zip(self._sequences, states, strict=True)
            ]
            with self.skipping_to_suffixes():
                self._prefixes = self._run_prefixes(states)

    def _run_to_last(self, hook_layers: Mapping[int, HookLayer]) -> list[Tensor]:
        """Outputs (tokens, d_model) of the last hooked block for each whole sequence."""
        lm, states = self._lm, [torch.empty(0)] * len(self._sequences)

        def remember(module: nn.Module, args: Any, output: Any) -> None:
            self._form = output

        handle = lm.blocks[self._last].register_forward_hook(remember)
        with attached(lm, hook_layers) as attachment, ExitStack() as stack:
            stack.callback(handle.remove)
            lengths = [len(sequence.ids) for sequence in self._sequences]
            for rows in length_batches(lengths, _BATCH_OVERHEAD):
                batch = Batch.of([self._sequences[row].ids for row in rows], lm.device)
                attachment.prompt_lengths = torch.tensor(
                    [len(self._sequences[row].prompt.ids) for row in rows], device=lm.device
                )
                output, _ = run_to(lm, batch, self._last)
                for row, state in zip(rows, output, strict=True):
                    states[row] = state[: lengths[row]]
        return states

    def _run_prefixes(self, states: Sequence[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        """Attention keys and values (sequences, heads, P, d_head) of the prefixes, by block."""
        lm = self._lm
        lengths = [sequence.prompt.subject_last for sequence in self._sequences]
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for rows in length_batches(lengths, _BATCH_OVERHEAD):
            batch = Batch.of([self._sequences[row].ids[: lengths[row]] for row in rows], lm.device)
            if batch.ids.shape[1] == 0:
                continue
            self._fed = nn.utils.rnn.pad_sequence(
                [states[row][: lengths[row]] for row in rows], batch_first=True
            )
            cache = DynamicCache()
            lm.decoder(**batch.inputs, past_key_values=cache, use_cache=True)
            for block in range(self._last + 1, lm.n_layers):
                layer: Any = cache.layers[block]
                for into, part in enumerate((layer.keys, layer.values)):
                    if block not in found:
                        shape = (len(lengths), part.shape[1], max(lengths), part.shape[3])
                        found[block] = (part.new_zeros(shape), part.new_zeros(shape))
                    found[block][into][rows, :, : part.shape[2]] = part
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
        """Mean NLL and KL, (active,) each, with `delta` (active, d_model) at the subjects.

        To be called within `skipping_to_suffixes`, first with a zero `delta` and all facts.
        """
        lm = self._lm
        if active != self._active:
            self._active, self._batches = active, self._make_batches(active)
        read = []
        for batch in self._batches:
            rows = torch.arange(len(batch.sequences), device=lm.device)
            owners = torch.tensor([active.index(s.fact) for s in batch.sequences], device=lm.device)
            moved = batch.states[rows, batch.first].float() + delta[owners]
            self._fed = batch.states.index_put((rows, batch.first), moved.to(batch.states.dtype))
            output = lm.decoder(
                input_ids=torch.zeros_like(batch.positions),
                attention_mask=batch.mask,
                position_ids=batch.positions,
                past_key_values=batch.cache,
                use_cache=batch.cache is not None,
            )
            read.append(batch.read(output.last_hidden_state))
        logits = self._head(torch.cat(read)).float()  # (positions, vocabulary)
        return self._score(F.log_softmax(logits, dim=-1), active)

    def _score(self, log_p: Tensor, active: list[int]) -> tuple[Tensor, Tensor]:
        """Split the log-probabilities (positions, vocabulary) into each fact's NLL and KL."""
        place = {fact: i for i, fact in enumerate(active)}
        contexts: dict[int, int] = {}
        for sequence in self._sequences:
            contexts[sequence.fact] = contexts.get(sequence.fact, 0) + bool(sequence.target)
        rows: list[int] = []
        tokens: list[int] = []
        owners: list[int] = []
        weights: list[float] = []
        essence: dict[int, int] = {}
        row = 0
        for sequence in (s for batch in self._batches for s in batch.sequences):
            if not sequence.target:
                essence[sequence.fact] = row
                row += 1
            for token in sequence.target:
                rows.append(row)
                tokens.append(token)
                owners.append(place[sequence.fact])
                weights.append(1 / (len(sequence.target) * contexts[sequence.fact]))
                row += 1
        device = log_p.device
        picked = log_p[torch.tensor(rows, device=device), torch.tensor(tokens, device=device)]
        weighted = picked * torch.tensor(weights, device=device)
        owner = torch.tensor(owners, device=device)
        nll = -torch.zeros(len(active), device=device).index_add(0, owner, weighted)
        now = log_p[torch.tensor([essence[fact] for fact in active], device=device)]
        for fact in active:
            self._before.setdefault(fact, now[place[fact]].detach())
        before = torch.stack([self._before[fact] for fact in active])
        return nll, (now.exp() * (now - before)).sum(-1)

    def _head(self, states: Tensor) -> Tensor:
        """Logits (positions, vocabulary) from final hidden states, by the model's own head."""
        output = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states.unsqueeze(0))
        with replaced(self._lm.decoder, lambda *args, **kwargs: output):
            one = torch.zeros(1, 1, dtype=torch.long, device=states.device)
            logits: Tensor = self._lm.model(input_ids=one, use_cache=False).logits
        return logits[0]

    def _make_batches(self, active: list[int]) -> list[_Batch]:
        chosen = [i for i, s in enumerate(self._sequences) if s.fact in set(active)]
        lengths = [self._sequences[i].suffix for i in chosen]
        return [
            self._make_batch([chosen[i] for i in rows])
            for rows in length_batches(lengths, _BATCH_OVERHEAD)
        ]

    def _make_batch(self, indices: list[int]) -> _Batch:
        device = self._lm.device
        sequences = [self._sequences[i] for i in indices]
        suffix = torch.tensor([s.suffix for s in sequences], device=device)  # (B,)
        prefix = torch.tensor([s.prompt.subject_last for s in sequences], device=device)
        size, past = int(suffix.max()), int(prefix.max())
        states = nn.utils.rnn.pad_sequence(
            [self._states[i] for i in indices], batch_first=True, padding_side="left"
        )
        first = size - suffix
        steps = torch.arange(size, device=device)
        real = steps >= first[:, None]  # (B, S)
        within = real[:, None, :] & (steps <= steps[:, None]) | torch.eye(
            size, dtype=torch.bool, device=device
        )  # (B, S, S): causal; a pad sees itself, so that its row is defined
        cached = torch.arange(past, device=device) < prefix[:, None]  # (B, P)
        seen = torch.cat([cached[:, None].expand(-1, size, -1), within], dim=2)
        mask = torch.zeros(seen.shape, dtype=states.dtype, device=device)
        mask = mask.masked_fill(~seen, torch.finfo(states.dtype).min).unsqueeze(1)
        cache = None
        if past:
            layers: list[Any] = [DynamicLayer() for _ in range(self._last + 1)]
            for keys, values in self._prefixes.values():
                layers.append(_FrozenLayer(keys[indices, :, :past], values[indices, :, :past]))
            cache = DynamicCache()
            cache.layers, cache.layer_class_to_replicate = layers, None
        positions = (prefix[:, None] + steps - first[:, None]).clamp_min(0)
        return _Batch(sequences, states, first, positions, mask, cache)
