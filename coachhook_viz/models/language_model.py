"""A causal language model with its tokenizer, its lead, and names for its parts.

LanguageModel    the model as the rest of the package sees it
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coachhook_viz.errors import ModelRefused
from coachhook_viz.models.architectures import ARCHITECTURES, Architecture, architecture_of
from coachhook_viz.models.kinds import NO_NUMBERS, kind_refused, offloaded, unwrapped

_FINGERPRINT_SAMPLES = 64  # values read of each parameter
_VOLATILE = (
    "_name_or_path", "transformers_version", "dtype", "architectures", "quantization_config",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A frozen causal LM and where its parts are.

    Parameters
    ----------
    model : PreTrainedModel
        Put in eval mode, gradients off; never modified after that.
    tokenizer : PreTrainedTokenizerFast
        Gets its end token as pad token if it has none.
    name : str
    lead : str
        Text put before every prompt; for models whose tokenizer adds no leading token.
    architecture : Architecture, optional
        None: looked up by the model's family. One that the package does not have is checked at
        once, see `check`.

    Raises
    ------
    ModelRefused
        If the model is of a kind that cannot be edited, its family is unknown, or the architecture
        does not fit; a ValueError.
    ValueError
        If the tokenizer is a slow one.
    """

    model: PreTrainedModel
    tokenizer: Any
    name: str
    lead: str = ""
    architecture: Architecture = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_kind(self.model)
        if not isinstance(self.lead, str):
            raise ValueError(f"lead is {self.lead!r}: it must be text")
        if not isinstance(self.architecture, Architecture | None):
            raise ValueError(
                f"architecture is {self.architecture!r}: give an Architecture, or none"
            )
        if self.architecture is None:
            object.__setattr__(self, "architecture", architecture_of(self.model))
        self.architecture.check(self.model)
        if isinstance(self.tokenizer, str | Path | int | None):
            raise ValueError(
                f"tokenizer is {self.tokenizer!r}: give the tokenizer itself, as"
                " AutoTokenizer.from_pretrained loads it"
            )
        if not getattr(self.tokenizer, "is_fast", False):
            raise ValueError(
                f"{self.name} has a slow tokenizer, which does not say where in the text its tokens"
                " stand: load it with a fast one (a tokenizer.json)"
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.model.eval().requires_grad_(False)
        if self.architecture not in ARCHITECTURES:
            self.check()

    def check(self, layers: Sequence[int] | None = None) -> None:
        """See by numbers whether the architecture is right, and refuse it if it is not.

        In the unedited model, on token ids made up for it: keys times W0 (and bias) are what the
        down projection gives; what is added where edits are written arrives unchanged in the
        block's output; no token changes what stands before it; and the loss that targets are
        optimised by is, before the first step, the model's own. A session checks the layers that
        it hooks; a model of an architecture of your own is checked whole when it is made.

        Parameters
        ----------
        layers : sequence of int, optional
            None: all blocks.

        Raises
        ------
        ModelRefused
            Naming the check that failed, at which block, by how much, and what it means.
        """
        # found by name: it needs the optimiser, which stands on the floor above
        checks = import_module("coachhook_viz.editing.checks")
        checks.check_model(self, range(self.n_layers) if layers is None else layers)

    def __repr__(self) -> str:
        place = self._place_of(0)
        return f"<language model {self.name}: {len(self.blocks)} blocks, {self.dtype}, {place}>"

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        blocks = self.model.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def decoder(self) -> nn.Module:
        """The module that runs the blocks: token ids in, final hidden states out, no head."""
        return self.model.get_submodule(self.architecture.blocks.rpartition(".")[0])

    def down_projection(self, layer: int) -> nn.Module:
        """The linear layer that ends the MLP of block `layer`."""
        return self.blocks[layer].get_submodule(self.architecture.down_projection)

    def written(self, layer: int) -> nn.Module:
        """The module of block `layer` whose output joins the hidden states: ΔW k is added there."""
        return self.blocks[layer].get_submodule(self.architecture.written)

    @property
    def multiplier(self) -> float:
        """What the output of `written` is multiplied by before it joins the hidden states."""
        name = self.architecture.multiplier
        return float(getattr(self.model.config.get_text_config(), name)) if name else 1.0

    def weight(self, layer: int) -> Tensor:
        """W0 (d_model, d_key) of block `layer`: a view, whichever way the family stores it.

        Of a layer with an adapter that of the layer below; on the meta device where the weights are
        brought in from elsewhere when they are needed.
        """
        module = unwrapped(self.down_projection(layer))
        weight: Tensor = module.weight  # type: ignore[assignment]
        return weight.T if isinstance(module, Conv1D) else weight

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the hidden states."""
        return self.weight(0).shape[0]

    @property
    def d_key(self) -> int:
        """Width of the keys, the down projection's input."""
        return self.weight(0).shape[1]

    @property
    def device(self) -> torch.device:
        """Where the model is; of one that is spread over several, where its blocks begin."""
        return self.device_of(0)

    def device_of(self, layer: int) -> torch.device:
        """Where block `layer` computes, wherever its weights wait until then."""
        device = self._place_of(layer)
        if device.type == "meta":  # moved there since it was looked at
            raise ModelRefused(f"{self.name} {NO_NUMBERS}")
        return device

    def _place_of(self, layer: int) -> torch.device:
        hook = offloaded(unwrapped(self.down_projection(layer)))
        return torch.device(hook.execution_device) if hook else self.weight(layer).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.weight(0).dtype

    @property
    def context_window(self) -> int:
        """Most tokens that the model reads with each token seeing all before it."""
        limits = [
            getattr(self.model.config.get_text_config(), name, None)
            for name in ("max_position_embeddings", "sliding_window")
        ]
        return min((int(limit) for limit in limits if limit and limit > 0), default=sys.maxsize)

    @property
    def has_chat(self) -> bool:
        """Whether the tokenizer has a chat template, which `Session.chat` needs."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def chat_text(self, turns: list[dict[str, str]], answering: bool = True) -> str:
        """A conversation as the chat template writes it.

        Parameters
        ----------
        turns : list of dict
            Each ``{"role": ..., "content": ...}``.
        answering : bool
            Whether it goes on to where the model's answer begins.

        Raises
        ------
        ValueError
            If the template does not take them.
        """
        try:
            text = str(
                self.tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=answering
                )
            )
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {self.name} does not take these messages: {error}"
            ) from None
        first = self.tokenizer.bos_token
        if first and self.tokenizer.bos_token_id in self.tokenizer("")["input_ids"]:
            text = text.removeprefix(first)  # the tokenizer puts it there by itself
        return text

    @property
    def fingerprint(self) -> str:
        """Hash of configuration, vocabulary and a sample of every parameter, as they are now.

        How a checkpoint was stored (``quantization_config``) is no part of it.
        """
        digest = self._description.copy()
        for name, parameter in self._parameters():
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(self._sample(name, parameter).numpy().tobytes())
        return str(digest.hexdigest())

    def _sample(self, name: str, parameter: Tensor) -> Tensor:
        flat = self._values(name, parameter).detach().flatten()
        return flat[:: max(1, flat.numel() // _FINGERPRINT_SAMPLES)].float().cpu()

    def samples(self) -> dict[str, Tensor]:
        """Some values of each parameter, as they are now: to know them again when rounded."""
        return {name: self._sample(name, one).clone() for name, one in self._parameters()}

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        twice: Any = getattr(self.model, "all_tied_weights_keys", None) or {}
        for name, parameter in self.model.named_parameters():
            if name in twice and parameter.device.type == "meta":
                continue  # tied weights that wait elsewhere are no longer seen to be one
            yield name, parameter

    @cached_property
    def _description(self) -> Any:
        digest = hashlib.sha256()
        config = self.model.config.to_diff_dict()
        for volatile in _VOLATILE:
            config.pop(volatile, None)
        digest.update(repr(sorted(config.items(), key=lambda item: item[0])).encode())
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest

    def _values(self, name: str, parameter: Tensor) -> Tensor:
        """A parameter's values, wherever accelerate has put them."""
        path, _, own = name.rpartition(".")
        hook = offloaded(self.model.get_submodule(path))
        if parameter.device.type != "meta":
            return parameter
        if hook is None:
            raise ModelRefused(f"{self.name} {NO_NUMBERS}")
        values: Tensor = hook.weights_map[own]
        return values

    def token_ids(self, text: str) -> list[int]:
        """Token ids of `text` after the lead, to be continued: special tokens before it only.

        An end token that the tokenizer adds would tell the model that nothing follows.
        """
        ids: list[int] = self.tokenizer(self.lead + text)["input_ids"]
        return ids[: len(ids) - self._end_tokens]

    @cached_property
    def _end_tokens(self) -> int:
        """How many special tokens the tokenizer adds after any text."""
        added = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        return next(count for count, special in enumerate(reversed(added)) if not special)

    def encode(
        self, prompts: Sequence[str], padding_side: Literal["left", "right"] = "right"
    ) -> dict[str, Tensor]:
        """Token ids of `prompts`, each after the lead and without an end token.

        Parameters
        ----------
        prompts : sequence of str
        padding_side : {"right", "left"}
            "left" for generating from several prompts at once, which goes on after the last token.

        Returns
        -------
        dict
            input_ids and attention_mask, (prompts, tokens) each, on the model's device.
        """
        ids = [torch.tensor(self.token_ids(prompt), dtype=torch.long) for prompt in prompts]
        masks = [torch.ones_like(row) for row in ids]
        padded = {
            name: nn.utils.rnn.pad_sequence(rows, True, pad, padding_side)
            for name, rows, pad in (
                ("input_ids", ids, self.tokenizer.pad_token_id or 0),
                ("attention_mask", masks, 0),
            )
        }
        return {name: rows.to(self.device) for name, rows in padded.items()}

    def generate(self, **options: Any) -> Tensor:
        """Token ids (B, T) that the model generates, with transformers' own `options`."""
        generate: Any = self.model.generate  # a mixin's method, whose type torch hides
        ids: Tensor = generate(pad_token_id=self.tokenizer.pad_token_id, **options)
        return ids


def _check_kind(model: Any) -> None:
    """Refuse what is no plain causal LM, and say what to do instead."""
    name = type(model).__name__
    if callable(getattr(model, "get_base_model", None)) and hasattr(model, "peft_config"):
        configs = dict(model.peft_config).values()
        if any(getattr(config, "is_prompt_learning", False) for config in configs):
            raise ModelRefused(
                f"{name} has learned what to put before each prompt, which an edit cannot go along"
                " with: give model.get_base_model(), which is the model without that"
            )
        raise ModelRefused(
            f"{name} is a model in an adapter: give model.merge_and_unload(), which is the model"
            " with the adapter in its weights; or model.get_base_model(), which has the adapter's"
            " layers in it, if it is one that only changes layers (LoRA)"
        )
    if not isinstance(model, PreTrainedModel):
        raise ModelRefused(
            f"the model is {name}, not a causal language model of transformers; of a compiled one"
            " give the model that you compiled"
        )
    refused = kind_refused(model)
    if refused:
        raise ModelRefused(f"{name} {refused}")
    if model.get_output_embeddings() is None:
        raise ModelRefused(
            f"{name} has no head that says the next token: give the whole model, as"
            " AutoModelForCausalLM loads it"
        )
