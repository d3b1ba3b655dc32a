from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import (
    LAYERS,
    fingerprint,
    tiny_config,
    tiny_facts,
    tiny_model,
    tiny_moments,
    tiny_session,
)
from torch.utils.flop_counter import FlopCounterMode

import coachhook_viz.session as session_module
from coachhook_viz import (
    EditCancelled,
    EditConfig,
    Fact,
    FactError,
    Progress,
    RepeatedFactWarning,
    Session,
)
from coachhook_viz.editing import editor
from coachhook_viz.editing.editor import WideScopeWarning
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.values import Targets
from coachhook_viz.events import Configured, Event, RoundApplied
from coachhook_viz.facts import Problem
from coachhook_viz.store import journal

PROMPTS = [fact.text for fact in tiny_facts()] + ["The capital of Spain is"]


def new_session(scope: str = "zscore") -> Session:
    return tiny_session(tiny_model(lead="He "), scope=scope)


def logits(session: Session) -> torch.Tensor:
    with session.hooked(), torch.no_grad():
        return torch.cat(
            [session.lm.model(**session.lm.encode([p]), use_cache=False).logits[0] for p in PROMPTS]
        )


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
def test_every_position_is_bit_equal_however_it_is_reached(scope: str) -> None:
    session = new_session(scope)
    seen = [logits(session)]
    for fact in tiny_facts()[:4]:
        session.apply([fact])
        seen.append(logits(session))
    for position in (0, 4, 1, 3, 2, 0):
        session.go_to(position)
        assert session.position == position
        assert torch.equal(logits(session), seen[position])
    for _ in range(4):
        session.redo()
    assert torch.equal(logits(session), seen[4])
    session.undo()
    assert torch.equal(logits(session), seen[3])
    session.go_to(0)
    with torch.no_grad():
        bare = [session.lm.model(**session.lm.encode([p]), use_cache=False) for p in PROMPTS]
    assert torch.equal(torch.cat([output.logits[0] for output in bare]), seen[0])
    assert not torch.equal(seen[0], seen[1])


def test_a_round_after_undo_replaces_the_undone_and_is_the_same_again() -> None:
    facts = tiny_facts()
    session, straight = new_session(), new_session()
    session.apply(facts[:2])
    session.apply(facts[2:4])
    session.undo()
    again = session.apply(facts[4:])
    straight.apply(facts[:2])
    expected = straight.apply(facts[4:])
    assert len(session.rounds) == 2
    assert torch.equal(again.targets, expected.targets)
    for layer in LAYERS:
        assert torch.equal(session.delta_weight(layer), straight.delta_weight(layer))
        assert again.alphas[layer] == expected.alphas[layer]


def test_undo_redo_and_go_to_say_when_there_is_nothing() -> None:
    session = new_session()
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo()
    with pytest.raises(ValueError, match="nothing to redo"):
        session.redo()
    with pytest.raises(ValueError, match=r"go_to\(1\): the session has 0 rounds"):
        session.go_to(1)
    with pytest.raises(ValueError, match=r"evaluate\(-1\)"):
        session.evaluate(-1)
    with pytest.raises(ValueError, match="layer 0 is not hooked"):
        session.delta_weight(0)


@pytest.mark.parametrize("bad", [[], [Fact("no slot", "Anna", "Oslo")]])
def test_bad_facts_change_nothing(bad: list[Fact]) -> None:
    session = new_session()
    session.apply(tiny_facts()[:1])
    before, rounds = logits(session), session.rounds
    with pytest.raises(FactError):
        session.apply(bad)
    assert session.rounds == rounds
    assert torch.equal(logits(session), before)


def test_check_refuses_all_that_apply_would_and_edits_nothing() -> None:
    session = tiny_session()  # no lead: a first-token subject is no reason to refuse
    [good, other, *_] = tiny_facts()
    long = Fact("{} " + "is " * 70 + "in", "Anna", "Oslo")
    session.check([good, other])
    with pytest.raises(FactError) as caught:
        session.check([other, long, good, other, long])
    found = [(problem.index, problem.field) for problem in caught.value.problems]
    assert found == [(1, "prompt"), (3, "target"), (4, "target"), (4, "prompt")]
    with pytest.raises(FactError) as refused:
        session.apply([other, long, good, other, long])
    assert refused.value.problems == caught.value.problems
    for bad in ([], [Fact("no slot", "Anna", "Oslo"), long]):
        with pytest.raises(FactError):
            session.check(bad)
    assert session.rounds == ()


