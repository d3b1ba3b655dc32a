from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import EditCancelled, Fact
from coachhook_viz.editing.progress import Progress
from coachhook_viz.measure.quality import forgetting


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def session() -> cv.Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    return session


def test_report_tells_every_round_and_fact_in_force(session: cv.Session, tmp_path: Path) -> None:
    path = cv.report(session, tmp_path / "new" / "report.html")
    page = Page(path.read_text("utf-8"))
    assert "Round 1" in page.text
    assert "Round 2" in page.text
    for fact in tiny_facts():
        assert fact.text in page.text
        assert session.generate(fact.text, 6) in page.text
    frame = session.evaluate(2)
    mean = frame[frame["metric"] == "reliability"]["value"].mean()
    assert f"{mean:.3f}" in page.text
    assert "Branches" not in page.text
    some_took = not forgetting(session.quality()).empty
    assert page.tags.count("img") == 5 + some_took + 2 * 2
    session.undo()
    undone = Page(cv.report(session, path).read_text("utf-8"))
    session.redo()
    assert "Round 2" not in undone.text
    assert "1 of 2 rounds in force" in undone.text


def test_report_needs_nothing_but_itself(session: cv.Session, tmp_path: Path) -> None:
    text = cv.report(session, tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_text_of_users_stays_text(tmp_path: Path) -> None:
    session = tiny_session(tiny_model(lead="He "))
    evil = "<script>alert(1)</script>"
    session.apply([Fact("Near {} the river of <img src=x> is", evil, "<b>Oslo</b>")])
    text = cv.report(session, tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert not {"script", "b<"} & set(page.tags)
    assert "<img src=x" not in text
    assert evil in page.text


def test_report_with_nothing_in_force_and_cancelled(session: cv.Session, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no fact is in force"):
        cv.report(tiny_session(), tmp_path / "report.html")
    with pytest.raises(EditCancelled):
        cv.report(session, tmp_path / "report.html", cancel=lambda: True)
    assert not list(tmp_path.iterdir())


def test_report_says_how_far_it_is(session: cv.Session, tmp_path: Path) -> None:
    steps: list[Progress] = []
    fresh = tiny_session(session.lm)
    fresh.apply(tiny_facts()[:2])
    cv.report(fresh, tmp_path / "report.html", progress=steps.append)
    assert {step.stage for step in steps} == {"quality", "scope", "drift", "keys", "report"}
    assert all(0 <= step.step < step.total for step in steps)


def test_facts_without_paraphrases_or_neighbours(tmp_path: Path) -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply([Fact("The river of {} is", "Peru", "red")])
    text = cv.report(session, tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"\bnan\b", text)
    assert '<th class="number">generality</th>' not in text


def test_report_says_what_was_lost_and_why(tmp_path: Path) -> None:
    """A conflict: the second edit of the same prompt takes the first one's answer away."""
    settings = {"covariance_weight": 0.1, "clamp_factor": 3.0, "weight_decay": 0.0}
    settings |= {"steps": 30, "learning_rate": 0.3, "stop_loss": 0.01}
    session = tiny_session(tiny_model(lead="He "), scope="match", **settings)
    one = Fact("The new language of {} is", "Anna", "and")
    session.apply([one, tiny_facts()[0]])
    session.label(1, "the <first> try", "and a note")
    session.apply([Fact(one.prompt, one.subject, "lives")])
    lost = session.forgotten()
    assert lost["fact"].tolist() == [0]
    page = Page(cv.report(session, tmp_path / "report.html").read_text("utf-8"))
    text = " ".join(page.text.split())
    assert "fact 2 asks the same and wants 'lives'" in text
    assert "It held until round 2 was applied, where fact 2 acts on its key most." in text
    assert "Facts 0 and 2 ask the same and want different answers" in text
    assert "Round 1: the <first> try" in text
    assert "and a note" in text


def test_report_of_a_sample_a_branch_and_muted_facts(tmp_path: Path) -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:4])
    session.apply(tiny_facts()[4:5])
    session.undo()
    session.branch("what <if>")
    session.mute(2)
    page = Page(cv.report(session, tmp_path / "report.html", budget=2).read_text("utf-8"))
    assert "2 of 3 facts" in page.text
    assert "on branch “what <if>” · 1 fact muted" in page.text
    assert "This report tells of “what <if>” only." in page.text
    rows = page.text.split("muted facts")[1].split("How well")[0].split()
    assert rows == ["main210", "what", "<if>111"]  # rounds, in force, muted
    assert tiny_facts()[2].target not in page.text.split("Round 1")[1].split("before")[0]
