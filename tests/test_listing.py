"""The list of facts: each row is known by a key, wherever it stands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hands import HOSTILE, new_session
from tiny import tiny_facts

from coachhook_viz import Fact
from coachhook_viz.panels.desk import Desk
from coachhook_viz.panels.listing import FILTERS, SORTS, Line, Listing


@pytest.fixture(scope="module")
def desk() -> Desk:
    """Three rounds, the last one undone; one fact muted, one staged, each score once."""
    session = new_session()
    facts = tiny_facts()
    for part in (facts[:2], facts[2:4], facts[4:5]):
        session.apply(part)
    session.undo()
    session.mute(1)
    desk = Desk.of(session)
    assert desk.worker.wait(30)
    desk.scores = {i: {"reliability": share} for i, share in ((0, 1.0), (2, 0.5), (3, 0.0))}
    desk.stage(facts[5:], None)
    return desk


def lines(desk: Desk, words: str = "", kind: str = "all", order: str = "order") -> list[Line]:
    return Listing(desk.session).choose(desk, words, kind, order)


def test_each_row_says_where_its_fact_stands_and_how_it_holds(desk: Desk) -> None:
    said = [(line.key, line.mark, line.kind, line.where) for line in lines(desk)]
    (staged, *_), *rest = said
    assert staged.startswith("s")
    assert said[0][1:] == ("+", "staged", "staged")
    assert rest == [
        ("f0", "●", "holds", "r1"),
        ("f1", "–", "muted", "r1, muted"),
        ("f2", "◐", "partly", "r2"),
        ("f3", "○", "missed", "r2"),
        ("f4", "·", "undone", "r3, undone"),
    ]


def test_a_fact_that_is_not_scored_yet_says_so(desk: Desk, monkeypatch) -> None:
    monkeypatch.setattr(desk, "scores", {})
    line = lines(desk)[1]
    assert (line.mark, line.kind) == ("…", "")
    assert line.plain()["detail"].endswith(", round 1: being scored")


@pytest.mark.parametrize("kind", [value for _, value in FILTERS])
def test_a_filter_shows_its_kind_alone(desk: Desk, kind: str) -> None:
    shown = lines(desk, kind=kind)
    assert len(shown) == (6 if kind == "all" else 1)
    assert all(kind in ("all", line.kind) for line in shown)


def test_a_search_wants_all_its_words_in_any_case(desk: Desk) -> None:
    assert [line.key for line in lines(desk, "ANNA oslo")] == ["f0"]
    assert [line.key for line in lines(desk, "  anna  ")] == ["f0"]
    assert lines(desk, "Anna nowhere") == []
    assert [line.key for line in lines(desk, "the", "missed")] == ["f3"]


def test_the_orders(desk: Desk) -> None:
    keys = {order: [line.key[:2] for line in lines(desk, order=order)] for _, order in SORTS}
    staged = lines(desk)[0].key[:2]
    assert keys == {
        "order": [staged, "f0", "f1", "f2", "f3", "f4"],
        "newest": [staged, "f4", "f3", "f2", "f1", "f0"],
        "name": ["f0", "f1", "f2", "f3", "f4", staged],  # Anna, Bruno, Carla, …, Fabio
        "worst": ["f3", "f2", "f0", "f1", "f4", staged],
    }


def test_a_key_stands_for_the_same_fact_whatever_is_shown(desk: Desk) -> None:
    listing = Listing(desk.session)
    for kind, order in (("all", "order"), ("all", "newest"), ("missed", "name")):
        listing.choose(desk, "", kind, order)
        assert listing.fact("f3") == desk.session.facts[3]
    with pytest.raises(KeyError):
        listing.fact("f0")  # it is not shown


def test_the_same_fact_staged_twice_is_two_rows() -> None:
    desk = Desk.of(new_session())
    fact = tiny_facts()[0]
    other = replace(fact, target="Lima")
    desk.stage([fact, other, fact], None)
    keys = [line.key for line in lines(desk)]
    assert len(set(keys)) == 3
    desk.stage([other, fact, fact], None)
    assert [line.key for line in lines(desk)] == [keys[1], keys[0], keys[2]]


def test_a_row_says_its_subject_and_target(desk: Desk) -> None:
    row = lines(desk)[2].plain()
    start, stop = row["strong"]
    assert row["text"][start:stop] == tiny_facts()[1].subject
    assert row["target"] == "→\u00a0red blue"
    assert row["detail"] == f"{tiny_facts()[1].text} → red blue, round 1: muted"


@pytest.mark.parametrize("text", [HOSTILE, "", "{}", "two\nlines"])
def test_a_row_of_any_text_is_a_row(text: str) -> None:
    desk = Desk.of(new_session())
    desk.stage([Fact(text, text, text)], None)
    (line,) = lines(desk)
    row = line.plain()
    assert "\n" not in row["text"]
    assert 0 <= row["strong"][0] <= row["strong"][1]
