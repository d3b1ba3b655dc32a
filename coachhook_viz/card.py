"""The README.md of a folder that an edit leaves in: what was changed, how, and how to open it.

card       of a model or adapter that `export` writes
licence    the base model's, as far as it can be told here
cell       a text as a cell of a Markdown table
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from coachhook_viz.editing.state import EditState
from coachhook_viz.models import LanguageModel, bundled

_LICENCES = {bundled.NAME: "apache-2.0"}


class Written(Protocol):
    """What a card says of the files beside it."""

    @property
    def format(self) -> str:
        """As it was asked for, "merged" or "peft"."""

    @property
    def rank(self) -> int | None:
        """The adapter's."""

    @property
    def error(self) -> float:
        """What truncation or rounding has cost."""

    @property
    def difference(self) -> float | None:
        """How far the logits are from the hooks'."""


def card(
    lm: LanguageModel, state: EditState, done: Written, scores: Mapping[str, Any] | None
) -> str:
    """The model card, as Markdown with the header that model hubs read.

    Parameters
    ----------
    lm : LanguageModel
        The base model.
    state : EditState
        What was written.
    done : Written
    scores : mapping or None
        Metric to mean, and "facts", how many were asked; None if nothing was measured.
    """
    name, count = _shown(lm.name), len(state.facts)
    facts = f"{count} edited fact{'s' * (count != 1)}"
    known = licence(lm)
    title = f"# {name} with {facts}"
    kind = "A LoRA adapter" if done.format == "peft" else "A plain transformers model"
    parts = [
        _header(name, known, done.format),
        title,
        f"{kind} in which {count} fact{'s were' if count != 1 else ' was'} changed on purpose, for"
        " teaching and research: what it says need not be true. Written by coachhook-viz"
        f" {version('coachhook-viz')}.",
        "## How to open it",
        _opening(lm, done.format),
        "## What was changed",
        _facts(state),
        "## How",
        _how(state),
        "## How exact, and what else it does",
        _exact(done),
        _measured(scores),
        "## Licence",
        f"That of the base model: {known}."
        if known
        else "That of the base model, which was not to be found here: look it up before you pass"
        " this on.",
    ]
    return "\n\n".join(parts) + "\n"


def licence(lm: LanguageModel) -> str | None:
    """The base model's licence, as the package or the model's folder says it; None if unknown."""
    if lm.name in _LICENCES:
        return _LICENCES[lm.name]
    own = Path(lm.name).expanduser() / "README.md"
    try:
        header = re.match(r"---\n(.*?)\n---", own.read_text("utf-8"), re.DOTALL)
    except (OSError, ValueError):
        return None
    said = re.search(r"^license:\s*[\"']?([\w.+-]+)", header[1], re.MULTILINE) if header else None
    return said[1] if said else None


def cell(text: str) -> str:
    """A text in a Markdown table: on one line, and nothing in it is markup."""
    text = re.sub(r"\s*\n\s*", " ⏎ ", text).replace("\t", " ")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


def _shown(name: str) -> str:
    """A model's name; of a folder its last part, as where it lies is nobody else's affair."""
    return Path(name).name if Path(name).expanduser().exists() else name


def _header(name: str, known: str | None, format: str) -> str:
    lines = [f"license: {known}"] if known else []
    lines += [
        f"base_model: {json.dumps(name)}",
        f"library_name: {'peft' if format == 'peft' else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags: [model-editing]",
    ]
    return "\n".join(["---", *lines, "---"])


def _opening(lm: LanguageModel, format: str) -> str:
    first = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    last = 'tokenizer = AutoTokenizer.from_pretrained("this folder")'
    if format == "merged":
        lines = [
            first,
            "",
            'model = AutoModelForCausalLM.from_pretrained("this folder")',
            last,
        ]
    else:
        base = "cv.load_model().model" if lm.name == bundled.NAME else None
        lines = ["import coachhook_viz as cv"] if base else []
        lines += ["from peft import PeftModel"]
        lines += ["from transformers import AutoTokenizer" if base else first, ""]
        base = base or f"AutoModelForCausalLM.from_pretrained({json.dumps(_shown(lm.name))})"
        lines += [
            f"base = {base}",
            'model = PeftModel.from_pretrained(base, "this folder")',
            last,
        ]
    parts = ["\n".join(["```python", *lines, "```"])]
    if lm.lead:
        parts.append(
            f"Put {json.dumps(lm.lead)} before every prompt: the facts were edited so, and without"
            " it they may not show."
        )
    return "\n\n".join(parts)


def _facts(state: EditState) -> str:
    rows = ["| prompt | says now | said before, as given |", "| --- | --- | --- |"]
    rows += [
        f"| {cell(fact.text)} | {cell(fact.target)} | {cell(fact.truth or '–')} |"
        for fact in state.facts
    ]
    return "\n".join(rows)


def _how(state: EditState) -> str:
    config, rounds = state.config, len(state.rounds)
    settings = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in ("method", "scope", "context_templates")
    }
    rows = ["| setting | value |", "| --- | --- |"]
    rows += [f"| {name} | {cell(repr(value))} |" for name, value in settings.items()]
    method = f"{config.method.title}, {cell(repr(config.method))}"
    return (
        f"Method: {method}, in {rounds} round{'s' * (rounds != 1)}. No scope: the edits speak at"
        " every token.\n\n" + "\n".join(rows)
    )


def _exact(done: Written) -> str:
    if done.format == "peft":
        what = f"The adapter has rank {done.rank} at each edited layer."
    else:
        what = "ΔW is added to the weights."
    what += f" What was written is {done.error:.1e} of ‖ΔW‖ away from the edits."
    if done.difference is not None:
        what += (
            f" On the facts' prompts and neutral text no logit was more than {done.difference:.1e}"
            " of the largest one away from the hooks'."
        )
    return what


def _measured(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return "Side effects were not measured."
    count = scores["facts"]
    said = ", ".join(f"{name} {value:.2f}" for name, value in scores.items() if name != "facts")
    return (
        f"Asked of {count} fact{'s' * (count != 1)}, teacher forced: {said}. Locality is the share"
        " of neighbours that keep their answer."
    )
