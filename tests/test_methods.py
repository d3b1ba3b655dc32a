"""The closed-form editors: their settings, and what a session promises under each of them."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tiny import (
    fingerprint,
    tiny_config,
    tiny_facts,
    tiny_model,
    tiny_moments,
    tiny_session,
)

import coachhook_viz as cv
from coachhook_viz import EditConfig, Session, comparing, methods
from coachhook_viz import setup as made_with
from coachhook_viz.editing.forward import hidden, with_hidden
from coachhook_viz.editing.gradients import _backward
from coachhook_viz.editing.method import solved
from coachhook_viz.editing.methods import METHODS, AlphaEdit, Method
from coachhook_viz.editing.progress import Progress
from coachhook_viz.editing.state import EditState
from coachhook_viz.editing.tokens import prepare
from coachhook_viz.errors import NullSpaceWarning, OneByOneWarning
from coachhook_viz.facts import Fact, FactError

SCOPES = ("zscore", "match", "off")
GRID = [(name, scope) for name in METHODS for scope in SCOPES]
LIKE_MEMIT = ("coachhook", "memit", "encore", "emmet", "alphaedit")


def of(name: str) -> Method:
    """The method with settings that suit the tiny models."""
    strong = {
        "alphaedit": methods.AlphaEdit(rank=40, weight=1.0),
        "ultraedit": methods.UltraEdit(rate=1e-3, minibatch=2),
        "encore": methods.Encore(norm_weight=1.0, stop_count=2),
    }
    return strong.get(name, METHODS[name]())


def session_of(name: str, scope: str = "off", **changes) -> Session:
    method = of(name)
    layers = (2,) if method.one_by_one else (1, 2, 3)
    given = {"layers": layers, "scope": scope, "steps": 4, "method": method}
    return tiny_session(tiny_model(lead="He "), **{**given, **changes})


def edited(name: str, scope: str = "off", **changes) -> Session:
    """Two rounds of two facts; for a method that edits them one by one four rounds."""
    session = session_of(name, scope, **changes)
    session.apply_in_rounds(tiny_facts()[:4], 1 if session.config.method.one_by_one else 2)
    return session


def logits(session: Session, prompt: str = "He lives in the old city of") -> torch.Tensor:
    with torch.no_grad(), session.hooked():
        return session.lm.model(**session.lm.encode([prompt])).logits[0, -1]


@pytest.fixture(scope="module", params=GRID, ids=lambda pair: "-".join(pair))
def session(request: pytest.FixtureRequest) -> Session:
    return edited(*request.param)


def test_why_and_what_else_are_answered(session: Session) -> None:
    fact = session.state.facts[-1]
    found = session.why(fact.text)
    gates = {gate.name: gate for gate in found.gates}
    assert list(gates) == ["subject", "hook", "facts", "reached", "blocks", "others"]
    method = session.config.method
    if method.aims_at == "block":
        assert gates["reached"].value is not None
    else:
        assert (gates["reached"].state, gates["reached"].value) == ("unknown", None)
        assert method.title in gates["reached"].said
    if session.config.scope == "match":
        scope = session.scope(fact.text)
        written = scope.subject_last
        if method.aims_at == "gradient":
            written = len(scope.tokens) - 1
        assert gates["hook"].value in scope.match[:, len(scope.facts) - 1, written].tolist()
    frame = session.what_else(budget=20)
    assert frame[["x", "y"]].notna().all(axis=None)
    assert len(frame[["x", "y"]].drop_duplicates()) > 2


def test_without_a_direction_nothing_speaks_and_why_says_so() -> None:
    session = session_of("alphaedit", method=methods.AlphaEdit(threshold=1e-9))
    with pytest.warns(NullSpaceWarning):
        session.apply(tiny_facts()[:1])
    found = session.why(tiny_facts()[0].text)
    [gate] = [gate for gate in found.gates if gate.name == "facts"]
    assert gate.said == "Hardly anything of “Anna → Oslo” speaks there."
    state = session.state.judged("match")
    assert not session.scope(tiny_facts()[0].text, state=state).match.any()
    assert len(session.what_else(budget=20))


def test_the_model_is_untouched(session: Session) -> None:
    fresh = tiny_model(lead="He ")
    assert fresh is session.lm
    before = fingerprint(session.lm)
    session.apply(tiny_facts()[4:5])
    session.undo()
    assert fingerprint(session.lm) == before


def test_undo_and_redo_are_exact(session: Session) -> None:
    position = session.position
    after = {layer: session.delta_weight(layer) for layer in session.config.layers}
    said = logits(session, tiny_facts()[3].text)
    session.go_to(1)
    assert any(not torch.equal(session.delta_weight(layer), after[layer]) for layer in after)
    session.go_to(0)
    assert all(not session.delta_weight(layer).any() for layer in after)
    session.go_to(position)
    assert all(torch.equal(session.delta_weight(layer), after[layer]) for layer in after)
    assert torch.equal(logits(session, tiny_facts()[3].text), said)


def test_a_round_is_its_factors_and_a_muted_fact_its_dropped_columns(session: Session) -> None:
    for layer in session.config.layers:
        rounds = [round_.factors[layer] for round_ in session.state.rounds]
        summed = sum(factors.residuals @ factors.directions.T for factors in rounds)
        torch.testing.assert_close(session.delta_weight(layer), summed)
    before = {layer: session.delta_weight(layer) for layer in session.config.layers}
    session.mute(1)
    try:
        for layer, whole in before.items():
            own = torch.zeros_like(whole)
            for round_ in session.rounds[: session.position]:
                factors = round_.factors[layer]
                for column, owner in enumerate(factors.owners):
                    if round_.fact_ids[owner] == 1:
                        own += torch.outer(
                            factors.residuals[:, column], factors.directions[:, column]
                        )
            assert own.any()
            torch.testing.assert_close(session.delta_weight(layer), whole - own)
    finally:
        session.unmute(1)
    assert all(torch.equal(session.delta_weight(layer), before[layer]) for layer in before)


def test_attribution_sums_to_what_the_edit_adds(session: Session) -> None:
    scope = session.scope(tiny_facts()[2].text)
    assert scope.contributions.shape[:2] == (len(session.config.layers), 4)
    torch.testing.assert_close(scope.contributions.sum(1), scope.norms, rtol=1e-3, atol=1e-4)
    assert bool(scope.in_scope.any())


def test_interference_is_that_of_the_factors(session: Session) -> None:
    frame = session.interference()
    assert len(frame) == 16 * len(session.config.layers)
    assert frame["actual"].notna().all()
    own = frame[frame["fact"] == frame["by"]]
    assert own["actual"].to_numpy() == pytest.approx(1)
    assert own["predicted"].to_numpy() == pytest.approx(1)


def test_it_is_saved_and_goes_on(session: Session, tmp_path: Path) -> None:
    session.save(tmp_path / "s")
    again = Session.load(tmp_path / "s", session.lm, tiny_moments(session.lm))
    assert again.config == session.config
    for layer in session.config.layers:
        assert torch.equal(again.delta_weight(layer), session.delta_weight(layer))
    rounds = [other.apply(tiny_facts()[4:5]) for other in (session, again)]
    session.undo()
    for layer, factors in rounds[0].factors.items():
        assert torch.equal(factors.directions, rounds[1].factors[layer].directions)
        assert torch.equal(factors.residuals, rounds[1].factors[layer].residuals)


def test_its_code_makes_it_again(session: Session) -> None:
    code = session.code()
    assert ("method=" in code) == (session.config.method != methods.CoachHook())
    names = {"cv": cv, "moments": tiny_moments(session.lm)}
    lines = code.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("lm = "))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("\n".join(lines[start + 1 :]), names | {"lm": session.lm}, names)  # noqa: S102
    again = names["session"]
    assert again.config == session.config
    for layer in session.config.layers:
        assert torch.equal(again.delta_weight(layer), session.delta_weight(layer))


@pytest.mark.parametrize("name", LIKE_MEMIT)
def test_directions_are_the_direct_solve(name: str) -> None:
    """A = (C + K Kᵀ)⁻¹ K with C as each publication writes it, or its null space's projector."""
    session = edited(name)
    method = session.config.method
    first, second = session.rounds
    for layer in session.config.layers:
        moment = tiny_moments(session.lm)[layer]
        eye = torch.eye(len(moment), dtype=torch.float64)
        keys, earlier = second.factors[layer].keys, first.factors[layer].keys
        past = earlier @ earlier.T if method.carries else 0 * eye
        if isinstance(method, AlphaEdit):
            basis = torch.linalg.eigh(moment)[1][:, : method.rank]
            projector = basis @ basis.T
            left = projector @ (keys @ keys.T + past) + method.weight * eye
            expected = torch.linalg.solve(left, projector @ keys)
        else:
            rho = method.rho(2)
            covariance = 30 * moment + getattr(method, "norm_weight", 0) * eye + past
            expected = torch.linalg.solve(rho * covariance + keys @ keys.T, keys)
        torch.testing.assert_close(second.factors[layer].directions, expected)


