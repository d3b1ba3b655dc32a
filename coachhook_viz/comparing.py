"""Settings side by side: the same facts, in the same order and rounds, asked the same.

compare           one tidy frame of several configurations
check_settings    what it refuses, before anything is computed
ready             configurations with context templates
pieces            a round as a method edits it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.editor import check
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.editing.progress import (
    Bar,
    CancelCallback,
    Progress,
    ProgressCallback,
    Watch,
)
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import sample_contexts
from coachhook_viz.editing.values import sharing_targets
from coachhook_viz.facts import Fact, FactError, as_batch
from coachhook_viz.measure.answers import Speaker
from coachhook_viz.measure.drift import Probes, neutral_texts
from coachhook_viz.measure.quality import METRICS, quality
from coachhook_viz.models import LanguageModel
from coachhook_viz.session import Session

COLUMNS = ["setting", "round", "fact", "metric", "value"]
_Row = tuple[str, int, int | None, str, float]


def compare(
    lm: LanguageModel,
    facts: Iterable[Fact] | Fact,
    settings: Mapping[str, EditConfig],
    rounds: int = 1,
    *,
    moments: Mapping[int, Tensor] | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> pd.DataFrame:
    """Edit the same facts under several settings, and score all facts so far after each round.

    Target hidden states are optimised once for all settings that want the same of the same model:
    in the first round those whose z lives at the same place and is optimised alike. After it each
    setting has another model before it.

    Parameters
    ----------
    lm : LanguageModel
    facts : iterable of Fact, or one Fact
    settings : mapping of str to EditConfig
        By the name that the frame has them under.
    rounds : int
        How many rounds the facts fall into, of sizes that differ by one at most. A method that
        edits one fact at a time makes a round of its own of each of them in between.
    moments : mapping of int to Tensor, optional
        As in `Session`.
    progress : callable, optional
        As in `Session.apply`; each `Progress` also has its `setting`, `round` and number of
        `rounds`. None draws a bar.
    cancel : callable, optional
        As in `Session.apply`.

    Returns
    -------
    DataFrame
        setting : str
        round : int
            After how many of `rounds` this was measured; 0: of the unedited model.
        fact : int or NA
            Index into `facts`; NA of what is measured of the model as a whole.
        metric : str
            Of each fact so far "reliability", "generality" and "locality", see `measure.quality`;
            "perplexity" of neutral text; "norm", ‖ΔW‖ / ‖W0‖ over all edited layers; "seconds",
            the time that the round took, a fact.
        value : float

    Raises
    ------
    ValueError
        If there is no setting, a setting does not fit the model, or `rounds` is not a whole
        number from 1 to the number of facts. Before anything is computed.
    FactError
        If a fact cannot be edited under one of the settings. Before anything is computed.
    EditCancelled
        If `cancel` answered True.
    """
    facts = as_batch(facts)
    parts = check_settings(lm, settings, facts, rounds)
    with Bar() as bar, sharing_targets():
        watch = Watch(progress or bar, cancel)
        settings = ready(lm, settings, watch)
        need = [config for config in settings.values() if config.method.uses_moments]
        layers = sorted({layer for config in need for layer in config.keyed_layers})
        given = cached_moments(lm, layers, watch) if moments is None else moments
        unedited = EditState.of(lm, next(iter(settings.values())))
        speaker, probes = Speaker(lm, unedited), Probes(lm, unedited, neutral_texts())
        rows: list[_Row] = []
        for name, config in settings.items():
            session = Session(lm, config, given)
            rows += _whole(lm, name, 0, session.state, probes, watch)
            for number, part in enumerate(parts, start=1):
                told = _placed(progress or bar, name, number, len(parts))
                applied = [session.apply(piece, told, cancel) for piece in pieces(config, part)]
                seconds = sum(round_.seconds for round_ in applied) / len(part)
                rows.append((name, number, None, "seconds", seconds))
                rows += _whole(lm, name, number, session.state, probes, Watch(told, cancel))
                so_far = facts[: sum(map(len, parts[:number]))]
                frame = quality(lm, session.state, so_far, Watch(told, cancel), speaker)
                rows += [
                    (name, number, int(fact), metric, float(value))
                    for fact, metric, value in frame.itertuples(index=False)
                    if metric in METRICS
                ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"fact": "Int64"})


def pieces(config: EditConfig, part: Sequence[Fact]) -> list[list[Fact]]:
    """A round's facts, one by one under a method that edits them so."""
    return [[fact] for fact in part] if config.method.one_by_one else [list(part)]


