"""Whether a model's architecture is right, seen by numbers and not by names.

check_model    keys, what is written, and the optimiser's loss; a ModelRefused names what fails
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.forward import Batch, hidden, run_to, with_hidden
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.suffixes import Suffixes
from coachhook_viz.editing.tokens import FactTokens, Prompt
from coachhook_viz.errors import ModelRefused
from coachhook_viz.models import LanguageModel
from coachhook_viz.models.kinds import unwrapped

_TOKENS = 12
_BROKEN = (TypeError, ValueError, RuntimeError, AttributeError, LookupError)


@dataclass(frozen=True)
class _Tolerance:
    """How far numbers may be apart that are equal but for rounding.

    Attributes
    ----------
    products : float
        Relative, of a product of matrices.
    pushes : float
        Relative to what was added, of a sum.
    losses : float
        Of a loss, relative to it or to 1.
    """

    products: float
    pushes: float
    losses: float


_EXACT = _Tolerance(1e-4, 1e-3, 1e-4)
_ROUNDED = _Tolerance(0.03, 0.05, 0.1)  # float16 and bfloat16


@dataclass
class _Done:
    """What a model has been checked for: blocks, and last hooked blocks of the optimiser."""

    blocks: set[int] = field(default_factory=set)
    lasts: set[int] = field(default_factory=set)


_DONE: WeakKeyDictionary[LanguageModel, _Done] = WeakKeyDictionary()


def check_model(lm: LanguageModel, layers: Iterable[int]) -> None:
    """Check the blocks `layers`, and the optimiser where the last of them is the last hooked one.

    What has been checked is not checked again.

    Parameters
    ----------
    lm : LanguageModel
    layers : iterable of int

    Raises
    ------
    ModelRefused
        As `LanguageModel.check` says.
    """
    layers = sorted(set(layers))
    if not layers or layers[0] < 0 or layers[-1] >= lm.n_layers:
        raise ValueError(f"layers {layers}: {lm.name} has blocks 0 to {lm.n_layers - 1} only")
    done = _DONE.setdefault(lm, _Done())
    new = [layer for layer in layers if layer not in done.blocks]
    last = 0 if len(layers) == lm.n_layers else layers[-1]  # block 0 leaves most to the optimiser
    with torch.no_grad(), attached(lm, {}):
        if new:
            _check_blocks(lm, new)
            done.blocks.update(new)
        if last not in done.lasts:
            _check_losses(lm, last)
            done.lasts.add(last)


def _refused(lm: LanguageModel, what: str) -> ModelRefused:
    return ModelRefused(f"{lm.name} ({type(lm.model).__name__}) cannot be edited as it is: {what}")


def _tolerance(lm: LanguageModel) -> _Tolerance:
    return _EXACT if torch.finfo(lm.dtype).bits >= 32 else _ROUNDED


def _made_up(lm: LanguageModel, count: int, seed: int) -> list[int]:
    """A sequence of token ids as the model gets them: what it begins with, and some of its own."""
    opening = lm.token_ids("")
    embeddings: Any = lm.model.get_input_embeddings()
    words = min(int(embeddings.num_embeddings), len(lm.tokenizer))
    special = set(lm.tokenizer.all_special_ids)
    plain = [token for token in range(words) if token not in special] or [*range(words)]
    draw = torch.Generator().manual_seed(seed)
    picked = torch.randint(len(plain), (max(1, count - len(opening)),), generator=draw)
    return [*opening, *(plain[place] for place in picked.tolist())][: lm.context_window]


class _Seen:
    """What the parts of some blocks gave in a pass, by layer."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.products: dict[int, Tensor] = {}
        self.states: dict[int, Tensor] = {}


@contextmanager
def _watched(lm: LanguageModel, layers: Sequence[int], seen: _Seen) -> Iterator[None]:
    def product(layer: int) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            product = output.clone() if isinstance(output, Tensor) else output  # some add to it
            seen.keys[layer], seen.products[layer] = args[0], product

        return keep

    def state(layer: int) -> Callable[..., None]:
        return lambda module, args, output: seen.states.update({layer: hidden(output)})

    with ExitStack() as stack:
        for layer in layers:
            down = lm.down_projection(layer).register_forward_hook(product(layer))
            block = lm.blocks[layer].register_forward_hook(state(layer))
            stack.callback(down.remove)
            stack.callback(block.remove)
        yield


