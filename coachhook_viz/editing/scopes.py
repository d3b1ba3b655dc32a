"""The scopes by name: which hooks each of them hangs on the model.

EditingScope    what a scope decides
SCOPES          "zscore", the published one; "match" and "two-key", this project's; "off", none
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from coachhook_viz.editing.config import EditConfig, ScopeKind
from coachhook_viz.editing.hooks import Hook, HookLayer, RelationKeys, SubjectKeys
from coachhook_viz.editing.scope import Match, ZScore, everywhere

if TYPE_CHECKING:
    from coachhook_viz.editing.state import Keys, LayerState


class EditingScope(ABC):
    """Where a layer's edit speaks at inference, and so what has to be hung on the model.

    Attributes
    ----------
    by_fact : bool
        Whether a fact adds only its own columns. It is then solved for itself: no other fact's
        key has to be preserved from it.
    calibrated : bool
        Whether a round's prompts set its thresholds.
    """

    by_fact = False
    calibrated = False

    @abstractmethod
    def validated(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """The hook of one layer that speaks within the scope."""

    def temporary(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """The hook of a layer that the running round has not updated yet: at every token."""
        return HookLayer(at.delta_weight.to(dtype), everywhere)

    def before(
        self, subjects: Sequence[Keys], config: EditConfig, dtype: torch.dtype
    ) -> dict[int, Hook]:
        """Hooks on layers before the edited ones, which add nothing."""
        return {}

    def tells_after(self, config: EditConfig) -> int | None:
        """The block after which a pass shows whether a hook may speak in it at all.

        None where one speaks on nearly every prompt, so that it is not worth a look.
        """
        return None


class ZScoreScope(EditingScope):
    """The published rule: where ‖ΔW k‖ stands out among the tokens."""

    calibrated = True

    def validated(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """See `EditingScope`."""
        return HookLayer(at.delta_weight.to(dtype), ZScore(at.alpha))


class MatchScope(EditingScope):
    """Where some fact recognises its own key."""

    def validated(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """See `EditingScope`."""
        units = at.columns.unit_directions.to(dtype)
        rule = Match(units, at.match_thresholds(config.match_threshold).to(dtype))
        return HookLayer(at.delta_weight.to(dtype), rule)

    def tells_after(self, config: EditConfig) -> int | None:
        """The last edited one."""
        return config.layers[-1]


class EveryToken(EditingScope):
    """No scope: every token."""

    def validated(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """See `EditingScope`."""
        return self.temporary(at, config, dtype)


class TwoKeys(EditingScope):
    """Where a fact's subject has been seen and its relation is asked for; then only this fact."""

    by_fact = True

    def validated(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """See `EditingScope`."""
        columns = at.columns
        assert config.match_threshold is not None  # `EditConfig` has seen to it
        return RelationKeys(
            columns.residuals.to(dtype),
            columns.directions.to(dtype),
            columns.own_matches.to(dtype),
            torch.tensor(columns.owners, dtype=torch.long, device=columns.keys.device),
            config.match_threshold,
        )

    def temporary(self, at: LayerState, config: EditConfig, dtype: torch.dtype) -> Hook:
        """The validated one: what earlier facts say elsewhere never reaches this round's."""
        return self.validated(at, config, dtype)

    def before(
        self, subjects: Sequence[Keys], config: EditConfig, dtype: torch.dtype
    ) -> dict[int, Hook]:
        """The hook that opens facts, at the subject layer."""
        assert config.subject_layer is not None  # `EditConfig` has seen to it
        units = torch.cat([keys.unit_directions for keys in subjects], dim=1)
        return {config.subject_layer: SubjectKeys(units.to(dtype), config.subject_threshold)}

    def tells_after(self, config: EditConfig) -> int | None:
        """The one that opens facts."""
        return config.subject_layer


SCOPES: Mapping[ScopeKind, EditingScope] = {
    "zscore": ZScoreScope(),
    "match": MatchScope(),
    "two-key": TwoKeys(),
    "off": EveryToken(),
}