def _parts(facts: Sequence[Fact], rounds: int) -> list[list[Fact]]:
    """The facts in so many rounds, the first ones larger by one where it does not come out even."""
    if not facts:
        raise ValueError("there is no fact to edit: give at least one")
    whole = isinstance(rounds, int) and not isinstance(rounds, bool)
    if not whole or not 1 <= rounds <= len(facts):
        raise ValueError(
            f"rounds is {rounds!r}: it must be a whole number from 1 to the number of facts,"
            f" {len(facts)}"
        )
    size, larger = divmod(len(facts), rounds)
    ends = [number * size + min(number, larger) for number in range(rounds + 1)]
    return [list(facts[start:stop]) for start, stop in pairwise(ends)]


def check_settings(
    lm: LanguageModel, settings: Mapping[str, EditConfig], facts: Sequence[Fact], rounds: int
) -> list[list[Fact]]:
    """Refuse what `compare` refuses; the facts in rounds."""
    parts = _parts(facts, rounds)
    if not settings:
        raise ValueError("there is no setting to compare: give EditConfigs by name")
    if not isinstance(settings, Mapping):
        raise ValueError("settings have no names: give EditConfigs by name, as {'mine': config}")
    for name, config in settings.items():
        if not isinstance(name, str):
            raise ValueError(f"the setting {name!r} has no name: give text, as {str(name)!r}")
        if not isinstance(config, EditConfig):
            raise ValueError(f"the setting {name!r} is {config!r}: it must be an EditConfig")
        config.check(lm)
        first = 0
        for part in parts:
            try:
                check(lm, config, part)
            except FactError as error:
                raise FactError(error.within(first), facts) from None
            first += len(part)
    return parts


def ready(
    lm: LanguageModel, settings: Mapping[str, EditConfig], watch: Watch
) -> dict[str, EditConfig]:
    """The settings with context templates, sampled once for those that have none."""
    if all(config.context_templates is not None for config in settings.values()):
        return dict(settings)
    sampled = sample_contexts(lm, watch)
    return {
        name: config
        if config.context_templates is not None
        else replace(config, context_templates=sampled)
        for name, config in settings.items()
    }


def _placed(progress: ProgressCallback, name: str, number: int, of: int) -> ProgressCallback:
    """`progress`, told also of which setting and round a message is."""

    def told(message: Progress) -> object:
        return progress(replace(message, setting=name, round=number, rounds=of))

    return told


def _whole(
    lm: LanguageModel, name: str, number: int, state: EditState, probes: Probes, watch: Watch
) -> list[_Row]:
    """What is measured of the model as a whole."""
    frame = probes.measure(state, watch)
    perplexity = float(frame.loc[frame["metric"] == "perplexity", "value"].iloc[0])
    return [
        (name, number, None, "perplexity", perplexity),
        (name, number, None, "norm", _norm(lm, state)),
    ]


def _norm(lm: LanguageModel, state: EditState) -> float:
    """‖ΔW‖ / ‖W0‖ over all edited layers together."""
    updates = torch.stack([at.delta_weight.norm() for at in state.layers.values()])
    weights = torch.stack([lm.weight(layer).double().norm() for layer in state.layers])
    return float(updates.norm() / weights.norm())
