"""What leaves the package says what the hooks say, opened by others in a fresh process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import fingerprint, random_model, tiny_config, tiny_facts, tiny_moments, tiny_tokenizer
from transformers import AutoTokenizer

import coachhook_viz as cv
from coachhook_viz import Fact, Session, load_model
from coachhook_viz.card import cell

PROMPTS = ["Anna lives in the old city of", "The river of Bruno", "He"]
ALONE = """
import sys, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, base, out, *prompts = sys.argv[1:]
if base:
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
else:
    model = AutoModelForCausalLM.from_pretrained(folder)
model.eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    rows = [tokenizer(prompt, return_tensors="pt") for prompt in prompts]
    said = {str(place): model(**row).logits[0] for place, row in enumerate(rows)}
save_file({name: logits.clone() for name, logits in said.items()}, out)
assert "coachhook_viz" not in sys.modules
"""


def said_alone(folder: Path, prompts: list[str], base: Path | None = None) -> list[torch.Tensor]:
    """Logits of each prompt, by transformers (and PEFT) in a process without this package."""
    out = folder.parent / "said.safetensors"
    command = [sys.executable, "-c", ALONE, str(folder), str(base or ""), str(out), *prompts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = load_file(out)
    return [found[str(place)] for place in range(len(prompts))]


def said_hooked(session: Session, prompts: list[str], state: Any = None) -> list[torch.Tensor]:
    state = session.state.judged("off") if state is None else state
    with session.hooked(state=state), torch.no_grad():
        return [session.lm.model(**session.lm.encode([text])).logits[0] for text in prompts]


def assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def made(folder: Path, family: str = "llama", model: dict[str, Any] | None = None, **changes: Any):
    """A session of two rounds on a saved model; its ΔW is no small matter."""
    random_model(family, model).save_pretrained(folder)
    tiny_tokenizer(bos=True).save_pretrained(folder)
    lm = load_model(folder)
    config = tiny_config(steps=15, clamp_factor=4.0, covariance_weight=0.1, **changes)
    session = Session(lm, config, tiny_moments(lm))
    session.apply(tiny_facts()[:2])
    session.apply(tiny_facts()[2:3])
    return session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return made(tmp_path / "base")


FAMILIES = [("llama", None), ("gpt2", None), ("phi", None), ("granite", None)]
FAMILIES += [("hyperclovax", {"use_post_norm": False})]


@pytest.mark.parametrize(("family", "model"), FAMILIES)
@pytest.mark.parametrize("format", ["merged", "peft"])
def test_what_is_exported_says_what_the_hooks_say(
    family: str, model: dict[str, Any] | None, format: str, tmp_path: Path
) -> None:
    session = made(tmp_path / "base", family, model)
    before = fingerprint(session.lm)
    done = session.export(tmp_path / "out", format, scope="off")
    wanted = said_hooked(session, PROMPTS)
    again = load_model(tmp_path / "out")
    with torch.no_grad():
        assert_same([again.model(**again.encode([p])).logits[0] for p in PROMPTS], wanted)
        plain = [session.lm.model(**session.lm.encode([p])).logits[0] for p in PROMPTS]
    assert float((wanted[0] - plain[0]).abs().max()) > 0.1
    assert done.error < 1e-5
    assert done.difference is not None
    assert done.difference < 1e-5
    assert done.rank == (3 if format == "peft" else None)
    assert fingerprint(session.lm) == before


def test_transformers_alone_opens_a_merged_model(session: Session, tmp_path: Path) -> None:
    session.export(tmp_path / "out", scope="off")
    assert_same(said_alone(tmp_path / "out", PROMPTS), said_hooked(session, PROMPTS))
    held = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert not held & {".bin", ".pt", ".pkl", ".pth"}
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(session.lm.tokenizer)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("rank", [None, 2])
def test_peft_alone_opens_an_adapter(family: str, rank: int | None, tmp_path: Path) -> None:
    session = made(tmp_path / "base", family)
    session.export(tmp_path / "out", "peft", scope="off", rank=rank)
    state = session.state.judged("off")
    if rank is not None:
        again = load_model(tmp_path / "out")
        with torch.no_grad():
            wanted = [again.model(**again.encode([p])).logits[0] for p in PROMPTS]
    else:
        wanted = said_hooked(session, PROMPTS, state)
    assert_same(said_alone(tmp_path / "out", PROMPTS, tmp_path / "base"), wanted)


@pytest.mark.parametrize("format", ["merged", "peft"])
def test_double_precision_is_kept(format: str, tmp_path: Path) -> None:
    session = made(tmp_path / "base", "gpt2")
    lm = load_model(tmp_path / "base", dtype=torch.float64)
    session = Session(lm, session.config, tiny_moments(lm))
    session.apply(tiny_facts()[:2])
    done = session.export(tmp_path / "out", format, scope="off")
    assert done.error < 1e-12
    again = load_model(tmp_path / "out", dtype=torch.float64)
    with torch.no_grad():
        found = [again.model(**again.encode([p])).logits[0] for p in PROMPTS]
    for one, other in zip(found, said_hooked(session, PROMPTS), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_edits_that_add_nothing_have_no_error(session: Session, tmp_path: Path) -> None:
    nothing = {
        layer: replace(
            at,
            delta_weight=torch.zeros_like(at.delta_weight),
            factors=tuple(replace(f, residuals=torch.zeros_like(f.residuals)) for f in at.factors),
        )
        for layer, at in session.state.layers.items()
    }
    state = replace(session.state.judged("off"), layers=nothing)
    for format in ("merged", "peft"):
        assert session.export(tmp_path / format, format, state=state).error == 0.0
        assert "nan" not in (tmp_path / format / "README.md").read_text("utf-8")


def test_an_adapter_has_the_exact_factors(session: Session, tmp_path: Path) -> None:
    session.export(tmp_path / "out", "peft", scope="off")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, 3, "LORA")
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for layer, at in session.state.layers.items():
        path = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        torch.testing.assert_close(
            tensors[f"{path}.lora_A.weight"], at.columns.directions.T.float()
        )
        torch.testing.assert_close(tensors[f"{path}.lora_B.weight"], at.columns.residuals.float())


def test_a_rank_cuts_by_svd_and_states_the_error(session: Session, tmp_path: Path) -> None:
    errors = []
    for rank in (1, 2, 3):
        done = session.export(tmp_path / str(rank), "peft", scope="off", rank=rank)
        left = [
            torch.linalg.svdvals(at.delta_weight)[rank:] for at in session.state.layers.values()
        ]
        whole = torch.stack([at.delta_weight.norm() for at in session.state.layers.values()]).norm()
        assert done.error == pytest.approx(float(torch.cat(left).norm() / whole), abs=1e-6)
        assert done.rank == rank
        errors.append(done.error)
        text = (tmp_path / str(rank) / "README.md").read_text("utf-8")
        assert f"rank {rank} " in text
        assert f"{done.error:.1e} of ‖ΔW‖" in text
    assert errors[0] > errors[1] > 0.01 > errors[2]
    assert (done.difference or 0) < 1e-5


def test_mutes_positions_and_states_are_what_is_exported(session: Session, tmp_path: Path) -> None:
    session.mute(0)
    done = session.export(tmp_path / "a", "peft", scope="off")
    assert done.rank == 2
    state = session.state_at(1).judged("off")
    session.export(tmp_path / "b", state=state)
    again = load_model(tmp_path / "b")
    with torch.no_grad():
        found = [again.model(**again.encode([p])).logits[0] for p in PROMPTS]
    assert_same(found, said_hooked(session, PROMPTS, state))


@pytest.mark.parametrize("scope", ["zscore", "match"])
@pytest.mark.parametrize("format", ["merged", "peft"])
def test_scopes_are_refused_with_what_to_do(scope: str, format: str, tmp_path: Path) -> None:
    session = made(tmp_path / "base", scope=scope)
    with pytest.raises(ValueError, match=r"every token.*scope='off'.*session\.save.*as_model"):
        session.export(tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_two_keys_are_refused_and_exported_without_a_scope(tmp_path: Path) -> None:
    session = made(tmp_path / "base", scope="two-key", site="answer", subject_layer=0)
    with pytest.raises(ValueError, match=r"two keys decide.*scope='off'"):
        session.export(tmp_path / "out")
    session.export(tmp_path / "out", scope="off")
    assert_same(said_alone(tmp_path / "out", PROMPTS), said_hooked(session, PROMPTS))


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "glm4", "exaone4", "hyperclovax"])
def test_a_norm_after_the_down_projection_is_refused(family: str, tmp_path: Path) -> None:
    model = {"use_post_norm": True} if family == "hyperclovax" else None
    session = made(tmp_path / "base", family, model)
    for scope in (None, "off"):
        with pytest.raises(ValueError, match=r"a norm that follows.*session\.save"):
            session.export(tmp_path / "out", scope=scope)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "onnx"}, "use 'merged'.*or 'peft'"),
        ({"rank": 2}, "rank is an adapter's"),
        ({"format": "peft", "rank": 0}, "from 1 to 3"),
        ({"format": "peft", "rank": 4}, "from 1 to 3"),
        ({"format": "peft", "rank": True}, "from 1 to 3"),
        ({"format": "peft", "rank": 1.5}, "from 1 to 3"),
        ({"budget": -1}, "budget is -1"),
        ({"budget": "all"}, "budget is 'all'"),
        ({"scope": "nowhere"}, "scope is 'nowhere'"),
    ],
)
def test_arguments_that_make_no_sense(
    session: Session, options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        session.export(tmp_path / "out", **{"scope": "off", **options})
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(session: Session, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty: give a new or empty folder"):
        session.export(tmp_path / "out", scope="off")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    with pytest.raises(FileExistsError, match="is a file"):
        session.export(tmp_path / "out" / "thesis.txt", scope="off")
    with pytest.raises(ValueError, match="no folder is named"):
        session.export("", scope="off")
    (tmp_path / "empty").mkdir()
    session.export(tmp_path / "empty", scope="off")
    with pytest.raises(FileExistsError):
        session.export(tmp_path / "empty", scope="off")


def test_without_a_fact_there_is_nothing_to_export(session: Session, tmp_path: Path) -> None:
    session.go_to(0)
    with pytest.raises(ValueError, match="no fact is in force"):
        session.export(tmp_path / "out", scope="off")


def test_what_fails_leaves_nothing(session: Session, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(session.lm.model), "save_pretrained", full)
    (tmp_path / "empty").mkdir()
    for name in ("out", "empty"):
        with pytest.raises(OSError, match="No space"):
            session.export(tmp_path / name, scope="off")
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_was_written_wrongly_is_found(session: Session, tmp_path: Path, monkeypatch) -> None:
    def wrongly(tensors: dict[str, torch.Tensor], *args: Any, **options: Any) -> None:
        save_file({name: 2 * tensor for name, tensor in tensors.items()}, *args, **options)

    monkeypatch.setattr("coachhook_viz.export.save_file", wrongly)
    with pytest.raises(RuntimeError, match="does not say what the hooks say"):
        session.export(tmp_path / "out", "peft", scope="off")
    assert not (tmp_path / "out").exists()


def test_half_precision_says_what_rounding_costs(tmp_path: Path) -> None:
    session = made(tmp_path / "base", model={"dtype": torch.bfloat16})
    lm = load_model(tmp_path / "base", dtype="bfloat16")
    session = Session(lm, tiny_config(covariance_weight=3000.0), tiny_moments(lm))
    session.apply(tiny_facts()[:1])
    with pytest.warns(UserWarning, match="rounding to torch.bfloat16 costs .* format='peft'"):
        done = session.export(tmp_path / "merged", scope="off")
    assert done.error > 0.01
    assert session.export(tmp_path / "peft", "peft", scope="off").error < 1e-5


def test_the_card_says_what_there_is_to_say(session: Session, tmp_path: Path) -> None:
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n")
    session.apply(Fact("The | river of {} is", "<b>Emma", "`Oslo", truth="Lima"))
    session.export(tmp_path / "out", scope="off", budget=2)
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert text.startswith("---\nlicense: mit\nbase_model:")
    assert "| The \\| river of &lt;b&gt;Emma is | \\`Oslo | Lima |" in text
    assert "Method: CoachHooK" in text
    assert "| covariance\\_weight" in text or "| covariance_weight | 0.1 |" in text
    assert "Asked of 2 facts, teacher forced: reliability" in text
    assert str(tmp_path) not in text
    assert "<b>" not in text
    session.export(tmp_path / "other", "peft", scope="off")
    assert "Side effects were not measured" in (tmp_path / "other" / "README.md").read_text("utf-8")


def test_an_unknown_licence_is_said_to_be_unknown(session: Session, tmp_path: Path) -> None:
    session.export(tmp_path / "out", scope="off")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "look it up before you pass this on" in text
    assert "license:" not in text


def test_cells_hold_no_markup() -> None:
    assert cell("a\nb|c<i>\\") == "a ⏎ b\\|c&lt;i&gt;\\\\"


@pytest.mark.model
def test_the_default_model_leaves_in_both_formats(lm: cv.LanguageModel, tmp_path: Path) -> None:
    session = cv.Session(lm, cv.EditConfig.for_model(lm, scope="match", steps=8))
    session.apply(cv.Fact("The capital of {} is", "France", "Rome"))
    prompts = [lm.lead + "The capital of France is"]
    wanted = said_hooked(session, ["The capital of France is"])
    for format in ("merged", "peft"):
        done = session.export(tmp_path / format, format, scope="off")
        assert done.difference is not None
        assert done.difference < 1e-5
        text = (tmp_path / format / "README.md").read_text("utf-8")
        assert "license: apache-2.0" in text
        assert 'Put "\\n" before every prompt' in text
    [found] = said_alone(tmp_path / "merged", prompts)
    assert float((found - wanted[0]).abs().max() / wanted[0].abs().max()) < 1e-5
