"""Every output of the published implementation in ../shared/reference, reproduced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from coachhook_viz import EditConfig, EditState, Fact, Session, load_model
from coachhook_viz.editing import hooks, seen
from coachhook_viz.editing.state import LayerState

CASES = [
    f"{kind}_{family}"
    for kind in ("consecutive", "single_round")
    for family in ("gpt2", "gptj", "llama")
]


@contextmanager
def published_padding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The published quirk: one padded batch for all prompts, whose pads enter the statistics."""
    begin = hooks.Attachment.begin

    def with_pads(self: hooks.Attachment, *args: Any) -> None:
        begin(self, *args)
        assert self._tokens is not None
        self._tokens.mask = torch.ones_like(self._tokens.mask)

    with monkeypatch.context() as patch:
        patch.setattr(hooks.Attachment, "begin", with_pads)
        patch.setattr(seen, "length_batches", lambda lengths: [[*range(len(lengths))]])
        yield


class Case:
    """One folder of reference outputs, and this project's run of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.case = json.loads((folder / "case.json").read_text())
        self.expected = load_file(folder / "expected.safetensors")
        case = self.case
        self.lm = load_model(folder / "model", dtype=torch.float32)
        self.config = EditConfig(
            layers=tuple(case["layers"]),
            covariance_weight=case["mom2_update_weight"],
            alpha=case["alpha_initial"],
            steps=case["v_num_grad_steps"],
            learning_rate=case["v_lr"],
            weight_decay=case["v_weight_decay"],
            kl_weight=case["kl_factor"],
            clamp_factor=case["clamp_norm_factor"],
            stop_loss=case["early_stop_loss"],
            context_templates=tuple(map(tuple, case["context_templates"])),
            calibration="base",
        )
        self.moments = {layer: self.expected[f"layer{layer}.c0"] for layer in case["layers"]}
        self.session = Session(self.lm, self.config, self.moments)
        facts = [Fact(f["template"], f["subject"], f["target_new"]) for f in case["facts"]]
        size = case["batch_size"]
        with published_padding(monkeypatch):
            for start in range(0, len(facts), size):
                self.session.apply(facts[start : start + size])


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, shared: Path) -> Iterator[Case]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Case(shared / "reference" / request.param, monkeypatch)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_targets_keys_updates_and_covariances(case: Case) -> None:
    assert len(case.session.rounds) == case.case["rounds"]
    for t, round_ in enumerate(case.session.rounds):
        state = EditState.of(case.lm, case.config, case.session.rounds[: t + 1])
        assert difference(round_.targets, case.expected[f"round{t}.z"]) < 1e-4
        for layer in case.config.layers:
            name = f"round{t}.layer{layer}"
            keys = case.expected[f"{name}.keys"]
            assert difference(round_.factors[layer].keys.T, keys) < 1e-4
            delta_weight = state.layers[layer].delta_weight
            assert difference(delta_weight, case.expected[f"{name}.delta_w"]) < 1e-4
            covariance = case.config.covariance_weight * case.moments[layer].double()
            for earlier in case.session.rounds[: t + 1]:
                covariance += earlier.factors[layer].keys @ earlier.factors[layer].keys.T
            assert difference(covariance, case.expected[f"{name}.c_accu"]) < 1e-4


def test_the_running_inverse_belongs_to_the_reference_covariance(case: Case) -> None:
    last = case.case["rounds"] - 1
    inverses = case.session._setup.preserved.after(case.session.rounds)
    for layer in case.config.layers:
        covariance = case.expected[f"round{last}.layer{layer}.c_accu"].double()
        identity = torch.eye(len(covariance), dtype=torch.float64)
        assert difference(inverses[layer] @ covariance, identity) < 1e-3


def test_thresholds(case: Case) -> None:
    if case.case["rounds"] == 1:
        assert case.session.rounds[0].alphas.keys() == {int(k) for k in case.case["alphas"][0]}
        return  # the published calibration batch was padded: its thresholds are taken as given
    for round_, expected in zip(case.session.rounds, case.case["alphas"], strict=True):
        for layer in case.config.layers:
            assert round_.alphas[layer] == pytest.approx(expected[str(layer)], abs=1e-3)


def test_probes(case: Case) -> None:
    state = case.session.state
    layers = {
        layer: LayerState(before.delta_weight, case.case["alphas"][-1][str(layer)], before.factors)
        for layer, before in state.layers.items()
    }
    case.session._state = replace(state, layers=layers)
    compared = 0
    for j, prompt in enumerate(case.case["probes"]):
        expected = {
            layer: case.expected[f"probe{j}.layer{layer}.zscores"] for layer in case.config.layers
        }
        if any((z - layers[at].alpha).abs().min() < 1e-3 for at, z in expected.items()):
            continue  # exactly on a threshold: rounding decides
        compared += 1
        scope = case.session.scope(prompt)
        for i, layer in enumerate(case.config.layers):
            assert (scope.z[i] - expected[layer]).abs().max() < 1e-2
        with torch.no_grad(), case.session.hooked():
            logits = case.lm.model(**case.lm.encode([prompt])).logits[0, -1]
        assert difference(logits, case.expected[f"probe{j}.logits"]) < 1e-3
    assert compared >= 8
