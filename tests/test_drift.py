from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from tiny import LAYERS, tiny_facts, tiny_model, tiny_session

from coachhook_viz import EditCancelled, Session, bundled_facts
from coachhook_viz.editing.state import EditState
from coachhook_viz.measure.drift import Probes, neutral_texts, singular_values, thresholds


@pytest.fixture(scope="module")
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "))
    for start in (0, 2, 4):
        session.apply(tiny_facts()[start : start + 2])
    return session


def value(frame: pd.DataFrame, round_: int, layer: int, metric: str) -> float:
    rows = frame[
        (frame["round"] == round_) & (frame["layer"] == layer) & (frame["metric"] == metric)
    ]
    return float(rows["value"].mean())


def test_weights_are_those_of_the_dense_matrix(session: Session) -> None:
    frame = session.drift()
    assert list(frame.columns) == ["round", "layer", "metric", "value", "fact", "probe"]
    for layer in LAYERS:
        delta = session.delta_weight(layer)
        sigma = torch.linalg.svdvals(delta)
        share = sigma / sigma.sum()
        rank = math.exp(float(torch.special.entr(share).sum()))
        norm = float(delta.norm())
        original = float(session.lm.weight(layer).double().norm())
        assert value(frame, 3, layer, "norm") == pytest.approx(norm)
        assert value(frame, 3, layer, "relative_norm") == pytest.approx(norm / original)
        assert value(frame, 3, layer, "singular_2") == pytest.approx(float(sigma[1]))
        assert value(frame, 3, layer, "effective_rank") == pytest.approx(rank)
        assert value(frame, 0, layer, "norm") == 0
        assert value(frame, 0, layer, "effective_rank") == 0


def test_singular_values_with_more_facts_than_dimensions(session: Session) -> None:
    at = session.state.layers[LAYERS[0]]
    factors = session.rounds[0].factors[LAYERS[0]]
    for _ in range(20):  # 6 + 40 facts at width 32
        at = at.then([factors], at.alpha)
    found, dense = singular_values(at), torch.linalg.svdvals(at.delta_weight)
    assert found.tolist() == pytest.approx(dense.tolist(), abs=1e-9)


def test_thresholds_name_the_fact_that_lowered_them(session: Session) -> None:
    frame = session.drift()
    alphas = frame[frame["metric"] == "alpha"].set_index(["round", "layer"])
    for place, round_ in enumerate(session.rounds, 1):
        for layer in LAYERS:
            now, before = alphas.loc[(place, layer)], alphas.loc[(place - 1, layer)]
            assert now["value"] == round_.alphas[layer]
            if now["value"] < before["value"]:
                peaks = round_.peaks[layer].tolist()
                assert now["fact"] == round_.fact_ids[peaks.index(min(peaks))]
                assert now["value"] == pytest.approx(min(peaks) - 0.2)
            else:
                assert pd.isna(now["fact"])
    assert alphas["fact"].notna().any()
    assert alphas.loc[1:, "fact"].isna().any()


def test_thresholds_of_a_round_with_all_facts_muted(session: Session) -> None:
    quiet = [session.rounds[0].without({0, 1})]
    assert thresholds(session.config, quiet)["fact"].isna().all()


def test_a_muted_fact_is_not_mistaken_for_another(session: Session) -> None:
    rounds = [session.rounds[0]]
    layer = LAYERS[0]
    lowest = rounds[0].fact_ids[int(rounds[0].peaks[layer].argmin())]
    quiet = [rounds[0].without({lowest})]
    frame = thresholds(session.config, quiet).set_index(["round", "layer"])
    if frame["value"][1, layer] < frame["value"][0, layer]:
        assert pd.isna(frame["fact"][1, layer])


def test_probes_measure_shift_cosine_and_perplexity(session: Session) -> None:
    lm = session.lm
    texts = ["The river of Peru is old", "Anna lives in Oslo and works today"]
    probes = Probes(lm, EditState.of(lm, session.config), texts)
    frame = probes.measure(session.state)
    last = LAYERS[-1]
    nll, count = 0.0, 0
    for place, text in enumerate(texts):
        inputs = lm.encode([text])
        outputs = []
        for edited in (False, True):
            with session.hooked(edited), torch.no_grad():
                outputs.append(lm.model(**inputs, output_hidden_states=True))
        before, now = (output.hidden_states[last + 1][0] for output in outputs)
        rows = frame[(frame["layer"] == last) & (frame["probe"] == place)].set_index("metric")
        shift = float(((now - before).norm(dim=1) / before.norm(dim=1)).mean())
        cosine = float(torch.cosine_similarity(now, before, dim=1).mean())
        assert rows["value"]["shift"] == pytest.approx(shift, rel=1e-4)
        assert rows["value"]["cosine"] == pytest.approx(cosine, rel=1e-4)
        ids = inputs["input_ids"][0]
        log_p = outputs[1].logits[0, :-1].log_softmax(-1)
        nll -= float(log_p.gather(1, ids[1:, None]).sum())
        count += len(ids) - 1
    perplexity = frame[frame["metric"] == "perplexity"]["value"].item()
    assert perplexity == pytest.approx(math.exp(nll / count), rel=1e-4)
    assert shift > 0


def test_nothing_in_force_has_not_moved(session: Session) -> None:
    frame = session.drift()
    start = frame[frame["round"] == 0]
    assert (start[start["metric"] == "shift"]["value"] == 0).all()
    assert start[start["metric"] == "cosine"]["value"].min() == pytest.approx(1)
    assert (frame[frame["metric"] == "shift"]["round"].max()) == 3


def test_what_was_measured_is_not_run_again(session: Session, monkeypatch) -> None:
    first = session.drift()
    monkeypatch.setattr(Probes, "measure", None)
    assert session.drift().equals(first)
    session.undo()
    assert set(session.drift()["round"]) == {0, 1, 2}
    session.redo()


def test_drift_can_be_cancelled(session: Session) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in session.lm.model.modules())

    before = hooks()
    with pytest.raises(EditCancelled):
        session.drift(cancel=lambda: True)
    assert hooks() == before


def test_neutral_texts_ask_none_of_the_bundled_facts() -> None:
    texts = " ".join(neutral_texts())
    assert len(neutral_texts()) >= 20
    assert not [fact for fact in bundled_facts() if fact.text in texts]
