"""What a session says when it is asked something; `Session` inherits it.

Asking    hooked, predict, generate, scope
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.inspect import Scope, read_scope
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import tokenize
from coachhook_viz.models import LanguageModel


class Asking(ABC):
    """Prompts put to the model with the rounds in force, with none, or in any other state."""

    lm: LanguageModel

    @property
    @abstractmethod
    def state(self) -> EditState:
        """What is in force."""

    @contextmanager
    def hooked(self, edited: bool = True, state: EditState | None = None) -> Iterator[None]:
        """Within the context `lm.model` is the edited model, for any code of yours.

        Parameters
        ----------
        edited : bool
            False: the unedited model, whatever is in force.
        state : EditState, optional
            Of `state_at` or `EditState.judged`; None: what is in force.
        """
        state = self.state if state is None else state
        with attached(self.lm, state.hook_layers(self.lm.dtype) if edited else {}):
            yield

    @torch.no_grad()
    def predict(
        self, prompt: str, top: int = 5, edited: bool = True, state: EditState | None = None
    ) -> pd.DataFrame:
        """The likeliest next tokens; `edited` and `state` as in `hooked`.

        Returns
        -------
        DataFrame
            token : str, probability : float, likeliest first.
        """
        with self.hooked(edited, state):
            logits = self.lm.model(**self._encode(prompt), use_cache=False, logits_to_keep=1).logits
        probability, ids = logits[0, -1].float().softmax(-1).topk(top)
        tokens = [self.lm.tokenizer.decode([token]) for token in ids.tolist()]
        return pd.DataFrame({"token": tokens, "probability": probability.tolist()})

    @torch.no_grad()
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 20,
        edited: bool = True,
        state: EditState | None = None,
        stream: Callable[[str], object] | None = None,
    ) -> str:
        """Greedy continuation of `prompt`, without the prompt.

        Parameters
        ----------
        prompt : str
        max_new_tokens : int
        edited, state
            As in `hooked`.
        stream : callable, optional
            Called with the whole text so far after each token; what it raises ends generation.
        """
        inputs = self._encode(prompt)
        with self.hooked(edited, state):
            output = self.lm.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # the model's own settings may have another
                streamer=None if stream is None else _Stream(self._decode, stream),
            )
        return self._decode(output[0, inputs["input_ids"].shape[1] :])

    def scope(
        self, prompt: str, subject: str | None = None, state: EditState | None = None
    ) -> Scope:
        """Where the hook layers speak on `prompt`, and which edits reached each token.

        Parameters
        ----------
        prompt : str
        subject : str, optional
            Whose last token is to be marked. None: the longest subject of a fact in force that the
            prompt names.
        state : EditState, optional
            As in `hooked`.

        Raises
        ------
        ValueError
            If the prompt has no token, or too many.
        """
        return read_scope(self.lm, self.state if state is None else state, prompt, subject)

    def _decode(self, ids: Tensor) -> str:
        return str(self.lm.tokenizer.decode(ids, skip_special_tokens=True))

    def _encode(self, prompt: str) -> dict[str, Tensor]:
        ids = tokenize(self.lm, prompt)
        ids_tensor = torch.tensor([ids], device=self.lm.device)
        return {"input_ids": ids_tensor, "attention_mask": torch.ones_like(ids_tensor)}


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
