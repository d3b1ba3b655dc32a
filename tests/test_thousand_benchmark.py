"""The benchmark of a thousand facts: what is forged is what a round would have solved."""

from __future__ import annotations

import thousand
import torch
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

from coachhook_viz import Session


def test_forged_rounds_have_the_keys_and_directions_of_real_ones(tmp_path, capsys) -> None:
    lm, facts = tiny_model(lead="He "), tiny_facts()
    config = tiny_config(steps=2, scope="match")
    session = Session(lm, config, tiny_moments(lm), folder=tmp_path / "session")
    thousand.forge(session, facts[:4], 2)
    assert [len(round_.facts) for round_ in session.rounds] == [2, 2]
    forged = session.rounds[1]
    session.undo()
    real = session.apply(facts[2:4])
    first = config.layers[0]  # later layers see what the ones before them wrote
    for one, other in zip(
        (forged.factors[first].keys, forged.factors[first].directions),
        (real.factors[first].keys, real.factors[first].directions),
        strict=True,
    ):
        assert one.shape == other.shape
        assert torch.nn.functional.cosine_similarity(one, other, dim=0).min() > 0.98
    before = session.delta_weight(first)
    thousand.told_of_changes(session)
    assert torch.equal(session.delta_weight(first), before)
    assert "| undo |" in capsys.readouterr().out
