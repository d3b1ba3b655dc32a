from __future__ import annotations

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import Session
from coachhook_viz.events import Event, Moved
from coachhook_viz.panels.desk import Desk, Scored, Selected, Staged


@pytest.fixture
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:2])
    return session


def test_a_session_has_one_desk(session: Session) -> None:
    assert Desk.of(session) is Desk.of(session)
    assert Desk.of(session) is not Desk.of(tiny_session())


def test_a_selection_carries_its_source_and_is_told_once(session: Session) -> None:
    desk = Desk.of(session)
    events: list[Event] = []
    desk.subscribe(events.append)
    desk.select("me", fact=1, prompt="The river")
    desk.select("me", fact=1)
    (event,) = (e for e in events if isinstance(e, Selected))
    assert event.source == "me"
    assert (event.before.fact, event.now.fact, event.now.prompt) == (None, 1, "The river")


def test_changes_of_the_session_are_passed_on_and_scored_anew(session: Session) -> None:
    desk = Desk.of(session)
    assert desk.worker.wait(30)
    expected = session.evaluate()
    assert desk.scores[0]["reliability"] == float(
        expected.query("fact == 0 and metric == 'reliability'")["value"].item()
    )
    events: list[Event] = []
    desk.subscribe(events.append)
    session.undo(source="me")
    assert desk.worker.wait(30)
    assert desk.scores == {}
    session.redo()
    assert desk.worker.wait(30)
    assert set(desk.scores) == {0, 1}
    assert [type(event) for event in events] == [Moved, Moved, Scored]


def test_staging_is_told(session: Session) -> None:
    desk = Desk.of(session)
    events: list[Event] = []
    desk.subscribe(events.append)
    desk.stage(tiny_facts()[2:4], "me")
    assert desk.staged == tuple(tiny_facts()[2:4])
    assert [e.source for e in events if isinstance(e, Staged)] == ["me"]
