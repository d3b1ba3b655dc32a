"""Hook layers and how they hang on a model.

Hook         what hangs on a down projection
HookLayer    adds ΔW k to a down projection's output, at the tokens in its scope
SubjectKeys, RelationKeys    the two keys: what opens a fact, and what adds an open one's columns
attached     a context in which hook layers hang on a model; they always come off

    with attached(lm, {2: HookLayer(delta_weight, ZScore(1.3))}):
        lm.model(**lm.encode(["The capital of France is"]))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Lock, RLock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from coachhook_viz.editing.scope import NEVER, Rule, Tokens, ZScore
from coachhook_viz.models import LanguageModel
from coachhook_viz.threads import give_way


class Hook(Protocol):
    """What hangs on a down projection: what it has given (B, T, d_model) in, the same edited out.

    It says in `Tokens.spoke` where it spoke.
    """

    @property
    def carries(self) -> bool:
        """Whether a later step of cached decoding needs what it has seen in earlier ones."""

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """Keys (B, T, d_key) of `layer` and its output to its output under the edit."""


@dataclass(frozen=True)
class HookLayer:
    """One layer's edit, as inference needs it.

    Attributes
    ----------
    delta_weight : Tensor
        ΔW (d_model, d_key), in the model's dtype and on its device.
    rule : Rule
        Which tokens get it: `everywhere` (temporary), `ZScore` or `Match` (validated).
    """

    delta_weight: Tensor
    rule: Rule

    @property
    def carries(self) -> bool:
        """Whether the norms so far matter: under the z-score rule."""
        return isinstance(self.rule, ZScore)

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """The down projection's output (B, T, d_model) with ΔW k added where in scope."""
        delta = keys @ self.delta_weight.T  # (B, T, d_model)
        in_scope = self.rule(layer, keys, delta, tokens)  # (B, T)
        tokens.spoke[layer] = in_scope
        return torch.where(in_scope.unsqueeze(-1), output + delta, output)


@dataclass(frozen=True)
class SubjectKeys:
    """The first key: a token that shows a fact's subject opens the fact from there on.

    It hangs on a layer before all hooked ones and adds nothing there.

    Attributes
    ----------
    unit_directions : Tensor
        (d_key, facts): a fact's match with its own subject is 1.
    threshold : float
        τ_s, the match needed.
    """

    unit_directions: Tensor
    threshold: float
    carries = True

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """See `Hook`; the output stays as it is."""
        tokens.open(keys @ self.unit_directions >= self.threshold)
        return output


@dataclass(frozen=True)
class RelationKeys:
    """The second key: a token that asks for an open fact's relation gets the fact's own columns.

    ``Σ_i g_i R_i A_iᵀ k`` over the facts, where g_i is 1 iff fact i is open at the token, its
    relation match there, ``Σ_c a_c · k`` over its columns, reaches τ_r, and no open fact has a
    higher one. So two relations of a subject, or two subjects of a prompt, never speak at once.

    Attributes
    ----------
    residuals, directions : Tensor
        R (d_model, columns) and A (d_key, columns) of all facts in force.
    own : Tensor
        (facts,) the relation match at the fact's own keys, which counts as 1.
    owners : Tensor
        (columns,) long: the fact of each column.
    threshold : float
        τ_r, the match needed.
    """

    residuals: Tensor
    directions: Tensor
    own: Tensor
    owners: Tensor
    threshold: float
    carries = True

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """See `Hook`."""
        along = keys @ self.directions  # (B, T, columns)
        speaks = self.speaking(along, tokens)  # (B, T, facts)
        tokens.spoke[layer] = speaks.any(-1)
        if not bool(tokens.spoke[layer].any()):
            return output
        delta = (along * speaks[..., self.owners]) @ self.residuals.T
        return torch.where(tokens.spoke[layer].unsqueeze(-1), output + delta, output)

    def speaking(self, along: Tensor, tokens: Tokens) -> Tensor:
        """(B, T, facts) bool, g: which facts speak, from ``Aᵀ k`` (B, T, columns)."""
        is_open = tokens.is_open()
        known = len(self.own)  # while a round is computed, its own facts are open and not here yet
        match = along.new_zeros(*along.shape[:-1], known).index_add_(-1, self.owners, along)
        match = (match / self.own).masked_fill(~is_open[..., :known], -torch.inf)
        return (match >= self.threshold) & (match == match.amax(-1, keepdim=True))


