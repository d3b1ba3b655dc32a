"""lm-evaluation-harness on an edited model, where it is installed; CI does without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from harness import documents, scores
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz.editing.hooks import attached


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("scope", ["off", "match"])
def test_the_harness_finds_what_the_session_says(scope: str) -> None:
    session = tiny_session(tiny_model(lead="He "), scope=scope)
    session.apply([replace(fact, truth="Lima") for fact in tiny_facts()])
    lm, asked = session.lm, documents(list(session.state.facts))
    asked = {name: asked[name] for name in ("edit_prompts", "paraphrases")}
    found = []
    for model, state in ((lm.model, session.state_at(0)), (session.as_model(), session.state)):
        with attached(lm, state.hook_layers(lm.dtype)):
            wanted = {name: preferred(lm, prompts) for name, prompts in asked.items()}
        found.append(scores(model, lm, asked, batch=2))
        assert found[-1] == pytest.approx(wanted)
    assert found[1]["edit_prompts"] > found[0]["edit_prompts"]


@torch.no_grad()
def preferred(lm: cv.LanguageModel, prompts: list) -> float:
    """The share of prompts whose first choice is likelier than the second."""

    def likely(prompt: str, answer: str) -> float:
        ids, start = lm.token_ids(f"{prompt} {answer}"), len(lm.token_ids(prompt))
        said = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return float(sum(said[i - 1, ids[i]] for i in range(start, len(ids))))

    better = [likely(one["prompt"], one["choices"][0]) for one in prompts]
    worse = [likely(one["prompt"], one["choices"][1]) for one in prompts]
    return sum(a > b for a, b in zip(better, worse, strict=True)) / len(prompts)