def test_a_batch_may_be_any_iterable_or_one_fact() -> None:
    facts, session = tiny_facts(3), new_session()
    for give in (
        iter,
        lambda given: (f for f in given),
        tuple,
    ):
        session.check(give(facts))
        assert list(session.apply(give(facts)).facts) == facts
        session.undo()
    assert [len(r.facts) for r in session.apply_in_rounds(iter(facts), 2)] == [2, 1]
    session.check(facts[0])
    with pytest.warns(RepeatedFactWarning):
        assert session.apply(facts[0]).facts == (facts[0],)
    assert len(session.clashes(iter(facts))) == 3
    for wrong, reason in [
        ([asdict(facts[0])], "it is a dict, not a Fact; read_facts makes facts of records"),
        (pd.DataFrame([asdict(facts[0])]), "it is a DataFrame, not a Fact; read_facts"),
        ([("{} is", "Anna", "red")], "it is a tuple, not a Fact"),
        (None, "it is of the type NoneType"),
        (iter([]), "the batch is empty"),
    ]:
        position = session.position
        for refuse in (session.check, session.apply):
            with pytest.raises(FactError, match=reason):
                refuse(wrong)
        assert session.position == position


def test_a_subject_is_not_found_within_a_word() -> None:
    session = new_session()
    session.apply([Fact("{} lives in", "Anna", "Oslo")])
    assert session.scope("Annabel is not Anna today").subject_last == 4
    assert session.scope("Annabel is not old").subject_last is None
    assert session.scope("Annabel is not old", "Anna").subject_last is None
    assert session.scope("Anna is Anna or Annabel", "Anna").subject_last == 3


def test_cancel_stops_within_the_step() -> None:
    """It is asked before each step, and again before the step's longer half."""
    session = new_session()
    asked = []

    def cancel() -> bool:
        asked.append(True)
        return len(asked) == 4

    with pytest.raises(EditCancelled, match="targets, step 1"):
        session.apply(tiny_facts()[:2], cancel=cancel)
    assert session.rounds == ()
    assert len(asked) == 4


def test_rounds_of_one_size_are_what_apply_makes() -> None:
    facts, session, other = tiny_facts(5), new_session(), new_session()
    told: list[Progress] = []
    heard: list[Event] = []
    session.subscribe(heard.append)
    rounds = session.apply_in_rounds(facts, 2, told.append, source="me")
    for start in (0, 2, 4):
        other.apply(facts[start : start + 2])
    assert rounds == session.rounds
    assert [round_.facts for round_ in rounds] == [round_.facts for round_ in other.rounds]
    assert torch.equal(logits(session), logits(other))
    assert [(type(e), e.source) for e in heard] == [(RoundApplied, "me")] * 3
    assert {(p.round, p.rounds) for p in told} == {(1, 3), (2, 3), (3, 3)}


def test_all_rounds_are_checked_before_the_first() -> None:
    session, facts = new_session(), tiny_facts(5)
    again = replace(facts[0], target="Lima")
    with pytest.raises(FactError) as caught:
        session.apply_in_rounds([*facts[:3], Fact("no slot", "a", "b"), facts[4], facts[4]], 2)
    assert [p.index for p in caught.value.problems] == [3, 5]
    assert "fact 4 ('a' in 'no slot')" in str(caught.value)
    for size in (0, -2, 1.5):
        with pytest.raises(ValueError, match="a round needs at least one fact"):
            session.apply_in_rounds(facts, size)
    with pytest.raises(FactError, match="the batch is empty"):
        session.apply_in_rounds([], 2)
    assert session.rounds == ()
    session.apply_in_rounds([facts[0], again], 1)  # in different rounds they may ask the same
    assert len(session.rounds) == 2


def test_a_cancel_keeps_the_rounds_that_are_finished() -> None:
    session, facts = new_session(), tiny_facts(6)
    with pytest.raises(EditCancelled) as caught:
        session.apply_in_rounds(facts, 2, cancel=lambda: len(session.rounds) == 2)
    assert caught.value.rounds == session.rounds
    assert [round_.facts for round_ in session.rounds] == [tuple(facts[:2]), tuple(facts[2:4])]


