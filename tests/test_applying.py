"""Rounds written one after the other: what is finished stays, whatever happens to the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hands import Held, new_session, submitted
from test_two_key import two_key_session
from tiny import fingerprint, tiny_facts

from coachhook_viz import Fact
from coachhook_viz.editing.methods import method_of
from coachhook_viz.panels.desk import Desk


@pytest.fixture
def desk() -> Desk:
    desk = Desk.of(new_session())
    desk.stage(tiny_facts()[:4], None)
    return desk


def done(desk: Desk) -> list[tuple[Fact, ...]]:
    assert desk.worker.wait(30)
    return [round_.facts for round_ in desk.session.rounds]


def pausing_in(desk: Desk, monkeypatch: Any, number: int, act: Any) -> None:
    """Call `act` while the round of that number is being written."""
    apply, seen = desk.session.apply, []

    def acting(facts: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(facts)
        if len(seen) == number:
            act()
        return apply(facts, *args, **kwargs)

    monkeypatch.setattr(desk.session, "apply", acting)


def test_facts_are_written_in_rounds_of_a_size(desk: Desk) -> None:
    facts = tuple(tiny_facts()[:4])
    desk.applying.begin(facts, 2)
    assert done(desk) == [facts[:2], facts[2:]]
    assert (desk.applying.done, desk.applying.rounds, desk.applying.left) == (2, 2, ())
    assert desk.staged == ()
    assert desk.applying.said == ""
    assert not desk.applying.running


@pytest.mark.parametrize("kind", ["two keys", "one by one"])
def test_what_is_written_is_staged_no_longer_nor_written_twice(kind: str) -> None:
    """With two keys a round has its facts with more wordings; some methods make several rounds."""
    one_by_one = {"layers": (2,), "method": method_of("rome")}
    session = two_key_session() if kind == "two keys" else new_session(**one_by_one)
    desk, facts = Desk.of(session), tiny_facts()[:3]
    desk.stage(facts, None)
    desk.applying.begin(desk.staged, 2)
    assert [fact.text for round_ in done(desk) for fact in round_] == [fact.text for fact in facts]
    assert desk.staged == desk.applying.left == ()


def test_the_last_round_may_have_fewer_and_none_is_one_round() -> None:
    desk = Desk.of(new_session())
    desk.applying.begin(tiny_facts()[:3], 2)
    assert [len(facts) for facts in done(desk)] == [2, 1]
    desk.applying.begin(tiny_facts()[3:])
    assert [len(facts) for facts in done(desk)] == [2, 1, 3]


def test_it_is_the_same_as_the_one_public_call(desk: Desk) -> None:
    desk.applying.begin(tiny_facts()[:4], 3)
    done(desk)
    session = new_session()
    session.apply_in_rounds(tiny_facts()[:4], 3)
    assert session.state.key == desk.session.state.key


def test_the_last_round_and_its_first_fact_are_selected_and_told(desk: Desk) -> None:
    rounds = []
    desk.applying.begin(desk.staged, 2, rounds.append)
    done(desk)
    assert rounds == list(desk.session.rounds)
    assert (desk.selection.round, desk.selection.fact) == (2, 2)
    assert desk.selection.prompt == tiny_facts()[2].text


def test_a_pause_leaves_the_rest_staged(desk: Desk, monkeypatch) -> None:
    facts = desk.staged
    pausing_in(desk, monkeypatch, 1, desk.applying.pause)
    desk.applying.begin(facts, 2)
    assert done(desk) == [facts[:2]]
    assert desk.staged == facts[2:]
    assert desk.applying.said == "Paused: 2 facts left."
    assert not desk.applying.running
    desk.applying.begin(desk.staged, 2)
    assert done(desk) == [facts[:2], facts[2:]]
    assert desk.applying.said == ""


def test_a_pause_that_is_taken_back_is_none(desk: Desk, monkeypatch) -> None:
    facts, applying = desk.staged, desk.applying
    pausing_in(desk, monkeypatch, 1, lambda: (applying.pause(), applying.go_on()))
    applying.begin(facts, 2)
    assert done(desk) == [facts[:2], facts[2:]]
    assert applying.said == ""


def test_cancel_keeps_what_is_finished(desk: Desk, monkeypatch) -> None:
    facts = desk.staged
    untouched = fingerprint(desk.session.lm)
    pausing_in(desk, monkeypatch, 2, desk.applying.cancel)
    desk.applying.begin(facts, 2)
    assert done(desk) == [facts[:2]]
    assert desk.staged == facts[2:]
    assert desk.applying.said == "Cancelled: 1 round finished and kept."
    assert not desk.applying.running
    assert fingerprint(desk.session.lm) == untouched


def test_cancel_of_the_first_round_changes_nothing(desk: Desk, monkeypatch) -> None:
    held, facts = Held(desk.session, monkeypatch), desk.staged
    desk.applying.begin(facts)
    held.wait()
    desk.applying.cancel()
    assert desk.applying.cancelled
    assert done(desk) == []
    assert desk.staged == facts
    assert desk.applying.said == "Cancelled: nothing changed."
    assert not desk.applying.cancelled


def test_cancel_before_it_has_begun(desk: Desk, monkeypatch) -> None:
    other = Held(desk.session, monkeypatch)
    desk.worker.submit("asking", lambda job: (other.reached.set(), other.go.wait(10)))
    other.wait()
    desk.applying.begin(desk.staged)
    assert desk.applying.running
    desk.applying.cancel()
    other.go.set()
    assert done(desk) == []
    assert not desk.applying.running
    assert desk.applying.said == "Cancelled: nothing changed."


def test_nothing_is_begun_while_a_round_is_being_written(desk: Desk, monkeypatch) -> None:
    held = Held(desk.session, monkeypatch)
    desk.applying.begin(desk.staged)
    held.wait()
    with pytest.raises(ValueError, match="wait for it, or cancel it"):
        desk.applying.begin(desk.staged)
    held.go.set()
    assert len(done(desk)) == 1


def test_a_fact_that_cannot_be_edited_is_said_before_any_round(desk: Desk) -> None:
    good = tiny_facts()
    facts = (*good[:3], Fact("no place for the subject", "Peru", "red"), good[0], good[0])
    desk.stage(facts, None)
    desk.applying.begin(facts, 2)
    assert done(desk) == []
    assert desk.staged == facts
    assert desk.applying.said.startswith("Fact 4 ('Peru' in 'no place for the subject'), prompt:")
    assert "fact 6" in desk.applying.said
    assert "keep one of them" in desk.applying.said
    assert not desk.applying.running


def test_a_round_that_fails_is_said_and_what_is_finished_stays(desk: Desk, monkeypatch) -> None:
    def full() -> None:
        raise OSError("the disk is full")

    facts = desk.staged
    pausing_in(desk, monkeypatch, 2, full)
    desk.applying.begin(facts, 2)
    assert done(desk) == [facts[:2]]
    assert desk.staged == facts[2:]
    assert desk.applying.said == "The disk is full"
    assert not desk.applying.running


def test_what_is_staged_meanwhile_stays_staged(desk: Desk, monkeypatch) -> None:
    facts, later = desk.staged, tiny_facts()[4]
    again = facts[0]  # for a round of its own
    pausing_in(desk, monkeypatch, 1, lambda: desk.stage([*desk.staged, later, again], None))
    desk.applying.begin(facts, 2)
    assert len(done(desk)) == 2
    assert desk.staged == (later, again)


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "answer", "scope": "two-key", "subject_layer": 0, "kl_weight": 0.0},
        {"method": "rome", "scope": "off", "layers": (2,)},
    ],
    ids=["two keys, which add wordings", "one fact a round"],
)
@pytest.mark.filterwarnings("ignore::coachhook_viz.OneByOneWarning")
def test_what_is_written_is_not_staged_any_more(changes: dict[str, Any]) -> None:
    desk = Desk.of(new_session(**changes))
    facts, later = tiny_facts()[:3], tiny_facts()[3]
    desk.stage([*facts, later], None)
    desk.applying.begin(facts, 2)
    subjects = [fact.subject for written in done(desk) for fact in written]
    assert subjects == [fact.subject for fact in facts]
    assert (desk.applying.done, desk.applying.left) == (2, ())
    assert desk.staged == (later,)


def test_a_question_goes_between_two_rounds(desk: Desk, monkeypatch) -> None:
    order: list[str] = []
    desk.session.subscribe(lambda event: order.append("round"))

    def ask() -> None:
        desk.worker.submit("asking", lambda job: order.append("asked"), key="ask")

    pausing_in(desk, monkeypatch, 1, ask)
    desk.applying.begin(desk.staged, 2)
    done(desk)
    assert order == ["round", "asked", "round"]


def test_each_round_is_a_job_that_says_which_it_is(desk: Desk, monkeypatch) -> None:
    titles = submitted(desk, monkeypatch)
    desk.applying.begin(desk.staged, 2)
    done(desk)
    edits = [title for title in titles if title.startswith("editing")]
    assert edits == ["editing 2 facts, round 1 of 2", "editing 2 facts, round 2 of 2"]
    desk.applying.begin(tiny_facts()[4:5])
    done(desk)
    assert titles[-2] == "editing 1 fact"


def test_how_long_it_takes_is_known_from_the_rounds_that_were(desk: Desk, monkeypatch) -> None:
    applying = desk.applying
    assert applying.expected(4) == ""
    left: list[float | None] = []
    for number in (1, 2):
        pausing_in(desk, monkeypatch, number, lambda: left.append(applying.seconds_left))
    applying.begin(desk.staged, 2)
    done(desk)
    assert left[0] is None
    first = desk.session.rounds[0]
    assert left[1] == pytest.approx(first.seconds)  # two facts each
    assert applying.expected(1) == "about 1 s"
    assert applying.expected(0) == ""
