"""Settings that a guide has found for a model, in the user's cache by the model's fingerprint.

keep            write them
kept            read them; None where there are none for this very model
settled         whether a model has settings already that no guide replaces
GUIDED          the settings that it is about
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coachhook_viz.models import LanguageModel, bundled
from coachhook_viz.models.cache import cache_dir

GUIDED = (
    "layers", "covariance_weight", "steps", "learning_rate", "weight_decay", "kl_weight",
    "clamp_factor", "stop_loss", "context_templates",
)  # fmt: skip
_FORMAT = "coachhook_viz guide 1"


def guides_dir() -> Path:
    """The folder that they are in."""
    return cache_dir() / "guides"


def settled(lm: LanguageModel) -> bool:
    """Whether it is the bundled model as it is loaded: its settings come from many more facts."""
    return (lm.name, lm.lead) == (bundled.NAME, bundled.LEAD)


def keep(lm: LanguageModel, settings: Mapping[str, Any]) -> Path:
    """Write settings that are to be known for `lm` from now on, in place of any before.

    Raises
    ------
    OSError
        If the folder cannot be written to; what was kept before stays.
    """
    file, identity = _place(lm)
    said = {**identity, "model": lm.name, "settings": {name: settings[name] for name in GUIDED}}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(said, indent=1, ensure_ascii=False), "utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def kept(lm: LanguageModel) -> dict[str, Any] | None:
    """What was kept for `lm`, if anything was that can be read; its values are not checked."""
    if settled(lm) or not guides_dir().is_dir():
        return None  # without the fingerprint, which takes a while
    file, identity = _place(lm)
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or any(found.get(name) != identity[name] for name in identity):
        return None
    settings = found.get("settings")
    fits = isinstance(settings, dict) and set(settings) == set(GUIDED)
    return settings if fits else None


def _place(lm: LanguageModel) -> tuple[Path, dict[str, str]]:
    """The file of `lm`, and what it has to say of itself: a lead makes another model of it."""
    identity = {
        "format": _FORMAT,
        "fingerprint": lm.fingerprint,
        "down_projection": lm.architecture.down_projection,
        "written": lm.architecture.written,
        "lead": lm.lead,
    }
    digest = hashlib.sha256("\n".join(identity.values()).encode()).hexdigest()
    return guides_dir() / f"{digest[:32]}.json", identity