def test_a_round_that_fails_is_named_in_the_whole_list(monkeypatch) -> None:
    session, facts = new_session(), tiny_facts(4)
    real = session_module.edit_round

    def fails(lm, state, batch, *args):
        if state.rounds:
            raise FactError([Problem(1, "target", "its optimisation failed")], batch)
        return real(lm, state, batch, *args)

    monkeypatch.setattr(session_module, "edit_round", fails)
    with pytest.raises(FactError, match=r"^fact 4 .*its optimisation failed"):
        session.apply_in_rounds(facts, 2)
    assert len(session.rounds) == 1


def test_delta_weight_is_the_sum_of_the_factors() -> None:
    session = new_session()
    for fact in tiny_facts()[:3]:
        session.apply([fact])
    for layer in LAYERS:
        parts = [r.factors[layer].residuals @ r.factors[layer].directions.T for r in session.rounds]
        torch.testing.assert_close(session.delta_weight(layer), sum(parts))


@pytest.mark.filterwarnings("ignore::coachhook_viz.clashes.RepeatedFactWarning")
def test_history_costs_its_factors_and_no_more() -> None:
    session = new_session()
    lm = session.lm
    for size in (1, 2):
        round_ = session.apply(tiny_facts()[:size])
        for factors in round_.factors.values():
            stored = sum(
                part.numel() for part in vars(factors).values() if isinstance(part, torch.Tensor)
            )
            assert stored == size * (lm.d_model + 2 * lm.d_key + 1)
        assert round_.targets.numel() == size * lm.d_model


@pytest.mark.filterwarnings("ignore::coachhook_viz.clashes.RepeatedFactWarning")
def test_150_rounds_cost_the_same_from_first_to_last() -> None:
    """Not a timing: the same kernels on the same shapes, counted."""
    session = tiny_session(tiny_model(lead="He "), steps=2, context_templates=(("{}",),))
    facts = tiny_facts()
    work = []
    for t in range(150):
        fact = Fact(facts[0].prompt, facts[t % 6].subject, ("Oslo", "Quito", "Lima")[t % 3])
        if t in (*range(1, 7), *range(144, 150)):  # each fact's subject once, early and late
            with FlopCounterMode(display=False) as counter:
                session.apply([fact])
            work.append(counter.get_total_flops())
        else:
            session.apply([fact])
    assert sorted(work[6:]) == sorted(work[:6])
    hook_layers = session.state.hook_layers(session.lm.dtype)
    held = sum(hook.delta_weight.numel() for hook in hook_layers.values())
    assert held == len(LAYERS) * session.lm.d_model * session.lm.d_key
    direct = 30.0 * tiny_moments(session.lm)[2]
    for round_ in session.rounds:
        direct = direct + round_.factors[2].keys @ round_.factors[2].keys.T
    inverse = session._setup.preserved.after(session.rounds)[2]
    expected = torch.linalg.inv(direct)
    assert (inverse - expected).norm() / expected.norm() < 1e-5


@given(prompt=st.sampled_from(PROMPTS), scope=st.sampled_from(["zscore", "match", "off"]))
def test_contributions_sum_to_delta_weight_times_key(prompt: str, scope: str) -> None:
    session = _edited(scope)
    read = session.scope(prompt)
    assert read.contributions.shape == (len(LAYERS), 6, len(read.tokens))
    torch.testing.assert_close(read.contributions.sum(1), read.norms, atol=1e-5, rtol=1e-4)


_SESSIONS: dict[str, Session] = {}


def _edited(scope: str) -> Session:
    if scope not in _SESSIONS:
        _SESSIONS[scope] = new_session(scope)
        _SESSIONS[scope].apply(tiny_facts()[:3])
        _SESSIONS[scope].apply(tiny_facts()[3:])
    return _SESSIONS[scope]


def test_a_facts_match_at_its_own_key_is_one() -> None:
    for round_ in _edited("match").rounds:
        for factors in round_.factors.values():
            own = (factors.unit_directions * factors.keys).sum(0)
            torch.testing.assert_close(own, torch.ones_like(own))


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_scope_reads_what_the_hooks_do(scope: str, prompt: str) -> None:
    """in_scope of a reading is where a hook layer changed its down projection's output."""
    session = _edited(scope)
    before: dict[int, torch.Tensor] = {}
    after: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        def hook(module, args, output) -> None:
            before[layer] = module.forward(*args)  # what it gives by itself
            after[layer] = output

        return session.lm.down_projection(layer).register_forward_hook(hook)

    handles = [keep(layer) for layer in LAYERS]
    with torch.no_grad(), session.hooked():
        session.lm.model(**session.lm.encode([prompt]), use_cache=False)
    for handle in handles:
        handle.remove()
    read = session.scope(prompt)
    for i, layer in enumerate(LAYERS):
        changed = (after[layer] != before[layer]).any(-1)[0]
        assert torch.equal(changed, read.in_scope[i])


