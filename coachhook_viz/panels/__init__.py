"""Panels: each a view on a session, usable alone and linked to the others.

Facts           what the model should say, staged and in force
Rounds          apply, undo, redo, branch, mute
Ask             any prompt, before and after
Scope           where the hook layers speak, and why
Layers          at which block the answer flips
Drift           how each fact holds round after round, and what else moves
Interference    which edits act on which facts
Compare         the same facts under other settings
Sweep           the same facts under many settings, on all cores
Why             why a prompt gets the target, or not
WhatElse        what the edits changed beside what was asked for
Model           what the model is, and which settings suit it
playground      all of them on one screen, on one session

    cv.panels.Scope(session)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coachhook_viz.panels.ask import Ask as Ask
    from coachhook_viz.panels.compare import Compare as Compare
    from coachhook_viz.panels.drift import Drift as Drift
    from coachhook_viz.panels.facts import Facts as Facts
    from coachhook_viz.panels.interference import Interference as Interference
    from coachhook_viz.panels.layers import Layers as Layers
    from coachhook_viz.panels.model import Model as Model
    from coachhook_viz.panels.playground import Playground as Playground
    from coachhook_viz.panels.playground import playground as playground
    from coachhook_viz.panels.rounds import Rounds as Rounds
    from coachhook_viz.panels.scope import Scope as Scope
    from coachhook_viz.panels.sweep import Sweep as Sweep
    from coachhook_viz.panels.what_else import WhatElse as WhatElse
    from coachhook_viz.panels.why import Why as Why

_HOMES = {
    "Ask": "ask",
    "Compare": "compare",
    "Drift": "drift",
    "Facts": "facts",
    "Interference": "interference",
    "Layers": "layers",
    "Model": "model",
    "Playground": "playground",
    "Rounds": "rounds",
    "Scope": "scope",
    "Sweep": "sweep",
    "WhatElse": "what_else",
    "Why": "why",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import a panel when it is first used: a playground appears before torch is imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