def test_emmet_is_memit_with_the_product_of_weights() -> None:
    emmet = edited("emmet", method=methods.Emmet(ridge=0.5), covariance_weight=60.0)
    memit = edited("memit", covariance_weight=30.0)
    for layer in emmet.config.layers:
        torch.testing.assert_close(emmet.delta_weight(layer), memit.delta_weight(layer))


def test_emmet_without_ridge_says_all_of_what_is_asked() -> None:
    session = session_of("emmet", method=methods.Emmet(ridge=0.0))
    for factors in session.apply(tiny_facts()[:3]).factors.values():
        exact = factors.keys.T @ factors.directions
        torch.testing.assert_close(exact, torch.eye(3, dtype=torch.float64))


def test_equal_keys_without_a_ridge_share_what_is_asked() -> None:
    """Two facts of one subject that stands before all else: their bare keys are the same."""
    facts = [Fact("He and {} lives in", "Anna", "Oslo"), Fact("He and {} speaks", "Anna", "red")]
    session = session_of(
        "emmet", method=methods.Emmet(ridge=0.0), layers=(2,), context_templates=(("{}",),)
    )
    factors = session.apply(facts).factors[2]
    keys = factors.keys[:, :1]
    torch.testing.assert_close(factors.keys, keys.expand(-1, 2))
    said = session.delta_weight(2) @ keys[:, 0]
    assert said.isfinite().all()
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.inv(torch.ones(2, 2, dtype=torch.float64))
    ones = torch.ones(3, 2, dtype=torch.float64)
    torch.testing.assert_close(solved(ones, ones, 0.0), ones / 6)


