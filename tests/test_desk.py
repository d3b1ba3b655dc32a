"""What the panels on one session share: one model state, one prompt, one fact."""

from __future__ import annotations

import pytest
from hands import Held, new_session, submitted
from tiny import tiny_facts, tiny_session

from coachhook_viz import Session
from coachhook_viz.events import Configured, Event, Moved, RoundApplied
from coachhook_viz.panels.desk import Desk, Judged, Kept, Scored, Selected, Staged, changes


@pytest.fixture
def session() -> Session:
    session = new_session()
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
    session.apply(tiny_facts()[2:3])
    assert desk.worker.wait(30)
    assert set(desk.scores) == {0, 1, 2}
    assert [type(event) for event in events] == [Moved, Moved, RoundApplied, Scored]


def test_a_state_is_scored_once(session: Session, monkeypatch) -> None:
    desk = Desk.of(session)
    assert desk.worker.wait(30)
    known = desk.scores
    titles = submitted(desk, monkeypatch)
    seen: list[object] = []
    desk.subscribe(lambda event: seen.append(desk.scores))
    session.undo()
    session.redo()
    assert seen == [{}, known]  # it is there when the panels hear of it
    session.mute(0)
    session.unmute(0)
    assert desk.worker.wait(30)
    assert titles == ["scoring 1 fact"]
    assert desk.scores == known


def test_staging_is_told(session: Session) -> None:
    desk = Desk.of(session)
    events: list[Event] = []
    desk.subscribe(events.append)
    desk.stage(tiny_facts()[2:4], "me")
    assert desk.staged == tuple(tiny_facts()[2:4])
    assert [e.source for e in events if isinstance(e, Staged)] == ["me"]


def test_what_stands_is_said_in_a_few_words() -> None:
    session = new_session()
    desk = Desk.of(session)
    assert desk.standing == "no round yet"
    desk.judge(None, hooks=False)
    assert desk.standing == "no round yet"
    desk.judge(None, hooks=True)
    session.apply(tiny_facts()[:1])
    session.apply(tiny_facts()[1:3])
    assert desk.standing == "after round 2"
    session.mute(1)
    assert desk.standing == "after round 2, 1 fact muted"
    session.mute(0)
    session.mute(2)
    assert desk.standing == "after round 2, all 3 facts muted"
    session.undo()
    assert desk.standing == "after round 1, the only fact muted"
    session.unmute(0)
    assert desk.standing == "after round 1"  # the muted ones are not of it
    desk.judge(None, hooks=False)
    assert desk.standing == "hooks off"
    session.undo()
    assert desk.standing == "before round 1"


def test_a_rule_before_any_round_is_the_sessions_own_and_afterwards_a_look() -> None:
    session = new_session()
    desk = Desk.of(session)
    events: list[Event] = []
    desk.subscribe(events.append)
    desk.judge("me", "match")
    assert session.config.scope == desk.rule == "match"
    session.apply(tiny_facts()[:1])
    desk.judge("me", "zscore")
    assert (session.config.scope, desk.rule) == ("match", "zscore")
    assert desk.state.key == session.state.judged("zscore").key != session.state.key
    desk.judge("me", "zscore")
    desk.judge("me", "match")
    assert desk.state.key == session.state.key
    assert desk.worker.wait(30)
    told = [(type(event), event.source) for event in events if not isinstance(event, Scored)]
    assert told == [(Configured, "me"), (RoundApplied, None), (Judged, "me"), (Judged, "me")]


def test_a_rule_that_is_chosen_while_the_first_round_is_written_leaves_it_alone(
    monkeypatch,
) -> None:
    session = new_session()
    desk = Desk.of(session)
    held = Held(session, monkeypatch)
    desk.applying.begin(tiny_facts()[:1])
    held.wait()
    desk.judge(None, "match")
    held.go.set()
    assert desk.worker.wait(30)
    assert len(session.rounds) == 1
    assert not desk.applying.said
    assert (session.config.scope, desk.rule) == ("zscore", "match")


def test_hooks_off_is_the_unedited_model(session: Session) -> None:
    desk = Desk.of(session)
    desk.judge(None, hooks=False)
    assert desk.state.facts == ()
    assert desk.state.key == session.state_at(0).key
    desk.judge(None, hooks=True)
    assert desk.state.key == session.state.key


def test_settings_of_elsewhere_are_the_rule() -> None:
    session = new_session()
    desk = Desk.of(session)
    session.configure(scope="off")
    assert desk.rule == "off"
    assert desk.state.key == session.state.key


def test_which_events_may_change_what_the_model_says(session: Session) -> None:
    desk = Desk.of(session)
    events: list[Event] = []
    desk.subscribe(events.append)
    session.mute(0)
    desk.judge(None, "off")
    session.branch("what if")
    session.undo()
    session.configure(steps=3)
    assert all(map(changes, events))
    del events[:]
    desk.stage([], None)
    desk.select(None, prompt="The river")
    session.label(session.rounds[0].number, "first")
    assert len(events) == 3
    assert not any(map(changes, events))


def test_the_results_used_longest_ago_are_forgotten() -> None:
    kept = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_a_desk_goes_with_its_session() -> None:
    import gc
    import weakref

    session = tiny_session()
    desk = Desk.of(session)
    desk.worker.wait(30)
    gone = weakref.ref(desk)
    del session, desk
    gc.collect()
    assert gone() is None
