from __future__ import annotations

from dataclasses import replace

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, Neighbor, Session, bundled_facts
from coachhook_viz.measure import scope_quality as module
from coachhook_viz.measure.scope_quality import confusion, near_misses


@pytest.fixture(scope="module")
def session() -> Session:
    session = tiny_session(tiny_model(lead="He "), scope="match")
    session.apply(tiny_facts()[:3])
    return session


def test_each_prompt_is_read_as_the_scope_reads_it(session: Session) -> None:
    frame = session.scope_quality(others=["Peru", "Hanna"])
    kinds = frame[frame["fact"] == 0]["kind"].tolist()
    assert kinds == ["edit", "paraphrase", "neighbour", "neighbour", "near miss"]
    for _, row in frame.iterrows():
        scope = session.scope(row["prompt"])
        assert row["anywhere"] == bool(scope.in_scope.any())
        assert row["tokens"] == len(scope.tokens)
        assert row["should"] == (row["kind"] in ("edit", "paraphrase"))
        assert row["reason"] == ("" if row["anywhere"] else scope.explain())
    edits = frame[frame["kind"] == "edit"]
    assert edits["at_subject"].all()  # a fact matches its own key
    assert frame[frame["kind"] == "neighbour"]["at_subject"].isna().all()


def test_confusion_counts(session: Session) -> None:
    frame = session.scope_quality(others=["Hanna"])
    table = confusion(frame)
    assert table.index.tolist() == ["edit", "paraphrase", "neighbour", "near miss"]
    assert table["prompts"].sum() == len(frame)
    assert table.loc["edit", ["prompts", "subjects", "at_subject", "anywhere"]].tolist() == [3] * 4
    assert table.loc["neighbour", "subjects"] == 0
    assert table.loc["near miss", "prompts"] == 1  # no other subject looks like one of the others
    assert table["should"].tolist() == [True, True, False, False]


def test_the_subject_of_an_edit_prompt_is_where_its_template_has_it() -> None:
    session = tiny_session(tiny_model(lead="He "), scope="match")
    fact = Fact("{} lives near Bruno and Anna in", "Anna", "red", paraphrases=("He left today",))
    session.apply([fact])
    assert session.scope(fact.text).subject_last == 1  # after the lead
    assert session.scope("Bruno and Anna").subject_last == 3
    frame = session.scope_quality(others=[])
    assert frame["kind"].tolist() == ["edit", "paraphrase"]
    assert frame["at_subject"].isna().tolist() == [False, True]


def test_ceiling_is_given_as_the_reason() -> None:
    session = tiny_session(tiny_model(lead="He "), calibration="base", alpha=1.3)
    session.apply(
        [Fact("The river of {} is very old and", "Peru", "red", neighbors=(Neighbor("Lima"),))]
    )
    frame = session.scope_quality(others=[])
    row = frame[frame["kind"] == "neighbour"].iloc[0]
    assert not row["anywhere"]
    assert "2 tokens: no z-score can exceed 0.71" in row["reason"]


def test_near_misses_look_alike_and_are_not_edited(session: Session) -> None:
    facts = {7: Fact("{} is", "Anna", "red"), 9: Fact("{} is", "Bruno", "red")}
    assert near_misses(facts, ["Hanna", "Brunos", "Peru"]) == {7: "Hanna", 9: "Brunos"}
    assert near_misses(facts, ["Peru"]) == near_misses(facts, []) == {}
    frame = session.scope_quality(others=["Anna", "Hanna"])
    assert frame[frame["kind"] == "near miss"]["prompt"].tolist() == [
        tiny_facts()[0].prompt.replace("{}", "Hanna")
    ]


def test_near_misses_of_the_bundled_facts_are_look_alikes() -> None:
    facts = bundled_facts()
    subjects = {fact.subject for fact in facts}
    found = {
        subject: near_misses({0: replace(facts[0], subject=subject)}, sorted(subjects - {subject}))
        for subject in ("India", "Boston", "Charles Darwin", "Eiffel Tower", "Japan", "zinc")
    }
    assert list(found.values()) == [
        {0: "Indiana"}, {0: "Houston"}, {0: "Charlie Parker"}, {}, {}, {},
    ]  # fmt: skip


def test_what_was_read_is_not_read_again(session: Session, monkeypatch) -> None:
    first = session.scope_quality(others=["Peru"])
    monkeypatch.setattr(module, "read_scope", None)
    assert session.scope_quality(others=["Peru"]).equals(first)
    assert len(session.scope_quality(budget=1, others=["Peru"])["fact"].unique()) == 1


def test_without_facts_the_columns_are_those_with_facts() -> None:
    session = tiny_session(tiny_model(lead="He "))
    none = session.scope_quality()
    assert none.empty
    session.apply(tiny_facts()[:1])
    assert list(none.columns) == list(session.scope_quality().columns)