def test_an_update_that_is_no_number_names_its_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of("rome")
    monkeypatch.setattr(
        methods.Rome, "directions", lambda self, preserved, seen: preserved @ seen.keys / 0
    )
    with pytest.raises(FactError, match="layer 2 has no finite update") as caught:
        session.apply(tiny_facts()[:1])
    assert [(p.index, p.field) for p in caught.value.problems] == [(0, "prompt")]
    assert session.rounds == ()


def test_encore_without_norm_and_stop_is_coachhook_without_scope() -> None:
    encore = edited("encore", method=methods.Encore(norm_weight=0.0))
    plain = edited("coachhook", scope="off")
    for layer in encore.config.layers:
        torch.testing.assert_close(encore.delta_weight(layer), plain.delta_weight(layer))


def test_a_reset_method_does_not_spare_earlier_keys() -> None:
    """The second round acts more on the first one's keys than where they are carried."""
    acts = {}
    for name in ("memit", "coachhook"):
        frame = edited(name, covariance_weight=1e-3).interference()
        later = frame[(frame["fact"] < 2) & (frame["by"] >= 2)]
        acts[name] = later[["actual", "predicted"]].mean()
    for column in ("actual", "predicted"):
        assert acts["memit"][column] > 2 * acts["coachhook"][column]


def test_rome_says_all_of_z_at_its_bare_key() -> None:
    for name in ("rome", "r-rome"):
        session = session_of(name)
        round_ = session.apply(tiny_facts()[:1])
        state = session.state_at(0)
        factors = round_.factors[2]
        if name == "r-rome":
            torch.testing.assert_close(
                (factors.keys * factors.directions).sum(0), torch.ones(1, dtype=torch.float64)
            )
        assert state.alphas
        assert round_.targets.shape == (1, session.lm.d_model)


def test_a_batch_becomes_rounds_of_one() -> None:
    session = session_of("rome")
    events = []
    session.subscribe(events.append)
    with pytest.warns(OneByOneWarning, match="ROME edits one fact a round: these 3 facts"):
        last = session.apply(tiny_facts()[:3])
    assert [len(round_.facts) for round_ in session.rounds] == [1, 1, 1]
    assert last is session.rounds[-1]
    assert [event.round for event in events] == list(session.rounds)
    one_by_one = session_of("rome")
    with pytest.warns(OneByOneWarning, match="these 3 facts become 3 rounds"):
        rounds = one_by_one.apply_in_rounds(tiny_facts()[:3], 3)
    assert rounds == one_by_one.rounds
    assert torch.equal(session.delta_weight(2), one_by_one.delta_weight(2))


