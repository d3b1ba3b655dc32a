"""The product on the real default model."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import coachhook_viz as cv
from coachhook_viz.editing.moments import cached_moments

pytestmark = pytest.mark.model

PROMPTS = ("The capital of Italy is", "The Louvre is located in the city of", "Water is made of")


def logits(session: cv.Session) -> torch.Tensor:
    prompts = [fact.text for fact in cv.bundled_facts()[:4]] + list(PROMPTS)
    with session.hooked(), torch.no_grad():
        return session.lm.model(**session.lm.encode(prompts), use_cache=False).logits


@pytest.fixture(scope="module")
def history(lm: cv.LanguageModel) -> tuple[cv.Session, list[torch.Tensor]]:
    """A session of two rounds of two facts, and the logits at each position when first reached."""
    session = cv.Session(lm)
    seen = [logits(session)]
    for start in (0, 2):
        session.apply(cv.bundled_facts()[start : start + 2])
        seen.append(logits(session))
    return session, seen


@pytest.fixture
def session(history: tuple[cv.Session, list[torch.Tensor]]) -> cv.Session:
    session, _ = history
    session.go_to(2)
    return session


def test_edits_take_and_stay_local(session: cv.Session) -> None:
    means = session.evaluate().groupby("metric")["value"].mean()
    assert means["reliability"] >= 0.96
    assert means["locality"] >= 0.7  # near neighbours, which the z-score scope partly takes in
    for fact in session.state.facts:
        assert session.generate(fact.text, 6).strip().startswith(fact.target)
        assert session.generate(fact.text, 6, edited=False).strip().startswith(str(fact.truth))
    for prompt in PROMPTS:
        assert session.generate(prompt, 3) == session.generate(prompt, 3, edited=False)


def test_every_position_is_bit_equal(history) -> None:
    session, seen = history
    for position in (0, 2, 1, 0, 1, 2):
        session.go_to(position)
        assert torch.equal(logits(session), seen[position])
    with torch.no_grad():
        prompts = [fact.text for fact in cv.bundled_facts()[:4]] + list(PROMPTS)
        bare = session.lm.model(**session.lm.encode(prompts), use_cache=False).logits
    assert torch.equal(bare, seen[0])


def test_batched_generation_says_what_single_does(session: cv.Session) -> None:
    lm = session.lm
    prompts = [fact.text for fact in session.state.facts] + list(PROMPTS)
    texts = [lm.lead + prompt for prompt in prompts]
    for side in ("left",):  # generating needs the last token at the end
        batch = lm.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        with session.hooked():
            output = lm.generate(**batch, max_new_tokens=6, do_sample=False)
        new = lm.tokenizer.batch_decode(
            output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert new == [session.generate(prompt, 6) for prompt in prompts]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_changes_no_answer(session: cv.Session, side: str) -> None:
    lm = session.lm
    prompts = [fact.text for fact in session.state.facts] + list(PROMPTS)
    texts = [lm.lead + prompt for prompt in prompts]
    batch = lm.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    mask = batch["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with session.hooked(), torch.no_grad():
        together = lm.model(**batch, position_ids=positions, use_cache=False).logits
        for row, prompt in enumerate(prompts):
            alone = lm.model(**lm.encode([prompt]), use_cache=False).logits[0]
            torch.testing.assert_close(together[row][mask[row].bool()], alone, atol=2e-3, rtol=2e-3)


def test_scope_names_the_fact_that_reached_the_subject(session: cv.Session) -> None:
    for index, fact in enumerate(session.state.facts):
        scope = session.scope(fact.text)
        assert scope.in_scope.any(1).all()
        token = int(scope.norms.sum(0).argmax())
        assert fact.subject.endswith(scope.tokens[token].strip())
        assert int(scope.contributions[:, :, token].sum(0).argmax()) == index


def test_match_scope_keeps_the_near_neighbours(session: cv.Session) -> None:
    matched = cv.Session(session.lm, cv.EditConfig.for_model(session.lm, scope="match"))
    matched.apply(cv.bundled_facts()[:2])
    means = matched.evaluate().groupby("metric")["value"].mean()
    assert means["reliability"] == 1
    assert means["locality"] >= 0.95


def test_cancel_mid_optimisation_changes_nothing(history) -> None:
    session, seen = history
    session.go_to(2)
    steps = 0

    def cancel() -> bool:
        nonlocal steps
        steps += 1
        return steps == 5

    with pytest.raises(cv.EditCancelled, match="targets, step 2"):
        session.apply(cv.bundled_facts()[4:6], cancel=cancel)
    assert session.position == 2
    assert torch.equal(logits(session), seen[2])


def test_a_bfloat16_model_is_edited_too() -> None:
    lm = cv.load_model(dtype=torch.bfloat16)
    config = cv.EditConfig.for_model(lm)
    session = cv.Session(lm, config, cached_moments(cv.load_model(), config.layers))
    fact = cv.bundled_facts()[0]
    round_ = session.apply([fact])
    assert session.generate(fact.text, 3).strip().startswith(fact.target)
    assert session.delta_weight(config.layers[0]).dtype == torch.float64
    assert round_.targets.dtype == torch.float64
    assert session.scope(fact.text).in_scope.any(1).all()


_REOPEN = """
import hashlib, sys
import torch
import coachhook_viz as cv

