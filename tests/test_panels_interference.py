"""The Interference panel without a browser: what it shows is what one public call gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hands import Hands
from test_panels_drift import HOSTILE, calls, settle, titles, two_rounds
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.panels.acting import clustered, key, matrix
from coachhook_viz.panels.zoom import Zoom


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
    assert f"ρ is {rho:.2f}" in panel._words.html


def test_one_fact_interferes_with_nothing() -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts(1))
    panel = shown(session)
    assert panel._grids["actual"].cells == []
    assert "two facts" in panel._nothing.html
    assert panel._running.button.disabled
    assert "Nothing measured" in panel.static()._repr_html_()
    session.apply(tiny_facts()[1:2])
    settle(panel)
    assert len(panel._grids["actual"].cells) == 2
    assert "ρ" not in panel._words.html
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
    assert not panel._detail.hidden
    pair = session.interference()
    pair = pair[(pair["fact"] == 0) & (pair["by"] == 3)]
    assert f"{pair['actual'].mean():.2g} times" in panel._about.html
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
    assert panel._detail.hidden
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
    assert "4 of 6 facts" in panel._words.html
    assert "session.interference(4)" in panel.code()


def test_conflicts_are_named_and_hostile_text_is_text() -> None:
    fact = replace(tiny_facts()[0], target=HOSTILE)
    session = tiny_session(tiny_model(lead="He "))
    session.apply([fact, tiny_facts()[1]])
    session.apply([replace(fact, target="Lima")])
    panel = shown(session)
    panel._grids["actual"].selected = [0, 2]
    settle(panel)
    assert "Conflict" in panel._words.html
    assert "Lima" in panel._words.html
    for text in (panel._words.html, panel._about.html, panel.static()._repr_html_()):
        assert "<img src=x" not in text
    assert "&lt;img" in panel._words.html
    assert "&lt;img" in panel._about.html


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


def test_a_hidden_lens_computes_nothing_until_it_is_shown(
    session: Session, monkeypatch: Any
) -> None:
    panel = shown(session)
    panel.visible = False
    asked = titles(panel, monkeypatch)
    session.undo()
    panel.desk.select("another", fact=1)
    settle(panel)
    assert asked == []
    assert len(panel._grids["actual"].cells) == 6
    panel.visible = True
    settle(panel)
    assert asked == ["measuring interference"]
    assert len(panel._grids["actual"].cells) == 3
    assert panel._grids["actual"].selected == [1, 1]


def test_a_seen_state_is_shown_at_once(session: Session, monkeypatch: Any) -> None:
    panel = shown(session)
    panel._grids["actual"].selected = [0, 2]
    settle(panel)
    session.undo()
    settle(panel)
    asked = titles(panel, monkeypatch)
    session.redo()
    assert len(panel._grids["actual"].cells) == 6
    assert panel._grids["predicted"].selected == [0, 2]
    assert not panel._detail.hidden
    assert asked == []


def test_the_mark_follows_its_pair(session: Session) -> None:
    panel = shown(session)
    panel._grids["actual"].selected = [2, 4]
    settle(panel)
    session.mute(0)
    settle(panel)
    assert panel._grids["actual"].selected == [1, 3]
    assert panel._grids["actual"].rows[1] == "Carla · 2"
    session.mute(4)
    settle(panel)
    assert panel._grids["actual"].selected == []
    assert panel._detail.hidden
    session.unmute(4)
    settle(panel)
    assert panel._grids["actual"].selected == [1, 3]


def test_an_empty_place_says_what_will_stand_there_and_why_it_is_empty(monkeypatch) -> None:
    session = tiny_session(tiny_model(lead="He "))
    panel = shown(session)
    assert panel._nothing.html.startswith("After you apply facts, each row here is a fact")
    assert panel._whole.hidden
    assert panel._key.hidden
    assert panel._running.buttons.hidden
    with monkeypatch.context() as patch:
        patch.setattr(panel, "run", lambda *args, **options: None)
        session.apply(tiny_facts(2))
    assert panel._nothing.html.startswith("Once it is measured, each row here is a fact")
    session.mute(0)
    session.mute(1)
    settle(panel)
    assert "all 2 facts muted: nothing to measure" in panel._nothing.html
    session.unmute(0)
    session.unmute(1)
    settle(panel)
    assert panel._nothing.hidden
    assert not panel._whole.hidden


@pytest.mark.parametrize(
    ("facts", "value", "said"),
    [(6, 0.43, "0.43"), (6, 0.004, ""), (12, 0.43, ".43"), (12, 1.26, "1.3"), (13, 0.43, "")],
)
def test_numbers_stand_where_they_have_room(facts: int, value: float, said: str) -> None:
    ids = list(range(facts))
    table = pd.DataFrame(value, index=ids, columns=ids)
    zoom = Zoom(25, 25, 625)
    zoom.fit(facts, facts)
    cells = matrix("actual", table, ids, dict(enumerate(tiny_facts(facts))), zoom)
    assert cells[0][1].text == said
    assert f"{value:.3g}" in cells[0][1].detail
    assert ("no number" in key(zoom)) == (facts < 13)


def test_many_pairs_stand_in_blocks_that_a_click_opens(session: Session, monkeypatch) -> None:
    monkeypatch.setattr("coachhook_viz.panels.interference._BLOCKS", (3, 3, 9))
    panel = shown(session)
    hands, grid = Hands(panel), panel._grids["actual"]
    pairs = session.interference().groupby(["fact", "by"])["actual"].mean()
    off = pairs[pairs.index.get_level_values(0) != pairs.index.get_level_values(1)].reset_index()
    for i, line in enumerate(grid.cells):
        for j, cell in enumerate(line):
            block = off[(off["fact"] // 2 == i) & (off["by"] // 2 == j)]
            strongest = block.loc[block["actual"].idxmax()]
            assert cell["detail"].startswith(
                f"{len(block)} pairs: mean {block['actual'].mean():.3g}"
            )
            subject = session.facts[int(strongest["by"])].subject
            assert f"Strongest: {subject} →" in cell["detail"]
            assert f"{strongest['actual']:.3g}; click" in cell["detail"]
    assert grid.rows[1].startswith("2 +1 · ")
    assert grid.columns == ["0", "2", "4"]
    assert "the mean over 2 × 2 pairs" in panel._key.html

    hands.say(panel._grids["predicted"], {"press": [0, 2]})
    assert grid.picks == "cell"
    assert grid.columns == ["3", "4", "5"]
    hands.at(grid, 0, 1)
    settle(panel)
    assert panel.desk.selection.fact == 0
    assert panel._pair == (0, 4)
    assert not panel._detail.hidden
    hands.press(panel._zoom.out)
    assert grid.picks == "block"
    hands.say(grid, {"press": [0, 2]})
    assert panel._pair == (0, 4)  # it stays what was picked, out and in again
    panel._order.value = "clustered"
    assert grid.picks == "block"
    assert grid.selected == panel._zoom.shown([panel._ids.index(0), panel._ids.index(4)])