@pytest.mark.filterwarnings("ignore::coachhook_viz.errors.OneByOneWarning")
def test_a_batch_of_rounds_happens_whole_or_not_at_all() -> None:
    session = session_of("rome")
    steps: list[Progress] = []
    with pytest.raises(cv.EditCancelled):
        session.apply(tiny_facts()[:3], steps.append, cancel=lambda: len(steps) > 7)
    assert session.rounds == ()
    bad = [*tiny_facts()[:2], Fact("no slot", "Anna", "Oslo")]
    with pytest.raises(FactError) as caught:
        session.apply(bad)
    assert [problem.index for problem in caught.value.problems] == [2]
    assert session.rounds == ()


def test_ultraedit_collects_no_moments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(lm: cv.LanguageModel, layers: tuple[int, ...], watch: object) -> dict[int, object]:
        assert not layers
        return {}

    for module in (made_with, comparing):
        monkeypatch.setattr(module, "cached_moments", refused)
    lm, config = tiny_model(lead="He "), session_of("ultraedit").config
    session = Session(lm, config, folder=tmp_path / "s")
    session.apply(tiny_facts()[:2])
    again = Session.load(tmp_path / "s", lm)
    assert torch.equal(again.delta_weight(2), session.delta_weight(2))
    assert len(cv.compare(lm, tiny_facts()[:2], {"one": config}))