session = cv.Session.load(sys.argv[1], cv.load_model(), journal=False)
for branch in ("what if", "main"):
    session.switch(branch)
    with session.hooked(), torch.no_grad():
        inputs = session.lm.encode(sys.argv[2:])
        data = session.lm.model(**inputs, use_cache=False).logits.numpy().tobytes()
    print(branch, session.position, sorted(session.muted), hashlib.sha256(data).hexdigest())
"""


def test_a_session_with_branches_and_muted_facts_reopens_bit_equal_in_a_fresh_process(
    lm: cv.LanguageModel, tmp_path: Path
) -> None:
    session = cv.Session(lm, folder=tmp_path / "s")
    session.apply(cv.bundled_facts()[:2])
    session.apply(cv.bundled_facts()[2:3])
    session.undo()
    session.mute(0)
    session.branch("what if")
    session.unmute(0)
    session.apply(cv.bundled_facts()[3:4])
    prompts = [fact.text for fact in cv.bundled_facts()[:4]] + list(PROMPTS)
    expected = []
    for branch in ("what if", "main"):
        session.switch(branch)
        with session.hooked(), torch.no_grad():
            data = lm.model(**lm.encode(prompts), use_cache=False).logits.numpy().tobytes()
        digest = hashlib.sha256(data).hexdigest()
        expected.append(f"{branch} {session.position} {sorted(session.muted)} {digest}")
    command = [sys.executable, "-c", _REOPEN, str(tmp_path / "s"), *prompts]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found.splitlines() == expected
    assert expected[0].split()[-1] != expected[1].split()[-1]


def test_measurements_on_the_default_model(session: cv.Session) -> None:
    """Edits on top of each other: each fact's own effect is far above the others' on its key."""
    history = session.quality()
    ranks = history[history["metric"] == "target_rank"]
    assert (ranks["value"] == 1).all()
    truth = history[history["metric"] == "truth_probability"]["value"]
    target = history[history["metric"] == "target_probability"]["value"]
    assert (target.to_numpy() > truth.to_numpy()).all()
    pairs = session.interference()
    others = pairs[pairs["fact"] != pairs["by"]]
    assert others["actual"].mean() < 0.5
    drift = session.drift()
    perplexity = drift[drift["metric"] == "perplexity"]["value"].tolist()
    assert 5 < perplexity[0] < 100
    assert perplexity[-1] < 1.2 * perplexity[0]
    scopes = session.scope_quality()
    assert scopes[scopes["kind"] == "edit"]["at_subject"].all()
    assert session.forgotten().empty


def test_metrics_on_the_default_model(session: cv.Session) -> None:
    """Facts that it knew and that took; what it knew of the same subjects beside them."""
    names = ["reliability", "generality", "same subject", "retention", "fluency", "ES", "NS"]
    frame = session.evaluate(metrics=names)
    parts = dict(iter(frame.groupby("metric")))
    for name in ("reliability", "ES", "retention"):
        assert (parts[name]["value"] == 1).all()
        assert parts[name]["known"].all()
    assert set(parts["retention"]["fact"]) == {0, 1}
    assert parts["fluency"]["value"].between(300, 700).all()
    beside = parts["same subject"]
    assert "The currency of France is the" in set(beside["prompt"])
    assert beside["known"].any()
    written = session.evaluate(metrics=["reliability", "generality"], by="generation")
    means = written.groupby("metric")["value"].mean()
    assert means["reliability"] == 1
    assert means["generality"] <= parts["generality"]["value"].mean() + 1e-9
    unedited = session.evaluate(0, metrics=names)
    assert unedited.empty
