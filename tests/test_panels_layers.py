from __future__ import annotations

import pandas as pd
from hands import HOSTILE, STRONG, Hands, new_session, settle, submitted, texts
from tiny import tiny_facts

from coachhook_viz import Session
from coachhook_viz.panels import Layers
from coachhook_viz.panels.desk import Desk

PROMPT = tiny_facts()[0].text


def edited() -> Session:
    session = new_session(scope="match", **STRONG)
    session.apply(tiny_facts()[:2])
    return session


def shades(panel: Layers) -> list[float]:
    return [cell["shade"] for line in panel._grid.cells for cell in line]


def lines_of(frame: pd.DataFrame) -> list[float]:
    by = ["edited", "without", "answer"]
    parts = frame.groupby(by, sort=False, dropna=False)["probability"]
    return [p for _, part in parts for p in part]


def test_each_answer_has_a_line_before_and_after() -> None:
    session = edited()
    panel = Layers(session, PROMPT)
    settle(panel)
    frame = session.lens(PROMPT, panel._read.answers)
    target = tiny_facts()[0].target
    assert panel._grid.rows[-1] == f"{target}, after"
    assert len(panel._grid.rows) == 2 * frame["answer"].nunique()
    assert shades(panel) == lines_of(frame)
    hooked = [f"▪{layer}" for layer in session.config.layers]
    assert [name for name in panel._grid.columns if name.startswith("▪")] == hooked
    assert "data:image/png" in panel.static()._repr_html_()
    scope: dict[str, object] = {"session": session, "cv": __import__("coachhook_viz")}
    exec(panel.code(), scope)  # noqa: S102 - it is what the panel hands out
    assert scope["frame"].equals(frame)


def test_a_click_on_a_hooked_layer_compares_without_its_hook() -> None:
    session = edited()
    panel = Layers(session, PROMPT)
    settle(panel)
    lines, layer = len(panel._grid.rows), session.config.layers[1]
    Hands(panel).set(panel._grid, selected=[0, layer])
    settle(panel)
    assert len(panel._grid.rows) == lines * 3 // 2
    assert panel._grid.rows[-1].endswith(f"without layer {layer}")
    assert Desk.of(session).selection.layer == layer
    assert shades(panel) == lines_of(session.lens(PROMPT, panel._read.answers, without=layer))
    assert f"without={layer}" in panel.code()
    Hands(panel).set(panel._grid, selected=[0, 0])
    settle(panel)
    assert "Block 0 is not hooked" in panel._story.html


def test_a_click_on_a_token_reads_there() -> None:
    session = edited()
    panel = Layers(session, PROMPT)
    settle(panel)
    last = shades(panel)
    Hands(panel).set(panel._tokens, selected=[0, 2])
    settle(panel)
    assert texts(panel._tokens, 2) == ["●"]
    assert shades(panel) != last
    assert "token=2" in panel.code()
    panel.desk.select(None, prompt=tiny_facts()[1].text)  # of another prompt the last one
    settle(panel)
    assert "token=" not in panel.code()


def test_answers_can_be_typed_and_what_is_wrong_is_said() -> None:
    panel = Layers(edited(), "The river is")
    settle(panel)
    assert panel._grid.rows  # what the model itself says
    hands = Hands(panel)
    hands.type(panel._answers, "Rome, guitar")
    settle(panel)
    assert panel._grid.rows == ["Rome, before", "guitar, before", "Rome, after", "guitar, after"]
    panel.look(HOSTILE)
    settle(panel)
    assert "<img" not in panel.view.root.picture()
    panel.look(" ")
    settle(panel)
    assert panel._grid.rows == []
    assert "Type a prompt" in panel._grid.empty


def test_a_state_that_was_seen_is_not_read_again(monkeypatch) -> None:
    session = edited()
    panel = Layers(session, PROMPT)
    settle(panel)
    seen = submitted(panel.desk, monkeypatch)
    session.undo()
    settle(panel)
    session.redo()
    settle(panel)
    assert seen.count("reading the layers") == 1
    panel.visible = False
    session.undo()
    settle(panel)
    assert seen.count("reading the layers") == 1
    panel.desk.judge(None, hooks=False)
    panel.visible = True
    settle(panel)
    assert "state_at(0)" in panel.code()
