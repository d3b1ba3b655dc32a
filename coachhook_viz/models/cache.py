"""The folder where what is fetched or collected once is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """The user's cache for this package; the variable COACHHOOK_VIZ_CACHE moves it."""
    chosen = os.environ.get("COACHHOOK_VIZ_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("coachhook-viz")
