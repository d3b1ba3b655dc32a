"""Edit what a language model believes, and see exactly what each edit touches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coachhook_viz.loading import collector_paused

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "models",
    "BadRecordWarning": "errors",
    "EditCancelled": "errors",
    "EditConfig": "editing.config",
    "EditState": "editing.state",
    "EditedModel": "edited_model",
    "Fact": "facts",
    "FactError": "errors",
    "FactFileError": "errors",
    "FailedTrialWarning": "errors",
    "FirstTokenWarning": "errors",
    "Guide": "measure.guide",
    "LanguageModel": "models",
    "ModelNotFound": "errors",
    "ModelRefused": "errors",
    "MomentsWarning": "errors",
    "Neighbor": "facts",
    "NullSpaceWarning": "errors",
    "OneByOneWarning": "errors",
    "Probe": "facts",
    "Progress": "editing.progress",
    "RepeatedFactWarning": "errors",
    "Round": "editing.state",
    "Scope": "editing.inspect",
    "Session": "session",
    "SessionFileError": "errors",
    "SweepError": "errors",
    "WaitingWarning": "errors",
    "WideScopeWarning": "errors",
    "Why": "measure.why",
    "bundled_facts": "reading",
    "collect_moments": "editing.moments",
    "compare": "comparing",
    "diff": "differing",
    "figures": "figures",
    "guide": "measure.guide",
    "known_facts": "measure.known",
    "load_model": "models",
    "methods": "editing.methods",
    "panels": "panels",
    "playground": "panels.playground",
    "read_facts": "reading",
    "report": "html_report",
    "sweep": "sweeping",
}
_MODULES = ("figures", "methods", "panels")

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from coachhook_viz import figures as figures
    from coachhook_viz import panels as panels
    from coachhook_viz.comparing import compare as compare
    from coachhook_viz.differing import diff as diff
    from coachhook_viz.edited_model import EditedModel as EditedModel
    from coachhook_viz.editing import methods as methods
    from coachhook_viz.editing.config import EditConfig as EditConfig
    from coachhook_viz.editing.inspect import Scope as Scope
    from coachhook_viz.editing.moments import collect_moments as collect_moments
    from coachhook_viz.editing.progress import Progress as Progress
    from coachhook_viz.editing.state import EditState as EditState
    from coachhook_viz.editing.state import Round as Round
    from coachhook_viz.errors import BadRecordWarning as BadRecordWarning
    from coachhook_viz.errors import EditCancelled as EditCancelled
    from coachhook_viz.errors import FactError as FactError
    from coachhook_viz.errors import FactFileError as FactFileError
    from coachhook_viz.errors import FailedTrialWarning as FailedTrialWarning
    from coachhook_viz.errors import FirstTokenWarning as FirstTokenWarning
    from coachhook_viz.errors import ModelNotFound as ModelNotFound
    from coachhook_viz.errors import ModelRefused as ModelRefused
    from coachhook_viz.errors import MomentsWarning as MomentsWarning
    from coachhook_viz.errors import NullSpaceWarning as NullSpaceWarning
    from coachhook_viz.errors import OneByOneWarning as OneByOneWarning
    from coachhook_viz.errors import RepeatedFactWarning as RepeatedFactWarning
    from coachhook_viz.errors import SessionFileError as SessionFileError
    from coachhook_viz.errors import SweepError as SweepError
    from coachhook_viz.errors import WaitingWarning as WaitingWarning
    from coachhook_viz.errors import WideScopeWarning as WideScopeWarning
    from coachhook_viz.facts import Fact as Fact
    from coachhook_viz.facts import Neighbor as Neighbor
    from coachhook_viz.facts import Probe as Probe
    from coachhook_viz.html_report import report as report
    from coachhook_viz.measure.guide import Guide as Guide
    from coachhook_viz.measure.guide import guide as guide
    from coachhook_viz.measure.known import known_facts as known_facts
    from coachhook_viz.measure.why import Why as Why
    from coachhook_viz.models import Architecture as Architecture
    from coachhook_viz.models import LanguageModel as LanguageModel
    from coachhook_viz.models import load_model as load_model
    from coachhook_viz.panels.playground import playground as playground
    from coachhook_viz.reading import bundled_facts as bundled_facts
    from coachhook_viz.reading import read_facts as read_facts
    from coachhook_viz.session import Session as Session
    from coachhook_viz.sweeping import sweep as sweep


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing the package stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collector_paused():
        home = import_module(f"{__name__}.{_HOMES[name]}")
    value = home if name in _MODULES else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
