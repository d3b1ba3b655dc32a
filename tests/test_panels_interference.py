"""The Interference panel without a browser: what it shows is what one public call gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from test_panels_drift import HOSTILE, calls, settle, two_rounds
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.panels.pairs import clustered


def shown(session: Session) -> cv.panels.Interference:
    panel = cv.panels.Interference(session)
    settle(panel)
    return panel


@pytest.fixture
def session() -> Session:
    return two_rounds()


@pytest.mark.parametrize("side", ["actual", "predicted"])
def test_cells_are_the_means_over_layers_shaded_by_magnitude(session: Session, side: str) -> None:
    panel = shown(session)
    means = session.interference().groupby(["fact", "by"])[side].mean()
    for i, line in enumerate(panel._grids[side].cells):
        for j, cell in enumerate(line):
            if i == j:
                assert cell["kind"] == "none"
                continue
            value = means[i, j]
            assert f"{value:.3g}" in cell["detail"]
            assert cell["shade"] == pytest.approx(1 + math.log10(max(value, 1e-3)) / 3)
    assert panel._grids[side].rows[1] == "Bruno Diego · 1"
    assert panel._grids[side].columns == [str(i) for i in range(6)]


def test_it_says_how_well_the_prediction_ranks(session: Session) -> None:
    panel = shown(session)
    rho = rank_correlation(session.interference())["rho"].iloc[-1]
    assert f"ρ is {rho:.2f}" in panel._words.value


def test_one_fact_interferes_with_nothing() -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts(1))
    panel = shown(session)
    assert panel._grids["actual"].cells == []
    assert "two facts" in panel._grids["actual"].empty
    assert panel._running.button.disabled
    assert "Nothing measured" in panel.static()._repr_html_()
    session.apply(tiny_facts()[1:2])
    settle(panel)
    assert len(panel._grids["actual"].cells) == 2
    assert "ρ" not in panel._words.value
    session.undo()
    settle(panel)
    assert panel._grids["actual"].cells == []


def test_clustering_puts_facts_that_act_on_each_other_side_by_side(session: Session) -> None:
    table = pd.DataFrame(0.0, index=range(4), columns=range(4))
    table.loc[0, 3] = table.loc[1, 2] = 1.0
    assert clustered(table) == [0, 3, 1, 2]
    panel = shown(session)
    by_round = panel._grids["actual"].cells
    panel._order.value = "clustered"
    order = panel._ids
    assert sorted(order) == list(range(6))
    assert panel._grids["predicted"].columns == [str(i) for i in order]
    first, second = order[:2]
    assert panel._grids["actual"].cells[0][1] == by_round[first][second]


def test_a_click_shows_both_facts_before_and_after(session: Session) -> None:
    panel = shown(session)
    panel._grids["predicted"].selected = [0, 3]
    settle(panel)
    assert panel._grids["actual"].selected == [0, 3]
    assert panel._detail.layout.display == ""
    pair = session.interference()
    pair = pair[(pair["fact"] == 0) & (pair["by"] == 3)]
    assert f"{pair['actual'].mean():.2g} times" in panel._about.value
    for fact, line in zip((0, 3), panel._answers.cells, strict=True):
        text = session.facts[fact].text
        assert line[0]["text"] == text
        for cell, edited in zip(line[1:], (False, True), strict=True):
            says = session.predict(text, edited=edited)
            assert cell["text"].startswith(says["token"].iloc[0].strip())
    assert panel._layers.rows == ["layer 1", "layer 2", "layer 3"]
    details = [[cell["detail"] for cell in line] for line in panel._layers.cells]
    values = pair[["predicted", "actual"]].to_numpy().tolist()
    assert details == [[f"{value:.4g}" for value in line] for line in values]
    assert panel.desk.selection.fact == 0
    assert panel.desk.selection.prompt == session.facts[0].text
    panel._layers.selected = [2, 0]
    assert panel.desk.selection.layer == 3


def test_the_pair_stays_marked_in_another_order(session: Session) -> None:
    panel = shown(session)
    panel._grids["actual"].selected = [1, 4]
    settle(panel)
    panel._order.value = "clustered"
    assert [panel._ids[place] for place in panel._grids["predicted"].selected] == [1, 4]


def test_it_follows_what_others_select(session: Session) -> None:
    panel = shown(session)
    panel.desk.select("another", fact=2, prompt="The river is")
    assert panel._grids["actual"].selected == [2, 2]
    assert panel._detail.layout.display == "none"
    assert panel.desk.selection.prompt == "The river is"
    session.go_to(1)
    settle(panel)
    assert panel._grids["actual"].selected == [2, 2]


def test_measure_is_one_public_call(session: Session, monkeypatch: Any) -> None:
    monkeypatch.setattr("coachhook_viz.panels.interference._CHEAP", 2)
    panel = shown(session)
    assert panel._grids["actual"].cells == []
    made = calls(session, monkeypatch, "interference")
    panel._running.button.click()
    settle(panel)
    assert made == ["interference"]
    assert len(panel._grids["actual"].cells) == 6


def test_many_facts_are_sampled_and_that_is_said(session: Session, monkeypatch: Any) -> None:
    monkeypatch.setattr("coachhook_viz.panels.interference._MOST", 4)
    panel = shown(session)
    assert len(panel._grids["actual"].cells) == 4
    assert "4 of 6 facts" in panel._words.value
    assert "session.interference(4)" in panel.code()


def test_conflicts_are_named_and_hostile_text_is_text() -> None:
    fact = replace(tiny_facts()[0], target=HOSTILE)
    session = tiny_session(tiny_model(lead="He "))
    session.apply([fact, tiny_facts()[1]])
    session.apply([replace(fact, target="Lima")])
    panel = shown(session)
    panel._grids["actual"].selected = [0, 2]
    settle(panel)
    assert "Conflict" in panel._words.value
    assert "Lima" in panel._words.value
    for text in (panel._words.value, panel._about.value, panel.static()._repr_html_()):
        assert "<img src=x" not in text
    assert "&lt;img" in panel._words.value
    assert "&lt;img" in panel._about.value


def test_static_and_code_stand_for_what_is_shown(session: Session) -> None:
    panel = shown(session)
    panel._grids["actual"].selected = [0, 3]
    settle(panel)
    page = panel.static()._repr_html_()
    assert "<img" in page
    assert "<script" not in page
    names = {"session": session, "cv": cv}
    exec(panel.code(), names)  # noqa: S102
    pd.testing.assert_frame_equal(names["pairs"], session.interference())