def test_scope_explains_itself() -> None:
    session = _edited("zscore")
    read = session.scope(PROMPTS[0])
    inside = zip(read.tokens, read.in_scope.any(0), strict=True)
    marked = ", ".join(f"“{token.strip()}”" for token, hit in inside if hit)
    assert read.explain() == f"In scope at some layer: {marked}."
    assert "no z-score can exceed" in tiny_scope_out_of_reach().explain()
    assert "No round is in force" in new_session().scope(PROMPTS[0]).explain()
    match = _edited("match").scope("not very old")
    nothing = replace(match, in_scope=torch.zeros_like(match.in_scope))
    assert "No token is in scope: the closest is" in nothing.explain()
    with pytest.raises(ValueError, match="no token"):
        tiny_session().scope("")


def tiny_scope_out_of_reach():
    session = tiny_session(tiny_model(lead="He "), alpha=2.2)
    session.apply([Fact("The very old and new city near the river where {} is", "Anna", "Oslo")])
    return session.scope("Anna is")


def test_scope_shows_itself_as_escaped_html() -> None:
    read = replace(_edited("zscore").scope("Anna is"), tokens=("<script>", "a&b", "\n"))
    shown = read._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "a&amp;b" in shown


@pytest.mark.parametrize(("kind", "sign"), [("zscore", "α"), ("match", "τ"), ("off", "")])
def test_scope_shows_what_the_rule_in_force_compares(kind: str, sign: str) -> None:
    read = _edited(kind).scope(PROMPTS[0])
    expected = read.match.amax(1) if kind == "match" else read.z
    assert torch.equal(read.scores, expected)
    for shown in (str(read), read._repr_html_()):
        assert f"{float(read.scores[0, 1]):+.2f}" in shown
        assert {c for c in "ατ" if f"· {c} " in shown} == set(sign)


def test_hooked_contexts_do_not_add_up() -> None:
    """Within `hooked()` the session still tells edited from unedited, and applies as outside."""
    session, other = new_session("off"), new_session("off")
    untouched = fingerprint(session.lm)
    session.apply(tiny_facts()[:2])
    prompt = PROMPTS[0]
    outside = [session.predict(prompt, edited=edited) for edited in (True, False)]
    with session.hooked(), torch.no_grad():
        inside = [session.predict(prompt, edited=edited) for edited in (True, False)]
        again = session.lm.model(**session.lm.encode([prompt]), use_cache=False).logits
        other.apply(tiny_facts()[:2])
    for a, b in zip(inside, outside, strict=True):
        pd.testing.assert_frame_equal(a, b)
    with session.hooked(), torch.no_grad():
        logits_ = session.lm.model(**session.lm.encode([prompt]), use_cache=False).logits
    assert torch.equal(again, logits_)
    for layer in LAYERS:
        assert torch.equal(other.delta_weight(layer), session.delta_weight(layer))
    assert fingerprint(session.lm) == untouched


def test_a_short_prompt_that_opens_the_scope_is_named() -> None:
    session = new_session()
    with pytest.warns(WideScopeWarning, match=r"'Anna is', has 3 tokens.* exceed 1\.15"):
        session.apply([Fact("{} is", "Anna", "Oslo")])


def test_numbers_out_of_range_are_refused(monkeypatch) -> None:
    session = new_session()
    broken = Targets(torch.full((2, session.lm.d_model), torch.nan), (0.1, 0.2))
    monkeypatch.setattr(editor, "optimise_targets", lambda *args: broken)
    with pytest.raises(FactError, match=r"fact 1 .*fact 2 .*left the range of numbers"):
        session.apply(tiny_facts()[:2])
    assert session.position == 0


