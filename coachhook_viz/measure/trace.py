"""Two looks into the unedited model, block by block: where its keys are dead, where a fact lives.

key_shares      how much of a layer's key energy one token carries
causal_trace    what a subject's hidden state at one block brings back of a fact that noise hid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from coachhook_viz.editing.forward import Batch, hidden, run_to, with_hidden
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.moments import corpus
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.tokens import continuation, subject_tokens
from coachhook_viz.facts import Fact
from coachhook_viz.models import LanguageModel

MASSIVE = 0.5  # share of a layer's key energy: one token has more than all others together
_TEXTS = 16
_TEXT_TOKENS = 64
_TEXTS_AT_ONCE = 4  # the keys of all layers are held for so many
_NOISES = 3  # a fact
_NOISE = 3.0  # in standard deviations of the subjects' embeddings, as published
_PASS_TOKENS = 2048


@torch.no_grad()
def key_shares(lm: LanguageModel, watch: Watch) -> list[float]:
    """By layer, the share of ``Σ ‖k‖²`` over a text's tokens that its greatest one carries.

    The median over texts of the shipped corpus, cut to 64 tokens: an even layer has 0.016. Where
    it is above 0.5 (`MASSIVE`) C0 is that of one token, so a layer there has next to nothing to
    preserve the others by, and is better not hooked (massive activations: Sun et al. 2024).

    Parameters
    ----------
    lm : LanguageModel
    watch : Watch
        Called before each batch, stage "keys".

    Returns
    -------
    list of float
    """
    size = min(_TEXT_TOKENS, lm.context_window)
    ids = [lm.token_ids(text)[:size] for text in corpus()[:_TEXTS]]
    shares: list[Tensor] = []
    for start in range(0, len(ids), _TEXTS_AT_ONCE):
        watch("keys", start, len(ids))
        batch = Batch.of(ids[start : start + _TEXTS_AT_ONCE], lm.device)
        with attached(lm, {}):
            _, keys = run_to(lm, batch, lm.n_layers - 1, range(lm.n_layers))
        energy = torch.stack([keys[at].float().square().sum(-1) for at in range(lm.n_layers)])
        energy = energy * batch.mask
        shares.append(energy.amax(-1) / energy.sum(-1))  # (layers, texts)
    return [float(share) for share in torch.cat(shares, dim=1).median(1).values]


@torch.no_grad()
def causal_trace(lm: LanguageModel, facts: Sequence[Fact], watch: Watch) -> pd.DataFrame:
    """Noise on the subject's embeddings, then one block's clean state at its last token put back.

    The causal trace of ROME (Meng et al. 2022, section 2.1), with three draws of noise a fact, of
    three standard deviations of the subjects' embeddings; the same draws for every block.

    Parameters
    ----------
    lm : LanguageModel
    facts : sequence of Fact
        Each with a truth that stands apart from the prompt as tokens, as `known_facts` has them.
    watch : Watch
        Called before each fact, stage "trace".

    Returns
    -------
    DataFrame
        fact : int
            Index into `facts`.
        block : int
        clean, corrupted, restored : float
            Probability of the truth's first token after the prompt: as it is; with noise; with
            noise, and the block's output at the subject's last token as it is without.
    """
    asked = [_Asked(lm, fact) for fact in facts]
    embed = lm.model.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    rows = []
    with attached(lm, {}):
        subjects = [embed(torch.tensor([one.subject_ids], device=lm.device))[0] for one in asked]
        scale = _NOISE * float(torch.cat(subjects).float().std())
        for index, (one, subject) in enumerate(zip(asked, subjects, strict=True)):
            watch("trace", index, len(asked))
            noise = scale * torch.randn(_NOISES, *subject.shape, generator=generator)
            clean, states = one.clean()
            corrupted, *restored = one.restored(states, noise.to(subject))
            rows += [(index, at, clean, corrupted, p) for at, p in enumerate(restored)]
    return pd.DataFrame(rows, columns=["fact", "block", "clean", "corrupted", "restored"])


class _Asked:
    """A fact's prompt, and passes over it."""

    def __init__(self, lm: LanguageModel, fact: Fact) -> None:
        self._lm = lm
        ids, truth = continuation(lm, fact.text, str(fact.truth))
        start = fact.prompt.index("{}")
        self._ids, self._truth = ids, truth[0]
        self._places = subject_tokens(lm, fact.text, start, start + len(fact.subject))

    @property
    def subject_ids(self) -> list[int]:
        return [self._ids[place] for place in self._places]

    def clean(self) -> tuple[float, list[Tensor]]:
        """Probability of the truth, and each block's output (d_model,) at the subject's end."""
        found: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            found.append(hidden(output)[0, self._places[-1]])

        return self._run(1, dict.fromkeys(self._lm.blocks, keep))[0], found

    def restored(self, states: Sequence[Tensor], noise: Tensor) -> list[float]:
        """Mean probability of the truth with noise: alone, then with each block's state back."""
        draws = len(noise)
        embed = self._lm.model.get_input_embeddings()
        groups = [-1, *range(len(states))]  # all that each block restores runs in one pass
        size = max(1, _PASS_TOKENS // (draws * len(self._ids)))
        means: list[float] = []
        for start in range(0, len(groups), size):
            chosen = groups[start : start + size]

            def hide(module: nn.Module, args: Any, output: Tensor) -> Tensor:
                noisy = output.clone()
                noisy[:, self._places] += noise.repeat(len(output) // draws, 1, 1)
                return noisy

            hooks: dict[Any, Callable[..., Any]] = {embed: hide}
            for place, block in enumerate(chosen):
                if block >= 0:
                    rows = slice(place * draws, (place + 1) * draws)
                    hooks[self._lm.blocks[block]] = self._putting_back(rows, states[block])
            said = self._run(draws * len(chosen), hooks)
            means += torch.tensor(said).view(-1, draws).mean(1).tolist()
        return means

    def _putting_back(self, rows: slice, state: Tensor) -> Callable[..., Any]:
        def put_back(module: nn.Module, args: Any, output: Any) -> Any:
            states = hidden(output).clone()
            states[rows, self._places[-1]] = state
            return with_hidden(output, states)

        return put_back

    def _run(self, rows: int, hooks: dict[Any, Callable[..., Any]]) -> list[float]:
        """Probability of the truth in each of `rows` equal prompts."""
        batch = Batch.of([self._ids] * rows, self._lm.device)
        with ExitStack() as stack:
            for module, hook in hooks.items():
                stack.callback(module.register_forward_hook(hook).remove)
            logits = self._lm.model(**batch.inputs, use_cache=False, logits_to_keep=1).logits
        said: list[float] = logits[:, -1].float().softmax(-1)[:, self._truth].tolist()
        return said
