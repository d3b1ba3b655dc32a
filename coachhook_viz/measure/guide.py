"""Settings for a model that nobody knows, found by a short search on facts that it knows.

guide     looks into the model, tries settings, keeps the best for `EditConfig.for_model`
Guide     what it found, as frames, a configuration and a sentence
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import pandas as pd
from torch import Tensor

from coachhook_viz.editing import guided
from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.moments import cached_moments, check_moments
from coachhook_viz.editing.progress import (
    Bar,
    CancelCallback,
    EditCancelled,
    ProgressCallback,
    Watch,
)
from coachhook_viz.editing.tokens import FirstTokenWarning, sample_contexts
from coachhook_viz.editing.values import sharing_targets
from coachhook_viz.errors import WideScopeWarning
from coachhook_viz.facts import Fact, as_batch
from coachhook_viz.measure.known import known_facts
from coachhook_viz.measure.quality import METRICS
from coachhook_viz.measure.search import Search, chosen_facts, mixed, windows
from coachhook_viz.measure.trace import MASSIVE, causal_trace, key_shares
from coachhook_viz.models import LanguageModel
from coachhook_viz.reading import bundled_facts
from coachhook_viz.warned import heard

_ASKED = 40  # facts, to see which lead is best
_TRACED = 8  # facts; the search takes all
_FEWEST_BLOCKS = 3
_TAKES = 0.5  # reliability from which on edits take
_NAMES = {"reliability": "reliability", "generality": "generality", "locality": "neighbours kept"}


@dataclass(frozen=True, eq=False)
class Guide:
    """What `guide` found out about a model.

    Attributes
    ----------
    model : str
        Its name.
    config : EditConfig
        The best of the settings that were tried.
    frame : DataFrame
        One row a setting, in the order they were tried: setting (int, from 1), layers (tuple),
        covariance_weight, steps, learning_rate, weight_decay, clamp_factor, stop_loss; means over
        the facts of reliability, generality and locality (see `measure.quality`; NA where no fact
        has such prompts, or the optimisation left the range of numbers); score, their harmonic
        mean, as the ROME paper ranks editors; seconds; chosen (bool), the first of the highest
        score or, of those with the same, the highest mean.
    blocks : DataFrame
        One row a block: block, share (of its key energy that one token carries, see
        `measure.trace.key_shares`), massive (bool: more than half, so it is never hooked), clean,
        corrupted, restored (means of `measure.trace.causal_trace`), recovery (what restoring the
        subject's state there brings back of what noise took; NA where noise took nothing), hooked
        (bool: by `config`).
    facts : tuple of Fact
        Facts that the model knows, which the settings were tried on.
    lead : str or None
        A lead to load the model with, where its tokenizer puts no token before a prompt and it
        has none; then guide it again.
    known_with : mapping of str to int
        How many of the same facts the model knows with each lead that was tried.
    kept : Path or None
        The file that `EditConfig.for_model` has the settings from; None: it was not kept.
    settled : bool
        Whether it is the bundled model, whose settings in `EditConfig.for_model` were found on more
        facts and stay.
    """

    model: str
    config: EditConfig
    frame: pd.DataFrame
    blocks: pd.DataFrame
    facts: tuple[Fact, ...]
    lead: str | None = None
    known_with: Mapping[str, int] = field(default_factory=dict)
    kept: Path | None = None
    settled: bool = False

    def __repr__(self) -> str:
        return f"<guide to {self.model}: {self._best()}>"

    def explain(self) -> str:
        """What was found, in a few sentences."""
        said = [
            f"{_counted(len(self.frame), 'setting')} tried on {_counted(len(self.facts), 'fact')}"
            f" that {self.model} knows: {self._best()}."
        ]
        massive = self.blocks[self.blocks["massive"]].set_index("block")["share"]
        if len(massive):
            named = (f"block {at} ({share:.2%})" for at, share in massive.items())
            said.append(
                f"Not hooked, since one token carries most of its key energy: {', '.join(named)}."
            )
        recovery = self.blocks.set_index("block")["recovery"]
        if recovery.max() > 0:
            best = int(str(recovery.idxmax()))
            said.append(
                f"With noise on the subject, its state at block {best} brings back"
                f" {recovery[best]:.0%} of the truth's probability that was lost, the most of all."
            )
        else:
            said.append("The causal trace brought nothing back, so it chose no layers.")
        if not self._scores()["reliability"] >= _TAKES:
            said.append("Edits hardly take: give other facts, or a larger budget.")
        if self.lead is not None:
            said.append(
                f"Its tokenizer puts no token before a prompt: load it with lead={self.lead!r},"
                f" with which it knows {self.known_with[self.lead]} of the facts asked and without"
                f" {self.known_with['']}, and guide it again."
            )
        said.append(
            "EditConfig.for_model has these settings from now on."
            if self.kept
            else "EditConfig.for_model keeps its own, which were found on more facts: these are in"
            " the guide's config."
            if self.settled
            else "They are not kept: use the guide's config."
        )
        return " ".join(said)

    def _scores(self) -> Mapping[str, float]:
        row = self.frame[self.frame["chosen"]].iloc[0]
        return {metric: float(row[metric]) for metric in METRICS}

    def _best(self) -> str:
        scores = ", ".join(
            f"{_NAMES[metric]} {value:.2f}"
            for metric, value in self._scores().items()
            if value == value
        )
        return f"{_named(self.config)}, {scores}"


def guide(
    lm: LanguageModel,
    facts: Iterable[Fact] | Fact | None = None,
    *,
    budget: int = 24,
    moments: Mapping[int, Tensor] | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
) -> Guide:
    """Find settings for a model that nobody knows; `EditConfig.for_model` has them from then on.

    The bundled model keeps its own there, which a benchmark found on more facts.

    Up to 12 facts that the model knows are edited in one round under each setting, from the
    unedited model: four windows of layers by where the causal trace finds the subject, each under
    four covariance weights; then, at the best of them, other settings of the optimisation. Second
    moments are collected once for all of them, targets once for all weights. Layers with a massive
    activation are left out. The model, and sessions on it, stay as they are.

    Parameters
    ----------
    lm : LanguageModel
        Checked first, all blocks, see `LanguageModel.check`.
    facts : iterable of Fact, or one Fact, optional
        Those it knows (`known_facts`) and that can be edited are taken, of different relations
        first. None: the bundled ones.
    budget : int
        How many settings are tried at most.
    moments : mapping of int to Tensor, optional
        As in `Session`; only layers that it has are hooked. None: over the shipped corpus.
    progress : callable, optional
        As in `Session.apply`; while settings are tried, each `Progress` has its `setting`, as in
        "3 of 24". None draws a bar.
    cancel : callable, optional
        As in `Session.apply`.

    Returns
    -------
    Guide

    Raises
    ------
    ModelRefused
        If the model cannot be edited; a ValueError.
    ValueError
        If the model knows none of the facts, has fewer than three blocks, or none that could be
        hooked; if `budget` is no whole number from 1; or the moments do not fit.
    FactError
        If `facts` holds anything else than facts.
    EditCancelled
        If `cancel` answered True. What was kept before stays; its `guide` has what was found.
    """
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
        raise ValueError(f"budget is {budget!r}: it must be a whole number, 1 or more")
    if lm.n_layers < _FEWEST_BLOCKS:
        raise ValueError(
            f"{lm.name} has {_counted(lm.n_layers, 'block')}: a guide needs {_FEWEST_BLOCKS} or"
            " more to choose among"
        )
    facts = None if facts is None else as_batch(facts)
    lm.check()
    of_trials = FirstTokenWarning, WideScopeWarning  # which nobody keeps
    with Bar() as bar, sharing_targets(), heard(*of_trials):
        told = progress or bar
        watch = Watch(told, cancel)
        start = _start(lm, watch)
        given = mixed(bundled_facts() if facts is None else facts)
        chosen = chosen_facts(lm, start, given, watch)
        known_with = _known_with(lm, given[:_ASKED], watch)
        blocks = _blocks(lm, chosen, watch)
        places = windows(lm, start, blocks, moments)
        layers = sorted(set(chain(*places)))
        if moments is None:
            moments = cached_moments(lm, layers, watch)
        check_moments(moments, lm, layers)
        search = Search(lm, start, chosen, moments, budget, told, cancel)

        def found(file: Path | None = None) -> Guide:
            best = search.best
            at = blocks.assign(hooked=blocks["block"].isin(best.layers))
            lead = _best_lead(known_with)
            return Guide(
                lm.name,
                best,
                search.frame,
                at,
                tuple(chosen),
                lead,
                known_with,
                kept=file,
                settled=guided.settled(lm),
            )

        try:
            search.run(places)
        except EditCancelled as cancelled:
            count = len(search.tried)
            stopped = EditCancelled(
                f"{cancelled}. The guide had tried {count} of {search.total} settings, and kept"
                " nothing" + ("; the best of them is in `guide` of this error" if count else "")
            )
            stopped.guide = found() if count else None
            raise stopped from None
    return found(_keep(lm, search))


def _start(lm: LanguageModel, watch: Watch) -> EditConfig:
    """What `EditConfig.for_model` has so far, known or guessed, with context templates."""
    with heard():
        config = EditConfig.for_model(lm)
    if config.context_templates is not None:
        return config
    return replace(config, context_templates=sample_contexts(lm, watch))


def _known_with(lm: LanguageModel, facts: Sequence[Fact], watch: Watch) -> dict[str, int]:
    """How many of `facts` the model knows by lead, none first; empty where it needs none."""
    mask = lm.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    if lm.lead or mask[0]:
        return {}
    plain = lm.token_ids("a")
    found: dict[str, int] = {}
    for lead in dict.fromkeys(["", "\n", lm.tokenizer.bos_token, lm.tokenizer.eos_token]):
        if lead is None:
            continue
        watch("known", len(found), 4)
        leading = replace(lm, lead=lead)
        if not lead or len(leading.token_ids("a")) > len(plain):
            found[lead] = len(known_facts(leading, facts))
    return found


def _best_lead(known_with: Mapping[str, int]) -> str | None:
    """The lead with which most is known, if that is no less than without one."""
    leads = {lead: count for lead, count in known_with.items() if lead}
    best = max(leads, key=leads.__getitem__, default=None)
    return best if best is not None and leads[best] >= known_with[""] else None


def _blocks(lm: LanguageModel, facts: Sequence[Fact], watch: Watch) -> pd.DataFrame:
    """`Guide.blocks`, but for what is hooked."""
    shares = key_shares(lm, watch)
    trace = causal_trace(lm, facts[:_TRACED], watch).groupby("block").mean()
    harm = trace["clean"] - trace["corrupted"]
    recovery = ((trace["restored"] - trace["corrupted"]) / harm).where(harm > 0)
    massive = [share > MASSIVE for share in shares]
    frame = pd.DataFrame({"block": range(lm.n_layers), "share": shares, "massive": massive})
    means = trace[["clean", "corrupted", "restored"]]
    return frame.join(means).assign(recovery=recovery.to_numpy())


def _keep(lm: LanguageModel, search: Search) -> Path | None:
    """Keep what was found, unless no edit took or the cache cannot be written to."""
    frame = search.frame
    if guided.settled(lm) or not frame.loc[frame["chosen"], "reliability"].max() > 0:
        return None
    try:
        return guided.keep(lm, vars(search.best))
    except OSError:
        return None


def _named(config: EditConfig) -> str:
    layers = config.layers
    listed = f"{layers[0]}–{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
    if len(layers) != layers[-1] - layers[0] + 1:
        listed = ", ".join(map(str, layers))
    return (
        f"layer{'s' * (len(layers) > 1)} {listed}, λ {config.covariance_weight:g}, learning rate"
        f" {config.learning_rate:g}, clamp {config.clamp_factor:g}"
    )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
