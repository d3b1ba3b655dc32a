"""The settings of an edit session, and the values known to work for a model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from operator import index
from typing import Any, Literal, get_args

from coachhook_viz.editing import guided
from coachhook_viz.editing.method import ContextTemplates, Method
from coachhook_viz.editing.methods import (
    AlphaEdit,
    CoachHook,
    Encore,
    UltraEdit,
    method_of,
    name_of,
)
from coachhook_viz.editing.scope import MATCH_THRESHOLD
from coachhook_viz.models import LanguageModel
from coachhook_viz.warned import warn

SiteKind = Literal["subject", "answer"]
ScopeKind = Literal["zscore", "match", "two-key", "off"]
Calibration = Literal["edited", "base"]
_COACHHOOK = CoachHook()
OPTIMISATION = (
    "steps", "learning_rate", "weight_decay", "kl_weight", "clamp_factor", "stop_loss",
)  # fmt: skip
"""Settings that each round may have its own of."""


@dataclass(frozen=True)
class EditConfig:
    """Settings of a session, named as in the method page.

    Attributes
    ----------
    layers : tuple of int
        Hooked layers, ascending. Target hidden states live at the last one's block output.
    covariance_weight : float
        λ, the weight of the corpus moment ``C0`` against the keys of edited facts. AlphaEdit, ROME,
        R-ROME and UltraEdit do without.
    alpha : float
        Scope threshold that every layer starts from; rounds only lower it.
    steps : int
        Forward passes of the target optimisation, the last one without a step.
    learning_rate, weight_decay, kl_weight, clamp_factor, stop_loss : float
        Adam's rate; weight of ‖δ‖/‖h‖²; weight of the KL term, which the answer site does not
        have; bound of ‖δ‖ in units of ‖h‖; loss below which a fact stops.
    context_templates : groups of prefixes or None
        ``(("{}",), ("He left. {}", ...))``. None: sampled from the model once, fixed seed.
    calibration : {"edited", "base"}
        Each layer's threshold as soon as it is updated, from what it sees with the hooks on; or
        (published) all of them at the end, from the bare model.
    scope : {"zscore", "match", "two-key", "off"}
        Where the hook speaks: published z-score rule, this project's match rule, its two-key
        rule, every token. Not given: "zscore", or "off" for the other methods, as published.
    match_threshold : float or None
        τ of the match scope for all facts and layers; None: each fact gets one of its own at each
        layer, see `editing.calibrate`. τ_r, what a relation key needs, of the two-key scope.
    site : {"subject", "answer"}
        Which token an edit is written at: the subject's last one, which moves the whole subject,
        or the prompt's last one, which moves one relation. Only the latter has two keys.
    subject_layer : int or None
        A block before `layers`, where the two-key scope looks for a fact's subject.
    subject_threshold : float
        τ_s, the match that opens a fact there.
    preserve : tuple of str
        Prompts with one ``{}`` about any subject, after which an edit at the subject is to leave
        what the model says of the fact's own. None by default, as published.
    preserve_weight : float
        Weight of the mean over them of KL(current ‖ initial) at their ends.
    method : Method or str
        Which editor solves a round: one of `methods`, or its name in `methods.METHODS`.

    Raises
    ------
    ValueError
        If a setting is out of its range; the message names it.
    """

    layers: tuple[int, ...]
    covariance_weight: float = None  # type: ignore[assignment]
    alpha: float = 2.2
    steps: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 0.5
    kl_weight: float = 0.0625
    clamp_factor: float = 0.75
    stop_loss: float = 0.05
    context_templates: ContextTemplates | None = None
    calibration: Calibration = "edited"
    scope: ScopeKind = None  # type: ignore[assignment]
    match_threshold: float | None = MATCH_THRESHOLD
    site: SiteKind = "subject"
    subject_layer: int | None = None
    subject_threshold: float = 0.5
    preserve: tuple[str, ...] = ()
    preserve_weight: float = 1.0
    method: Method = _COACHHOOK

    def __post_init__(self) -> None:
        self._set_method()
        try:
            object.__setattr__(self, "layers", tuple(map(index, self.layers)))
            object.__setattr__(self, "steps", index(self.steps))
        except TypeError:
            raise ValueError(
                f"layers and steps must be whole numbers, not {self.layers!r} and {self.steps!r}"
            ) from None
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"layers must be ascending block numbers, not {self.layers!r}")
        for name in ("covariance_weight", "learning_rate", "clamp_factor"):
            self._require(name, lambda value: value > 0, "positive")
        for name in ("weight_decay", "kl_weight", "stop_loss", "preserve_weight"):
            self._require(name, lambda value: value >= 0, "zero or more")
        self._require("steps", lambda value: value >= 1, "1 or more")
        self._require("alpha", lambda value: True, "a number")
        thresholds = ["subject_threshold"]
        if self.match_threshold is not None:
            thresholds.append("match_threshold")
        for name in thresholds:
            self._require(name, lambda value: 0 < value <= 1, "in (0, 1]")
        for name, allowed in (
            ("calibration", Calibration), ("scope", ScopeKind), ("site", SiteKind),
        ):  # fmt: skip
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: use one of {get_args(allowed)}"
                )
        self.method.check(self.layers, self.scope, self.site)
        self._check_keys()
        self._check_preserved()
        if self.context_templates is not None:
            groups = tuple(tuple(group) for group in self.context_templates)
            object.__setattr__(self, "context_templates", groups)
            flat = [template for group in groups for template in group]
            bad = [t for t in flat if t.count("{}") != 1 or not t.endswith("{}")]
            if bad or not all(groups) or not groups or flat[0] != "{}":
                raise ValueError(
                    "context_templates: groups of texts that each end in their only '{}', the very"
                    f" first one the bare '{{}}'; got {bad or self.context_templates!r}"
                )

    def _set_method(self) -> None:
        """The method that is named, and what its publication has where nothing is given."""
        object.__setattr__(self, "method", method_of(self.method))
        if self.scope is None:
            object.__setattr__(self, "scope", self.method.scopes[0])
        if self.covariance_weight is None:
            if self.method.weighs:
                raise ValueError(f"covariance_weight is not given: {self.method.title} needs it")
            object.__setattr__(self, "covariance_weight", 1.0)
        if self.context_templates is None and self.method.aims_at == "gradient":
            object.__setattr__(self, "context_templates", (("{}",),))  # it has no use for others

    def _check_preserved(self) -> None:
        """Texts to preserve have a place for the subject, and an optimisation that sees them."""
        if isinstance(self.preserve, str):
            raise ValueError(f"preserve is one text, {self.preserve!r}: give a tuple of texts")
        object.__setattr__(self, "preserve", tuple(self.preserve))
        bad = [text for text in self.preserve if not isinstance(text, str) or text.count("{}") != 1]
        if bad:
            raise ValueError(f"preserve: write exactly one {{}} for the subject in {bad[0]!r}")
        if self.preserve and self.site != "subject":
            raise ValueError(
                "preserve is of edits at the subject: at the answer site its other relations are"
                " kept already, by the foils"
            )
        if self.preserve and self.method.aims_at == "gradient":
            raise ValueError(f"{self.method.title} has no target optimisation that could preserve")

    def _check_keys(self) -> None:
        """The two-key scope needs the answer site, and a layer to look for the subject at."""
        layer = self.subject_layer
        if layer is not None:
            self._require("subject_layer", lambda value: value == int(value), "a whole number")
            if not 0 <= layer < self.layers[0]:
                raise ValueError(
                    f"subject_layer is {layer}: it must be a block before the first of layers,"
                    f" {self.layers[0]}"
                )
        if self.scope != "two-key":
            return
        if self.site != "answer":
            raise ValueError(
                "scope='two-key' needs site='answer': edits at the subject have no relation key."
                " EditConfig.for_model(lm, scope='two-key') gives both"
            )
        if layer is None:
            raise ValueError(
                "scope='two-key' needs subject_layer, the block where it looks for a subject"
            )
        if self.match_threshold is None:
            raise ValueError("scope='two-key' needs match_threshold, the match that asks for it")

    @property
    def keyed_layers(self) -> tuple[int, ...]:
        """All layers that keys are taken at: the hooked ones and, if there is one, the subject's.

        Each needs its moment C0.
        """
        return self.layers if self.subject_layer is None else (self.subject_layer, *self.layers)

    def _require(self, name: str, holds: Any, wanted: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not holds(value):
            raise ValueError(f"{name} is {value!r}: it must be {wanted}")

    @classmethod
    def for_model(cls, lm: LanguageModel, **changes: Any) -> EditConfig:
        """Settings known to work for `lm`, with `changes` on top.

        Parameters
        ----------
        lm : LanguageModel
            One that `guide` was run on has what that found, but for the bundled one; others are
            looked up by the last part of their name. For an unknown one the layers are a guess
            (four from an eighth of its depth, where published settings lie) and a warning says so.
        **changes
            Any field of `EditConfig`. ``scope="two-key"`` brings the answer site and layers for
            it, and ``site="answer"`` the two-key scope. A `method` by name brings settings for it
            and, unless given, the scope of its publication.

        Raises
        ------
        ValueError
            If a changed setting is out of range, or a layer is not one of `lm`; if the answer site
            is to have another scope than two keys, for which no settings are known.
        TypeError
            If a change names no field.
        """
        unknown = set(changes) - {field.name for field in fields(cls)}
        if unknown:
            raise TypeError(f"EditConfig has no setting {', '.join(sorted(unknown))}")
        if changes.get("site") == "answer":
            changes = {"scope": "two-key", **changes}
        two_keys = changes.get("scope") == "two-key"
        if changes.get("site") == "answer" and not two_keys:
            raise ValueError(
                f"site='answer' and scope={changes['scope']!r}: edits at the answer are known to"
                " work with scope='two-key' alone. Leave one of the two out"
            )
        settings = None if two_keys else _guided_settings(lm)
        if settings is None:
            settings = _known_settings(lm.name, _TWO_KEY if two_keys else _KNOWN)
        guessed = settings is None
        if settings is None:
            settings = {**(_guess_two_key if two_keys else _guess)(lm)}
        if "method" in changes:
            of_method = method_settings(lm, changes["method"], settings["layers"])
            settings = {**settings, **of_method}
            changes = {name: value for name, value in changes.items() if name != "method"}
        if guessed and not {"layers", "covariance_weight"} <= set(changes):
            warn(
                f"no settings are known for {lm.name!r}: layers {settings['layers']} and covariance"
                f" weight {settings['covariance_weight']:g} are a guess; pass layers= and"
                f" covariance_weight= to choose{'' if two_keys else ', or let cv.guide(lm) do so'}",
                stacklevel=2,
            )
        config = cls(**{**settings, **changes})
        config.check(lm)
        return config

    def changed(self, lm: LanguageModel, **changes: Any) -> EditConfig:
        """These settings with `changes` on top.

        Edits at another token, by another site or the scope that asks for it, bring all that
        `for_model` knows for them: layers and thresholds of the one do not suit the other.

        Raises
        ------
        ValueError, TypeError
            As in `for_model`.
        """
        other = changes.get("scope", self.scope)
        moved = changes.get("site", self.site) != self.site
        if moved or (other != self.scope and "two-key" in (other, self.scope)):
            return EditConfig.for_model(lm, **changes)
        return replace(self, **changes)

    def check(self, lm: LanguageModel) -> None:
        """Raise ValueError if a hooked layer is not a block of `lm`."""
        if self.layers[-1] >= lm.n_layers:
            raise ValueError(
                f"layers {self.layers}: {lm.name} has blocks 0 to {lm.n_layers - 1} only"
            )


def method_settings(
    lm: LanguageModel, given: Method | str, layers: tuple[int, ...]
) -> dict[str, Any]:
    """What changes with the method, as fields of `EditConfig`: itself, and what it needs.

    Parameters
    ----------
    lm : LanguageModel
    given : Method or str
        A method by name brings its own settings that are known for `lm`.
    layers : tuple of int
        Those of other methods; one that edits a single layer gets the middle one.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    method = method_of(given)
    known = (_known_settings(lm.name, _OF_METHODS) or {}).get(name_of(method), {})
    middle = {"layers": (layers[len(layers) // 2],)} if method.one_by_one else {}
    own = {} if isinstance(given, str) else {"method": method}
    return {"method": method, **middle, **known, **own}


_SMALL = 2e9  # parameters below which a guess follows the bundled model, not published settings


def _guess(lm: LanguageModel) -> dict[str, Any]:
    """Four layers from an eighth of the depth, where published settings lie.

    Small models take the bundled one's optimisation and a light covariance weight: the published
    ones hold them back.
    """
    blocks = lm.n_layers
    first = max(0, min(blocks // 8, blocks - 5))
    layers = tuple(range(first, max(first + 1, min(first + 4, blocks - 1))))
    known = next(iter(_KNOWN.values())) if _is_small(lm) else {}
    return {**known, "layers": layers, "covariance_weight": _guessed_weight(lm)}


def _guess_two_key(lm: LanguageModel) -> dict[str, Any]:
    """Subjects at a tenth of the depth, relations at three quarters, as in the bundled model."""
    blocks = lm.n_layers
    layer = max(1, min(round(0.73 * blocks), blocks - 2))
    known = next(iter(_TWO_KEY.values()))
    subject = min(blocks // 10, layer - 1)
    weight = _guessed_weight(lm)
    return {**known, "layers": (layer,), "covariance_weight": weight, "subject_layer": subject}


def _is_small(lm: LanguageModel) -> bool:
    return sum(parameter.numel() for parameter in lm.model.parameters()) < _SMALL


def _guessed_weight(lm: LanguageModel) -> float:
    return 1000.0 if _is_small(lm) else 15000.0


# Written prefixes in one group: the bare prompt weighs a sixth, not a half, and paraphrases gain.
_WRITTEN_CONTEXTS = (
    "{}",
    "It was a cold morning in late autumn. {}",
    "He had never been there before. {}",
    "According to the newspaper, {}",
    "We spoke about it at school. {}",
    "She opened the book and read aloud: {}",
)

# Published settings, and for the bundled default those found by benchmarks/sweep.py.
_KNOWN: dict[str, dict[str, Any]] = {
    r"smollm2-135m.*": {
        "layers": (4, 5, 6, 7),
        "match_threshold": None,
        "covariance_weight": 300.0,
        "learning_rate": 0.8,
        "weight_decay": 0.0,
        "clamp_factor": 1.5,
        "stop_loss": 0.02,
        "context_templates": (_WRITTEN_CONTEXTS,),
    },
    r"gpt2-xl": {"layers": (13, 14, 15, 16, 17), "covariance_weight": 20000.0},
    r"gpt-j-6b": {"layers": (3, 4, 5, 6, 7, 8), "covariance_weight": 15000.0, "steps": 25},
    r"llama-2-7b.*": {"layers": (4, 5, 6, 7, 8), "covariance_weight": 15000.0, "steps": 25},
    r"(meta-)?llama-3-8b.*": {
        "layers": (4, 5, 6, 7, 8),
        "covariance_weight": 15000.0,
        "steps": 25,
        "learning_rate": 0.1,
    },
    r"qwen2\.5-7b.*": {"layers": (4, 5, 6, 7, 8), "covariance_weight": 15000.0, "steps": 25},
}


# Of the two-key scope, found by benchmarks/two_key.py on facts that its table does not show.
_TWO_KEY: dict[str, dict[str, Any]] = {
    r"smollm2-135m.*": {
        "site": "answer",
        "layers": (22,),
        "subject_layer": 3,
        "subject_threshold": 0.58,
        "match_threshold": 0.4,
        "covariance_weight": 300.0,
        "steps": 40,
        "learning_rate": 0.8,
        "weight_decay": 0.0,
        "kl_weight": 0.0,
        "clamp_factor": 1.5,
        "stop_loss": 0.02,
        "context_templates": (_WRITTEN_CONTEXTS,),
    },
}


# What a method needs otherwise; for the bundled default found by benchmarks/methods.py.
_OF_METHODS: dict[str, dict[str, Any]] = {
    r"smollm2-135m.*": {
        "alphaedit": {"method": AlphaEdit(energy=0.3, weight=0.1)},
        "encore": {"method": Encore(norm_weight=1.0)},
        "emmet": {"covariance_weight": 3000.0},  # times its ridge it is that of MEMIT
        "rome": {"layers": (5,)},
        "r-rome": {"layers": (5,)},
        "ultraedit": {"method": UltraEdit(rate=1e-3), "layers": (22, 23, 24, 25)},
    },
    r"gpt2-xl": {"rome": {"layers": (17,)}, "r-rome": {"layers": (17,)}},
    r"gpt-j-6b": {"rome": {"layers": (5,)}, "r-rome": {"layers": (5,)}},
}


def _known_settings(name: str, table: dict[str, dict[str, Any]] = _KNOWN) -> dict[str, Any] | None:
    short = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
    return next((known for pattern, known in table.items() if re.fullmatch(pattern, short)), None)


def _guided_settings(lm: LanguageModel) -> dict[str, Any] | None:
    """What `guide` has found and kept for `lm`; None where the file is damaged or foreign, too."""
    settings = guided.kept(lm)
    if settings is None:
        return None
    try:
        EditConfig(**settings).check(lm)
    except (TypeError, ValueError, AttributeError):
        return None
    return {"match_threshold": None, **settings}
