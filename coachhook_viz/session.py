"""An edit session: a list of rounds, and how many of them are in force.

session = Session(lm, EditConfig.for_model(lm))
session.apply(facts)
session.predict("The capital of France is")
session.undo()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.editor import edit_round
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.inspect import Scope, read_scope
from coachhook_viz.editing.moments import cached_moments, check_moments
from coachhook_viz.editing.progress import Bar, CancelCallback, ProgressCallback, Watch
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.editing.tokens import sample_contexts, tokenize
from coachhook_viz.editing.update import PreservedKeys
from coachhook_viz.facts import Fact
from coachhook_viz.measure.quality import quality
from coachhook_viz.models import LanguageModel


class Session:
    """Rounds of edits on a model that itself is never modified.

    Parameters
    ----------
    lm : LanguageModel
    config : EditConfig, optional
        None: `EditConfig.for_model`.
    moments : mapping of int to Tensor, optional
        Layer to C0 (d_key, d_key). None: from the user's cache, or collected over the shipped
        corpus the first time.
    progress, cancel : callables, optional
        As in `apply`, for what the session has to collect first; None draws a bar.

    Raises
    ------
    ValueError
        If the configuration or the moments do not fit the model.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: EditConfig | None = None,
        moments: Mapping[int, Tensor] | None = None,
        *,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> None:
        config = EditConfig.for_model(lm) if config is None else config
        config.check(lm)
        with Bar() as bar:
            watch = Watch(progress or bar, cancel)
            if config.context_templates is None:
                config = replace(config, context_templates=sample_contexts(lm, watch))
            if moments is None:
                moments = cached_moments(lm, config.layers, watch)
        check_moments(moments, lm, config.layers)
        self.lm = lm
        self.config = config
        self._preserved = PreservedKeys(
            {layer: moments[layer].to(lm.device) for layer in config.layers},
            config.covariance_weight,
        )
        self._rounds: tuple[Round, ...] = ()
        self._state = EditState.of(lm, config)

    @property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds, those in force first."""
        return self._rounds

    @property
    def position(self) -> int:
        """How many rounds are in force."""
        return len(self._state.rounds)

    @property
    def state(self) -> EditState:
        """What is in force."""
        return self._state

    def apply(
        self,
        facts: Sequence[Fact],
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> Round:
        """Edit a batch of facts as one round on top of those in force.

        Rounds that had been undone are dropped. It happens whole or not at all: after an error,
        a cancel or an interrupt the session is as it was.

        Parameters
        ----------
        facts : sequence of Fact
        progress : callable, optional
            Called with a `Progress` before each step.
        cancel : callable, optional
            Asked before each step; True stops the round.

        Returns
        -------
        Round

        Raises
        ------
        FactError
            If a fact cannot be edited; it names fact and field.
        EditCancelled
            If `cancel` answered True.
        """
        state, watch = self._state, Watch(progress, cancel)
        preserved = self._preserved.after(state.rounds)
        round_ = edit_round(self.lm, state, facts, preserved, watch)
        following = state.then(round_)
        self._rounds, self._state = following.rounds, following
        return round_

    def go_to(self, position: int) -> None:
        """Put the first `position` rounds in force, bit for bit as when they were applied.

        Raises
        ------
        ValueError
            If there are not that many rounds.
        """
        if not 0 <= position <= len(self._rounds):
            raise ValueError(f"go_to({position}): the session has {len(self._rounds)} rounds")
        if position == self.position + 1:
            self._state = self._state.then(self._rounds[self.position])
        elif position != self.position:
            self._state = EditState.of(self.lm, self.config, self._rounds[:position])

    def undo(self) -> None:
        """Take the last round in force back.

        Raises
        ------
        ValueError
            If none is in force.
        """
        if not self.position:
            raise ValueError("nothing to undo: no round is in force")
        self.go_to(self.position - 1)

    def redo(self) -> None:
        """Put the next round in force again.

        Raises
        ------
        ValueError
            If all are in force.
        """
        if self.position == len(self._rounds):
            raise ValueError("nothing to redo: all rounds are in force")
        self.go_to(self.position + 1)

    def delta_weight(self, layer: int) -> Tensor:
        """ΔW (d_model, d_key) in force at a hooked layer, float64.

        Raises
        ------
        ValueError
            If the layer is not hooked.
        """
        if layer not in self._state.layers:
            raise ValueError(f"layer {layer} is not hooked; hooked are {self.config.layers}")
        return self._state.layers[layer].delta_weight.clone()

    @contextmanager
    def hooked(self, edited: bool = True) -> Iterator[None]:
        """Within the context `lm.model` is the edited model, for any code of yours."""
        hook_layers = self._state.hook_layers(self.lm.dtype) if edited else {}
        with attached(self.lm, hook_layers):
            yield

    @torch.no_grad()
    def predict(self, prompt: str, top: int = 5, edited: bool = True) -> pd.DataFrame:
        """The likeliest next tokens.

        Returns
        -------
        DataFrame
            token : str, probability : float, likeliest first.
        """
        with self.hooked(edited):
            logits = self.lm.model(**self._encode(prompt), use_cache=False, logits_to_keep=1).logits
        probability, ids = logits[0, -1].float().softmax(-1).topk(top)
        tokens = [self.lm.tokenizer.decode([token]) for token in ids.tolist()]
        return pd.DataFrame({"token": tokens, "probability": probability.tolist()})

    @torch.no_grad()
    def generate(self, prompt: str, max_new_tokens: int = 20, edited: bool = True) -> str:
        """Greedy continuation of `prompt`, without the prompt."""
        inputs = self._encode(prompt)
        with self.hooked(edited):
            output = self.lm.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # the model's own settings may have another
            )
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(self.lm.tokenizer.decode(new, skip_special_tokens=True))

    def scope(self, prompt: str) -> Scope:
        """Where the hook layers speak on `prompt`, and which edits reached each token."""
        return read_scope(self.lm, self._state, prompt)

    def evaluate(
        self,
        rounds: int | None = None,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> pd.DataFrame:
        """Re-score the facts of the first `rounds` rounds with just those in force.

        Parameters
        ----------
        rounds : int, optional
            None: the rounds in force.
        progress, cancel : callables, optional
            As in `apply`.

        Returns
        -------
        DataFrame
            fact : int
                The fact's number in the session, counted over its rounds from 0.
            round : int
                `rounds`: after how many rounds this was measured.
            metric : str
                "reliability", "generality" or "locality", see `measure.quality`.
            value : float

        Raises
        ------
        ValueError
            If there are not that many rounds.
        """
        rounds = self.position if rounds is None else rounds
        if not 0 <= rounds <= len(self._rounds):
            raise ValueError(f"evaluate({rounds}): the session has {len(self._rounds)} rounds")
        state = self._state
        if rounds != self.position:
            state = EditState.of(self.lm, self.config, self._rounds[:rounds])
        frame = quality(self.lm, state, state.facts, Watch(progress, cancel))
        frame.insert(1, "round", rounds)
        return frame

    def _encode(self, prompt: str) -> dict[str, Tensor]:
        ids = tokenize(self.lm, prompt)
        ids_tensor = torch.tensor([ids], device=self.lm.device)
        return {"input_ids": ids_tensor, "attention_mask": torch.ones_like(ids_tensor)}