class Attachment:
    """The hook layers on a model, and what they know of the pass that runs.

    Attributes
    ----------
    prompt_lengths : Tensor or None
        (B,) real tokens of each prompt in the next passes, when a continuation is fed together
        with its prompt: the prompt's tokens are then judged among themselves and each later one
        among all up to it, exactly as cached decoding does. None: all tokens are one prompt.
    """

    def __init__(self, hook_layers: Mapping[int, Hook], signature: inspect.Signature) -> None:
        self.prompt_lengths: Tensor | None = None
        self.suspended = False  # while another attachment on the same model is in force
        self._layers = hook_layers
        self._signature = signature
        self._carries = any(hook.carries for hook in hook_layers.values())
        self._tokens: Tokens | None = None
        self._sequences: WeakKeyDictionary[Any, Tokens] = WeakKeyDictionary()

    def begin(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the decoder runs: which of its tokens are real, new, and judged with which."""
        if self.suspended:
            return
        given = self._signature.bind_partial(*args, **kwargs).arguments
        entry = given.get("input_ids")
        shape = (entry if entry is not None else given["inputs_embeds"]).shape
        batch, new = int(shape[0]), int(shape[1])
        device = next(decoder.parameters()).device
        cache = given.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = given.get("attention_mask")
        if mask is None:
            mask = torch.ones(batch, past + new, dtype=torch.bool, device=device)
        elif not isinstance(mask, Tensor) or mask.dim() != 2:
            if self._carries:
                raise ValueError(
                    "the z-score and two-key scopes have to know the pads: pass the (batch, tokens)"
                    " attention_mask, not a prepared one, or use the match scope"
                )
            mask = torch.ones(batch, past + new, dtype=torch.bool, device=device)
        mask = mask[:, : past + new].to(device=device, dtype=torch.bool)
        positions = torch.arange(past, past + new, device=device).expand(batch, new)
        horizon = torch.full_like(positions, past + new - 1)
        if self.prompt_lengths is not None:
            real = mask.long().cumsum(1)
            ends = (real < self.prompt_lengths[:, None]).sum(1, keepdim=True)
            horizon = torch.maximum(positions, ends)
        self._tokens = Tokens(mask, new, horizon)
        if past and self._carries:
            self._go_on(self._tokens, cache, past)

    @property
    def tokens(self) -> Tokens | None:
        """What the hooks know of the last pass, and where they spoke in it; None before any."""
        return self._tokens

    def _go_on(self, tokens: Tokens, cache: Any, past: int) -> None:
        """Take over what the steps before have seen of the `past` tokens in the cache."""
        if cache not in self._sequences:
            raise ValueError(
                "these cached tokens were not run under these hooks, so what they showed is"
                " unknown: run the prompt inside the same `hooked()` context"
            )
        before = self._sequences[cache]
        if before.mask.shape[1] < past:
            raise ValueError("the cache holds tokens that did not pass through these hooks")
        # the cache may have been cropped since: what its last tokens showed is gone with them
        tokens.norms = {layer: known[:, :past] for layer, known in before.norms.items()}
        if before.opened is not None:
            tokens.opened = before.opened.masked_fill(before.opened >= past, NEVER)

    def end(self, decoder: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """After the decoder ran: what was seen belongs to the cache that holds the same tokens."""
        if self.suspended:
            return
        given = self._signature.bind_partial(*args, **kwargs).arguments
        cache = getattr(output, "past_key_values", None) or given.get("past_key_values")
        if cache is not None and self._carries and self._tokens is not None:
            if cache not in self._sequences:
                self._follow(cache)
            self._sequences[cache] = self._tokens

    def _follow(self, cache: Any) -> None:
        """Whatever rows the cache selects (beam search), select them in what was seen too."""
        for name in _SELECTIONS:
            setattr(cache, name, _Selection(self._sequences, cache, name))

    def release(self) -> None:
        """Forget every cache and give it its own methods back."""
        for cache in list(self._sequences):
            for name in _SELECTIONS:
                cache.__dict__.pop(name, None)
        self._sequences.clear()

    def speak(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Any]:
        """The forward hook of `layer`'s down projection."""
        hook_layer = self._layers[layer]

        def forward_hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Any:
            if self.suspended:
                return None
            if self._tokens is None:
                raise RuntimeError("a hooked layer ran outside its model's decoder")
            return hook_layer(layer, args[0], output, self._tokens)

        return forward_hook


_SELECTIONS: Mapping[str, Callable[[Tensor, Any], Tensor]] = {
    "reorder_cache": lambda known, rows: known[rows.to(known.device)],
    "batch_select_indices": lambda known, rows: known[rows],
    "batch_repeat_interleave": lambda known, times: known.repeat_interleave(times, 0),
}
"""What a cache's methods that select rows mean for what is known of each row."""


class _Selection:
    """One of these methods of one cache, which first selects in what was seen of its tokens.

    A deep copy of the cache, as one makes of a prompt's to go on from it several times, gets that
    of its own.
    """

    def __init__(self, sequences: WeakKeyDictionary[Any, Tokens], cache: Any, name: str) -> None:
        self._sequences = sequences
        self._cache = cache
        self._name = name

    def __call__(self, rows: Any) -> Any:
        tokens, select = self._sequences[self._cache], _SELECTIONS[self._name]
        tokens.norms = {layer: select(known, rows) for layer, known in tokens.norms.items()}
        if tokens.opened is not None:
            tokens.opened = select(tokens.opened, rows)
        return getattr(type(self._cache), self._name)(self._cache, rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Selection:
        cache = memo[id(self._cache)]
        if cache not in self._sequences:
            tokens = self._sequences[self._cache]
            self._sequences[cache] = replace(tokens, norms=dict(tokens.norms))
        return _Selection(self._sequences, cache, self._name)


_IN_FORCE: WeakKeyDictionary[nn.Module, Attachment] = WeakKeyDictionary()
_LOCKS: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
_NEW_LOCK = Lock()


def _lock_of(decoder: nn.Module) -> RLock:
    with _NEW_LOCK:
        return _LOCKS.setdefault(decoder, RLock())


def _take_over(decoder: nn.Module, last: Attachment | None, following: Attachment | None) -> None:
    if last is not None:
        last.suspended = True
    if following is None:
        del _IN_FORCE[decoder]
    else:
        following.suspended = False
        _IN_FORCE[decoder] = following


@contextmanager
def attached(lm: LanguageModel, hook_layers: Mapping[int, Hook]) -> Iterator[Attachment]:
    """Hang `hook_layers` on `lm` within the context; no hook layers, no trace on the model.

    Within another such context the outer hook layers are silent until this one ends: what runs
    here is the base model with these `hook_layers` and no others. A second thread waits until the
    first one's context ends.

    Parameters
    ----------
    lm : LanguageModel
    hook_layers : mapping of layer to Hook

    Yields
    ------
    Attachment
    """
    give_way()
    attachment = Attachment(hook_layers, inspect.signature(lm.decoder.forward))
    with _lock_of(lm.decoder), ExitStack() as stack:
        outer = _IN_FORCE.get(lm.decoder)
        stack.callback(attachment.release)
        stack.callback(_take_over, lm.decoder, attachment, outer)
        _take_over(lm.decoder, outer, attachment)
        if hook_layers:
            before = lm.decoder.register_forward_pre_hook(attachment.begin, with_kwargs=True)
            stack.callback(before.remove)
            after = lm.decoder.register_forward_hook(attachment.end, with_kwargs=True)
            stack.callback(after.remove)
        for layer in hook_layers:
            module = lm.down_projection(layer)
            stack.callback(module.register_forward_hook(attachment.speak(layer)).remove)
        yield attachment
