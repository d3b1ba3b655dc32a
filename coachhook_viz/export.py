"""An edit that leaves the package: in the weights of a plain model, or in a LoRA adapter's folder.

export    write one of them, read it back, and compare what it says with the hooks
Export    what was written, and how exact it is
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from coachhook_viz.card import card
from coachhook_viz.editing.config import ScopeKind
from coachhook_viz.editing.forward import Batch
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.state import EditState, Factors, LayerState
from coachhook_viz.measure.drift import neutral_texts
from coachhook_viz.measure.over_rounds import sample
from coachhook_viz.measure.quality import METRICS, quality
from coachhook_viz.models import LanguageModel, load_model
from coachhook_viz.models.adapters import CONFIG as ADAPTER_CONFIG
from coachhook_viz.models.adapters import WEIGHTS as ADAPTER_WEIGHTS
from coachhook_viz.models.kinds import offloaded, unwrapped
from coachhook_viz.models.sources import without_bars
from coachhook_viz.warned import warn

Format = Literal["merged", "peft"]

_PROMPTS = 12  # that are asked to compare what was written with the hooks
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # of a logit, by the largest one
_ROUGH = 0.1  # of half precision
_LOST = 0.01  # part of an edit that rounding may cost in silence
_WHY = {
    "zscore": "the z-score scope decides at each token, by the others, whether an edit speaks",
    "match": "the match scope decides at each token, by its key, whether an edit speaks",
    "two-key": "two keys decide at each token whether an edit speaks: its subject, its relation",
}


class Exported(Protocol):
    """What an export needs of a session."""

    @property
    def lm(self) -> LanguageModel:
        """The model."""

    @property
    def state(self) -> EditState:
        """What is in force."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    folder : Path
    format : {"merged", "peft"}
    rank : int or None
        Of the adapter at each edited layer; None of a merged model.
    error : float
        ``‖ΔW − written‖ / ‖ΔW‖`` over the edited layers: what truncation to `rank`, or rounding
        to the weights' dtype, has cost.
    difference : float or None
        The greatest difference of a logit from ``session.hooked()`` with scope "off", as a part of
        the largest logit, on the facts' prompts and neutral text; None if it was not verified.
    """

    folder: Path
    format: Format
    rank: int | None
    error: float
    difference: float | None


def export(
    session: Exported,
    folder: str | Path,
    format: Format = "merged",
    *,
    scope: ScopeKind | None = None,
    state: EditState | None = None,
    rank: int | None = None,
    budget: int = 0,
    verify: bool = True,
) -> Export:
    """Write the edits into a folder that others open without this package.

    "merged" is a plain transformers model with ΔW in its weights, "peft" a LoRA adapter of the
    exact factors, ``B A = R Aᵀ``, as PEFT saves it. The tokenizer and a model card lie beside it;
    weights are safetensors. What was written is read back, and what it says is compared with the
    hooks. The session and its model stay as they are.

    Weights speak at every token. So edits under a scope are refused, unless ``scope="off"`` says
    that they are to speak everywhere.

    Parameters
    ----------
    folder : str or Path
        New or empty.
    format : {"merged", "peft"}
    scope : {"off"}, optional
        None: as the state has it.
    state : EditState, optional
        Of `state_at` or `EditState.judged`; None: what is in force.
    rank : int, optional
        Of the adapter: ΔW is cut to it by SVD, the best there is of that rank. None: one column a
        fact (at the answer site, one a wording), and exact.
    budget : int
        How many facts are asked, in what was written, for the side effects that the card states; 0
        leaves them out.
    verify : bool
        False: do not read back. For a model of which a second copy does not fit into memory.

    Returns
    -------
    Export

    Raises
    ------
    ValueError
        If no fact is in force; weights cannot hold the edits, because of a scope, a norm after the
        down projection, or adapter layers in the model; or an argument makes no sense.
    FileExistsError
        If the folder is not empty, or a file.
    RuntimeError
        If what was written does not say what the hooks say; nothing is left then.
    OSError
        If the disk does not take it; nothing is left then.

    Warns
    -----
    UserWarning
        If rounding to the weights' dtype costs more than a hundredth of the edits.
    """
    state = session.state if state is None else state
    state = state if scope is None else state.judged(scope)
    lm = session.lm
    _check(lm, state, format, rank, budget)
    where = _folder(folder)
    held = state if rank is None else _cut(state, rank)
    with _made(where) as part:
        lm.tokenizer.save_pretrained(part)
        if format == "merged":
            written = _write_merged(lm, held, part)
        else:
            written = _write_adapter(lm, held, part)
        error = _error(state, written)
        difference = _difference(lm, state, held, part, format) if verify else None
        columns = None if format == "merged" else _columns(held)
        done = Export(where, format, columns, error, difference)
        scores = None if not budget else _scores(lm, held, budget)
        (part / "README.md").write_text(card(lm, held, done, scores), "utf-8")
    if format == "merged" and error > _LOST:
        warn(
            f"rounding to {lm.dtype} costs {error:.1%} of the edits: format='peft' keeps its"
            " factors in float32, and so does a model that is loaded in float32",
            stacklevel=2,
        )
    return done


def _check(lm: LanguageModel, state: EditState, format: Any, rank: Any, budget: Any) -> None:
    """Refuse what weights cannot hold, and what makes no sense."""
    if format not in get_args(Format):
        raise ValueError(
            f"format is {format!r}: use 'merged', a plain model, or 'peft', a LoRA adapter"
        )
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"budget is {budget!r}: it must be a number of facts, 0 for none")
    if not state.facts:
        raise ValueError(
            "no fact is in force, so there is nothing to export: apply some, or give"
            " state=session.state_at(...)"
        )
    keep = (
        "To take them away as they are, use session.save(folder); for another library in this"
        " process, session.as_model()"
    )
    layer = min(state.layers)
    written = lm.written(layer)
    if written is not lm.down_projection(layer) and not isinstance(written, nn.Identity):
        raise ValueError(
            f"the edits cannot be put into weights: in {lm.name} they are added after"
            f" {lm.architecture.written}, a norm that follows the down projection, and no weight"
            f" before it can hold them. {keep}"
        )
    if state.config.scope != "off":
        raise ValueError(
            f"the edits cannot be put into weights as they are: {_WHY[state.config.scope]}, and"
            " weights speak at every token. To export them without a scope, which touches more:"
            f" session.export(folder, scope='off'). {keep}"
        )
    if rank is not None:
        most = _columns(state)
        if format != "peft":
            raise ValueError("rank is an adapter's: give format='peft', or leave it out")
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(
                f"rank is {rank!r}: it must be a whole number from 1 to {most}, the columns of the"
                " edits in force; left out, the adapter has them all and is exact"
            )
    if any(unwrapped(lm.down_projection(at)) is not lm.down_projection(at) for at in state.layers):
        raise ValueError(
            f"{lm.name} has an adapter's layers in it, which would have to go along: put them into"
            " its weights first (peft's merge_and_unload), and edit that model"
        )
    if format == "merged" and any(offloaded(module) for module in lm.model.modules()):
        raise ValueError(
            "some weights are kept elsewhere until they are needed (device_map): export with"
            " format='peft', which needs none of them, or load the model whole"
        )


def _columns(state: EditState) -> int:
    return int(state.layers[min(state.layers)].columns.keys.shape[1])


def _cut(state: EditState, rank: int) -> EditState:
    """The state with each ΔW cut to `rank` by SVD, in as many columns; for weights only."""
    layers = {}
    for layer, at in state.layers.items():
        columns = at.columns
        left, up = torch.linalg.qr(columns.residuals)
        right, down = torch.linalg.qr(columns.directions)
        u, sizes, v = torch.linalg.svd(up @ down.T)  # ΔW = left (u s v) rightᵀ
        roots = sizes[:rank].sqrt()
        residuals, directions = left @ u[:, :rank] * roots, right @ v[:rank].T * roots
        factors = Factors(residuals, directions, directions)
        layers[layer] = LayerState(residuals @ directions.T, at.alpha, (factors,))
    return replace(state, layers=layers)


def _folder(folder: str | Path) -> Path:
    if not str(folder).strip():
        raise ValueError("no folder is named; give one, as 'my model'")
    path = Path(folder).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: give a new or empty folder")
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty: give a new or empty folder")
    return path


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A place to write to; what lies there at the end lies in `folder`, after an error nothing."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        yield part
        for path in sorted(part.iterdir(), key=lambda path: path.name.endswith("config.json")):
            os.replace(path, folder / path.name)  # what makes it a model's folder comes last
        part.rmdir()
    except BaseException:
        shutil.rmtree(folder if new else part, ignore_errors=True)
        raise


def _path(lm: LanguageModel, layer: int) -> str:
    return f"{lm.architecture.blocks}.{layer}.{lm.architecture.down_projection}"


def _write_merged(lm: LanguageModel, state: EditState, folder: Path) -> dict[int, Tensor]:
    """Write the model with ΔW in its weights; by layer, what they then differ by from W0."""
    weights, written = dict(lm.model.state_dict()), {}
    for layer, at in state.layers.items():
        base = lm.weight(layer)
        added = at.delta_weight.to(lm.device_of(layer)) / lm.multiplier
        weight = (base.double() + added).to(base.dtype)
        written[layer] = (weight.double() - base.double()) * lm.multiplier
        across = isinstance(lm.down_projection(layer), Conv1D)
        weights[f"{_path(lm, layer)}.weight"] = (weight.T if across else weight).contiguous()
    config: Any = lm.model.config
    before = {name: getattr(config, name, None) for name in ("dtype", "architectures")}
    try:
        with without_bars():
            lm.model.save_pretrained(folder, state_dict=weights)
    finally:  # it notes these two in the model's own configuration
        for name, value in before.items():
            setattr(config, name, value)
    return written


def _write_adapter(lm: LanguageModel, state: EditState, folder: Path) -> dict[int, Tensor]:
    """Write ``B A = R Aᵀ`` as PEFT does; by layer, what it comes to in what is written."""
    tensors, written, paths = {}, {}, [_path(lm, layer) for layer in state.layers]
    dtype = torch.promote_types(lm.dtype, torch.float32)
    for path, (layer, at) in zip(paths, state.layers.items(), strict=True):
        columns = at.columns
        a = columns.directions.T.to(dtype).cpu().contiguous()  # (rank, d_key)
        b = (columns.residuals / lm.multiplier).to(dtype).cpu().contiguous()  # (d_model, rank)
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
        written[layer] = b.double() @ a.double() * lm.multiplier
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    local = Path(lm.name).expanduser()
    rank = _columns(state)
    config = {
        "base_model_name_or_path": str(local.resolve()) if local.is_dir() else lm.name,
        "bias": "none",
        "fan_in_fan_out": isinstance(lm.down_projection(min(state.layers)), Conv1D),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": paths,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), "utf-8")
    return written


def _error(state: EditState, written: dict[int, Tensor]) -> float:
    """``‖ΔW − written‖ / ‖ΔW‖`` over the edited layers together."""
    wanted = {layer: at.delta_weight.cpu() for layer, at in state.layers.items()}
    missing = torch.stack([(delta - written[at].cpu()).norm() for at, delta in wanted.items()])
    whole = torch.stack([delta.norm() for delta in wanted.values()]).norm()
    return float(missing.norm() / whole) if whole else 0.0  # there are edits that add nothing


def _difference(
    lm: LanguageModel, state: EditState, held: EditState, folder: Path, format: Format
) -> float:
    """How far logits of what lies in `folder` are from the hooks'.

    Raises
    ------
    RuntimeError
        If they are not those of `held`, which was written there.
    """
    prompts = [text for fact in state.facts[:_PROMPTS] for text in (fact.text, *fact.paraphrases)]
    longest = min(lm.context_window, 64)
    rows = [lm.token_ids(text)[:longest] for text in (*prompts[:_PROMPTS], *neutral_texts()[:2])]
    batch = Batch.of(rows, lm.device)
    if format == "merged":
        again = load_model(
            folder, tokenizer=lm.tokenizer, device=lm.device, dtype=lm.dtype,
            lead=lm.lead, architecture=lm.architecture,
        )  # fmt: skip
        found = _logits(again, batch)
        del again
    else:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        layers = dict(held.layers)
        for layer, at in layers.items():
            a, b = (
                tensors[f"base_model.model.{_path(lm, layer)}.lora_{name}.weight"] for name in "AB"
            )
            delta = (b.double() @ a.double() * lm.multiplier).to(at.delta_weight.device)
            layers[layer] = replace(at, delta_weight=delta)
        found = _logits(lm, batch, replace(held, layers=layers))
    said = _logits(lm, batch, held)
    apart = _apart(found, said)
    allowed = _TOLERANCE.get(lm.dtype, _ROUGH)
    if not apart <= allowed:
        raise RuntimeError(
            f"what was written does not say what the hooks say: logits differ by {apart:.1e} of the"
            f" largest, more than {allowed:g}. Nothing is left of it"
        )
    return apart if held is state else _apart(found, _logits(lm, batch, state))


@torch.no_grad()
def _logits(lm: LanguageModel, batch: Batch, state: EditState | None = None) -> Tensor:
    """(tokens, vocabulary) at the real tokens of a batch."""
    hooks = {} if state is None else state.hook_layers(lm.dtype)
    with attached(lm, hooks):
        model: Any = lm.model
        logits = model(
            input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False
        ).logits
    said: Tensor = logits[batch.mask.to(logits.device)].double().cpu()
    return said


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def _scores(lm: LanguageModel, state: EditState, budget: int) -> dict[str, Any]:
    """Metric to mean over the facts that were asked, with their number as "facts"."""
    places = sample(range(len(state.facts)), budget)
    facts = [state.facts[place] for place in places]
    frame = quality(lm, state, facts)
    means = frame[frame["metric"].isin(METRICS)].groupby("metric", sort=False)["value"].mean()
    return {"facts": len(facts), **{str(name): float(mean) for name, mean in means.items()}}
