"""Hook layers and how they hang on a model.

HookLayer    adds ΔW k to a down projection's output, at the tokens in its scope
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
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from coachhook_viz.editing.scope import Rule, Tokens, ZScore
from coachhook_viz.models import LanguageModel
from coachhook_viz.threads import give_way


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

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """The down projection's output (B, T, d_model) with ΔW k added where in scope."""
        delta = keys @ self.delta_weight.T  # (B, T, d_model)
        in_scope = self.rule(layer, keys, delta, tokens)  # (B, T)
        return torch.where(in_scope.unsqueeze(-1), output + delta, output)


class Attachment:
    """The hook layers on a model, and what they know of the pass that runs.

    Attributes
    ----------
    prompt_lengths : Tensor or None
        (B,) real tokens of each prompt in the next passes, when a continuation is fed together
        with its prompt: the prompt's tokens are then judged among themselves and each later one
        among all up to it, exactly as cached decoding does. None: all tokens are one prompt.
    """

    def __init__(self, hook_layers: Mapping[int, HookLayer], signature: inspect.Signature) -> None:
        self.prompt_lengths: Tensor | None = None
        self.suspended = False  # while another attachment on the same model is in force
        self._layers = hook_layers
        self._signature = signature
        self._carries_norms = any(isinstance(h.rule, ZScore) for h in hook_layers.values())
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
            if self._carries_norms:
                raise ValueError(
                    "the z-score scope has to know the pads: pass the (batch, tokens)"
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
        self._tokens = Tokens(mask, new, horizon, self._norms_so_far(cache, past))

    def _norms_so_far(self, cache: Any, past: int) -> dict[int, Tensor]:
        if past == 0 or not self._carries_norms:
            return {}
        if cache not in self._sequences:
            raise ValueError(
                "these cached tokens were not run under these hooks, so their norms are unknown:"
                " run the prompt inside the same `hooked()` context"
            )
        norms = self._sequences[cache].norms
        if any(known.shape[1] < past for known in norms.values()):
            raise ValueError("the cache holds tokens that did not pass through these hooks")
        return {
            layer: known[:, :past] for layer, known in norms.items()
        }  # it may have been cropped

    def end(self, decoder: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """After the decoder ran: the norms belong to the cache that holds the same tokens."""
        if self.suspended:
            return
        given = self._signature.bind_partial(*args, **kwargs).arguments
        cache = getattr(output, "past_key_values", None) or given.get("past_key_values")
        if cache is not None and self._carries_norms and self._tokens is not None:
            if cache not in self._sequences:
                self._follow(cache)
            self._sequences[cache] = self._tokens

    def _follow(self, cache: Any) -> None:
        """Whatever rows the cache selects (beam search), select them in its norms too."""
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
    "reorder_cache": lambda norms, rows: norms[rows.to(norms.device)],
    "batch_select_indices": lambda norms, rows: norms[rows],
    "batch_repeat_interleave": lambda norms, times: norms.repeat_interleave(times, 0),
}
"""What a cache's methods that select rows mean for its norms."""


class _Selection:
    """One of these methods of one cache, which selects in the norms first.

    A deep copy of the cache, as one makes of a prompt's to go on from it several times, gets norms
    of its own.
    """

    def __init__(self, sequences: WeakKeyDictionary[Any, Tokens], cache: Any, name: str) -> None:
        self._sequences = sequences
        self._cache = cache
        self._name = name

    def __call__(self, rows: Any) -> Any:
        norms, select = self._sequences[self._cache].norms, _SELECTIONS[self._name]
        norms.update({layer: select(known, rows) for layer, known in norms.items()})
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
def attached(lm: LanguageModel, hook_layers: Mapping[int, HookLayer]) -> Iterator[Attachment]:
    """Hang `hook_layers` on `lm` within the context; no hook layers, no trace on the model.

    Within another such context the outer hook layers are silent until this one ends: what runs
    here is the base model with these `hook_layers` and no others. A second thread waits until the
    first one's context ends.

    Parameters
    ----------
    lm : LanguageModel
    hook_layers : mapping of layer to HookLayer

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
