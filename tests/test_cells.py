"""A cell that is run again replaces what it made before, and nothing is left of that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hands import new_session, whole
from ipywidgets.widgets import widget
from plotly.graph_objects import FigureWidget
from tiny import tiny_facts

import coachhook_viz as cv
from coachhook_viz import Session
from coachhook_viz.panels import cells

Run = Callable[[str], None]


@pytest.fixture
def run(monkeypatch) -> Run:
    """Begin another run of a cell: what is made from then on is made by it."""
    runs: dict[str, Any] = {"number": 0, "place": None}

    def begin(cell: str = "cell") -> None:
        runs["number"] += 1
        runs["place"] = (cell, str(runs["number"]))

    monkeypatch.setattr(cells, "_MADE", {})
    monkeypatch.setattr(cells, "_here", lambda: runs["place"])
    return begin


@pytest.fixture(scope="module")
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


class View:
    """What a cell makes."""

    def __init__(self) -> None:
        self.closed = 0
        self.before = cells.predecessor(View)
        cells.replacing(self)

    def close(self) -> None:
        self.closed += 1


def test_what_an_earlier_run_of_the_cell_made_is_closed_once(run: Run) -> None:
    run("one")
    first, second = View(), View()
    assert (first.closed, second.closed) == (0, 0)  # made by the same run
    run("other")
    View()
    assert (first.closed, second.closed) == (0, 0)
    run("one")
    third = View()
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)
    run("one")
    View()
    assert (first.closed, third.closed) == (1, 1)


def test_the_predecessor_is_of_an_earlier_run_and_of_its_kind(run: Run) -> None:
    run("one")
    first = View()
    assert (first.before, View().before) == (None, None)
    run("one")
    assert cells.predecessor(int) is None
    assert View().before is not None
    run("other")
    assert View().before is None


def test_where_there_is_no_notebook_nothing_is_replaced() -> None:
    views = [View(), View()]
    assert [view.closed for view in views] == [0, 0]
    assert views[1].before is None


@pytest.mark.parametrize(
    ("parent", "place"),
    [
        ({"metadata": {"cellId": "a1"}, "header": {"msg_id": "7"}, "content": {}}, ("a1", "7")),
        ({"header": {"msg_id": "7"}, "content": {"code": "cv.playground()"}}, None),
        ({"header": {}, "content": {}}, None),  # a click, not a cell
        (None, None),
    ],
)
def test_a_cell_is_known_by_its_id_or_else_by_its_code(
    monkeypatch, parent: Any, place: tuple[str, str] | None
) -> None:
    class Shell:
        def get_parent(self) -> Any:
            return parent

    monkeypatch.setattr("IPython.core.getipython.get_ipython", Shell)
    if parent is not None and "code" in parent["content"]:
        place = ("cv.playground()", "7")
    assert cells._here() == place
    inside: list[Any] = []
    thread = threading.Thread(target=lambda: inside.append(cells._here()))
    thread.start()
    thread.join()
    assert inside == [None]  # whatever cell runs meanwhile, it is not that one's


def test_twenty_runs_leave_no_more_than_one(run: Run, session: Session) -> None:
    alive: list[tuple[int, ...]] = []
    for _ in range(20):
        run("playground")
        playground = cv.playground(session)
        desk = playground.desk
        counts = (desk._emitter._subscribers, desk.worker._listeners, desk.autosave._callbacks)
        alive.append((len(widget._instances), *map(len, counts)))
    whole(playground)
    assert len(set(alive[1:])) == 1
    views = cells._MADE["playground"][1]
    run("playground")
    panel = cv.panels.Scope(session)
    assert len(cells._MADE["playground"][1]) == 1
    assert len(views) > 1
    panel.close()


def test_a_playground_with_a_plotly_figure_is_replaced(run: Run, session: Session) -> None:
    run("playground")
    first = cv.playground(session)
    whole(first)
    figure = FigureWidget()  # its `layout` is no widget
    first.drift.children = (*first.drift.children, figure)
    run("playground")
    second = cv.playground(session)
    whole(second)
    assert figure.comm is None
    second.close()


def test_a_panel_run_again_is_one_panel(run: Run, session: Session) -> None:
    alive = []
    for _ in range(3):
        run()
        panel = cv.panels.Facts(session)
        alive.append((len(widget._instances), len(panel.desk._emitter._subscribers)))
    assert len(set(alive)) == 1
    panel.close()


def test_a_playground_run_again_goes_on_with_its_session(run: Run, monkeypatch) -> None:
    from coachhook_viz.panels import playground as module

    monkeypatch.setattr(module, "_new_session", lambda job: new_session())
    run()
    first = cv.playground()
    whole(first)
    first.session.apply(tiny_facts()[:1])
    run()
    second = cv.playground()
    assert second.session is first.session
    whole(second)
    assert "Still the session of before: 1 round, 1 fact." in second._said.html
    assert second._offers.options == ["Start afresh"]
    old = second.session
    second._top._hear(second._top, {"message": [second._offers._key, {"pick": 0}]}, [])
    whole(second)
    assert second.session is not old
    assert second.session.rounds == ()
    assert len(old.rounds) == 1
    assert second._offers.options == []
    assert second._said.html == ""
    run()
    third = cv.playground(old)  # asked for by name
    assert third.session is old
    assert third._said.html == ""
    whole(third)
    third.close()


def test_a_playground_that_still_loads_is_replaced_without_waiting(run: Run, monkeypatch) -> None:
    from coachhook_viz.panels import playground as module

    loading, go = threading.Event(), threading.Event()

    def load(job: Any) -> Session:
        loading.set()
        assert go.wait(20)
        return new_session()

    monkeypatch.setattr(module, "_new_session", load)
    run()
    first = cv.playground()
    assert loading.wait(10)
    closing = threading.Thread(target=first.close)
    closing.start()
    closing.join(3)
    assert not closing.is_alive()
    go.set()
    assert first._loading.wait(10)
    assert first.session is None
