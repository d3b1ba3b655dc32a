"""Facts that meet edits in force: said, and a person decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hands import Hands, Held, new_session, settle
from tiny import tiny_facts

from coachhook_viz import Fact, Session
from coachhook_viz.panels import panel as module
from coachhook_viz.panels.facts import Facts
from coachhook_viz.panels.meeting import Meeting

SAME = tiny_facts()[0]  # in force
OTHER = replace(SAME, target="Lima")  # the same question, another answer
NEW = tiny_facts()[3]
SUBJECT = Fact("{} speaks", SAME.subject, "red")  # another question about the same subject


@pytest.fixture
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def facts(session: Session, monkeypatch) -> Iterator[Facts]:
    monkeypatch.setattr(module, "_MOMENT", 0.01)
    facts = Facts(session)
    settle(facts)
    yield facts
    settle(facts)
    facts.close()


def test_whatever_meets_an_edit_can_be_decided_on(session: Session) -> None:
    meeting = Meeting(session)
    assert [clash.kind for clash in meeting.of([SAME, OTHER, SUBJECT, NEW])] == [
        "same",
        "target",
        "subject",
    ]
    asks = meeting.asks([SAME, OTHER, SUBJECT, NEW])
    assert [(clash.index, clash.fact_id) for clash in asks] == [(0, 0), (1, 0), (2, 0)]
    assert meeting.say([NEW]) == ""
    assert "Round 1 already edits Anna" in meeting.say([SUBJECT, NEW])
    subjects = [SUBJECT, replace(SUBJECT, prompt="{} never eats")]
    assert meeting.say(subjects) == "2 staged facts are about subjects that are edited already."


def test_one_is_said_by_name_and_several_are_counted(session: Session) -> None:
    meeting = Meeting(session)
    assert meeting.say([NEW, OTHER]) == ("Anna → Lima: Round 1 edits the same question to “Oslo”.")
    assert meeting.say([SAME]) == (
        "Anna → Oslo: Already edited in round 1: the same question, the same target."
    )
    second = tiny_facts()[1]
    assert meeting.say([SAME, second]) == "2 staged facts are in force already."
    assert meeting.say([OTHER, replace(second, target="Rome")]) == (
        "2 staged facts want another target than an edit in force."
    )
    assert meeting.say([SAME, replace(second, target="Rome")]) == (
        "1 staged fact is in force already; 1 staged fact wants another target than an edit in"
        " force."
    )


@pytest.mark.parametrize("choice", Meeting.OFFERS)
def test_what_is_chosen_is_done_and_not_asked_again(session: Session, choice: str) -> None:
    meeting = Meeting(session)
    meeting.say([NEW, OTHER, SUBJECT])
    left = meeting.settle(Meeting.OFFERS.index(choice))
    assert left == ([NEW] if choice == "Leave out" else [NEW, OTHER, SUBJECT])
    assert meeting.replacing == ({OTHER: 0, SUBJECT: 0} if choice == "Replace" else {})
    assert session.muted == set()  # not before the round
    assert meeting.say(left) == ""


def fill(facts: Facts, fact: Fact) -> None:
    facts.fill(fact)
    settle(facts)


@pytest.mark.parametrize("fact", [SAME, OTHER])
def test_apply_now_asks_first(facts: Facts, fact: Fact) -> None:
    fill(facts, fact)
    assert "round 1" in facts._feedback.html.lower()  # said while it is typed, too
    Hands(facts).press(facts._now)
    settle(facts)
    assert len(facts.session.rounds) == 1
    assert f"Anna → {fact.target}" in facts._met.html
    assert not facts._met.hidden
    assert facts._offers.options == ["Replace", "Apply anyway", "Leave out"]


def test_the_same_again_is_a_new_case_once_it_is_applied(session: Session) -> None:
    meeting = Meeting(session)
    meeting.say([OTHER, SUBJECT])
    meeting.settle(Meeting.OFFERS.index("Replace"))
    meeting.forget([replace(OTHER, wordings=("Where is {}?",))])  # as two keys write it
    assert [clash.index for clash in meeting.asks([OTHER, SUBJECT])] == [0]
    assert list(meeting.replacing) == [SUBJECT]


@pytest.mark.parametrize("choice", Meeting.OFFERS)
def test_the_fact_in_the_form_is_settled(facts: Facts, choice: str) -> None:
    session, hands = facts.session, Hands(facts)
    fill(facts, OTHER)
    hands.press(facts._now)
    hands.pick(facts._offers, choice)
    settle(facts)
    applied = choice != "Leave out"
    assert [round_.facts for round_ in session.rounds[1:]] == [(OTHER,)] * applied
    assert session.muted == ({0} if choice == "Replace" else set())
    assert facts.fact == Fact("", "", "")
    assert facts._met.hidden
    assert facts._offers.options == []


@pytest.mark.parametrize("choice", Meeting.OFFERS)
def test_staged_facts_are_settled(facts: Facts, choice: str) -> None:
    session, hands = facts.session, Hands(facts)
    facts.stage([OTHER, NEW])
    assert "Anna → Lima: Round 1 edits the same question to “Oslo”." in facts._met.html
    hands.pick(facts._offers, choice)
    assert facts._met.hidden
    assert facts._offers.options == []
    assert facts.desk.staged == ((NEW,) if choice == "Leave out" else (OTHER, NEW))
    assert session.muted == set()
    assert len(session.rounds) == 1
    hands.press(facts._apply)
    settle(facts)
    assert session.muted == ({0} if choice == "Replace" else set())
    assert session.rounds[-1].facts == ((NEW,) if choice == "Leave out" else (OTHER, NEW))


def test_another_fact_in_the_form_is_another_question(facts: Facts) -> None:
    hands = Hands(facts)
    fill(facts, OTHER)
    hands.press(facts._now)
    assert not facts._met.hidden
    hands.type(facts._fields["target"], "Quito")
    settle(facts)
    assert facts._met.hidden
    assert facts._offers.options == []


def test_what_is_said_of_the_form_gives_way_to_what_is_staged(facts: Facts) -> None:
    hands = Hands(facts)
    second = tiny_facts()[1]
    facts.stage([second])
    fill(facts, OTHER)
    hands.press(facts._now)
    assert "Anna" in facts._met.html
    hands.pick(facts._offers, "Leave out")
    settle(facts)
    assert "Bruno Diego" in facts._met.html
    assert facts.desk.staged == (second,)
    assert facts._offers.options == ["Replace", "Apply anyway", "Leave out"]


def test_a_fact_that_was_applied_anyway_is_asked_about_when_it_comes_again(facts: Facts) -> None:
    hands = Hands(facts)
    for number in (2, 3):
        facts.stage([SAME])
        assert not facts._met.hidden
        hands.pick(facts._offers, "Apply anyway")
        hands.press(facts._apply)
        settle(facts)
        assert len(facts.session.rounds) == number


def test_nothing_is_muted_while_a_round_is_written(facts: Facts, monkeypatch) -> None:
    held, hands = Held(facts.session, monkeypatch), Hands(facts)
    facts.stage([OTHER])
    hands.press(facts._apply)
    held.wait()
    hands.pick(facts._offers, "Replace")
    assert "wait for it, or cancel it" in facts._alert.html
    assert facts.session.muted == set()
    held.go.set()
    settle(facts)
    assert len(facts.session.rounds) == 2


@pytest.mark.parametrize("ends", ["cancelled", "fails"])
def test_what_was_to_be_replaced_speaks_again_if_the_round_is_not_finished(
    facts: Facts, monkeypatch, ends: str
) -> None:
    session, hands = facts.session, Hands(facts)
    before = session.state.key
    facts.stage([OTHER])
    hands.pick(facts._offers, "Replace")
    if ends == "cancelled":
        held = Held(session, monkeypatch)
        hands.press(facts._apply)
        held.wait()
        assert session.muted == {0}
        hands.press(facts._cancel)
    else:

        def fail(*args: Any, **kwargs: Any) -> None:
            assert session.muted == {0}
            raise RuntimeError("out of memory")

        monkeypatch.setattr(session, "apply", fail)
        hands.press(facts._apply)
    settle(facts)
    assert session.muted == set()
    assert session.state.key == before


def test_undo_takes_back_what_was_said(facts: Facts) -> None:
    facts.stage([SAME])
    assert not facts._met.hidden
    facts.session.undo()
    settle(facts)
    assert facts._met.hidden
    facts.session.redo()
    settle(facts)
    assert not facts._met.hidden
