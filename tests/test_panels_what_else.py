from __future__ import annotations

from hands import HOSTILE, STRONG, Hands, new_session, settle, submitted, texts
from tiny import tiny_facts

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.measure.what_else import headline
from coachhook_viz.panels import Playground, WhatElse


def edited() -> Session:
    session = new_session(scope="match", **STRONG)
    session.apply(tiny_facts()[:2])
    return session


def test_nothing_is_asked_before_a_click_and_then_all_is_shown() -> None:
    session = edited()
    panel = WhatElse(session)
    settle(panel)
    assert panel._table.cells == []
    assert "Press Ask" in panel._nothing.html
    Hands(panel).press(panel._running.button)
    settle(panel)
    frame = session.what_else(budget=200)
    assert texts(panel._table, 1) == [p.strip() for p in frame["prompt"]]
    assert headline(frame) in panel._headline.html
    assert len(panel._dots.dots) == len(frame)
    assert sum(dot["changed"] for dot in panel._dots.dots) == (~frame["kept"]).sum()
    assert panel._running.buttons.hidden
    assert "data:image/png" in panel.static()._repr_html_()
    scope: dict[str, object] = {"session": session, "cv": cv}
    exec(panel.code(), scope)  # noqa: S102
    assert scope["frame"].equals(frame)


def test_the_table_can_be_filtered_sorted_searched_and_brushed() -> None:
    session = edited()
    panel = WhatElse(session)
    panel.measure()
    settle(panel)
    frame, hands = session.what_else(budget=200), Hands(panel)
    for show, rows in {
        "changed": frame[~frame["kept"]],
        "fired": frame[frame["fired"]],
        "edit": frame[frame["kind"] == "edit"],
    }.items():
        hands.set(panel._show_only, value=show)
        assert texts(panel._table, 1) == rows["prompt"].str.strip().tolist()
    hands.set(panel._show_only, value="all")
    hands.set(panel._sort, value="name")
    assert texts(panel._table, 1) == sorted(texts(panel._table, 1))
    hands.set(panel._sort, value="kind")
    hands.type(panel._search, "Anna")
    assert texts(panel._table, 1)
    assert all("Anna" in text for text in texts(panel._table, 1))
    hands.type(panel._search, "")
    hands.say(panel._dots, {"pick": [0, 2, 9999, "x"]})
    assert texts(panel._table, 1) == frame["prompt"].iloc[[0, 2]].str.strip().tolist()
    hands.say(panel._dots, {"pick": [3]})
    assert panel.desk.selection.prompt == frame["prompt"].iloc[3]
    hands.press(panel._clear)
    assert len(panel._table.cells) == len(frame)
    hands.set(panel._table, selected=[1, 0])
    assert panel.desk.selection.prompt == frame["prompt"].iloc[1]


def test_the_bar_says_the_last_figures_of_what_is_in_force(monkeypatch) -> None:
    session = edited()
    playground = Playground(session)
    assert playground.wait(30)
    playground.look_through("what_else")
    playground.what_else.measure()
    assert playground.wait(30)
    settle(*playground._panels)
    said = headline(session.what_else(budget=200))
    assert said in playground.bar._beside.html
    session.undo()
    settle(*playground._panels)
    assert playground.bar._beside.hidden
    assert playground.what_else._frame is None
    seen = submitted(playground.desk, monkeypatch)
    session.redo()
    settle(*playground._panels)
    assert "asking what else changed" not in seen
    assert said in playground.bar._beside.html
    playground.close()


def test_hostile_prompts_stay_text() -> None:
    session = new_session(scope="match", **STRONG)
    session.apply([cv.Fact("{} lives in", HOSTILE, "Rome")])
    panel = WhatElse(session)
    panel.measure()
    settle(panel)
    assert "<img src=x" not in panel.view.root.picture()
    assert "<img src=x" not in panel.static()._repr_html_()
