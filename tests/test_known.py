from __future__ import annotations

from dataclasses import replace

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv


def test_facts_whose_truth_the_model_says_are_known() -> None:
    """What it says is found by asking it; another word, none, or too much text is not known."""
    lm = tiny_model(lead="He ")
    session = tiny_session(lm)
    said = [session.generate(fact.text, 2).split() for fact in tiny_facts()]
    first = [
        replace(fact, truth=words[0], target="Lima" if words[0] != "Lima" else "Oslo")
        for fact, words in zip(tiny_facts(), said, strict=True)
        if words
    ]
    two = replace(tiny_facts()[0], truth=" ".join(said[0]))
    others = [
        replace(first[0], truth="Quito" if said[0][0] != "Quito" else "Peru"),
        replace(first[0], truth=None),
        replace(first[0], prompt="{} is " + "old " * 70),
    ]
    assert len(first) >= 3
    assert cv.known_facts(lm, [*first, *others, two]) == [*first, two]
    assert cv.known_facts(lm, []) == []
    assert cv.known_facts(lm, first[0]) == cv.known_facts(lm, iter(first[:1])) == first[:1]
    with session.hooked():  # the unedited model, whatever hangs on it
        assert cv.known_facts(lm, first) == first


@pytest.mark.model
def test_the_default_model_knows_most_of_the_bundled_facts(lm: cv.LanguageModel) -> None:
    known = cv.known_facts(lm, cv.bundled_facts()[:20])
    assert "Paris" in {fact.truth for fact in known}
