"""Prompts about the subject that an edit leaves alone: their KL, exactly, and what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import FAMILIES, tiny_config, tiny_facts, tiny_model, tiny_moments, tiny_session
from torch import Tensor

from coachhook_viz import EditConfig, Fact, LanguageModel, Session
from coachhook_viz.editing.forward import with_hidden
from coachhook_viz.editing.suffixes import Suffixes
from coachhook_viz.editing.tokens import prepare

TEXTS = ("The river of {} is not", "{} plays in a new")
STRONG: dict[str, Any] = {"steps": 12, "learning_rate": 0.5, "clamp_factor": 4.0, "kl_weight": 0.0}


@torch.no_grad()
def log_shares(lm: LanguageModel, ids: tuple[int, ...], at: int, delta: Tensor) -> Tensor:
    """Next-token log-probabilities after `ids`, with `delta` added to a block's output at `at`."""

    def add(module: Any, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        moved = states.clone()
        moved[0, at] += delta
        return with_hidden(output, moved)

    handle = lm.blocks[tiny_config().layers[-1]].register_forward_hook(add)
    try:
        logits = lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    return F.log_softmax(logits.float(), dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_kl_is_that_of_whole_passes(family: str) -> None:
    lm = tiny_model(family, lead="He ")
    config = tiny_config(preserve=TEXTS, preserve_weight=3.0, kl_weight=0.0)
    columns = prepare(lm, tiny_facts()[:3], (("{}",),), preserve=config.preserve)
    problem = Suffixes(lm, {}, columns, config)
    deltas = 5 * torch.randn(3, lm.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), problem.skipping_to_suffixes():
        assert problem.losses(torch.zeros_like(deltas), [0, 1, 2])[1].abs().max() < 1e-5
        found = problem.losses(deltas, [0, 1, 2])[1]
        last = problem.losses(deltas[2:], [2])[1]  # the others have stopped
    for fact, delta in enumerate(deltas):
        terms = []
        for prompt in columns[fact].preserved:
            assert prompt.edited == prompt.subject_last
            before, now = (
                log_shares(lm, prompt.ids, prompt.edited, push)
                for push in (torch.zeros_like(delta), delta)
            )
            terms.append(float((now.exp() * (now - before)).sum()))
        assert len(terms) == len(TEXTS)
        assert float(found[fact]) == pytest.approx(3.0 * sum(terms) / len(terms), rel=2e-3)
    assert float(last[0]) == pytest.approx(float(found[2]), rel=1e-4)


def moved(session: Session, fact: Fact) -> float:
    """Mean KL(edited ‖ unedited) after the texts to preserve."""
    terms = []
    for text in TEXTS:
        ids = torch.tensor([session.lm.token_ids(text.replace("{}", fact.subject))])
        with torch.no_grad():
            before = F.log_softmax(session.lm.model(ids).logits[0, -1], dim=-1)
            with session.hooked():
                now = F.log_softmax(session.lm.model(ids).logits[0, -1], dim=-1)
        terms.append(float((now.exp() * (now - before)).sum()))
    return sum(terms) / len(terms)


def test_an_edit_leaves_more_of_its_subject_alone() -> None:
    fact = tiny_facts()[0]
    found = {}
    for weight in (0.0, 100.0):
        session = tiny_session(
            tiny_model(lead="He "), scope="off", preserve=TEXTS, preserve_weight=weight, **STRONG
        )
        session.apply([fact])
        found[weight] = moved(session, fact)
    assert found[100.0] < 0.5 * found[0.0]


def test_a_weight_of_nothing_changes_nothing() -> None:
    lm, facts = tiny_model(lead="He "), tiny_facts()[:2]
    plain = tiny_session(lm).apply(facts)
    weightless = tiny_session(lm, preserve=TEXTS, preserve_weight=0.0).apply(facts)
    torch.testing.assert_close(weightless.targets, plain.targets, rtol=1e-5, atol=1e-6)


def test_the_edited_prompt_itself_is_not_preserved() -> None:
    lm, fact = tiny_model(lead="He "), tiny_facts()[0]
    (column,) = prepare(lm, [fact], (("{}",),), preserve=(f" {fact.prompt.upper()} ", *TEXTS))
    assert len(column.preserved) == len(TEXTS)


def test_it_is_saved_and_written_as_code(tmp_path: Path) -> None:
    lm = tiny_model(lead="He ")
    session = tiny_session(lm, preserve=list(TEXTS), preserve_weight=2.0)
    session.apply(tiny_facts()[:1])
    session.save(tmp_path / "kept")
    again = Session.load(tmp_path / "kept", lm, tiny_moments(lm))
    assert again.config == session.config
    assert again.config.preserve == TEXTS
    assert TEXTS[0] in session.code()
    assert "preserve_weight=2.0" in session.code()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"preserve": "{} is"}, "give a tuple"),
        ({"preserve": ("it is",)}, "exactly one"),
        ({"preserve": ("{} is {}",)}, "exactly one"),
        ({"preserve": (3,)}, "exactly one"),
        ({"preserve_weight": -1.0}, "preserve_weight"),
        ({"preserve": TEXTS, "site": "answer", "scope": "off"}, "answer site"),
        ({"preserve": TEXTS, "method": "ultraedit", "scope": "off"}, "no target optimisation"),
    ],
)
def test_what_cannot_be_preserved_is_said(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        EditConfig(layers=(1, 2), covariance_weight=1.0, **changes)
