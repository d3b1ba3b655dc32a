"""What all rounds of a session are made with, and what is in force after some of them.

Setup    model, settings and second moments
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.moments import cached_moments, check_moments
from coachhook_viz.editing.progress import Watch
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.editing.tokens import sample_contexts
from coachhook_viz.editing.update import PreservedKeys
from coachhook_viz.models import LanguageModel


@dataclass(frozen=True, eq=False)
class Setup:
    """Model, settings and second moments; `of` collects what is not given.

    Attributes
    ----------
    lm : LanguageModel
    config : EditConfig
        Its context templates filled in.
    moments : mapping of int to Tensor or None
        As they were given.
    traces : mapping of int to float
        Trace of C0 by layer, to know the moments again by.
    preserved : PreservedKeys
    """

    lm: LanguageModel
    config: EditConfig
    moments: Mapping[int, Tensor] | None
    traces: Mapping[int, float]
    preserved: PreservedKeys

    @classmethod
    def of(
        cls,
        lm: LanguageModel,
        config: EditConfig | None,
        moments: Mapping[int, Tensor] | None,
        watch: Watch,
    ) -> Setup:
        """A setup with context templates and moments.

        Raises
        ------
        ModelRefused
            If the model cannot be edited, see `LanguageModel.check`; a ValueError.
        ValueError
            If the configuration or the moments do not fit the model.
        """
        if not isinstance(lm, LanguageModel):
            raise ValueError(f"the model is {type(lm).__name__}; give load_model(…)")
        if not isinstance(config, EditConfig | None):
            raise ValueError(f"the config is {type(config).__name__}; give an EditConfig")
        config = EditConfig.for_model(lm) if config is None else config
        config.check(lm)
        lm.check(config.keyed_layers)
        if config.context_templates is None:
            config = replace(config, context_templates=sample_contexts(lm, watch))
        used = moments
        if not config.method.uses_moments:
            used = dict.fromkeys(config.keyed_layers, torch.eye(lm.d_key, dtype=torch.float64))
        elif used is None:
            used = cached_moments(lm, config.keyed_layers, watch)
        check_moments(used, lm, config.keyed_layers)
        used = {layer: used[layer].to(lm.device) for layer in config.keyed_layers}
        traces = {layer: float(torch.trace(moment)) for layer, moment in used.items()}
        preserved = PreservedKeys(used, config.covariance_weight, config.method)
        return cls(lm, config, moments, traces, preserved)

    def state(self, rounds: tuple[Round, ...], known: EditState | None = None) -> EditState:
        """What is in force after `rounds`; `known`, of the same setup, may save some of the work.

        Parameters
        ----------
        rounds : tuple of Round
        known : EditState, optional
        """
        state = EditState.of(self.lm, self.config) if known is None else known
        if rounds[: len(state.rounds)] != state.rounds:
            state = EditState.of(self.lm, self.config)
        return state.then(*rounds[len(state.rounds) :])
