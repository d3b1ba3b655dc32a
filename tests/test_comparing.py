from __future__ import annotations

import pytest
import torch
from test_methods import of
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

import coachhook_viz as cv
from coachhook_viz.editing import values
from coachhook_viz.editing.progress import Progress
from coachhook_viz.facts import Fact, FactError


def settings(*names: str, **changes) -> dict[str, cv.EditConfig]:
    """By the methods' names; they are optimised at the same place."""
    found = {}
    for name in names:
        method = of(name)
        layers = (3,) if method.one_by_one else (1, 2, 3)
        scope = changes.get("scope", "off")
        found[name] = tiny_config(layers=layers, method=method, scope=scope, steps=3)
    return found


def compared(*names: str, rounds: int = 2, count: int = 4, **options):
    lm = tiny_model(lead="He ")
    facts, moments = tiny_facts()[:count], tiny_moments(lm)
    return cv.compare(lm, facts, settings(*names), rounds=rounds, moments=moments, **options)


def test_a_row_for_each_setting_round_fact_and_metric() -> None:
    frame = compared("coachhook", "rome", "ultraedit", count=5)
    assert list(frame.columns) == ["setting", "round", "fact", "metric", "value"]
    assert list(frame["setting"].unique()) == ["coachhook", "rome", "ultraedit"]
    facts = frame[frame["fact"].notna()]
    for _, part in facts.groupby("setting"):
        seen = part[part["metric"] == "reliability"].groupby("round")["fact"].apply(list)
        assert seen.to_dict() == {1: [0, 1, 2], 2: [0, 1, 2, 3, 4]}
    whole = frame[frame["fact"].isna()]
    for _, part in whole.groupby("setting"):
        counts = part.groupby("metric")["round"].apply(list).to_dict()
        assert counts == {"perplexity": [0, 1, 2], "norm": [0, 1, 2], "seconds": [1, 2]}
    norms = whole[whole["metric"] == "norm"]
    assert (norms.loc[norms["round"] == 0, "value"] == 0).all()
    assert (norms.loc[norms["round"] > 0, "value"] > 0).all()


def test_facts_may_be_one_or_any_iterable() -> None:
    lm, fact = tiny_model(lead="He "), tiny_facts()[0]
    for given in (fact, iter([fact])):
        frame = cv.compare(lm, given, settings("memit"), moments=tiny_moments(lm))
        assert set(frame["fact"].dropna()) == {0}
    with pytest.raises(FactError, match="it is of the type str, not a Fact"):
        cv.compare(lm, "France", settings("memit"), moments=tiny_moments(lm))


def test_values_are_those_of_a_session() -> None:
    lm = tiny_model(lead="He ")
    frame = compared("memit", "coachhook")
    for name, config in settings("memit", "coachhook").items():
        session = cv.Session(lm, config, tiny_moments(lm))
        session.apply_in_rounds(tiny_facts()[:4], 2)
        last = frame[(frame["setting"] == name) & (frame["round"] == 2)]
        expected = session.evaluate()
        for metric in ("reliability", "generality", "locality"):
            found = last[last["metric"] == metric]["value"].tolist()
            assert found == expected[expected["metric"] == metric]["value"].tolist()
        drift = session.drift()
        perplexity = drift[(drift["metric"] == "perplexity") & (drift["round"] == 2)]["value"]
        assert last[last["metric"] == "perplexity"]["value"].tolist() == perplexity.tolist()


def test_targets_of_the_first_round_are_shared_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = []
    optimise = values._optimise

    def counted(lm, hooks, columns, config, *rest):
        runs.append((config.method.title, bool(hooks)))
        return optimise(lm, hooks, columns, config, *rest)

    monkeypatch.setattr(values, "_optimise", counted)
    compared("coachhook", "memit", "emmet", "encore", "rome", "r-rome", "ultraedit")
    assert [title for title, edited in runs if not edited] == ["CoachHooK", "ENCORE", "ROME"]
    assert {title for title, edited in runs if edited} == {
        "CoachHooK", "MEMIT", "EMMET", "ENCORE", "ROME", "R-ROME",
    }  # fmt: skip


def test_shared_targets_change_no_bit() -> None:
    lm = tiny_model(lead="He ")
    config = settings("memit")["memit"]
    alone = cv.Session(lm, config, tiny_moments(lm)).apply(tiny_facts()[:2])
    with values.sharing_targets():
        rounds = [cv.Session(lm, config, tiny_moments(lm)).apply(tiny_facts()[:2]) for _ in "ab"]
    assert rounds[0].targets is rounds[1].targets
    assert torch.equal(rounds[0].targets, alone.targets)


def test_progress_names_setting_and_round_and_cancel_stops() -> None:
    steps: list[Progress] = []
    compared("coachhook", "memit", progress=steps.append)
    placed = list(dict.fromkeys((s.setting, s.round, s.rounds) for s in steps if s.setting))
    assert placed == [(n, t, 2) for n in ("coachhook", "memit") for t in (1, 2)]
    assert {step.stage for step in steps} >= {"targets", "layers", "quality"}
    steps.clear()
    with pytest.raises(cv.EditCancelled):
        compared(
            "coachhook",
            "memit",
            progress=steps.append,
            cancel=lambda: steps[-1:] != [] and steps[-1].setting == "memit",
        )
    assert steps[-1].setting == "memit"


@pytest.mark.parametrize("rounds", [0, 5, 1.5, True, None])
def test_rounds_must_fit_the_facts(rounds) -> None:
    with pytest.raises(ValueError, match=r"rounds is .*: it must be a whole number from 1"):
        compared("memit", rounds=rounds)


def test_bad_input_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_optimise", lambda *args: 1 / 0)
    lm, moments = tiny_model(lead="He "), tiny_moments(tiny_model(lead="He "))
    with pytest.raises(ValueError, match="there is no setting"):
        cv.compare(lm, tiny_facts(), {}, moments=moments)
    with pytest.raises(ValueError, match="setting 'a' is 'memit': it must be an EditConfig"):
        cv.compare(lm, tiny_facts(), {"a": "memit"}, moments=moments)
    far = tiny_config(layers=(7,), method="memit")
    with pytest.raises(ValueError, match="has blocks 0 to 4"):
        cv.compare(lm, tiny_facts(), settings("memit") | {"far": far}, moments=moments)
    bad = [*tiny_facts()[:3], Fact("no slot", "Anna", "Oslo")]
    with pytest.raises(FactError) as caught:
        cv.compare(lm, bad, settings("memit"), rounds=2, moments=moments)
    assert [problem.index for problem in caught.value.problems] == [3]
