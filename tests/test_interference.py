from __future__ import annotations

import pandas as pd
import pytest
import torch
from tiny import LAYERS, tiny_facts, tiny_model, tiny_moments, tiny_session

from coachhook_viz import Fact, Session
from coachhook_viz.editing import editor
from coachhook_viz.editing.editor import bare_keys
from coachhook_viz.measure import interference as module
from coachhook_viz.measure import over_rounds
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.measure.over_rounds import sample


@pytest.fixture(scope="module")
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:2])
    session.apply(tiny_facts()[2:4])
    return session


def test_every_pair_is_the_formula(session: Session) -> None:
    frame = session.interference()
    assert len(frame) == len(LAYERS) * 4 * 4
    for layer in LAYERS:
        factors = [r.factors[layer] for r in session.rounds]
        columns = [(f, i) for f in factors for i in (0, 1)]
        base = bare_keys(session.lm, session.config, list(session.facts.values()))[layer]
        weight, moment = session.config.covariance_weight, tiny_moments(session.lm)[layer]
        inverse = torch.linalg.inv(weight * moment)
        first, both = (
            torch.linalg.inv(weight * moment + base[:, :n] @ base[:, :n].T) for n in (2, 4)
        )
        spared = [first, first, both, both]  # each edit spares its own round and earlier ones
        for fact, (own, i) in enumerate(columns):
            key = own.keys[:, i]
            full = own.residuals[:, i] * (own.directions[:, i] @ key)
            for by, (other, j) in enumerate(columns):
                term = other.residuals[:, j] * (other.directions[:, j] @ key)
                row = frame[
                    (frame["layer"] == layer) & (frame["fact"] == fact) & (frame["by"] == by)
                ].iloc[0]
                assert row["actual"] == pytest.approx(float(term.norm() / full.norm()))
                overlap = base[:, fact] @ inverse @ base[:, by]
                own_overlap = base[:, fact] @ inverse @ base[:, fact]
                assert row["overlap"] == pytest.approx(float(abs(overlap) / own_overlap))
                theirs = base[:, fact] @ spared[by] @ base[:, by]
                mine = base[:, fact] @ spared[fact] @ base[:, fact]
                assert row["predicted"] == pytest.approx(float(abs(theirs) / abs(mine)))


def test_the_diagonal_is_one_and_muted_facts_are_left_out(session: Session) -> None:
    frame = session.interference()
    assert frame[frame["fact"] == frame["by"]][["actual", "predicted"]].to_numpy() == pytest.approx(
        1
    )
    session.mute(1)
    assert set(session.interference()["by"]) == {0, 2, 3}
    session.unmute(1)
    session.go_to(0)
    assert session.interference().empty
    session.go_to(2)


def test_muted_facts_stay_preserved_in_the_prediction(session: Session) -> None:
    """A later round spares the key of a fact that is muted, so that much is known of it too."""
    before = session.interference()
    session.mute(1)
    frame = session.interference()
    session.unmute(1)
    for column in ("overlap", "predicted"):
        kept = before[(before["fact"] != 1) & (before["by"] != 1)].reset_index(drop=True)
        assert frame[column].to_numpy() == pytest.approx(kept[column].to_numpy())


def test_only_what_is_wanted_is_computed_and_only_once(session: Session, monkeypatch) -> None:
    whole, sizes = session.interference(), []
    real = module.interference

    def counted(*args):
        frame = real(*args)
        sizes.append(len(frame))
        return frame

    monkeypatch.setattr(over_rounds, "interference", counted)
    frame = session.interference(budget=2)
    frame["actual"] = 0.0  # what a caller does to it is not remembered
    again = session.interference(budget=2)
    assert sizes == [len(LAYERS) * 2 * 2]
    part = whole.merge(again, on=["layer", "fact", "by"])
    for column in ("actual", "overlap", "predicted"):
        assert part[f"{column}_x"].to_numpy() == pytest.approx(part[f"{column}_y"].to_numpy())
    session.undo()
    assert len(session.interference(budget=2)) == len(LAYERS) * 2 * 2
    session.redo()
    assert len(sizes) == 2


def test_bare_keys_are_those_of_a_first_round_at_its_first_layer() -> None:
    session = tiny_session(tiny_model(lead="He "))
    keys = bare_keys(session.lm, session.config, tiny_facts())
    round_ = session.apply(tiny_facts())
    first = LAYERS[0]
    torch.testing.assert_close(keys[first], round_.factors[first].keys)


def test_keys_are_run_once_for_each_fact(session: Session, monkeypatch) -> None:
    first = session.interference()
    monkeypatch.setattr(editor, "relays_of", None)
    assert session.interference().equals(first)


def test_a_budget_samples_the_same_facts_and_says_so(session: Session) -> None:
    frame = session.interference(budget=2)
    assert frame.attrs["sampled"] == "2 of 4 facts"
    assert len(set(frame["fact"])) == 2
    assert set(frame["fact"]) == set(frame["by"]) == set(session.quality(budget=2)["fact"])
    with pytest.raises(ValueError, match="budget is 0"):
        session.interference(budget=0)


def test_rank_correlation() -> None:
    frame = pd.DataFrame(
        {
            "layer": [1] * 4 + [2] * 4,
            "fact": [0, 0, 1, 1] * 2,
            "by": [0, 1, 0, 1] * 2,
            "actual": [1.0, 0.1, 0.2, 1.0, 1.0, 0.9, 0.3, 1.0],
            "predicted": [1.0, 0.5, 0.7, 1.0, 1.0, 0.1, 0.2, 1.0],
        }
    )
    found = rank_correlation(frame)
    assert found["layer"].tolist()[:2] == [1, 2]
    assert pd.isna(found["layer"][2])
    assert found["rho"].tolist() == pytest.approx([1, -1, -1])
    assert found["pairs"].tolist() == [2, 2, 2]
    turned = frame.assign(overlap=-frame["predicted"])
    assert rank_correlation(turned, "overlap")["rho"].tolist() == pytest.approx([-1, 1, 1])


def test_conflicts_are_pairs_of_ids() -> None:
    session = tiny_session(tiny_model(lead="He "))
    fact = tiny_facts()[0]
    session.apply([tiny_facts()[1], fact])
    session.apply([Fact(fact.prompt, fact.subject, "Lima")])
    assert session.conflicts() == [(1, 2)]
    session.mute(1)
    assert session.conflicts() == []


def test_a_growing_session_keeps_most_of_its_sample() -> None:
    before, after = (set(sample(range(count), 50)) for count in (400, 410))
    assert len(before) == len(after) == 50
    assert len(before & after) >= 45
    assert sample(range(10), None) == sample(range(10), 10) == list(range(10))
