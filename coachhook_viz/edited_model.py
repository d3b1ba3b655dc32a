"""A model with some edits in force, to be asked: what a session stands for at one position.

EditedModel    hooked, predict, generate, chat, chat_text, scope, lens, why, as_model

    edited = session.edited_model(2)
    edited.predict("The capital of France is")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.inspect import Scope, read_scope
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import readable, tokenize
from coachhook_viz.measure.lens import lens
from coachhook_viz.measure.why import Why, why
from coachhook_viz.models import LanguageModel
from coachhook_viz.running import as_model


@dataclass(frozen=True, eq=False)
class EditedModel:
    """A model under one state; it stays what it is, whatever its session does next.

    `Session.edited_model` hands one out.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
        What is in force: of a session, of `EditState.judged`, or with no round at all.
    """

    lm: LanguageModel
    state: EditState

    def __repr__(self) -> str:
        count = len(self.state.facts)
        return f"<edited model {self.lm.name}: {count} fact{'s' * (count != 1)} in force>"

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within the context `lm.model` is this edited model, for any code of yours."""
        with attached(self.lm, self.state.hook_layers(self.lm.dtype), compiled=True):
            yield

    @torch.no_grad()
    def predict(self, prompt: str, top: int = 5) -> pd.DataFrame:
        """The likeliest next tokens.

        Parameters
        ----------
        prompt : str
        top : int
            How many.

        Returns
        -------
        DataFrame
            token : str, probability : float, likeliest first.

        Raises
        ------
        ValueError
            If the prompt has no token, or too many.
        """
        with self.hooked():
            logits = self.lm.model(**self._encode(prompt), use_cache=False, logits_to_keep=1).logits
        probability, ids = logits[0, -1].float().softmax(-1).topk(top)
        tokens = [readable(self.lm, [token])[0] for token in ids.tolist()]
        return pd.DataFrame({"token": tokens, "probability": probability.tolist()})

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 20,
        stream: Callable[[str], object] | None = None,
    ) -> str:
        """Greedy continuation of `prompt`, without the prompt.

        Parameters
        ----------
        prompt : str
        max_new_tokens : int
        stream : callable, optional
            Called with the whole text so far after each token; what it raises ends generation.

        Returns
        -------
        str
            Empty if the model stops at once: its first token says that the text ends here.
        """
        return self._go_on(prompt, max_new_tokens, stream)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        max_new_tokens: int = 60,
        stream: Callable[[str], object] | None = None,
    ) -> str:
        """The model's greedy answer in a conversation, written as its own chat template wants.

        Parameters
        ----------
        messages : sequence of mapping
            Each ``{"role": ..., "content": ...}``; the last one is the user's.
        max_new_tokens, stream
            As in `generate`.

        Returns
        -------
        str
            Up to where the model ends its turn. Empty if it ends it at once.

        Raises
        ------
        ValueError
            If the tokenizer has no chat template (`LanguageModel.has_chat`), there is no message,
            one is malformed, the last one is not the user's, the template does not take them, or
            they are too long for the model.
        """
        text = self.chat_text(messages)
        return self._go_on(text, max_new_tokens, stream, self._ends_of_turn())

    def chat_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that `chat` makes of a conversation, up to where the answer begins.

        `predict`, `scope` and the rest read it as `chat` does.

        Raises
        ------
        ValueError
            As in `chat`.
        """
        if not self.lm.has_chat:
            raise ValueError(f"{self.lm.name} has no chat template: use `generate` instead")
        turns = _checked(messages)
        if turns[-1]["role"] != "user":
            raise ValueError(f"the last message must be the user's, not the {turns[-1]['role']}'s")
        return self.lm.chat_text(turns)

    def _ends_of_turn(self) -> list[int]:
        """Tokens that end an answer: the model's end tokens, and what its template puts there."""
        tokenizer, ends = self.lm.tokenizer, self.lm.model.generation_config.eos_token_id
        found = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        said = "Something"
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
        with suppress(ValueError):  # a template that wants other messages
            after = self.lm.chat_text(turns, answering=False).rpartition(said)[2].lstrip()
            known = tokenizer.added_tokens_decoder.items()
            found |= {token for token, text in known if after.startswith(str(text))}
        return sorted(found)

    def _go_on(
        self,
        prompt: str,
        max_new_tokens: int,
        stream: Callable[[str], object] | None,
        ends: list[int] | None = None,
    ) -> str:
        inputs = self._encode(prompt)
        options: dict[str, Any] = {"eos_token_id": ends} if ends else {}
        with self.hooked():
            output = self.lm.generate(
                **inputs,
                **options,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # the model's own settings may have another
                streamer=None if stream is None else _Stream(self._decode, stream),
            )
        return self._decode(output[0, inputs["input_ids"].shape[1] :])

    def scope(self, prompt: str, subject: str | None = None) -> Scope:
        """Where the hook layers speak on `prompt`, and which edits reached each token.

        Parameters
        ----------
        prompt : str
        subject : str, optional
            Whose last token is to be marked. None: the longest subject of a fact in force that the
            prompt names.

        Raises
        ------
        ValueError
            If the prompt has no token, or too many.
        """
        return read_scope(self.lm, self.state, prompt, subject)

    def lens(
        self,
        prompt: str,
        answers: Sequence[str] | None = None,
        *,
        without: int | None = None,
        token: int | None = None,
    ) -> pd.DataFrame:
        """Probability and rank of answers at every block's output: see `measure.lens.lens`.

        Parameters
        ----------
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
            block : int; hooked : bool; answer : str; edited : bool; without : int or NA;
            probability : float; rank : int, 1 for the likeliest.

        Raises
        ------
        ValueError
            As in `measure.lens.lens`.
        """
        return lens(self.lm, self.state, prompt, answers, without=without, token=token)

    def why(self, prompt: str, target: str | None = None) -> Why:
        """Why a prompt gets an edit's target, or not: see `measure.why.why`.

        Parameters
        ----------
        prompt : str
        target : str, optional
            None: that of the fact in force that the prompt is about.

        Raises
        ------
        ValueError
            If the prompt has no token or too many, or the target has none after it.
        """
        return why(self.lm, self.state, prompt, target)

    def as_model(self) -> PreTrainedModel:
        """The edited model as one of transformers, for any library that takes such a model.

        It is of the base model's class, with its scope active: forward, generate, pipelines,
        batches, caches and gradients of inputs. It shares the base model's weights, and hook layers
        hang on them only while it runs, so that the base model stays as it is; parts of it that are
        called by hand, as `base_model`, are the base model's. What would change
        the weights is refused. `LanguageModel.lead` has to be put before each prompt. Under the
        z-score scope pads count as tokens unless an `attention_mask` says that they are none.
        """
        return as_model(self.lm, self.state)

    def _decode(self, ids: Tensor) -> str:
        return str(self.lm.tokenizer.decode(ids, skip_special_tokens=True))

    def _encode(self, prompt: str) -> dict[str, Tensor]:
        ids = tokenize(self.lm, prompt)
        ids_tensor = torch.tensor([ids], device=self.lm.device)
        return {"input_ids": ids_tensor, "attention_mask": torch.ones_like(ids_tensor)}


