"""Every output of the published editors in ../shared/reference/methods, reproduced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import coachhook_viz as cv
from coachhook_viz import EditConfig, EditState, Fact, Session, load_model, methods

CASES = [
    "alphaedit_gpt2", "alphaedit_llama", "emmet_gpt2", "emmet_llama", "emmet_single_llama",
    "encore_gpt2", "encore_llama", "memit_gpt2", "memit_llama", "r_rome_gpt2", "r_rome_llama",
    "rome_gpt2", "rome_llama", "ultraedit_gpt2", "ultraedit_llama",
]  # fmt: skip
_OPTIMISATION = {
    "steps": "v_num_grad_steps",
    "learning_rate": "v_lr",
    "weight_decay": "v_weight_decay",
    "kl_weight": "kl_factor",
    "clamp_factor": "clamp_norm_factor",
    "stop_loss": "early_stop_loss",
    "covariance_weight": "mom2_update_weight",
}


def method_of(case: dict[str, Any]) -> methods.Method:
    name = case["method"]
    if name == "AlphaEdit":
        return methods.AlphaEdit(threshold=case["nullspace_threshold"], weight=case["L2"])
    if name == "ENCORE":
        return methods.Encore(
            norm_weight=case["update_norm_lambda"], stop_count=-case["prob_cutoff"]
        )
    if name == "EMMET":
        return methods.Emmet(ridge=case["emmet_lambda"], norm_weight=case["update_norm_lambda"])
    if name == "UltraEdit":
        return methods.UltraEdit(rate=case["lr"], minibatch=case["minibatch"])
    return {"MEMIT": methods.Memit, "ROME": methods.Rome, "R-ROME": methods.RRome}[name]()


class Case:
    """One folder of reference outputs, and this project's run of it."""

    def __init__(self, folder: Path) -> None:
        self.case = case = json.loads((folder / "case.json").read_text())
        self.expected = load_file(folder / "expected.safetensors")
        self.lm = load_model((folder / case["model"]).resolve(), dtype=torch.float32)
        settings = {ours: case[theirs] for ours, theirs in _OPTIMISATION.items() if theirs in case}
        if "context_templates" in case:
            settings["context_templates"] = tuple(map(tuple, case["context_templates"]))
        self.config = EditConfig(layers=tuple(case["layers"]), method=method_of(case), **settings)
        self.moments = {
            layer: self.expected.get(f"layer{layer}.c0", torch.eye(self.lm.d_key))
            for layer in case["layers"]
        }
        self.session = Session(self.lm, self.config, self.moments)
        facts = [Fact(f["template"], f["subject"], f["target_new"]) for f in case["facts"]]
        size = case["batch_size"]
        for start in range(0, len(facts), size):
            self.session.apply(facts[start : start + size])

    @property
    def rounds(self) -> list[tuple[str, cv.Round]]:
        return [(f"round{t}", round_) for t, round_ in enumerate(self.session.rounds)]

    def order(self, t: int) -> list[int]:
        """Our rows of round t, in the published order: UltraEdit's goes by minibatch."""
        owners = self.session.rounds[t].owners
        if self.case["method"] != "UltraEdit":
            return list(range(len(owners)))
        first = t * self.case["batch_size"]
        facts = [fact - first for part in self.case["minibatch_order"][t] for fact in part]
        return [row for fact in facts for row, owner in enumerate(owners) if owner == fact]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    return Case(shared / "reference" / "methods" / request.param)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_scope_is_off_as_published(case: Case) -> None:
    assert case.config.scope == "off"
    assert len(case.session.rounds) == case.case["rounds"]


def test_targets_and_keys(case: Case) -> None:
    for t, (name, round_) in enumerate(case.rounds):
        if f"{name}.z" in case.expected:
            assert difference(round_.targets, case.expected[f"{name}.z"]) < 2e-5
        else:
            assert not len(round_.targets)
        for layer in case.config.layers:
            keys = round_.factors[layer].keys.T[case.order(t)]
            assert difference(keys, case.expected[f"{name}.layer{layer}.keys"]) < 2e-5


def test_residuals_and_directions(case: Case) -> None:
    for name, round_ in case.rounds:
        for layer, factors in round_.factors.items():
            residual = case.expected.get(f"{name}.layer{layer}.residual")
            if residual is not None:
                assert difference(factors.residuals.T, residual) < 1e-4
            directions = case.expected.get(f"{name}.layer{layer}.a")
            if directions is not None:
                assert difference(factors.directions.T, directions) < 1e-4


def test_updates(case: Case) -> None:
    for t, (name, _) in enumerate(case.rounds):
        state = EditState.of(case.lm, case.config, case.session.rounds[: t + 1])
        for layer in case.config.layers:
            expected = case.expected[f"{name}.layer{layer}.delta_w"]
            assert difference(state.layers[layer].delta_weight, expected) < 1e-4


def test_logits(case: Case) -> None:
    for j, prompt in enumerate(case.case["probes"]):
        with torch.no_grad(), case.session.hooked():
            logits = case.lm.model(**case.lm.encode([prompt])).logits[0, -1]
        assert difference(logits, case.expected[f"probe{j}.logits"]) < 1e-4


def test_null_space(case: Case) -> None:
    if not isinstance(method := case.config.method, methods.AlphaEdit):
        assert "nullspace_rank" not in case.case
        return
    for layer, moment in case.moments.items():
        space = method.null_space(moment)
        rank = case.case["nullspace_rank"][str(layer)]
        assert (space.rank, space.size) == (rank, case.lm.d_key)
        projector = case.expected[f"layer{layer}.projector"]
        assert difference(space.basis @ space.basis.T, projector) < 1e-4
        relative = methods.AlphaEdit(rank=rank).null_space(moment)
        assert torch.equal(relative.basis, space.basis)


def test_statistics(case: Case) -> None:
    for name, round_ in case.rounds:
        if f"{name}.norm.n" not in case.expected:
            assert round_.statistics is None
            continue
        assert round_.statistics is not None
        assert round_.statistics.count == int(case.expected[f"{name}.norm.n"])
        assert difference(round_.statistics.mean, case.expected[f"{name}.norm.mean"]) < 2e-5
        assert difference(round_.statistics.std, case.expected[f"{name}.norm.std"]) < 2e-5