def _run(lm: LanguageModel, batch: Batch, block: int) -> None:
    try:
        run_to(lm, batch, block)
    except _BROKEN as error:
        if isinstance(error, torch.OutOfMemoryError | ModelRefused):
            raise
        raise _refused(
            lm,
            f"{lm.architecture.blocks.rpartition('.')[0] or 'the model'}, which holds its blocks,"
            f" does not run them on input_ids and attention_mask ({error})",
        ) from None


def _check_blocks(lm: LanguageModel, layers: Sequence[int]) -> None:
    ids = _made_up(lm, _TOKENS, seed=0)
    other = [*ids[:-1], _made_up(lm, _TOKENS, seed=1)[-1]]
    batch, seen = Batch.of([ids, other], lm.device), _Seen()
    with _watched(lm, layers, seen):
        _run(lm, batch, layers[-1])
    for layer in layers:
        _check_product(lm, layer, seen, batch.ids.shape)
        _check_causal(lm, layer, seen)
    _check_push(lm, layers, batch, seen)


def _check_product(lm: LanguageModel, layer: int, seen: _Seen, shape: torch.Size) -> None:
    """(a) The keys times W0, and the bias, are what the down projection gives."""
    path, width = lm.architecture.down_projection, tuple(seen.states[layer].shape)
    if layer not in seen.keys or seen.keys[layer].shape[:-1] != shape:
        raise _refused(lm, f"{path} of block {layer} does not run once on each token")
    keys, given = seen.keys[layer].float(), seen.products[layer].float()
    if given.shape != width:
        raise _refused(
            lm,
            f"{path} of block {layer} gives {given.shape[-1]} values a token, but hidden states"
            f" have {width[-1]}: it is not the layer that ends the MLP",
        )
    weight, bias = _weight_and_bias(lm, layer)
    if (weight.shape[1], weight.shape[0]) != (keys.shape[-1], given.shape[-1]):
        raise _refused(
            lm,
            f"{path} of block {layer} has a weight of {tuple(weight.shape)}, but takes"
            f" {keys.shape[-1]} values a token and gives {given.shape[-1]}",
        )
    expected = F.linear(keys, weight.float(), None if bias is None else bias.float())
    apart = _apart(given, expected)
    if not apart <= _tolerance(lm).products:
        raise _refused(
            lm,
            f"{path} of block {layer} does not give its keys times its weight, but"
            f" {apart:.0%} else, so what it does is not in that weight: an adapter or a"
            " quantization stands in it",
        )


def _weight_and_bias(lm: LanguageModel, layer: int) -> tuple[Tensor, Tensor | None]:
    """(d_model, d_key) what the down projection multiplies with, adapters in force included."""
    module = lm.down_projection(layer)
    base = unwrapped(module)
    with align_module_device(base, lm.device_of(layer)):
        weight = lm.weight(layer).clone()
        bias = getattr(base, "bias", None)
        bias = bias.clone() if isinstance(bias, Tensor) else None
    added = getattr(module, "get_delta_weight", None)
    if callable(added) and not getattr(module, "merged", False):
        for adapter in getattr(module, "active_adapters", ()):
            if adapter in getattr(module, "lora_A", {}):
                delta = added(adapter)  # as the layer below stores its weight
                weight = weight + (delta.T if isinstance(base, Conv1D) else delta)
    return weight, bias


def _check_causal(lm: LanguageModel, layer: int, seen: _Seen) -> None:
    """No token changes what stands before it: the two texts differ in their last one only."""
    one, other = seen.states[layer][:, :-1]
    apart = _apart(other, one)
    if not apart <= _tolerance(lm).products:
        raise _refused(
            lm,
            f"at block {layer} a token changes those before it by {apart:.1%}: it is an encoder,"
            " which reads a text both ways",
        )


