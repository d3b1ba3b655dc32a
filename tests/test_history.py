from __future__ import annotations

import pytest
import torch
from tiny import LAYERS, tiny_facts, tiny_model, tiny_session

from coachhook_viz import Session
from coachhook_viz.events import (
    BranchChanged,
    Event,
    FactMuted,
    Moved,
    RoundApplied,
    RoundLabelled,
)
from coachhook_viz.history import Label


def new_session(scope: str = "zscore", rounds: int = 0) -> Session:
    session = tiny_session(tiny_model(lead="He "), scope=scope)
    for start in range(0, 2 * rounds, 2):
        session.apply(tiny_facts()[start : start + 2])
    return session


def logits(session: Session) -> torch.Tensor:
    prompts = [fact.text for fact in tiny_facts()]
    with session.hooked(), torch.no_grad():
        rows = [session.lm.model(**session.lm.encode([p]), use_cache=False) for p in prompts]
    return torch.cat([row.logits[0] for row in rows])


def test_numbers_are_given_once() -> None:
    session = new_session(rounds=2)
    assert [r.number for r in session.rounds] == [1, 2]
    assert [r.fact_ids for r in session.rounds] == [(0, 1), (2, 3)]
    session.undo()
    session.apply(tiny_facts()[4:5])
    assert [r.number for r in session.rounds] == [1, 3]
    assert [r.fact_ids for r in session.rounds] == [(0, 1), (4,)]
    assert session.facts == {0: tiny_facts()[0], 1: tiny_facts()[1], 4: tiny_facts()[4]}
    assert set(session.evaluate()["fact"]) == {0, 1, 4}


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
def test_muting_drops_a_column_and_unmuting_restores_every_bit(scope: str) -> None:
    session = new_session(scope, rounds=2)
    before, delta = logits(session), {layer: session.delta_weight(layer) for layer in LAYERS}
    session.mute(1)
    assert session.muted == {1}
    assert session.state.fact_ids == (0, 2, 3)
    for layer in LAYERS:
        factors = session.rounds[0].factors[layer]
        column = torch.outer(factors.residuals[:, 1], factors.directions[:, 1])
        torch.testing.assert_close(session.delta_weight(layer), delta[layer] - column)
    assert not torch.equal(logits(session), before)
    assert set(session.evaluate()["fact"]) == {0, 2, 3}
    session.unmute(1)
    assert torch.equal(logits(session), before)


@pytest.mark.parametrize("scope", ["zscore", "match", "off"])
def test_with_every_fact_muted_the_model_is_the_untouched_one(scope: str) -> None:
    session = new_session(scope)
    untouched = logits(session)
    session.apply(tiny_facts()[:2])
    session.mute(0)
    session.mute(1)
    assert torch.equal(logits(session), untouched)
    assert not session.scope(tiny_facts()[0].text).in_scope.any()
    session.apply(tiny_facts()[2:3])
    assert session.state.fact_ids == (2,)


def test_a_muted_fact_stays_preserved_in_later_rounds() -> None:
    muted, heard = new_session(rounds=1), new_session(rounds=1)
    muted.mute(0)
    for session in (muted, heard):
        session.apply(tiny_facts()[2:4])
    first = LAYERS[0]  # the keys there are the same, whatever the hooks do
    torch.testing.assert_close(
        muted.rounds[1].factors[first].directions, heard.rounds[1].factors[first].directions
    )


def test_branches_part_and_keep_their_own_rounds_position_and_mutes() -> None:
    session = new_session(rounds=2)
    on_main = logits(session)
    session.undo()
    session.mute(0)
    session.branch("what if")
    assert session.branches.keys() == {"main", "what if"}
    assert (session.current_branch, session.position, session.muted) == ("what if", 1, {0})
    assert len(session.rounds) == 1  # begins with what was in force
    session.unmute(0)
    session.apply(tiny_facts()[4:6])
    elsewhere = logits(session)
    assert [r.number for r in session.rounds] == [1, 3]
    session.switch("main")
    assert (session.position, len(session.rounds), session.muted) == (1, 2, {0})
    session.unmute(0)
    session.redo()
    assert torch.equal(logits(session), on_main)
    session.switch("what if")
    assert torch.equal(logits(session), elsewhere)
    assert session.state_at(2, branch="main").fact_ids == (0, 1, 2, 3)


