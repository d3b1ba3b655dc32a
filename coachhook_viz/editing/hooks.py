"""Hook layers and how they hang on a model.

Hook         what hangs on a block: keys of its down projection in, an edited output out
HookLayer    adds ΔW k where the output joins the hidden states, at the tokens in its scope
SubjectKeys, RelationKeys    the two keys: what opens a fact, and what adds an open one's columns
attached     a context in which hook layers hang on a model; they always come off
hung         the same for hook layers that hang again and again, and go on with their caches

    with attached(lm, {2: HookLayer(delta_weight, ZScore(1.3))}):
        lm.model(**lm.encode(["The capital of France is"]))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial, wraps
from threading import Lock, RLock
from types import new_class
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coachhook_viz.editing.forward import replaced
from coachhook_viz.editing.scope import NEVER, Rule, Tokens, ZScore
from coachhook_viz.errors import WaitingWarning
from coachhook_viz.models import LanguageModel
from coachhook_viz.threads import give_way
from coachhook_viz.warned import warn

_PROMPTS = ("input_ids", "inputs", "inputs_embeds")  # by which `generate` takes them
_PATIENCE = 10.0  # seconds that a thread waits for another one before it says so


class Hook(Protocol):
    """What hangs on a block: its MLP's output (B, T, d_model) in, the same edited out.

    The output is that of `LanguageModel.written`, what joins the hidden states.

    It says in `Tokens.spoke` where it spoke.
    """

    @property
    def carries(self) -> bool:
        """Whether a later step of cached decoding needs what it has seen in earlier ones."""

    def __call__(self, layer: int, keys: Tensor, output: Tensor, tokens: Tokens) -> Tensor:
        """Keys (B, T, d_key) of `layer` and its output to that output under the edit."""


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
        """The output (B, T, d_model) with ΔW k added where in scope."""
        delta = keys @ self.delta_weight.T  # (B, T, d_model)
        in_scope = self.rule(layer, keys, delta, tokens)  # (B, T)
        tokens.spoke[layer] = in_scope.to(tokens.mask.device)
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
        in_scope = speaks.any(-1)
        tokens.spoke[layer] = in_scope.to(tokens.mask.device)
        if not bool(in_scope.any()):
            return output
        delta = (along * speaks[..., self.owners]) @ self.residuals.T
        return torch.where(in_scope.unsqueeze(-1), output + delta, output)

    def speaking(self, along: Tensor, tokens: Tokens) -> Tensor:
        """(B, T, facts) bool, g: which facts speak, from ``Aᵀ k`` (B, T, columns)."""
        is_open = tokens.is_open().to(along.device)
        known = len(self.own)  # while a round is computed, its own facts are open and not here yet
        match = along.new_zeros(*along.shape[:-1], known).index_add_(-1, self.owners, along)
        match = (match / self.own).masked_fill(~is_open[..., :known], -torch.inf)
        return (match >= self.threshold) & (match == match.amax(-1, keepdim=True))


class Attachment:
    """The hook layers on a model, and what they know of the pass that runs.

    Attributes
    ----------
    lm : LanguageModel
    hook_layers : mapping of int to Hook
    prompt_lengths : Tensor or None
        (B,) real tokens of each prompt in the next passes, when a continuation is fed together
        with its prompt: the prompt's tokens are then judged among themselves and each later one
        among all up to it, exactly as cached decoding does. None: all tokens are one prompt.
    """

    def __init__(self, lm: LanguageModel, hook_layers: Mapping[int, Hook]) -> None:
        self.prompt_lengths: Tensor | None = None
        self.hanging = False
        self.suspended = False  # while another attachment on the same model is in force
        self.lm = lm
        self.hook_layers = hook_layers
        self._signature = inspect.signature(lm.decoder.forward)
        self._carries = any(hook.carries for hook in hook_layers.values())
        self._running = False  # whether the decoder runs
        self._released = False
        self._tokens: Tokens | None = None
        self._keys: dict[int, Tensor] = {}
        self._whole: tuple[Any] | None = None  # what generate prepared the next pass's mask of
        self._prompt = 0  # how many tokens `generate` was given, pads included, while it runs
        self._sequences: WeakKeyDictionary[Any, Tokens] = WeakKeyDictionary()
        self._checkpoints: list[tuple[nn.Module, Any]] = []

    def begin(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the decoder runs: which of its tokens are real, new, and judged with which."""
        if self.suspended:
            return
        given = self._signature.bind_partial(*args, **kwargs).arguments
        entry = given.get("input_ids")
        shape = (entry if entry is not None else given["inputs_embeds"]).shape
        batch, new = int(shape[0]), int(shape[1])
        device = self.lm.device
        cache = given.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = self._real(given.get("attention_mask"), batch, past + new)
        mask = mask[:, : past + new].to(device=device, dtype=torch.bool)
        positions = torch.arange(past, past + new, device=device).expand(batch, new)
        horizon = torch.full_like(positions, past + new - 1)
        if self.prompt_lengths is not None:
            real = mask.long().cumsum(1)
            ends = (real < self.prompt_lengths[:, None]).sum(1, keepdim=True)
            horizon = torch.maximum(positions, ends)
        elif self._prompt:
            horizon = positions.clamp_min(min(self._prompt, past + new) - 1)
        self._tokens = Tokens(mask, new, horizon)
        if past and self._carries:
            self._go_on(self._tokens, cache, past)
        self._running = True
        if decoder.training:
            self._remember_through_checkpoints()

    def _real(self, mask: Any, batch: int, total: int) -> Tensor:
        """Which of all tokens so far (B, N) are real, from the mask that the decoder was given."""
        if isinstance(mask, Tensor) and mask.dim() == 2:
            if self._carries and mask.shape[1] < total:
                raise ValueError(
                    f"the attention_mask has {mask.shape[1]} tokens, but {total} have been given,"
                    " those in the cache included: with a cache pass new tokens only, and a mask of"
                    " all"
                )
            return mask
        if mask is not None and self._carries:
            # generate prepares masks for some caches, from one that says it in plain words
            whole = self._whole[0] if self._whole else mask
            if whole is None:
                return torch.ones(batch, total, dtype=torch.bool)
            if isinstance(whole, Tensor) and tuple(whole.shape) == (batch, total):
                return whole
            raise ValueError(
                "the z-score and two-key scopes have to know the pads: pass the (batch, tokens)"
                " attention_mask, not a prepared one, or use the match scope"
            )
        return torch.ones(batch, total, dtype=torch.bool)

    def prepare(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`prepare_inputs_for_generation`, `own`; remembers the mask that masks are made of."""
        self._whole = (kwargs.get("attention_mask"),)
        return own(*args, **kwargs)

    def generate(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`generate`, `own`; refused if it would feed a prompt in pieces to the z-score scope.

        However many tokens it gives in a pass, each new one is judged as if it came by itself.

        Raises
        ------
        ValueError
            If ``prefill_chunk_size`` is set.
        """
        model = getattr(own, "__self__", self.lm.model)
        config = kwargs.get("generation_config") or model.generation_config
        size = kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None))
        by_prompt = any(
            isinstance(hook, HookLayer) and hook.carries for hook in self.hook_layers.values()
        )
        if size and by_prompt and not self.suspended:
            raise ValueError(
                f"prefill_chunk_size={size} feeds the prompt in pieces, but the z-score scope"
                " judges a prompt's tokens together: leave it out, or use the match scope"
            )
        given = [kwargs.get(name) for name in ("attention_mask", *_PROMPTS)] + list(args[:1])
        lengths = [value.shape[1] for value in given if isinstance(value, Tensor)]
        before, self._prompt = self._prompt, lengths[0] if lengths else 0
        try:
            return own(*args, **kwargs)
        finally:
            self._prompt = before

    def _remember_through_checkpoints(self) -> None:
        """See that what gradient checkpointing runs again, it runs as it ran in its own pass."""
        for module in (self.lm.decoder, *(self.lm.blocks[layer] for layer in self.hook_layers)):
            checkpoint = module.__dict__.get("_gradient_checkpointing_func")
            if checkpoint is not None and module not in [known for known, _ in self._checkpoints]:
                self._checkpoints.append((module, checkpoint))
                module.__dict__["_gradient_checkpointing_func"] = partial(self._check, checkpoint)

    def _check(self, checkpoint: Callable[..., Any], run: Callable[..., Any], *args: Any) -> Any:
        return checkpoint(partial(self._run_as_of, self._tokens, run), *args)

    def _run_as_of(self, tokens: Tokens | None, run: Callable[..., Any], *args: Any) -> Any:
        """Run part of the decoder, now or in a backward pass, as part of the pass of `tokens`."""
        if self._released:
            raise RuntimeError(
                "gradient checkpointing runs blocks of the edited model again: call backward() in"
                " the same `hooked()` context as the forward pass"
            )
        now = self._tokens, self._running
        self._tokens, self._running = tokens, True
        try:
            return run(*args)
        finally:
            self._tokens, self._running = now

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
        self._running, self._whole = False, None
        if output is None:  # it was stopped
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
        for module, checkpoint in self._checkpoints:
            module.__dict__["_gradient_checkpointing_func"] = checkpoint
        self._released = True

    def hang(self, layer: int) -> list[RemovableHandle]:
        """Hang the hook of `layer` on its block: keys are taken at the down projection."""
        hook = _on(self.hook_layers[layer], self.lm.device_of(layer))
        multiplier = self.lm.multiplier
        down, written = self.lm.down_projection(layer), self.lm.written(layer)

        def edited(keys: Tensor, output: Tensor) -> Tensor:
            tokens = self._of(keys)
            nothing = output if multiplier == 1 else torch.zeros_like(output)
            said: Tensor = hook(layer, keys, nothing, tokens)
            return said if multiplier == 1 else output + said / multiplier

        def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if not self.suspended:
                self._keys[layer] = args[0]

        def speak(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Any:
            if self.suspended:
                return None
            return edited(args[0] if module is down else self._keys.pop(layer), output)

        handles = [] if written is down else [down.register_forward_hook(keep)]
        # first of all: whoever else looks at the module's output sees it edited
        return [*handles, written.register_forward_hook(speak, prepend=True)]

    def _of(self, keys: Tensor) -> Tokens:
        """The tokens whose `keys` (B, T, d_key) a hooked layer is run on."""
        if self._running and self._tokens is not None:
            return self._tokens
        if self._carries:
            raise RuntimeError(
                "a hooked layer ran outside its model's decoder, where the z-score and two-key"
                " scopes do not know its tokens: run the whole model, or use the match scope"
            )
        mask = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        horizon = torch.full(keys.shape[:2], keys.shape[1] - 1, device=keys.device)
        return Tokens(mask, keys.shape[1], horizon)


def _on(value: Any, device: torch.device) -> Any:
    """A hook, or a part of one, with its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    moved = {name: _on(part, device) for name, part in parts.items()}
    changed = {name: part for name, part in moved.items() if part is not parts[name]}
    return replace(value, **changed) if changed else value


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
        self._cache = ref(cache)  # which has this selection: it is to go when nobody needs it
        self._name = name

    def __call__(self, rows: Any) -> Any:
        cache = self._cache()
        tokens, select = self._sequences[cache], _SELECTIONS[self._name]
        tokens.norms = {layer: select(known, rows) for layer, known in tokens.norms.items()}
        if tokens.opened is not None:
            tokens.opened = select(tokens.opened, rows)
        return getattr(type(cache), self._name)(cache, rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Selection:
        known = self._cache()
        cache = memo[id(known)]
        if cache not in self._sequences:
            tokens = self._sequences[known]
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
def attached(
    lm: LanguageModel, hook_layers: Mapping[int, Hook], compiled: bool = False
) -> Iterator[Attachment]:
    """Hang `hook_layers` on `lm` within the context; no hook layers, no trace on the model.

    Within another such context the outer hook layers are silent until this one ends: what runs
    here is the base model with these `hook_layers` and no others. A second thread waits until the
    first one's context ends.

    Parameters
    ----------
    lm : LanguageModel
    hook_layers : mapping of layer to Hook
    compiled : bool
        Whether what torch.compile has made of the model's parts runs as it is. It does not see
        further hooks, so only where there are none.

    Yields
    ------
    Attachment
    """
    attachment = Attachment(lm, hook_layers)
    with hung(attachment), nullcontext() if compiled or not _compiled(lm) else _uncompiled():
        try:
            yield attachment
        finally:
            attachment.release()


@contextmanager
def hung(attachment: Attachment) -> Iterator[None]:
    """Hang an attachment's hook layers within the context, as `attached` does.

    It may be hung again: it still knows the caches that it has seen. Within its own context it
    just stays.

    Parameters
    ----------
    attachment : Attachment
    """
    lm, hook_layers = attachment.lm, attachment.hook_layers
    give_way()
    with _alone(lm.decoder), ExitStack() as stack:
        outer = _IN_FORCE.get(lm.decoder)
        if outer is attachment:
            yield
            return
        stack.callback(_take_over, lm.decoder, attachment, outer)
        _take_over(lm.decoder, outer, attachment)
        if attachment.hanging:  # below other ones that hang within it
            yield
            return
        stack.callback(setattr, attachment, "hanging", False)
        attachment.hanging = True
        if hook_layers:
            before = lm.decoder.register_forward_pre_hook(attachment.begin, with_kwargs=True)
            stack.callback(before.remove)
            after = lm.decoder.register_forward_hook(
                attachment.end, with_kwargs=True, always_call=True
            )
            stack.callback(after.remove)
            for name, method in (
                ("generate", attachment.generate),
                ("prepare_inputs_for_generation", attachment.prepare),
            ):
                own = getattr(lm.model, name)  # transformers looks at its signature
                stack.enter_context(replaced(lm.model, wraps(own)(partial(method, own)), name))
        for layer in hook_layers:
            down, written = lm.down_projection(layer), lm.written(layer)
            for module in (down,) if written is down else (down, written):
                stack.enter_context(_seen_by_compilers(module))
            for handle in attachment.hang(layer):
                stack.callback(handle.remove)
        yield


@contextmanager
def _alone(decoder: nn.Module) -> Iterator[None]:
    """A context that one thread at a time is in; one that waits for long says so."""
    lock = _lock_of(decoder)
    if not lock.acquire(timeout=_PATIENCE):
        warn(
            f"waiting since {_PATIENCE:g} s for another thread that is within `hooked()` of this"
            " model, or runs it: the wait ends when that thread leaves. If it waits for this one,"
            " leave `hooked()` there first",
            WaitingWarning,
            stacklevel=5,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _seen_by_compilers(module: nn.Module) -> Iterator[None]:
    """Within the context the module has another class, of the same name and behaviour.

    What torch.compile has made of code that runs it asks for its class, but not for its hooks:
    without this it would go on as if there were none.
    """
    own = type(module)
    module.__class__ = _twin(own)
    try:
        yield
    finally:
        module.__class__ = own


_uncompiled_now = 0  # contexts, of all threads
_uncompiled_stack = ExitStack()
_COUNTING = Lock()


def _compiled(lm: LanguageModel) -> bool:
    """Whether a part of the model was compiled in its place."""
    return any(
        module._compiled_call_impl is not None
        or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
        for module in lm.model.modules()
    )


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Within the context compiled code runs as it was written, and so sees every hook.

    In the whole process; so only while a model is looked into of which a part is compiled.
    """
    global _uncompiled_now
    with _COUNTING:
        if not _uncompiled_now:
            _uncompiled_stack.enter_context(torch.compiler.set_stance("force_eager"))
        _uncompiled_now += 1
    try:
        yield
    finally:
        with _COUNTING:
            _uncompiled_now -= 1
            if not _uncompiled_now:
                _uncompiled_stack.close()


_TWINS: dict[type, type] = {}


def _twin(own: type) -> type:
    if own not in _TWINS:
        _TWINS[own] = new_class(
            own.__name__, (own,), {}, lambda body: body.update(__module__=own.__module__)
        )
    return _TWINS[own]