def _check_push(lm: LanguageModel, layers: Sequence[int], batch: Batch, seen: _Seen) -> None:
    """(b) What is added where ΔW k is added arrives unchanged in the block's output."""
    pushed: dict[int, Tensor] = {}
    pushes: dict[int, Tensor] = {}
    draw = torch.Generator().manual_seed(2)
    for layer in layers:
        state = seen.states[layer][0, -1].float()
        push = torch.randn(len(state), generator=draw).to(state.device)
        pushes[layer] = push * state.norm().clamp_min(1e-6) / push.norm()

    def add(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor) or output.shape != seen.states[layer].shape:
                raise _refused(
                    lm,
                    f"{lm.architecture.written} of block {layer} gives no hidden states: it is not"
                    " the module whose output joins them",
                )
            moved = output.clone()
            moved[0, -1] += (pushes[layer] / lm.multiplier).to(output.dtype)
            return moved

        return hook

    def keep(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            pushed[layer] = hidden(output)
            return with_hidden(output, seen.states[layer])  # the next block sees no push

        return hook

    with ExitStack() as stack:
        for layer in layers:
            written = lm.written(layer).register_forward_hook(add(layer))
            block = lm.blocks[layer].register_forward_hook(keep(layer))
            stack.callback(written.remove)
            stack.callback(block.remove)
        _run(lm, batch, layers[-1])
    for layer in layers:
        arrived = pushed[layer].float() - seen.states[layer].float()
        wanted = torch.zeros_like(arrived)
        wanted[0, -1] = pushes[layer]
        apart = _apart(arrived, wanted)
        if not apart <= _tolerance(lm).pushes:
            raise _refused(lm, _changed(lm, layer, arrived[0, -1], pushes[layer], apart))


def _changed(lm: LanguageModel, layer: int, arrived: Tensor, push: Tensor, apart: float) -> str:
    """What it means that a push did not arrive as it was."""
    factor = float(arrived @ push / push.square().sum())
    same = abs(factor) > 1e-3 and _apart(arrived, factor * push) <= _tolerance(lm).pushes
    found = f"what is added at {lm.architecture.written} of block {layer} arrives in its output"
    if same:
        return (
            f"{found} {factor * lm.multiplier:.3g} times: give the architecture the multiplier,"
            " the name of that number in the configuration, if it has one"
        )
    return (
        f"{found} changed by {apart:.0%}, so an edit there would not do what it is solved for."
        " Either it is not the layer that ends the MLP, or a norm follows it: then give the"
        " architecture that norm as written"
    )


def _check_losses(lm: LanguageModel, last: int) -> None:
    """(c) The optimiser's loss, before its first step, is the model's own."""
    columns = _columns(lm)
    config = EditConfig(layers=(last,), covariance_weight=1.0)
    delta = torch.zeros(len(columns), lm.d_model, device=lm.device)
    try:
        problem = Suffixes(lm, {}, columns, config)
        with problem.skipping_to_suffixes():
            active = list(range(len(columns)))
            found = problem.losses(delta, active)[0].cpu()
    except _BROKEN as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _refused(
            lm,
            f"the optimiser cannot run the blocks after {last} by themselves, on cached keys and"
            f" packed prompts ({type(error).__name__}: {error})",
        ) from None
    own = _own_losses(lm, columns)
    apart = (found - own).abs() / own.abs().clamp_min(1)
    if not float(apart.max()) <= _tolerance(lm).losses:
        raise _refused(
            lm,
            f"the optimiser's loss before its first step is {float(found[apart.argmax()]):.4f},"
            f" the model's own {float(own[apart.argmax()]):.4f}: its attention goes by places in a"
            " row (as ALiBi does) or by a state, which packed prompts do not keep",
        )


def _columns(lm: LanguageModel) -> list[FactTokens]:
    """Two facts of several prompts of different lengths, which share rows."""

    def prompt(length: int, seed: int) -> Prompt:
        ids = tuple(_made_up(lm, length, seed))
        at = max(0, len(ids) - 1 - seed % 3)
        return Prompt(ids, at, at)

    columns = []
    for fact in range(2):
        prompts = [prompt(length, 10 * fact + length) for length in (6 + fact, 11)]
        target = tuple(_made_up(lm, 9, seed=20 + fact)[-2:])
        columns.append(FactTokens(fact, ((prompts[0],), tuple(prompts[1:])), target, prompts[0]))
    return columns


def _own_losses(lm: LanguageModel, columns: Sequence[FactTokens]) -> Tensor:
    """Mean NLL (columns,) of each one's target after its prompts, which the model runs whole."""
    sequences = [(c, [*p.ids, *c.target[:-1]]) for c in columns for p in c.contexts]
    batch = Batch.of([ids for _, ids in sequences], lm.device)
    logits = lm.model(**batch.inputs, use_cache=False).logits.float().cpu()
    losses: dict[int, list[Tensor]] = {column.fact: [] for column in columns}
    for row, (column, ids) in zip(logits, sequences, strict=True):
        at_targets = row[len(ids) - len(column.target) : len(ids)]
        losses[column.fact].append(F.cross_entropy(at_targets, torch.tensor(column.target)))
    return torch.stack([torch.stack(of_column).mean() for of_column in losses.values()])


def _apart(found: Tensor, expected: Tensor) -> float:
    """How far two tensors are apart, relative to the second; infinite if not all are numbers."""
    apart = (found.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-30)
    return float(apart) if bool(apart.isfinite()) else float("inf")
