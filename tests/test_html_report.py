from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import EditCancelled, Fact
from coachhook_viz.editing.progress import Progress
from coachhook_viz.figures.style import visible
from coachhook_viz.html_report import _embedded, render
from coachhook_viz.measure.quality import forgetting, standing


class Page(HTMLParser):
    """Tags, attributes and text of a page, as one sees it without JavaScript."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self._within = ""
        self.feed(text)

    @property
    def data(self):
        """What the page's script draws from."""
        return json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append(tag)
        self._within = tag
        self.scripts += [""] * (tag == "script")
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


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
    assert page.tags.count("img") == 4 + some_took
    session.undo()
    undone = Page(cv.report(session, path).read_text("utf-8"))
    session.redo()
    assert "Round 2" not in undone.text
    assert "1 of 2 rounds in force" in undone.text


def test_report_needs_nothing_but_itself(session: cv.Session, tmp_path: Path) -> None:
    text = cv.report(session, tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.tags.count("script") == len(page.scripts) == 2
    assert "link" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert "url(" not in text
    digest = b64encode(sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in text
    assert f"script-src 'sha256-{digest}';" in text  # that one script, and no other
    for way_out in ("http:", "https:", "fetch(", "XMLHttpRequest", "innerHTML", "import("):
        assert way_out not in page.scripts[1]


def test_text_of_users_stays_text(tmp_path: Path) -> None:
    session = tiny_session(tiny_model(lead="He "))
    evil = "</script><script>alert(1)</script>"
    session.apply([Fact("Near {} the river of <img src=x> is", evil, "<b>Oslo</b> & red")])
    session.label(1, "<!--<script>", "</style>")
    text = cv.report(session, tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2
    assert page.tags.count("style") == 1
    assert "<img src=x" not in text
    assert evil in page.text
    assert not set("<>&") & set(page.scripts[0])
    [fact] = page.data["facts"]
    assert fact["subject"] == evil
    assert fact["target"] == "<b>Oslo</b> & red"
    assert page.data["names"] == ["<!--<script>"]


def test_data_cannot_end_its_script() -> None:
    told = {"</script> & <!--": "\u2028\u2029"}
    text = _embedded(told)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == told


def test_report_with_nothing_in_force_and_cancelled(session: cv.Session, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no fact is in force"):
        cv.report(tiny_session(), tmp_path / "report.html")
    with pytest.raises(EditCancelled):
        cv.report(session, tmp_path / "report.html", cancel=lambda: True)
    assert not list(tmp_path.iterdir())
    for path, match in (
        ("", "no file is named"),
        (" ", "no file is named"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ValueError, match=match):
            cv.report(session, path)


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


def test_what_can_be_explored_is_what_the_session_says(session: cv.Session) -> None:
    page = Page(render(session))
    data = page.data
    assert data["stops"] == [1, 2]
    assert [fact["id"] for fact in data["facts"]] == list(session.facts)
    quality = session.quality().set_index(["fact", "round", "metric"])["value"]
    for fact, told in zip(tiny_facts(), data["facts"], strict=True):
        own = 1 + (told["id"] > 2)
        assert told["round"] == own
        assert list(told["after"]) == [str(r) for r in (1, 2) if r >= own]
        assert told["kinds"] == ["edit", "paraphrase", "neighbour", "neighbour"]
        assert told["prompts"][0] == fact.text == "{}".join(told["prompt"]).format(fact.subject)
        before = session.predict(fact.text, edited=False)
        assert [word for word, _ in told["before"]] == before["token"].map(visible).tolist()
        for place, after in told["after"].items():
            state = session.state_at(int(place))
            reliability = quality[told["id"], int(place), "reliability"]
            assert after["status"] == standing(reliability)
            assert after["p"] == round(quality[told["id"], int(place), "target_probability"], 2)
            frame = session.predict(fact.text, state=state)
            assert [p for _, p in after["says"]] == pytest.approx(frame["probability"], abs=0.006)
            scope = session.scope(fact.text, fact.subject, state)
            assert torch.tensor(after["scores"]) == pytest.approx(scope.scores, abs=0.006)
            assert after["inside"] == [
                "".join("01"[hit] for hit in row) for row in scope.in_scope.tolist()
            ]
            assert after["why"] == scope.explain()
            for prompt, (_, base), (said, p, right, spoke) in zip(
                told["prompts"], told["replies"], after["replies"], strict=True
            ):
                [now] = session.predict(prompt, 1, state=state).itertuples(index=False)
                assert (said, p) == (now.token, pytest.approx(now.probability, abs=0.006))
                assert spoke == session.scope(prompt, state=state).in_scope.any()
                if prompt in fact.paraphrases:
                    assert right == (said == fact.target.split()[0])
                assert 0 <= base <= 1


def test_a_reader_without_javascript_has_it_all(session: cv.Session) -> None:
    text = render(session)
    page = Page(text)
    assert page.tags.count("details") == len(session.facts)
    words = " ".join(page.text.split())
    for fact in tiny_facts():
        for prompt in (*fact.paraphrases, *(neighbor.prompt for neighbor in fact.neighbors)):
            assert prompt in words
        assert session.scope(fact.text, fact.subject).explain() in words
    assert text.count("not edited yet") >= 3  # three facts, after the first round
    assert 'id="bar" role="group" aria-label="Rounds" hidden' in text


def test_of_many_rounds_the_slider_stops_at_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coachhook_viz.story._STOPS", 2)
    session = tiny_session(tiny_model(lead="He "))
    for fact in tiny_facts()[:5]:
        session.apply([fact])
    page = Page(render(session))
    assert page.data["stops"] == [2, 5]
    assert [list(fact["after"]) for fact in page.data["facts"]] == [["2", "5"]] * 2 + [["5"]] * 3
    assert "Shown are 2 of 5 rounds." in page.text


def test_a_second_report_asks_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:2])
    first = render(session)
    asked = []
    monkeypatch.setattr(
        session.lm.model, "forward", lambda *args, **kwargs: asked.append(1), raising=True
    )
    assert render(session) == first
    assert not asked


@pytest.mark.parametrize("stage", ["quality", "drift", "scope", "report"])
def test_a_cancel_comes_through_at_every_stage(session: cv.Session, stage: str) -> None:
    fresh = tiny_session(session.lm)
    fresh.apply(tiny_facts()[:2])
    said: list[Progress] = []
    with pytest.raises(EditCancelled, match=f"cancelled at {stage}"):
        render(fresh, said.append, lambda: bool(said) and said[-1].stage == stage)