def test_ultraedit_has_a_column_for_each_target_token() -> None:
    session = session_of("ultraedit", "match")
    round_ = session.apply(tiny_facts()[:3])
    tokens = [len(fact.target.split()) for fact in tiny_facts()[:3]]
    assert sorted(tokens) == [1, 1, 2]
    assert round_.owners == tuple(i for i, n in enumerate(tokens) for _ in range(n))
    assert round_.targets.shape == (0, session.lm.d_model)
    assert round_.statistics is not None
    assert round_.statistics.count == sum(tokens) * 3
    session.mute(1)
    assert session.state.layers[1].columns.keys.shape[1] == 2
    assert session.state.rounds[0].statistics is round_.statistics
    scope = session.scope(tiny_facts()[0].text)
    assert bool(scope.in_scope[:, -1].any())  # where the target is predicted


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "memmit"}, "there is no method 'memmit': use one of"),
        ({"method": 3}, "method is 3: use one of"),
        ({"method": "rome", "layers": (1, 2)}, "ROME edits one layer"),
        ({"method": "r-rome", "layers": (1, 2)}, "R-ROME edits one layer"),
        ({"method": "memit", "scope": "two-key"}, "MEMIT has no such scope"),
        ({"method": "ultraedit", "site": "answer"}, "UltraEdit has no such site"),
        ({"method": "rome", "layers": (1,), "site": "answer"}, "ROME has no such site"),
        ({"covariance_weight": None}, "CoachHooK needs it"),
        ({"method": "encore", "covariance_weight": None}, "ENCORE needs it"),
    ],
)
def test_what_a_method_cannot_have_is_said(settings: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        EditConfig(**{"layers": (1, 2), "covariance_weight": 1.0, **settings})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: methods.AlphaEdit(threshold=0), "threshold of AlphaEdit"),
        (lambda: methods.AlphaEdit(weight=float("inf")), "weight of AlphaEdit"),
        (lambda: methods.AlphaEdit(rank=0), "rank of AlphaEdit"),
        (lambda: methods.AlphaEdit(rank=2.5), "rank of AlphaEdit"),
        (lambda: methods.AlphaEdit(energy=1.0), "energy of AlphaEdit"),
        (lambda: methods.AlphaEdit(rank=3, energy=0.1), "rank or energy, not both"),
        (lambda: methods.Encore(norm_weight=-1), "norm_weight of ENCORE"),
        (lambda: methods.Encore(stop_count=1.5), "stop_count of ENCORE"),
        (lambda: methods.Emmet(ridge="much"), "ridge of EMMET"),
        (lambda: methods.UltraEdit(rate=0), "rate of UltraEdit"),
        (lambda: methods.UltraEdit(minibatch=0), "minibatch of UltraEdit"),
    ],
)
def test_settings_of_methods_out_of_range_are_named(make, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_names_and_published_scopes() -> None:
    for name in ("AlphaEdit", "alpha-edit", "ALPHAEDIT"):
        config = EditConfig((1, 2), method=name)
        assert config.method == methods.AlphaEdit(threshold=0.02, weight=10.0)
        assert config.scope == "off"
    assert EditConfig((1,), method="R_ROME").method == methods.RRome()
    assert EditConfig((1,), 1.0).scope == "zscore"
    assert EditConfig((1,), 1.0).method == methods.CoachHook()
    assert methods.UltraEdit().rate == 1e-6
    assert (methods.Emmet().ridge, methods.Emmet().norm_weight) == (0.1, 0.0)
    assert (methods.Encore().norm_weight, methods.Encore().stop_count) == (10.0, 0)


def test_the_null_space_is_shown_and_an_odd_one_warns() -> None:
    moment = tiny_moments(tiny_model(lead="He "))[1]
    values = torch.linalg.eigvalsh(moment)
    middle = float((values[19] + values[20]) / 2)
    space = AlphaEdit(threshold=middle).null_space(moment)
    assert (space.rank, space.size) == (20, 64)
    assert space.energy == pytest.approx(float(values[:20].sum() / values.sum()))
    assert str(space) == f"20 of 64 directions, {space.energy:.2%} of the keys' energy"
    assert AlphaEdit(energy=space.energy + 1e-9).null_space(moment).rank == 20
    assert AlphaEdit(energy=space.energy - 1e-9).null_space(moment).rank == 19
    session = session_of("alphaedit", method=AlphaEdit(energy=0.2))
    found = {layer: (kept.rank, kept.size) for layer, kept in session.null_spaces().items()}
    assert found.keys() == {1, 2, 3}
    assert all(0 < rank < size == 64 for rank, size in found.values())
    assert session_of("memit").null_spaces() == {}
    for threshold, does in ((1e-9, "it changes nothing"), (1e9, "it preserves nothing")):
        session = session_of("alphaedit", method=AlphaEdit(threshold=threshold), layers=(1,))
        with pytest.warns(NullSpaceWarning, match=does):
            session.apply(tiny_facts()[:1])
        assert bool(session.delta_weight(1).any()) == (threshold > 1)


def test_an_empty_null_space_is_silent_under_every_scope() -> None:
    for scope in SCOPES:
        session = session_of("alphaedit", scope, method=AlphaEdit(threshold=1e-9))
        with pytest.warns(NullSpaceWarning):
            session.apply(tiny_facts()[:2])
        bare = logits(session_of("memit"), tiny_facts()[0].text)
        torch.testing.assert_close(logits(session, tiny_facts()[0].text), bare)


def test_a_spectrum_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: calls.append(1) or eigh(m))
    methods._spectra.clear()
    edited("alphaedit")
    edited("alphaedit", method=AlphaEdit(energy=0.2))
    assert len(calls) == 3  # one a layer


def test_sessions_of_coachhook_are_written_as_before(tmp_path: Path) -> None:
    """What a session of CoachHooK writes has no word of methods: older versions read it too."""
    session = edited("coachhook", "zscore")
    session.save(tmp_path / "s")
    assert "method" not in json.loads((tmp_path / "s" / "session.json").read_text())["config"]
    other = edited("memit")
    other.save(tmp_path / "m")
    content = json.loads((tmp_path / "m" / "session.json").read_text())
    assert content["config"]["method"] == {"name": "memit"}


def test_a_method_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Softer(Method):
        factor: float = 2.0

        title = "Softer"

        def rho(self, facts: int) -> float:
            return self.factor

    with pytest.raises(ValueError, match=r"put a class of your own into methods\.METHODS"):
        tiny_config(method=Softer())
    monkeypatch.setitem(METHODS, "softer", Softer)
    session = edited("softer", method=Softer(3.0))
    session.save(tmp_path / "s")
    again = Session.load(tmp_path / "s", session.lm, tiny_moments(session.lm))
    assert again.config.method == Softer(3.0)
    assert EditConfig((1,), 1.0, method="softer").method == Softer()


