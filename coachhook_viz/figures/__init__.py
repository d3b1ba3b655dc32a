"""One pure function a picture: values or frames in, a figure out; none of them knows a session.

scope      tokens × layers: z-scores, and where the hook speaks
answers    the likeliest next tokens before and after editing
quality    reliability, generality and locality over the rounds

Each takes ``backend="plotly"`` (interactive) or ``"matplotlib"`` (print, saved notebooks). Text of
users and models is drawn as text: no markup, no formulas.
"""

from coachhook_viz.figures.answer_bars import answers as answers
from coachhook_viz.figures.quality_lines import quality as quality
from coachhook_viz.figures.scope_grid import scope as scope

__all__ = ["answers", "quality", "scope"]
