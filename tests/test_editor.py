from __future__ import annotations

import statistics
from functools import partial

import pytest
import torch
from plain import plain_round
from tiny import (
    FAMILIES,
    LAYERS,
    MORE_FAMILIES,
    tiny_config,
    tiny_facts,
    tiny_model,
    tiny_moments,
    tiny_session,
)

from coachhook_viz import Fact
from coachhook_viz.editing import suffixes, values
from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.progress import Progress
from coachhook_viz.editing.scope import CALIBRATION_MARGIN
from coachhook_viz.editing.tokens import length_batches, prepare


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("family", "lead"),
    [(family, lead) for family in FAMILIES for lead in ("", "He ")]
    + [(family, "He ") for family in MORE_FAMILIES],
)
@pytest.mark.filterwarnings("ignore::coachhook_viz.editing.tokens.FirstTokenWarning")
def test_a_round_is_the_plain_published_procedure(family: str, lead: str) -> None:
    """Different code, one fact at a time, whole padded passes, direct solves: same numbers."""
    lm = tiny_model(family, lead=lead)
    config = tiny_config(scope="off", stop_loss=1.0, steps=8)
    session = tiny_session(lm, scope="off", stop_loss=1.0, steps=8)
    round_ = session.apply(tiny_facts())
    targets, delta_weights = plain_round(lm, config, tiny_facts(), tiny_moments(lm))
    assert difference(round_.targets, targets) < 3e-4  # float32, over eight steps
    for layer, expected in delta_weights.items():
        assert difference(session.delta_weight(layer), expected) < 1e-3


def test_facts_that_stop_early_do_not_move_on() -> None:
    """Losses that cross the stop at different steps, together and alone."""
    lm = tiny_model(lead="He ")
    early = tiny_session(lm, stop_loss=0.0, steps=4).apply(tiny_facts()).losses
    stop = statistics.median(early)  # half the facts stop by the fourth pass, the rest go on
    together = tiny_session(lm, stop_loss=stop, steps=12).apply(tiny_facts())
    alone = [tiny_session(lm, stop_loss=stop, steps=12).apply([fact]) for fact in tiny_facts()]
    for i, round_ in enumerate(alone):
        assert difference(together.targets[i], round_.targets[0]) < 1e-4
        assert together.losses[i] == pytest.approx(round_.losses[0], abs=1e-3)
    assert sum(loss < stop for loss in together.losses) >= 3
    assert {loss < stop for loss in early} == {True, False}


def test_chunks_bound_memory_and_change_nothing(monkeypatch) -> None:
    whole = tiny_session(tiny_model(lead="He ")).apply(tiny_facts())
    monkeypatch.setattr(values, "_CHUNK_TOKENS", {"cpu": 20})
    monkeypatch.setattr(suffixes, "length_batches", partial(length_batches, overhead=0))
    steps: list[Progress] = []
    parts = tiny_session(tiny_model(lead="He ")).apply(tiny_facts(), progress=steps.append)
    assert difference(parts.targets, whole.targets) < 1e-5
    totals = {step.total for step in steps if step.stage == "targets"}
    assert len(totals) == 1
    assert totals.pop() > tiny_config().steps


def test_targets_stay_within_the_clamp() -> None:
    session = tiny_session(tiny_model(lead="He "), clamp_factor=0.1, stop_loss=0.0)
    lm, fact = session.lm, tiny_facts()[0]
    round_ = session.apply([fact])
    [tokens] = prepare(lm, [fact], (("{}",),))
    initial, _ = run_to(lm, Batch.of([tokens.bare.ids], lm.device), session.config.layers[-1])
    h = initial[0, tokens.bare.subject_last].double()
    assert (round_.targets[0] - h).norm() <= 0.1 * h.norm() * (1 + 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
def test_round_closes_in_on_its_targets(family: str, scope: str) -> None:
    """After the spread the last hooked block says nearly z at each subject (small λ).

    α starts above what the prompts can reach: layers that did not see each other would overshoot.
    """
    lm = tiny_model(family, lead="He ")
    templates = (("{}",),)
    session = tiny_session(
        lm, covariance_weight=1e-6, scope=scope, alpha=9.0, context_templates=templates
    )
    facts = tiny_facts()[:3]
    round_ = session.apply(facts)
    for i, tokens in enumerate(prepare(session.lm, facts, (("{}",),))):
        with session.hooked():
            states, _ = run_to(
                session.lm, Batch.of([tokens.bare.ids], session.lm.device), LAYERS[-1]
            )
        assert difference(states[0, tokens.bare.subject_last].double(), round_.targets[i]) < 0.3


def test_a_fact_that_is_known_already_sets_no_threshold() -> None:
    """It has nothing to write: its z-scores are of rounding, or of the others of its round."""
    lm = tiny_model(lead="He ")
    started = tiny_session(lm, steps=1).apply(tiny_facts()).losses
    session = tiny_session(lm, stop_loss=statistics.median(started), alpha=9.0)
    round_ = session.apply(tiny_facts())
    known = [loss < statistics.median(started) for loss in started]
    for layer, alpha in round_.alphas.items():
        peaks = round_.peaks[layer]
        assert peaks.isinf().tolist() == known
        assert alpha == pytest.approx(float(peaks.min()) - CALIBRATION_MARGIN)
    lowered = session.drift().dropna(subset="fact")
    assert (
        not lowered[lowered["metric"] == "alpha"]["fact"]
        .isin([fact_id for fact_id, holds in enumerate(known) if holds])
        .any()
    )
    all_known = tiny_session(lm, stop_loss=1e3, alpha=9.0).apply(tiny_facts())
    assert set(all_known.alphas.values()) == {9.0}


def test_a_fact_that_the_model_says_already_sets_no_threshold(monkeypatch) -> None:
    """There are steps to take, to p 1, and still next to nothing to write."""
    lm = tiny_model(lead="He ")
    started = tiny_session(lm, steps=1).apply(tiny_facts()).losses
    monkeypatch.setattr(values, "_SAID", statistics.median(started))
    round_ = tiny_session(lm, stop_loss=0.0).apply(tiny_facts())
    known = [loss < statistics.median(started) for loss in started]
    assert 0 < sum(known) < len(known)
    for peaks in round_.peaks.values():
        assert peaks.isinf().tolist() == known


def test_progress_counts_every_stage() -> None:
    steps: list[Progress] = []
    tiny_session(tiny_model(lead="He ")).apply(tiny_facts()[:2], progress=steps.append)
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages == ["targets", "layers"]
    assert [s.step for s in steps if s.stage == "targets"] == list(range(tiny_config().steps))
    assert all(s.loss is not None for s in steps if s.stage == "targets" and s.step)
    assert all(0 <= s.step < s.total for s in steps)


def test_a_subject_at_the_very_start_works_without_any_prefix() -> None:
    lm = tiny_model()
    config = {"context_templates": (("{}",),), "scope": "off"}
    with pytest.warns(UserWarning, match="first token"):
        round_ = tiny_session(lm, **config).apply([Fact("{} lives in", "Anna", "Oslo")])
    with pytest.warns(UserWarning, match="first token"):
        targets, _ = plain_round(
            lm, tiny_config(**config), [Fact("{} lives in", "Anna", "Oslo")], tiny_moments(lm)
        )
    assert difference(round_.targets, targets) < 1e-4