def test_another_method_under_the_same_scope() -> None:
    session = edited("coachhook", "match")
    again = session.rerun(method="memit")
    assert again.config == replace(session.config, method=methods.Memit())
    assert again.config.scope == "match"
    with pytest.raises(ValueError, match="rounds that there are hang on it"):
        session.configure(method="memit")
    alphaedit = session_of("alphaedit", method=AlphaEdit(rank=40))
    alphaedit.apply(tiny_facts()[:1])
    fresh = session_of("coachhook", "zscore")
    fresh.configure(method=methods.AlphaEdit(rank=40), scope="off")
    fresh.apply(tiny_facts()[:1])
    assert torch.equal(fresh.delta_weight(2), alphaedit.delta_weight(2))


def named(name: str) -> cv.LanguageModel:
    """A tiny model of 30 blocks under a known name."""
    lm = tiny_model("gpt2", n_layer=30)
    return cv.LanguageModel(lm.model, lm.tokenizer, name)


@pytest.mark.parametrize("name", METHODS)
def test_known_models_have_settings_for_every_method(name: str) -> None:
    for model in ("smollm2-135m", "openai-community/gpt2-xl", "gpt-j-6b"):
        lm = named(model)
        config = EditConfig.for_model(lm, method=name)
        assert type(config.method) is METHODS[name]
        assert config.scope == METHODS[name].scopes[0]
        assert (len(config.layers) == 1) == config.method.one_by_one
        given = METHODS[name]()
        assert EditConfig.for_model(lm, method=given).method == given
        wide = EditConfig.for_model(lm, method=name, scope="match", layers=(3,))
        assert (wide.scope, wide.layers) == ("match", (3,))


def test_an_unknown_model_gets_a_guess_that_the_method_can_have() -> None:
    lm = tiny_model()
    for name in METHODS:
        with pytest.warns(UserWarning, match="are a guess"):
            config = EditConfig.for_model(lm, method=name)
        assert config.layers[-1] < lm.n_layers


def test_two_keys_and_another_method_are_refused_whatever_asks_for_them() -> None:
    for changes in ({"scope": "two-key"}, {"site": "answer"}):
        with pytest.raises(ValueError, match="AlphaEdit has no such scope"):
            EditConfig.for_model(named("smollm2-135m"), method="alphaedit", **changes)
    two_keys = EditConfig.for_model(named("smollm2-135m"), scope="two-key")
    with pytest.raises(ValueError, match="AlphaEdit has no such scope"):
        replace(two_keys, method="alphaedit")


JOINING = ["gpt2", "gptj", "llama", "gemma3_text", "granite"]
"""Families that add the MLP's output as it is, after a norm, or in another scale."""


@pytest.mark.parametrize("family", JOINING)
def test_rome_aims_at_what_the_mlp_adds_to_the_hidden_states(family: str) -> None:
    lm = tiny_model(family, lead="He ")
    session = tiny_session(
        lm, method="rome", layers=(2,), context_templates=(("{}",),), scope="off"
    )
    fact = tiny_facts()[0]
    [tokens] = prepare(lm, [fact], (("{}",),))
    given = []
    handle = lm.written(2).register_forward_hook(lambda m, args, output: given.append(output))
    with torch.no_grad():
        lm.model(**lm.encode([fact.text]))
    handle.remove()
    adds = lm.multiplier * given[0][0, tokens.bare.subject_last].double()
    round_ = session.apply([fact])
    reached = round_.targets[0] - round_.factors[2].residuals[:, 0]
    torch.testing.assert_close(reached, adds, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", JOINING)
def test_ultraedit_gradients_are_by_what_joins_the_hidden_states(family: str) -> None:
    """A small push along one, on the block's output, changes the loss by its square."""
    lm = tiny_model(family, lead="He ", dtype=torch.float64)
    fact = tiny_facts()[0]
    [tokens] = prepare(lm, [fact], (("{}",),))
    state = EditState.of(lm, tiny_config(method="ultraedit", layers=(2,)))
    columns, _ = _backward(lm, state, [tokens])
    slope = columns[2][0, lm.d_key :]

    def loss(step: float) -> float:
        def push(module: torch.nn.Module, args: tuple, output: object) -> object:
            states = hidden(output).clone()
            states[0, -1] += step * slope
            return with_hidden(output, states)

        handle = lm.blocks[2].register_forward_hook(push)
        with torch.no_grad():
            logits = lm.model(torch.tensor([tokens.bare.ids])).logits[0, -1]
        handle.remove()
        return -float(logits.double().log_softmax(-1)[tokens.target[0]])

    rise = (loss(1e-3) - loss(-1e-3)) / 2e-3  # norms are in float32
    assert rise == pytest.approx(float(slope.square().sum()), rel=1e-2)
