"""What rounds of edits do to the whole: weights, thresholds, hidden states, neutral text.

weights          size and rank of ΔW by layer
thresholds       α by round and layer, and the fact that lowered it
Probes           how far hidden states on neutral text move, and its perplexity
neutral_texts    the text shipped for that
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.forward import Batch, hidden
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.scope import CALIBRATION_MARGIN
from coachhook_viz.editing.state import EditState, LayerState, Round
from coachhook_viz.editing.tokens import length_batches, tokenize
from coachhook_viz.models import LanguageModel

_SINGULAR_VALUES = 3


def neutral_texts() -> list[str]:
    """Sentences about everyday matters, which no edit should touch."""
    text = resources.files("coachhook_viz.data").joinpath("neutral.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line.strip()]


def weights(lm: LanguageModel, state: EditState) -> pd.DataFrame:
    """Size and rank of ΔW.

    Returns
    -------
    DataFrame
        layer : int
        metric : str
            "norm" ‖ΔW‖_F; "relative_norm" ‖ΔW‖_F / ‖W0‖_F; "singular_1" to "singular_3", the
            largest singular values; "effective_rank", exp of the entropy of all of them as shares.
        value : float
    """
    rows = []
    for layer, at in state.layers.items():
        values = singular_values(at)
        norm = float(values.norm())
        share = values / values.sum() if norm else values
        rank = float(torch.special.entr(share).sum().exp()) if norm else 0.0
        rows += [
            (layer, "norm", norm),
            (layer, "relative_norm", norm / float(lm.weight(layer).double().norm())),
            *(
                (layer, f"singular_{i + 1}", float(value))
                for i, value in enumerate(values[:_SINGULAR_VALUES])
            ),
            (layer, "effective_rank", rank),
        ]
    return pd.DataFrame(rows, columns=["layer", "metric", "value"])


def singular_values(at: LayerState) -> Tensor:
    """Singular values of ΔW = R Aᵀ, largest first, from the triangular parts of R and A."""
    if not at.factors:
        return torch.zeros(1, dtype=torch.float64)
    residuals = torch.cat([f.residuals for f in at.factors], dim=1)  # (d_model, facts)
    directions = torch.cat([f.directions for f in at.factors], dim=1)  # (d_key, facts)
    if residuals.shape[1] == 0:
        return torch.zeros(1, dtype=torch.float64)
    if residuals.shape[1] < residuals.shape[0]:
        residuals, directions = (torch.linalg.qr(part)[1] for part in (residuals, directions))
    values: Tensor = torch.linalg.svdvals(residuals @ directions.T)
    return values.cpu()


def thresholds(config: EditConfig, rounds: Sequence[Round]) -> pd.DataFrame:
    """Scope thresholds before the first of `rounds` and after each.

    Returns
    -------
    DataFrame
        round, layer : int
        metric : str
            "alpha".
        value : float
        fact : int or NA
            The fact whose edit prompt lowered α in this round; NA where it stayed, or that fact is
            muted.
    """
    before: Mapping[int, float] = dict.fromkeys(config.layers, config.alpha)
    rows: list[tuple[int, int, str, float, int | None]] = [
        (0, layer, "alpha", alpha, None) for layer, alpha in before.items()
    ]
    for count, round_ in enumerate(rounds, 1):
        for layer, alpha in round_.alphas.items():
            lowered = None
            if alpha < before[layer] and round_.fact_ids:
                place = int(round_.peaks[layer].argmin())
                margin = float(round_.peaks[layer][place]) - alpha
                if margin <= CALIBRATION_MARGIN + 1e-9:  # else the one that did is muted
                    lowered = round_.fact_ids[place]
            rows.append((count, layer, "alpha", alpha, lowered))
        before = round_.alphas
    frame = pd.DataFrame(rows, columns=["round", "layer", "metric", "value", "fact"])
    return frame.astype({"fact": "Int64"})


class Probes:
    """Neutral texts and what the unedited model makes of them.

    Parameters
    ----------
    lm : LanguageModel
    bare : EditState
        With no round.
    texts : sequence of str
        Two tokens or more each.
    """

    def __init__(self, lm: LanguageModel, bare: EditState, texts: Sequence[str]) -> None:
        self._lm = lm
        self._ids = [tokenize(lm, text) for text in texts]
        self._blocks = tuple(dict.fromkeys((max(bare.layers), lm.n_layers - 1)))
        self._reference, self._nll = self._run(bare, None)

    def measure(self, state: EditState, watch: Watch | None = None) -> pd.DataFrame:
        """How far `state` moves the model on the texts.

        Returns
        -------
        DataFrame
            layer : int or NA
                The block whose output is compared: the last hooked one, and the last of all.
            metric : str
                "shift" ‖h − h0‖ / ‖h0‖ and "cosine" of h and h0, means over a text's tokens; and
                "perplexity" over all texts.
            value : float
            probe : int or NA
                Index of the text.
        """
        states, nll = (self._reference, self._nll)
        if state.facts:
            states, nll = self._run(state, watch)
        rows: list[tuple[int | None, str, float, int | None]] = []
        for block in self._blocks:
            for probe, (now, before) in enumerate(
                zip(states[block], self._reference[block], strict=True)
            ):
                shift = ((now - before).norm(dim=1) / before.norm(dim=1)).mean()
                cosine = torch.cosine_similarity(now, before, dim=1).mean()
                rows.append((block, "shift", float(shift), probe))
                rows.append((block, "cosine", float(cosine), probe))
        rows.append((None, "perplexity", float(torch.cat(nll).mean().exp()), None))
        frame = pd.DataFrame(rows, columns=["layer", "metric", "value", "probe"])
        return frame.astype({"layer": "Int64", "probe": "Int64"})

    @torch.no_grad()
    def _run(
        self, state: EditState, watch: Watch | None
    ) -> tuple[dict[int, list[Tensor]], list[Tensor]]:
        """By block the states (T, d_model) of each text, and each text's NLL (T − 1,)."""
        lm, count = self._lm, len(self._ids)
        states = {block: [torch.empty(0)] * count for block in self._blocks}
        nll = [torch.empty(0)] * count
        caught: dict[int, Tensor] = {}

        def catch(block: int) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, args, output: caught.update({block: hidden(output)})

        handles = [lm.blocks[b].register_forward_hook(catch(b)) for b in set(self._blocks)]
        try:
            with attached(lm, state.hook_layers(lm.dtype)):
                lengths = list(map(len, self._ids))
                batches = length_batches(lengths)
                for step, rows in enumerate(batches):
                    if watch is not None:
                        watch("probes", step, len(batches))
                    batch = Batch.of([self._ids[row] for row in rows], lm.device)
                    logits = lm.model(**batch.inputs, use_cache=False).logits.float()
                    for i, row in enumerate(rows):
                        size = lengths[row]
                        for block in self._blocks:
                            states[block][row] = caught[block][i, :size].float().cpu()
                        log_p = logits[i, : size - 1].log_softmax(-1)
                        said = log_p.gather(1, batch.ids[i, 1:size, None])[:, 0]
                        nll[row] = -said.cpu()
        finally:
            for handle in handles:
                handle.remove()
        return states, nll