def test_order_of_facts_in_a_round_does_not_matter() -> None:
    facts = tiny_facts()
    one, other = new_session(), new_session()
    one.apply(facts)
    other.apply(facts[::-1])
    for layer in LAYERS:
        found, expected = other.delta_weight(layer), one.delta_weight(layer)
        assert (found - expected).norm() / expected.norm() < 1e-3
        assert one.rounds[0].alphas[layer] == pytest.approx(other.rounds[0].alphas[layer], abs=2e-3)


def test_order_of_rounds_matters_only_through_what_they_saw() -> None:
    """The covariance is a sum: C after two rounds is one value, whichever came first."""
    session = new_session()
    rounds = [session.apply([fact]) for fact in tiny_facts()[:3]]
    preserved = session._setup.preserved.after(tuple(rounds))
    reordered = session._setup.preserved.after(tuple(rounds[::-1]))
    for layer in LAYERS:
        torch.testing.assert_close(preserved[layer], reordered[layer])
    states = [EditState.of(session.lm, session.config, r) for r in (rounds, rounds[::-1])]
    for layer in LAYERS:
        a, b = (state.layers[layer].delta_weight for state in states)
        torch.testing.assert_close(a, b)


def test_thresholds_follow_the_minimum_rule() -> None:
    session = new_session()
    alphas = dict.fromkeys(LAYERS, session.config.alpha)
    for fact in tiny_facts():
        round_ = session.apply([fact])
        for layer in LAYERS:
            assert round_.alphas[layer] <= alphas[layer]
        alphas = dict(round_.alphas)
        assert session.state.alphas == alphas


def test_evaluate_any_prefix() -> None:
    session = new_session("off")
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    now = session.evaluate()
    assert list(now.columns) == ["fact", "round", "metric", "value"]
    assert set(now["metric"]) == {"reliability", "generality", "locality"}
    assert set(now["fact"]) == set(range(6))
    assert (now["round"] == 2).all()
    earlier = session.evaluate(rounds=1)
    assert set(earlier["fact"]) == {0, 1, 2}
    session.go_to(1)
    pd.testing.assert_frame_equal(session.evaluate(), earlier)
    session.go_to(0)
    assert session.evaluate().empty


def test_predict_and_generate_before_and_after() -> None:
    session = new_session("off")
    fact = tiny_facts()[0]
    before = session.predict(fact.text)
    session.apply([fact])
    after = session.predict(fact.text, top=3)
    assert list(after.columns) == ["token", "probability"]
    assert after["probability"].is_monotonic_decreasing
    assert len(after) == 3
    pd.testing.assert_frame_equal(session.predict(fact.text, edited=False), before)
    assert session.generate(fact.text, 3) != session.generate(fact.text, 3, edited=False)
    with pytest.raises(ValueError, match="no token"):
        tiny_session().predict("")


def test_config_and_moments_must_fit_the_model() -> None:
    lm = tiny_model()
    with pytest.raises(ValueError, match="has blocks 0 to 4 only"):
        Session(lm, tiny_config(layers=(3, 9)), tiny_moments(lm))
    with pytest.raises(ValueError, match="no C0 for layer"):
        Session(lm, tiny_config(), {1: torch.eye(64)})
    with pytest.warns(UserWarning, match="a guess"):
        config = EditConfig.for_model(lm)
    assert config.layers[-1] < lm.n_layers


def led_session(**changes) -> Session:
    session = tiny_session(tiny_model(lead="He "), **changes)
    session.apply(tiny_facts()[:2])
    session.apply(tiny_facts()[2:4])
    return session


def test_another_rule_for_the_same_edits_is_what_a_session_with_that_rule_would_say() -> None:
    """Judging by thresholds that nothing reaches silences the hooks; by "off" all tokens speak."""
    session = led_session()
    prompt = tiny_facts()[0].text
    silent = session.state.judged(alphas=dict.fromkeys(LAYERS, 99.0))
    assert not session.scope(prompt, state=silent).in_scope.any()
    pd.testing.assert_frame_equal(
        session.predict(prompt, state=silent), session.predict(prompt, edited=False)
    )
    assert session.scope(prompt, state=session.state.judged("off")).in_scope.all()
    assert session.state.config.scope == "zscore"
    assert session.generate(prompt, 5, state=session.state) == session.generate(prompt, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"scope": "sometimes"}, "scope is"), ({"match_threshold": 2}, "match_threshold"),
     ({"alphas": {17: 1.0}}, "hooked are")],
)  # fmt: skip
def test_a_rule_that_there_is_not_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        new_session().state.judged(**changes)


