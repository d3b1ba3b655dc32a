from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import Session


def session(**changes: Any) -> Session:
    strong: dict[str, Any] = {"steps": 20, "clamp_factor": 4.0, "covariance_weight": 0.1}
    return tiny_session(tiny_model(bos=True), scope="match", **{**strong, **changes})


def rows(found: Any, kind: str) -> list[tuple[str, str, str]]:
    part = found.frame[found.frame["kind"] == kind]
    return list(part[["what", "a", "b"]].itertuples(index=False, name=None))


def test_facts_settings_and_answers() -> None:
    one, two, three, *_ = tiny_facts()
    other = cv.Fact(two.prompt, two.subject, "Peru")
    a, b = session(), session(match_threshold=0.6)
    a.apply([one, two])
    b.apply([other, three])
    found = cv.diff(a, b)
    assert rows(found, "added") == [(three.text, "", three.target)]
    assert rows(found, "taken back") == [(one.text, one.target, "")]
    assert rows(found, "target") == [(two.text, two.target, "Peru")]
    assert rows(found, "setting") == [("match_threshold", "0.5", "0.6")]
    answers = rows(found, "answer")
    assert answers
    for prompt, left, right in answers:
        assert a.predict(prompt, 1)["token"].tolist() == [left]
        assert b.predict(prompt, 1)["token"].tolist() == [right]
    assert found.sentence == (
        "From a to b: 1 fact added, 1 fact taken back, 1 fact with another target, 1 setting"
        f" differs, {len(answers)} of {found.asked} answers differ."
    )
    assert repr(found) == found.sentence


def test_answers_that_are_the_same_are_not_there() -> None:
    a, b = session(), session()
    a.apply(tiny_facts()[:2])
    prompts = [text for fact in tiny_facts()[:2] for text in (fact.text, *fact.paraphrases)]
    found = cv.diff(a, b)
    unlike = {p for p in prompts if not a.predict(p, 1)["token"].equals(b.predict(p, 1)["token"])}
    assert {what for what, _, _ in rows(found, "answer")} & set(prompts) == unlike


def test_alike() -> None:
    a, b = session(), session()
    assert cv.diff(a, b).frame.empty
    a.apply(tiny_facts()[:1])
    b.apply(tiny_facts()[:1])
    found = cv.diff(a, b)
    assert found.frame.empty
    assert found.sentence == f"No difference in facts and settings, nor in {found.asked} answers."
    a.mute(0)
    assert rows(cv.diff(a, b, budget=0), "added") == [(tiny_facts()[0].text, "", "Oslo")]
    assert cv.diff(a, b, budget=0).sentence == "From a to b: 1 fact added."
    assert cv.diff(a, b, budget=1).asked == 1
    assert list(cv.diff(a, a).frame.columns) == ["kind", "what", "a", "b"]


def test_another_model_is_said() -> None:
    a, b = session(), tiny_session(tiny_model("gpt2", bos=True), scope="match")
    assert rows(cv.diff(a, b), "model") == [("model", "tiny-llama", "tiny-gpt2")]
    assert cv.diff(a, b, budget=0).sentence.startswith("From a to b: another model, ")


def test_another_lead_is_said() -> None:
    a, b = session(), tiny_session(tiny_model(bos=True, lead="He "), scope="match")
    assert rows(cv.diff(a, b), "model") == [("lead", "''", "'He '")]
    assert cv.diff(a, b, budget=0).sentence.startswith("From a to b: another lead, ")


def test_what_makes_no_sense() -> None:
    one = session()
    with pytest.raises(TypeError, match=r"b is str: diff compares sessions.*Session\.load"):
        cv.diff(one, "folder")  # type: ignore[arg-type]
    for budget in (-1, True, "all"):
        with pytest.raises(ValueError, match="number of prompts"):
            cv.diff(one, one, budget=budget)  # type: ignore[arg-type]
