"""One pure function a picture: values or frames in, a figure out; none of them knows a session.

scope              tokens × layers: scores, and where the hook speaks
contributions      facts × tokens: which edits reach each token
answers            the likeliest next tokens before and after editing
lens               where an answer comes up, block by block
quality            reliability, generality and locality over the rounds
retention          facts × rounds: how well each fact holds
forgetting_curve   share of facts lost over the rounds
what_else          prompts beside the edits on a map of their keys
weights            size of ΔW and thresholds of each hooked layer over the rounds
shift              how far neutral text moves over the rounds
interference       edit × edit, predicted beside actual
comparison         settings side by side
settings_over_rounds    the same of `compare`, one line a setting
damage             what success costs under each setting of `compare`
guide              blocks of a model, and the settings that a guide has tried

Each takes ``backend="plotly"`` (interactive) or ``"matplotlib"`` (print, saved notebooks). Text of
users and models is drawn as text: no markup, no formulas.
"""

from coachhook_viz.figures.answer_bars import answers as answers
from coachhook_viz.figures.guide_charts import guide as guide
from coachhook_viz.figures.key_map import what_else as what_else
from coachhook_viz.figures.lens_lines import lens as lens
from coachhook_viz.figures.over_rounds import forgetting_curve as forgetting_curve
from coachhook_viz.figures.over_rounds import quality as quality
from coachhook_viz.figures.over_rounds import retention as retention
from coachhook_viz.figures.over_rounds import shift as shift
from coachhook_viz.figures.over_rounds import weights as weights
from coachhook_viz.figures.pairs import comparison as comparison
from coachhook_viz.figures.pairs import contributions as contributions
from coachhook_viz.figures.pairs import interference as interference
from coachhook_viz.figures.scope_grid import scope as scope
from coachhook_viz.figures.side_by_side import damage as damage
from coachhook_viz.figures.side_by_side import settings_over_rounds as settings_over_rounds

__all__ = [
    "answers",
    "comparison",
    "contributions",
    "damage",
    "forgetting_curve",
    "guide",
    "interference",
    "lens",
    "quality",
    "retention",
    "scope",
    "settings_over_rounds",
    "shift",
    "weights",
    "what_else",
]