def _checked(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The messages as templates take them, or a ValueError that says which one is malformed."""
    if isinstance(messages, str | Mapping):
        raise ValueError("give a list of messages, [{'role': 'user', 'content': '…'}]")
    if not messages:
        raise ValueError("there is no message: give at least one, the user's")
    turns = []
    for number, message in enumerate(messages, start=1):
        fields = dict(message) if isinstance(message, Mapping) else {}
        if fields.keys() != {"role", "content"} or not all(
            isinstance(text, str) for text in fields.values()
        ):
            raise ValueError(
                f"message {number} must be {{'role': '…', 'content': '…'}}, both of them text"
            )
        if not fields["content"].strip() and fields["role"] != "assistant":  # it may say nothing
            raise ValueError(f"message {number} is empty")
        turns.append(fields)
    return turns


class _Stream(BaseStreamer):
    """Hands on the text so far, token by token; the prompt comes first and is left out."""

    def __init__(self, decode: Callable[[Tensor], str], tell: Callable[[str], object]) -> None:
        self._decode = decode
        self._tell = tell
        self._ids: Tensor | None = None

    def put(self, value: Tensor) -> None:
        if self._ids is None:
            self._ids = value.new_empty(0)
        else:
            self._ids = torch.cat([self._ids, value.reshape(-1)])
            self._tell(self._decode(self._ids))

    def end(self) -> None:
        """Nothing is held back."""