def test_comparing_branches_scores_both_on_all_their_facts() -> None:
    session = new_session(rounds=2)
    session.go_to(1)
    session.branch("other")
    session.apply(tiny_facts()[4:5])
    frame = session.compare("main", "other")
    assert list(frame.columns) == ["fact", "metric", "main", "other"]
    assert set(frame["fact"]) == {0, 1, 4}
    own = session.evaluate()
    merged = frame.merge(own, on=["fact", "metric"])
    assert len(merged) == len(own) == len(frame)
    assert (merged["other"] == merged["value"]).all()


def test_labels_and_notes() -> None:
    session = new_session(rounds=2)
    session.label(1, "people", "the first try")
    assert session.labels == {1: Label("people", "the first try")}
    session.undo()
    session.undo()
    session.apply(tiny_facts()[:1])
    assert session.labels == {}  # its round is gone
    session.label(3, "again")
    session.label(3)
    assert session.labels == {}


def test_what_cannot_be_done_says_so_and_changes_nothing() -> None:
    session = new_session(rounds=1)
    session.branch("other")
    heard: list[Event] = []
    session.subscribe(heard.append)
    for match, change in [
        ("no fact 7", lambda: session.mute(7)),
        ("no fact -1", lambda: session.unmute(-1)),
        ("there is a branch 'other' already", lambda: session.branch("other")),
        ("needs a name", lambda: session.branch("  ")),
        ("control characters", lambda: session.branch("a\nb")),
        ("200 characters", lambda: session.branch("a" * 201)),
        ("must be text", lambda: session.branch(3)),  # type: ignore[arg-type]
        ("no branch 'third'; there are 'main', 'other'", lambda: session.switch("third")),
        ("no round has number 9", lambda: session.label(9, "x")),
        ("note must be text", lambda: session.label(1, "x", 5)),  # type: ignore[arg-type]
        ("no branch 'third'", lambda: session.state_at(branch="third")),
        ("no position 2", lambda: session.state_at(2)),
    ]:
        with pytest.raises(ValueError, match=match):
            change()
    assert heard == []
    assert (session.current_branch, session.position) == ("other", 1)


def test_every_change_is_one_event_with_its_source() -> None:
    session = new_session()
    heard: list[Event] = []
    unsubscribe = session.subscribe(heard.append)
    round_ = session.apply(tiny_facts()[:2], source="form")
    session.undo(source=1)
    session.redo()
    session.go_to(1)  # it is there
    session.mute(1, source="list")
    session.mute(1)  # it is muted
    session.unmute(1)
    session.branch("b", source="tree")
    session.switch("main")
    session.switch("main")  # it is there
    session.label(1, "x")
    assert heard == [
        RoundApplied("form", round_),
        Moved(1, 0),
        Moved(None, 1),
        FactMuted("list", 1, True),
        FactMuted(None, 1, False),
        BranchChanged("tree", "b", True),
        BranchChanged(None, "main", False),
        RoundLabelled(None, 1),
    ]
    unsubscribe()
    unsubscribe()
    session.undo()
    assert len(heard) == 8


def test_a_failing_subscriber_is_logged_and_stops_nobody(caplog) -> None:
    session = new_session(rounds=1)
    heard: list[int] = []

    def fail(event: Event) -> None:
        raise RuntimeError("oh no")

    session.subscribe(fail)
    session.subscribe(lambda event: heard.append(session.position))
    session.undo()
    assert heard == [0]
    assert "oh no" in caplog.text
    assert "Moved" in caplog.text