def test_a_state_of_the_past_can_be_asked() -> None:
    session = led_session()
    prompt = tiny_facts()[3].text
    then = session.predict(prompt, state=session.state_at(1))
    session.go_to(1)
    pd.testing.assert_frame_equal(session.predict(prompt), then)


def test_generation_streams_and_stops_when_told() -> None:
    session = led_session()
    prompt, seen = tiny_facts()[0].text, []
    text = session.generate(prompt, 6, stream=seen.append)
    assert seen[-1] == text == session.generate(prompt, 6)
    assert len(seen) == 6
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))

    def stop(text: str) -> None:
        raise EditCancelled("enough")

    untouched = fingerprint(session.lm)
    with pytest.raises(EditCancelled):
        session.generate(prompt, 6, stream=stop)
    assert fingerprint(session.lm) == untouched


def test_settings_of_the_optimisation_change_between_rounds() -> None:
    session = led_session()
    events: list[object] = []
    session.subscribe(events.append)
    before = session.delta_weight(LAYERS[0])
    session.configure(steps=1, source="me")
    assert [(type(e), e.source) for e in events] == [(Configured, "me")]
    assert torch.equal(session.delta_weight(LAYERS[0]), before)
    fresh = led_session()
    round_, other = session.apply(tiny_facts()[4:5]), fresh.apply(tiny_facts()[4:5])
    assert not torch.equal(round_.targets, other.targets)


def test_what_all_rounds_share_changes_only_while_there_is_none(tmp_path) -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.configure(layers=(1, 2), covariance_weight=7.0, scope="match")
    other = tiny_session(
        tiny_model(lead="He "), layers=(1, 2), covariance_weight=7.0, scope="match"
    )
    for one in (session, other):
        one.apply(tiny_facts()[:2])
    for layer in (1, 2):
        assert torch.equal(session.delta_weight(layer), other.delta_weight(layer))
    for changes in ({"layers": (1, 2, 3)}, {"covariance_weight": 8.0}, {"scope": "off"}):
        with pytest.raises(ValueError, match="hang on it"):
            session.configure(**changes)
    with pytest.raises(ValueError, match="steps"):
        session.configure(steps=0)
    assert session.config == other.config
    session.save(tmp_path)
    assert Session.load(tmp_path, session.lm, session.moments).config == session.config


def test_settings_stay_where_they_cannot_be_written(tmp_path, monkeypatch) -> None:
    lm = tiny_model(lead="He ")
    session = Session(lm, tiny_config(), tiny_moments(lm), folder=tmp_path / "s")

    def full(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(journal, "write", full)
    before = session.config
    with pytest.raises(OSError, match="no space"):
        session.configure(layers=(1, 2))
    assert session.config == before
    assert set(session.state.layers) == set(LAYERS)


@pytest.mark.parametrize("single", [False, True])
def test_rerun_edits_the_same_facts_anew(single: bool) -> None:
    session = led_session()
    session.mute(0)
    again = session.rerun(single_round=single, covariance_weight=5.0)
    assert again is not session
    assert again.config == replace(session.config, covariance_weight=5.0)
    assert again.state.facts == session.state.facts
    assert len(again.rounds) == (1 if single else 2)
    other = replace(session.facts[1], target="red")
    again = session.rerun(single_round=single, instead={1: other})
    facts = list(session.state.facts)
    facts[session.state.fact_ids.index(1)] = other
    assert again.state.facts == tuple(facts)
    with pytest.raises(ValueError, match=r"the facts \[0, 99\]: they are not in force"):
        session.rerun(instead={0: other, 99: other})  # 0 is muted
    same = session.rerun()
    by_hand = tiny_session(tiny_model(lead="He "))
    for round_ in session.state.rounds:
        by_hand.apply(round_.facts)
    for layer in LAYERS:
        assert torch.equal(same.delta_weight(layer), by_hand.delta_weight(layer))


def test_what_a_prompt_prints_is_one_line() -> None:
    session = tiny_session(tiny_model(lead="He "))
    round_ = session.apply(tiny_facts()[:1])
    assert repr(round_).startswith("<round 1: 1 fact, ")
    assert repr(session) == f"<session on {session.lm.name}: round 1 of 1, 1 fact in force>"
    assert repr(session.lm).startswith(f"<language model {session.lm.name}: ")
