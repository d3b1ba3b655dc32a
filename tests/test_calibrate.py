"""τ of the match scope, by fact and layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import LAYERS, tiny_config, tiny_facts, tiny_model, tiny_moments
from torch import Tensor
from transformers import DynamicCache

import coachhook_viz as cv
from coachhook_viz import EditConfig, Fact, Session
from coachhook_viz.editing.calibrate import Likes, others
from coachhook_viz.editing.editor import check
from coachhook_viz.editing.hooks import attached
from coachhook_viz.editing.wordings import proposed
from coachhook_viz.store.format import from_content, to_content, to_tensors

LED = {"lead": "He "}


def session_of(scope: str = "match", match_threshold: float | None = None) -> Session:
    lm = tiny_model(**LED)
    config = tiny_config(scope=scope, match_threshold=match_threshold)
    session = Session(lm, config, tiny_moments(lm))
    session.apply(tiny_facts()[:2])
    session.apply(tiny_facts()[2:4])
    return session


@pytest.fixture(scope="module")
def session() -> Session:
    return session_of()


@torch.no_grad()
def logits(session: Session, ids: list[int], left: int = 0) -> Tensor:
    mask = torch.tensor([[0] * left + [1] * len(ids)])
    with session.hooked():
        out = session.lm.model(
            input_ids=torch.tensor([[5] * left + ids]),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_min(0),
            use_cache=False,
        )
    return out.logits[0, left:]


def all_logits(session: Session) -> Tensor:
    texts = [fact.text for fact in tiny_facts()]
    return torch.cat([logits(session, session.lm.token_ids(text)) for text in texts])


def test_each_fact_has_its_own_at_each_layer_between_its_own_and_the_others(
    session: Session,
) -> None:
    lm, round_ = session.lm, session.rounds[0]
    facts = list(round_.facts)
    likes = Likes(lm, facts, check(lm, session.config, facts))
    at = session.state_at(1)
    hooks = at.hook_layers(lm.dtype)
    for number, layer in enumerate(LAYERS):
        factors = round_.factors[layer]
        before = {earlier: hooks[earlier] for earlier in LAYERS[:number]}
        with attached(lm, before):
            again = likes.thresholds(layer, factors.unit_directions)
        assert torch.equal(again, factors.thresholds)
        assert len(set(factors.thresholds.tolist())) == 2
    for place, fact in enumerate(facts):  # by hand, from what the scope reads
        own = [fact.text] + [
            template.replace("{}", fact.text)
            for group in session.config.context_templates or ()
            for template in group[1 if group[0] == "{}" else 0 :]
        ]
        own += [text.replace("{}", fact.subject) for text in proposed(lm, fact)]
        quiet = at.judged(None, 1.0)
        mine, theirs = [], []
        for text, subject, found in (
            *((text, fact.subject, mine) for text in own),
            *((fact.prompt.replace("{}", s), s, theirs) for s in others(fact)),
        ):
            read = session.scope(text, subject, state=quiet)
            found.append(float(read.match[0, place, read.subject_last]))
        highest = max(theirs)
        quartile = float(torch.tensor(mine, dtype=torch.float64).quantile(0.25))
        wanted = highest + (quartile - highest) / 3
        wanted = max(min(max(wanted, 0.2), mine[0] - 0.1), 0.1)
        assert float(round_.factors[LAYERS[0]].thresholds[place]) == pytest.approx(wanted, rel=1e-4)


def test_it_is_what_the_hook_goes_by(session: Session) -> None:
    taus = {layer: at.columns.thresholds for layer, at in session.state.layers.items()}
    for fact in tiny_facts():
        read = session.scope(fact.text)
        for i, layer in enumerate(LAYERS):
            assert torch.equal(read.match_thresholds[i], taus[layer])
            inside = (read.match[i] >= taus[layer][:, None]).any(0)
            assert torch.equal(read.in_scope[i], inside)
            assert torch.equal(read.scores[i] >= read.bounds[i], inside)
        if fact in session.state.facts:
            assert read.in_scope.any(1).all()  # at every hooked layer
    one = session.scope(fact.text, state=session.state.judged(None, 0.7))
    assert (one.match_thresholds == 0.7).all()
    assert " – " in session.scope(fact.text).layer_names[0]
    assert one.layer_names[0].endswith("τ 0.70")


def test_undo_mute_save_and_load_keep_it(session: Session, tmp_path: Path) -> None:
    session.go_to(2)
    whole = all_logits(session)
    session.undo()
    once = all_logits(session)
    session.redo()
    session.mute(1)
    assert session.state.layers[1].columns.thresholds.shape == (3,)
    muted = all_logits(session)
    session.unmute(1)
    assert torch.equal(all_logits(session), whole)
    session.save(tmp_path / "s")
    again = Session.load(tmp_path / "s", session.lm, tiny_moments(session.lm))
    assert again.config.match_threshold is None
    assert torch.equal(all_logits(again), whole)
    again.mute(1)
    assert torch.equal(all_logits(again), muted)
    again.unmute(1)
    again.undo()
    assert torch.equal(all_logits(again), once)
    assert not torch.equal(whole, once)


def test_a_session_from_before_has_one_for_all() -> None:
    session = session_of("match", 0.5)
    lm, rounds = session.lm, session.rounds
    content = to_content(session.snapshot(), {round_.number: "" for round_ in rounds})
    tensors = {
        round_.number: {
            name: tensor
            for name, tensor in to_tensors(round_).items()
            if not name.endswith(".thresholds")
        }
        for round_ in rounds
    }
    saved = from_content(content, tensors, lm)
    assert saved.config == session.config
    state = cv.EditState.of(lm, saved.config, saved.history.branch.rounds)
    assert (state.layers[1].columns.thresholds == 0.5).all()
    prompt = tiny_facts()[0].text
    with session.hooked(), torch.no_grad():
        now = lm.model(**lm.encode([prompt])).logits
    with session.hooked(state=state), torch.no_grad():
        assert torch.equal(lm.model(**lm.encode([prompt])).logits, now)


@pytest.mark.parametrize("left", [0, 3])
def test_pads_and_a_cache_change_nothing(session: Session, left: int) -> None:
    lm = session.lm
    for fact in tiny_facts():
        ids = lm.token_ids(fact.text)
        alone = logits(session, ids)
        torch.testing.assert_close(logits(session, ids, left), alone, atol=2e-4, rtol=2e-4)
        cache = DynamicCache()
        with session.hooked(), torch.no_grad():
            parts = [
                lm.model(input_ids=torch.tensor([part]), past_key_values=cache).logits[0]
                for part in (ids[:2], ids[2:3], ids[3:])
            ]
        torch.testing.assert_close(torch.cat(parts), alone, atol=2e-4, rtol=2e-4)


def test_an_edit_under_the_z_score_scope_is_the_same_with_and_without() -> None:
    with_it, without = session_of("zscore"), session_of("zscore", 0.5)
    for layer in LAYERS:
        assert torch.equal(with_it.delta_weight(layer), without.delta_weight(layer))
    assert torch.equal(all_logits(with_it), all_logits(without))
    looked = with_it.state.judged("match")
    assert (looked.layers[1].columns.thresholds != 0.5).all()
    assert (without.state.layers[1].columns.thresholds == 0.5).all()


def test_subjects_like_that_of_a_fact() -> None:
    same = others(cv.bundled_facts("capital")[0])
    assert len(same) > 5
    assert "France" not in same
    assert set(same) <= {fact.subject for fact in cv.bundled_facts("capital")}
    unknown = others(Fact("The mayor of {} is", "hamlet", "Anna"))
    assert len(unknown) > 10
    assert "Hamlet" not in unknown


@pytest.mark.model
def test_on_the_default_model_neighbours_stay_and_paraphrases_take(lm: cv.LanguageModel) -> None:
    session = Session(lm, EditConfig.for_model(lm, scope="match"))
    assert session.config.match_threshold is None
    session.apply(cv.bundled_facts("animal class")[:3])
    means = session.evaluate().groupby("metric")["value"].mean()
    assert means["reliability"] == 1
    assert means["locality"] == 1
    neutral = "It was a cold morning in late autumn, and the people"
    assert session.generate(neutral, 8) == session.generate(neutral, 8, edited=False)
