from __future__ import annotations

from dataclasses import replace

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, FactError, Session
from coachhook_viz.clashes import RepeatedFactWarning

CITY = "{} lives in the city of"


@pytest.fixture
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply([Fact(CITY, "Anna", "Rome"), Fact(CITY, "Emma", "Oslo")])
    session.apply([Fact("The language of {} is", "Anna", "blue")])
    return session


@pytest.mark.parametrize(
    ("fact", "kind", "fact_id", "round_", "sentence"),
    [
        (
            Fact(CITY, "Emma", " Oslo"), "same", 1, 1,
            "Already edited in round 1: the same question, the same target.",
        ),
        (
            Fact("EMMA  lives in the city {}", "of", "Lima"), "target", 1, 1,
            "Round 1 edits the same question to “Oslo”.",
        ),
        (
            Fact("The river of {} is", "anna", "red"), "subject", 2, 2,
            "Round 2 already edits Anna (→ blue).",
        ),
        (Fact("The river of {} is", "Anna", "blue"), "subject", 0, 1, "Round 1 already edits Anna"),
        (Fact(CITY, "Anna", "Rome"), "same", 0, 1, "Already edited in round 1"),
    ],
)  # fmt: skip
def test_what_meets_what(session: Session, fact, kind, fact_id, round_, sentence: str) -> None:
    """The same question before the same subject, the most recent edit before older ones."""
    (clash,) = session.clashes([fact])
    assert (clash.index, clash.kind, clash.fact_id, clash.round) == (0, kind, fact_id, round_)
    assert clash.sentence.startswith(sentence)


def test_most_facts_meet_nobody(session: Session) -> None:
    facts = [Fact(CITY, "Carla", "Rome"), Fact(CITY, "Anna", "Lima"), *tiny_facts()[1:2]]
    assert [clash.index for clash in session.clashes(facts)] == [1]
    assert session.clashes([]) == []


def test_only_what_is_in_force_is_met(session: Session) -> None:
    again = [Fact(CITY, "Anna", "Lima")]
    session.mute(0)
    assert [clash.kind for clash in session.clashes(again)] == ["subject"]
    session.undo()
    assert session.clashes(again) == []
    session.unmute(0)
    assert [clash.kind for clash in session.clashes(again)] == ["target"]
    session.apply(again)
    assert [clash.kind for clash in session.clashes(again)] == ["same"]  # with the latest edit
    assert session.clashes([replace(again[0], target="Rome")])[0].round == 2


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            [Fact(CITY, "Anna", "Rome"), Fact(CITY, "Emma", "Oslo")],
            "2 of 2 facts are in force already, with the same target (round 1): they are edited"
            " again.",
        ),
        (
            [Fact(CITY, "Anna", "Rome")],
            "1 of 1 fact is in force already, with the same target (round 1): it is edited again.",
        ),
        (
            [*tiny_facts()[1:2], Fact(CITY, "Emma", "Oslo"),
             Fact("The language of {} is", "Anna", "blue")],
            "2 of 3 facts are in force already, with the same target (rounds 1, 2): they are"
            " edited again.",
        ),
    ],
)  # fmt: skip
def test_what_is_edited_again_is_said(session: Session, facts: list[Fact], words: str) -> None:
    with pytest.warns(RepeatedFactWarning) as said:
        session.apply(facts)
    (warning,) = said
    assert str(warning.message) == words
    assert warning.filename == __file__
    assert len(session.rounds) == 3


def test_a_repeat_that_is_an_error_changes_nothing(session: Session) -> None:
    """As it is here, where all warnings are errors."""
    with pytest.raises(RepeatedFactWarning):
        session.apply([Fact(CITY, "Anna", "Rome")])
    assert len(session.rounds) == 2


def test_nothing_is_said_of_what_is_not_in_force_or_refused(session: Session) -> None:
    with pytest.raises(FactError):
        session.apply([Fact(CITY, "Anna", "Rome"), Fact(CITY, 3, "Rome")])  # type: ignore[arg-type]
    session.mute(0)
    session.apply([Fact(CITY, "Anna", "Rome")])
    session.go_to(0)
    session.apply([Fact(CITY, "Emma", "Oslo")])
