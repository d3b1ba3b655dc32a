"""Nodes and their widget without a browser: what is said to the page, and what the page says."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import Session
from coachhook_viz.panels.controls import (
    Button,
    Check,
    Chips,
    Choice,
    Field,
    ListBox,
    Select,
    Slider,
    Text,
    Toggle,
    Upload,
    column,
    row,
)
from coachhook_viz.panels.grid import Cell, Grid
from coachhook_viz.panels.panel import Panel
from coachhook_viz.panels.view import Node, View, walk

HOSTILE = "<img src=x onerror=alert(1)>"


class Page:
    """The other end of a view: what it is sent, and what it says."""

    def __init__(self, *nodes: Node) -> None:
        self.view = View(column(*nodes))
        self.sent: list[tuple[dict[str, Any], list[Any]]] = []
        self.view.send = lambda content, buffers=None: self.sent.append((content, buffers or []))

    def say(self, node: Node, **state: Any) -> None:
        """A person has changed something."""
        self.view._hear(self.view, {"set": {node._key: state}}, [])

    def message(self, node: Node, content: dict[str, Any], *buffers: Any) -> None:
        """A person has pressed something."""
        self.view._hear(self.view, {"message": [node._key, content]}, list(buffers))

    @property
    def patches(self) -> list[dict[str, Any]]:
        """What has been sent since, by message: node to state."""
        return [content["patch"] for content, _ in self.sent]


def test_a_view_is_one_tree_with_a_key_for_each_node() -> None:
    field, button = Field(label="Prompt"), Button("Ask", "primary")
    page = Page(Text("Hello", "cv-note"), row(field, button))
    tree = page.view.snapshot()
    assert [node._key for node in walk(page.view.root)] == ["0", "1", "2", "3", "4"]
    assert [child["kind"] for child in tree["children"]] == ["text", "group"]
    inner = tree["children"][1]["children"]
    assert [child["kind"] for child in inner] == ["field", "button"]
    assert inner[0]["state"]["label"] == "Prompt"
    assert inner[1]["state"]["look"] == "primary"
    assert inner[1]["key"] == button._key


def test_a_page_that_is_loaded_again_begins_with_what_is_true_now() -> None:
    field = Field(value="old")
    page = Page(field)
    field.value = "new"
    state = page.view.get_state(["tree", "uid"])
    assert state["tree"]["children"][0]["state"]["value"] == "new"
    assert state["uid"] != Page().view.get_state("uid")["uid"]
    page.view._hear(page.view, {"hello": True}, [])
    assert page.sent[-1][0] == {"tree": page.view.snapshot()}


def test_a_change_is_sent_and_no_other_is_with_it() -> None:
    field, text = Field(), Text()
    page = Page(field, text)
    field.value = "Rome"
    field.value = "Rome"
    text.say("Paris")
    assert page.patches == [{field._key: {"value": "Rome"}}, {text._key: {"html": "Paris"}}]


def test_changes_that_belong_together_are_one_message_with_the_last_values() -> None:
    field, text = Field(), Text()
    page = Page(field, text)
    with page.view.together():
        field.value = "R"
        with text.together():
            text.say("one")
        assert page.sent == []
        field.value = "Rome"
    assert page.patches == [{field._key: {"value": "Rome"}, text._key: {"html": "one"}}]


def test_what_changed_before_an_error_is_sent() -> None:
    field = Field()
    page = Page(field)

    def fail() -> None:
        with page.view.together():
            field.value = "Rome"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert page.patches == [{field._key: {"value": "Rome"}}]
    field.value = "Paris"
    assert len(page.sent) == 2


def test_threads_that_draw_at_once_lose_nothing() -> None:
    texts = [Text() for _ in range(4)]
    page = Page(*texts)

    def draw(text: Text) -> None:
        for step in range(100):
            with text.together():
                text.say(str(step))

    threads = [threading.Thread(target=draw, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown: dict[str, str] = {}
    for patch in page.patches:
        shown |= {key: state["html"] for key, state in patch.items()}
    assert shown == {text._key: "99" for text in texts}


def test_what_the_page_says_is_heard_and_not_sent_back() -> None:
    field, heard = Field(), []
    page = Page(field)
    field.observe(lambda change: heard.append(change.new), "value")
    page.say(field, value="R")
    page.say(field, value="Ro")
    assert heard == ["R", "Ro"]
    assert page.sent == []


def test_another_value_that_a_handler_sets_is_sent() -> None:
    field = Field()
    page = Page(field)

    def capitals(change: Any) -> None:
        field.value = change.new.upper()

    field.observe(capitals, "value")
    page.say(field, value="rome")
    assert page.patches == [{field._key: {"value": "ROME"}}]


def test_the_very_value_set_again_after_another_is_sent() -> None:
    field = Field()
    page = Page(field)

    def there_and_back(change: Any) -> None:
        if change.new == "Rome":
            field.unobserve(there_and_back, "value")
            field.value = ""
            field.value = "Rome"

    field.observe(there_and_back, "value")
    page.say(field, value="Rome")
    assert page.patches == [{field._key: {"value": ""}}, {field._key: {"value": "Rome"}}]


def test_what_a_handler_changes_elsewhere_is_sent() -> None:
    one, other = Field(), Field()
    page = Page(one, other)
    one.observe(lambda change: setattr(other, "value", change.new), "value")
    page.say(one, value="Rome")
    assert page.patches == [{other._key: {"value": "Rome"}}]


@pytest.mark.parametrize(
    ("node", "name", "wrong", "true"),
    [
        (Field(value="Rome"), "value", 7, "Rome"),
        (Check(value=True), "value", "no", True),
        (Slider(value=0.5), "value", "wide", 0.5),
        (Grid(selected=[1, 2]), "selected", ["a"], [1, 2]),
        (ListBox(chosen=["3"]), "chosen", [3], ["3"]),
    ],
)
def test_a_value_that_cannot_be_is_answered_with_the_true_one(
    node: Node, name: str, wrong: Any, true: Any
) -> None:
    page = Page(node)
    page.say(node, **{name: wrong})
    assert getattr(node, name) == true
    assert page.patches == [{node._key: {name: true}}]


def test_what_is_said_of_nothing_is_ignored() -> None:
    field = Field()
    page = Page(field)
    page.view._hear(page.view, {"set": {"99": {"value": "x"}}}, [])
    page.say(field, nonsense="x")
    page.view._hear(page.view, {"message": ["99", {"click": True}]}, [])
    assert page.sent == []
    assert not hasattr(field, "nonsense")


@pytest.mark.parametrize(
    "node",
    [
        Toggle(label="Hooks"),
        Check(label="match scope"),
        Select(options=[["one", "1"], ["two", "2"]], value="1"),
        Choice(options=[["Complete", "complete"], ["Chat", "chat"]], value="complete"),
        Slider(value=0.25),
    ],
)
def test_a_choice_of_the_page_is_the_value(node: Any) -> None:
    page = Page(node)
    new = {bool: True, str: node.options[1][1] if hasattr(node, "options") else "", float: 0.75}
    page.say(node, value=new[type(node.value)])
    assert node.value == new[type(node.value)]
    assert page.sent == []


def test_words_are_escaped_unless_they_are_markup() -> None:
    text = Text(HOSTILE)
    assert "<img" not in text.html
    text.say(HOSTILE)
    assert "<img" not in text.html
    assert "&lt;img" in text.html
    text.say()
    assert text.html == ""


def test_writing_into_a_field_at_a_wish_says_over_what() -> None:
    field = Field(value="The capital")
    page = Page(field)
    field.put("The river")
    assert page.patches == [{field._key: {"over": "The capital", "value": "The river"}}]
    page.say(field, value="The river is")
    assert field.value == "The river is"


def test_enter_in_a_field_acts() -> None:
    field, seen = Field(), []
    page = Page(field)
    field.on_enter(lambda: seen.append(field.value))
    page.say(field, value="Rome")
    page.message(field, {"enter": "Rome"})
    assert seen == ["Rome"]


def test_a_button_acts_unless_it_rests() -> None:
    button, seen = Button("Apply"), []
    page = Page(button)
    button.on_click(lambda: seen.append("one"))
    button.on_click(lambda: seen.append("other"))
    page.message(button, {"click": True})
    button.click()
    assert seen == ["one", "other"] * 2
    button.disabled = True
    page.message(button, {"click": True})
    button.click()
    assert seen == ["one", "other"] * 2


def test_a_button_hands_over_a_file() -> None:
    button = Button("Data")
    page = Page(button)
    button.download("scores.csv", b"a,b\n", "text/csv")
    content = {"message": [button._key, {"download": "scores.csv", "type": "text/csv"}]}
    assert page.sent == [(content, [b"a,b\n"])]


def test_a_file_comes_as_bytes() -> None:
    upload, taken = Upload("Open", ".csv"), []
    page = Page(upload)
    upload.on_file(lambda name, data: taken.append((name, data)))
    page.message(upload, {"file": "facts.csv"}, memoryview(b"prompt,subject\n"))
    page.message(upload, {"file": "facts.csv"})
    assert taken == [("facts.csv", b"prompt,subject\n")]


def test_a_suggestion_is_picked_by_its_place() -> None:
    chips, picked = Chips(options=["The {} is", "In {}"]), []
    page = Page(chips)
    chips.on_pick(picked.append)
    page.message(chips, {"pick": 1})
    page.message(chips, {"pick": 2})
    page.message(chips, {"pick": "1"})
    assert picked == [1]


def test_rows_of_a_list_are_chosen_by_key() -> None:
    rows = [{"key": key, "text": key} for key in "abc"]
    box, heard = ListBox(label="facts", rows=rows), []
    page = Page(box)
    box.observe(lambda change: heard.append(change.new), "chosen")
    page.say(box, chosen=["b", "c"])
    box.rows = [{"key": "new", "text": "new"}, *rows]
    assert box.chosen == ["b", "c"]
    assert heard == [["b", "c"]]
    assert page.patches == [{box._key: {"rows": box.rows}}]


def test_a_grid_is_shown_in_one_message() -> None:
    grid = Grid(label="scores")
    page = Page(grid)
    cells = [[Cell("1"), Cell("2", shade=0.5, kind="none")]]
    grid.show(cells, rows=["Rome"], columns=["a", "b"], empty="nothing")
    (patch,) = page.patches
    assert patch[grid._key] == {
        "rows": ["Rome"],
        "columns": ["a", "b"],
        "cells": [[{"text": "1"}, {"text": "2", "shade": 0.5, "kind": "none"}]],
        "empty": "nothing",
    }
    grid.show(cells)
    assert len(page.patches) == 1


def test_a_selected_row_goes_with_its_key() -> None:
    grid = Grid()
    page = Page(grid)

    def show(*keys: int) -> list[int]:
        grid.show([[Cell(str(key))] * 2 for key in keys], keys=keys)
        return list(grid.selected)

    assert show(4, 5) == []
    page.say(grid, selected=[1, 1])
    assert show(3, 4, 5) == [2, 1]
    assert show(5, 3) == [0, 1]
    assert show(3) == []
    assert show(5, 3) == []
    grid.show([[Cell("3")] * 2], keys=[3], selected=[0, 0])
    assert grid.selected == [0, 0]


def test_rows_without_keys_keep_the_place_that_is_selected() -> None:
    grid = Grid()
    Page(grid)
    grid.show([[Cell("1")], [Cell("2")]])
    grid.selected = [1, 0]
    grid.show([[Cell("3")], [Cell("4")]])
    assert grid.selected == [1, 0]


def test_what_is_typed_into_a_cell_is_told() -> None:
    grid, typed = Grid(), []
    page = Page(grid)
    grid.on_type(lambda *told: typed.append(told))
    page.message(grid, {"typed": [0, 1, "Rome"]})
    page.message(grid, {"typed": None})
    assert typed == [(0, 1, "Rome")]


def test_a_grid_as_a_table_is_text_and_holds_whole_cells() -> None:
    grid = Grid(columns=[HOSTILE], rows=[HOSTILE], cells=[])
    grid.show([[Cell(HOSTILE, framed=True)]])
    picture = str(grid.picture())
    assert "<img" not in picture
    assert picture.count("&lt;img") == 3
    assert "●" in picture
    assert str(Grid().picture()) == ""


def test_a_closed_view_says_nothing_and_holds_nobody() -> None:
    field, heard = Field(), []
    page = Page(field)
    field.observe(lambda change: heard.append(change.new), "value")
    page.view.close()
    field.value = "Rome"
    page.view._hear(page.view, {"set": {field._key: {"value": "Paris"}}}, [])
    assert field.value == "Rome"
    assert heard == []
    assert page.sent == []
    gone = weakref.ref(field)
    del page, field
    gc.collect()
    assert gone() is None


def test_the_script_is_one_module_that_loads_no_other() -> None:
    script = str(View._esm)
    assert script.count("export default") == 1
    assert "\nimport " not in script
    kinds = {node.kind for node in (Button(""), Check(), Field(), Grid(), ListBox(), Select())}
    assert all(f"KINDS.{kind} =" in script for kind in kinds)


class Plain(Panel):
    """A panel that shows what it has worked out."""

    title = "Plain"

    def __init__(self, session: Session) -> None:
        self.seen: list[Any] = []
        self.read = 0
        super().__init__(session, [Text()])

    def refresh(self) -> None:
        self.read += 1

    def show(self, found: Any) -> None:
        self.seen.append(found)

    def other(self, found: Any) -> None:
        self.seen.append(found)


@pytest.fixture
def panel() -> Plain:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts(1))
    panel = Plain(session)
    assert panel.desk.worker.wait(30)
    return panel


def held(panel: Plain) -> threading.Event:
    """Keep the worker busy until the event is set."""
    begun, go = threading.Event(), threading.Event()

    def wait(job: Any) -> None:
        begun.set()
        assert go.wait(10)

    panel.desk.worker.submit("holding", wait)
    assert begun.wait(10)
    return go


def test_a_later_run_overtakes_an_earlier_one_with_the_same_end(panel: Plain) -> None:
    go = held(panel)
    panel.run("one", lambda job: 1, panel.show)
    panel.run("two", lambda job: 2, panel.other)
    panel.run("three", lambda job: 3, panel.show)
    go.set()
    assert panel.desk.worker.wait(10)
    assert panel.seen == [2, 3]


def test_a_result_is_kept_by_all_that_it_depends_on(panel: Plain) -> None:
    worked: list[str] = []

    def work(job: Any) -> int:
        worked.append("work")
        return 7

    panel.run("one", work, panel.show, of=("state", 1))
    assert panel.desk.worker.wait(10)
    panel.run("one", work, panel.show, of=("state", 1))
    assert panel.seen == [7, 7]
    assert worked == ["work"]
    assert panel.recall(panel.show, ("state", 1))
    assert not panel.recall(panel.show, ("state", 2))
    assert not panel.recall(panel.other, ("state", 1))
    assert panel.seen == [7, 7, 7]


def test_a_kept_result_overtakes_what_still_runs(panel: Plain) -> None:
    panel.run("one", lambda job: 1, panel.show, of="kept")
    assert panel.desk.worker.wait(10)
    go = held(panel)
    panel.run("two", lambda job: 2, panel.show, of="new")
    panel.run("one", lambda job: 1, panel.show, of="kept")
    go.set()
    assert panel.desk.worker.wait(10)
    assert panel.seen == [1, 1]


def test_what_is_worked_out_while_the_session_changes_is_not_kept(panel: Plain) -> None:
    def work(job: Any) -> int:
        panel.session.undo()
        return 7

    panel.run("one", work, panel.show, of="state")
    assert panel.desk.worker.wait(10)
    assert panel.seen == [7]
    assert not panel.recall(panel.show, "state")


def test_an_error_is_said_in_the_panel_or_where_it_is_asked_for(panel: Plain) -> None:
    def work(job: Any) -> None:
        raise ValueError(f"no token in {HOSTILE}")

    errors: list[Exception] = []
    panel.run("one", work, panel.show, fail=errors.append)
    assert panel.desk.worker.wait(10)
    assert not panel._alert.html
    assert len(errors) == 1
    panel.run("one", work, panel.show)
    assert panel.desk.worker.wait(10)
    assert "No token in &lt;img" in panel._alert.html
    assert panel.seen == []


def test_a_hidden_panel_reads_once_what_has_changed_when_it_is_shown(panel: Plain) -> None:
    panel.renew()
    assert panel.read == 1
    panel.visible = False
    assert panel.layout.display == "none"
    panel.renew()
    panel.renew()
    assert panel.read == 1
    panel.visible = True
    assert panel.read == 2
    assert panel.layout.display is None
    panel.visible = False
    panel.visible = True
    assert panel.read == 2


@pytest.mark.parametrize(("patience", "goes_on"), [(0, True), (2, False)])
def test_only_what_nobody_waits_for_ends_when_a_panel_is_hidden(
    panel: Plain, patience: int, goes_on: bool
) -> None:
    go = held(panel)
    panel.run("one", lambda job: 1, panel.show, patience=patience)
    panel.visible = False
    go.set()
    assert panel.desk.worker.wait(10)
    assert panel.seen == [1] * goes_on
    panel.visible = True
    assert panel.read == (not goes_on)


def test_dropped_work_shows_nothing(panel: Plain) -> None:
    go = held(panel)
    panel.run("one", lambda job: 1, panel.show)
    assert panel.drop()
    assert not panel.drop()
    go.set()
    assert panel.desk.worker.wait(10)
    assert panel.seen == []
