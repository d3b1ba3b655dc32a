from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import LAYERS, tiny_facts, tiny_model, tiny_moments, tiny_session

from coachhook_viz.editing import method
from coachhook_viz.editing.inverses import inverse
from coachhook_viz.editing.update import PreservedKeys, woodbury


@given(st.integers(0, 1000), st.integers(1, 6))
def test_woodbury_is_the_direct_solve(seed: int, facts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    covariance = samples.T @ samples
    keys = 3 * torch.randn(12, facts, generator=generator, dtype=torch.float64)
    directions, after = woodbury(torch.linalg.inv(covariance), keys)
    both = covariance + keys @ keys.T
    torch.testing.assert_close(directions, torch.linalg.solve(both, keys))
    torch.testing.assert_close(after, torch.linalg.inv(both))


def test_running_inverse_stays_with_direct_solves_over_150_rounds() -> None:
    moment = tiny_moments(tiny_session().lm)[1]
    covariance, preserved = 30 * moment, torch.linalg.inv(30 * moment)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        keys = 5 * torch.randn(len(moment), 4, generator=generator, dtype=torch.float64)
        _, preserved = woodbury(preserved, keys)
        covariance = covariance + keys @ keys.T
        direct = torch.linalg.inv(covariance)
        assert (preserved - direct).norm() / direct.norm() < 1e-5


def test_preserved_keys_of_any_prefix_have_the_same_bits() -> None:
    session = tiny_session(tiny_model(lead="He "), steps=2)
    facts = tiny_facts(3)
    for fact in facts:
        session.apply([fact])
    rounds = session.rounds
    stepwise = session._setup.preserved
    fresh = PreservedKeys(tiny_moments(session.lm), session.config.covariance_weight)
    wide = {layer: stepwise.after(rounds)[layer] for layer in session.config.layers}
    for layer, expected in wide.items():
        assert torch.equal(
            PreservedKeys({layer: tiny_moments(session.lm)[layer]}, 30.0).after(rounds)[layer],
            expected,
        )
    narrow = PreservedKeys({1: tiny_moments(session.lm)[1]}, 30.0)
    first = narrow.after(rounds[:1])[1]
    narrow.after(rounds)
    assert torch.equal(narrow.after(rounds[:1])[1], first)
    assert fresh.after(())[1].shape == (64, 64)


def test_a_session_starts_without_inverting(monkeypatch) -> None:
    inverted: list[float] = []

    def counting(moment: torch.Tensor, weight: float) -> torch.Tensor:
        inverted.append(weight)
        return inverse(moment, weight)

    monkeypatch.setattr(method, "inverse", counting)
    session = tiny_session(tiny_model(lead="He "))
    assert inverted == []
    session.apply(tiny_facts()[:1])
    session.undo()
    session.apply(tiny_facts()[1:2])
    assert len(inverted) == len(LAYERS)
