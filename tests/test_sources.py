from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from safetensors.torch import save_file
from tiny import WORDS, random_model, tiny_facts, tiny_model, tiny_session, tiny_tokenizer

import coachhook_viz as cv
from coachhook_viz import LanguageModel, ModelNotFound, ModelRefused, load_model


def saved(folder: Path, family: str = "llama") -> Path:
    random_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_model_object_with_its_tokenizer(tmp_path: Path) -> None:
    lm = load_model(random_model("llama"), tokenizer=tiny_tokenizer(), lead="He ")
    assert (lm.lead, lm.d_key) == ("He ", 64)
    with pytest.raises(ValueError, match=r"tokenizer of this LlamaForCausalLM .*tokenizer=\.\.\."):
        load_model(random_model("llama"))
    folder = saved(tmp_path / "m")
    again = load_model(load_model(folder).model)
    assert again.name == str(folder)
    with pytest.raises(ValueError, match="not int"):
        load_model(3)  # type: ignore[arg-type]


def test_a_name_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "m")
    assert load_model("~/m").d_key == 64
    with pytest.raises(ModelNotFound, match="give the folder"):
        load_model("~/m/config.json")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("bf16", torch.bfloat16),
        ("BF16", torch.bfloat16),
        ("auto", torch.float32),
        ("float16", torch.float16),
        ("torch.float32", torch.float32),
    ],
)
def test_dtypes_by_name(tmp_path: Path, given: str, found: torch.dtype) -> None:
    assert load_model(saved(tmp_path), dtype=given).dtype == found


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dtype": "b16"}, "dtype='b16': use torch.float32"),
        ({"dtype": torch.int8}, "dtype=torch.int8"),
        ({"device": "xpu:9"}, "no such device here"),
        ({"device": "nonsense"}, "no such device here"),
    ],
)
def test_arguments_that_make_no_sense_are_said(
    tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        load_model(saved(tmp_path), **options)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("gpt2",), r"the model is str; give load_model"),
        ((tiny_model().model,), r"the model is LlamaForCausalLM; give load_model"),
        ((tiny_model(), "zscore"), "the config is str; give an EditConfig"),
    ],
)
def test_a_session_on_something_else_says_what_it_needs(given: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        cv.Session(*given)


def test_a_model_without_its_head_is_refused() -> None:
    with pytest.raises(ModelRefused, match="LlamaModel has no head"):
        LanguageModel(random_model("llama").model, tiny_tokenizer(), "x")


def test_objects_of_another_kind_are_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    for options, said in (
        ({"lead": 5}, "it must be text"),
        ({"tokenizer": "mine"}, "give the tokenizer itself"),
        ({"architecture": "llama"}, "give an Architecture"),
    ):
        with pytest.raises(ValueError, match=said):
            load_model(folder, **options)  # type: ignore[arg-type]


def test_folders_and_files_that_hold_no_whole_model_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=r"no config\.json, and no \.gguf file"):
        load_model(tmp_path / "empty")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF..")
    with pytest.raises(ModelNotFound, match="it is damaged, or no model"):
        load_model(tmp_path / "cut.gguf")
    folder = saved(tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelNotFound, match="it is damaged, or no model"):
        load_model(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer that can be read here.*tokenizer="):
        load_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelNotFound, match="it is damaged, or no model"):
        load_model(folder)


def test_what_is_no_causal_language_model_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=60)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match="no causal language model"):
        load_model(tmp_path)


def lora(folder: Path, base: Path, rank: int = 4, **changes: Any) -> dict[str, torch.Tensor]:
    """A LoRA adapter of all down projections, as PEFT saves it; its own ΔW by module."""
    folder.mkdir()
    lm = load_model(base)
    target = lm.architecture.down_projection.rpartition(".")[2]
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 8,
        "target_modules": [target],
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors, added = {}, {}
    for layer in range(lm.n_layers):
        path = f"{lm.architecture.blocks}.{layer}.{lm.architecture.down_projection}"
        a, b = torch.randn(rank, lm.d_key) * 0.1, torch.randn(lm.d_model, rank) * 0.1
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
        added[path] = b @ a
    save_file(tensors, folder / "adapter_model.safetensors")
    return added


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {}}, 2.0)]
)
def test_an_adapters_folder_is_its_base_model_with_the_adapter(
    tmp_path: Path, family: str, changes: dict[str, Any], scale: float
) -> None:
    base = saved(tmp_path / "base", family)
    added = lora(tmp_path / "adapter", base, **changes)
    lm, plain = load_model(tmp_path / "adapter"), load_model(base)
    for layer, delta in enumerate(added.values()):
        torch.testing.assert_close(lm.weight(layer), plain.weight(layer) + scale * delta)
    assert lm.fingerprint != plain.fingerprint
    assert lm.name == str(tmp_path / "adapter")
    lm.check()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING, and only LoRA.*merge_and_unload"),
        ({"use_dora": True}, "DoRA, and only LoRA"),
        ({"base_model_name_or_path": None}, "does not name the adapter's base model"),
        ({"base_model_name_or_path": "itself"}, "names itself as its base model"),
    ],
)
def test_adapters_that_are_not_merged_here_say_what_to_do(
    tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    if changes.get("base_model_name_or_path"):
        changes = {"base_model_name_or_path": str(tmp_path / "adapter")}
    lora(tmp_path / "adapter", saved(tmp_path / "base"), **changes)
    with pytest.raises(ModelRefused, match=match):
        load_model(tmp_path / "adapter")


class Wrapped(torch.nn.Module):
    """A LoRA layer around another one, with what PEFT's has."""

    def __init__(self, base: torch.nn.Module, d_key: int, d_model: int, across: bool) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(d_key, 3, bias=False)})
        self.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(3, d_model, bias=False)})
        self.active_adapters = ["default"]
        self.across = across

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        delta = self.lora_B[adapter].weight @ self.lora_A[adapter].weight
        return delta.T if self.across else delta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_a_model_with_lora_layers_in_it_is_edited(family: str) -> None:
    """GPT-2's layers are Conv1D, which store the transpose."""
    model, plain = random_model(family), tiny_model(family)
    path = plain.architecture.down_projection
    for block in model.get_submodule(plain.architecture.blocks):
        parent = block.get_submodule(path.rpartition(".")[0])
        name = path.rpartition(".")[2]
        layer = Wrapped(getattr(parent, name), plain.d_key, plain.d_model, family == "gpt2")
        setattr(parent, name, layer)
    lm = LanguageModel(model, tiny_tokenizer(), "lora", "He ")
    assert (lm.d_model, lm.d_key) == (plain.d_model, plain.d_key)
    lm.check()
    assert tiny_session(lm).apply(tiny_facts()[:2]).targets.shape == (2, plain.d_model)


class PeftModel(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base_model, self.peft_config, self.config = model, {}, model.config

    def get_base_model(self) -> Any:
        return self.base_model


def test_a_peft_model_is_refused_and_told_the_way() -> None:
    for make in (
        lambda model: LanguageModel(model, tiny_tokenizer(), "peft"),
        lambda model: load_model(model, tokenizer=tiny_tokenizer()),
    ):
        with pytest.raises(ModelRefused, match=r"merge_and_unload.*get_base_model"):
            make(PeftModel(random_model("llama")))


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers an old way
@pytest.mark.parametrize(("family", "part"), [("llama", "down_proj"), ("gpt2", "c_proj")])
def test_models_of_peft_itself(family: str, part: str) -> None:
    from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model

    task, across = TaskType.CAUSAL_LM, family == "gpt2"
    prompts = PromptTuningConfig(task_type=task, num_virtual_tokens=2)
    with pytest.raises(ModelRefused, match=r"before each prompt.*get_base_model"):
        LanguageModel(get_peft_model(random_model(family), prompts), tiny_tokenizer(), "peft")
    config = LoraConfig(
        task_type=task, target_modules=[part], init_lora_weights=False, fan_in_fan_out=across
    )
    model = get_peft_model(random_model(family), config)
    with pytest.raises(ModelRefused, match=r"merge_and_unload.*get_base_model"):
        LanguageModel(model, tiny_tokenizer(), "peft")
    plain = tiny_model(family)
    for made in (model.get_base_model, model.merge_and_unload):
        lm = LanguageModel(made(), tiny_tokenizer(), "peft", "He ")
        assert (lm.d_model, lm.d_key) == (plain.d_model, plain.d_key)
        session = tiny_session(lm)
        session.apply(tiny_facts()[:2])
        assert session.generate(tiny_facts()[0].text, 2)


def write_gguf(file: Path) -> None:
    """The tiny Llama as llama.cpp stores it, in float32."""
    lm = tiny_model()
    config, writer = lm.model.config, gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<unk>", "<s>", *WORDS[:-3], "t", "h", "th"])  # for one merge
    writer.add_token_merges(["t h"])
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(WORDS) + 2))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    state = lm.model.state_dict()
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            tensor = state[f"model.layers.{layer}.{ours}.weight"]
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", tensor.numpy())
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    writer.add_tensor("output.weight", state["lm_head.weight"].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_or_its_folder(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    lms = [load_model(tmp_path / "tiny.gguf"), load_model(tmp_path)]
    for lm in lms:
        assert lm.dtype == torch.float32
        torch.testing.assert_close(lm.weight(2), tiny_model().weight(2))
        lm.check()
    assert lms[0].fingerprint == lms[1].fingerprint
    assert not hasattr(lms[0].model.config, "quantization_config")
    lms[0].model.save_pretrained(tmp_path / "plain")  # its weights are plain, and stay so
    lms[0].tokenizer.save_pretrained(tmp_path / "plain")
    assert load_model(tmp_path / "plain").fingerprint == lms[0].fingerprint
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"several \.gguf files: .*other\.gguf, tiny\.gguf"):
        load_model(tmp_path)


def test_how_a_checkpoint_was_stored_is_no_part_of_the_fingerprint() -> None:
    lm = LanguageModel(random_model("llama"), tiny_tokenizer(), "a")
    other = random_model("llama")
    other.config.quantization_config = {"quant_method": "gguf"}
    assert LanguageModel(other, tiny_tokenizer(), "b").fingerprint == lm.fingerprint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rounded_weights_are_those_they_were_but_trained_ones_are_not(dtype: torch.dtype) -> None:
    lm = LanguageModel(random_model("llama"), tiny_tokenizer(), "a", "He ")
    session = tiny_session(lm)
    session.apply(tiny_facts()[:1])
    lm.model.to(dtype)
    session.apply(tiny_facts()[1:2])
    with torch.no_grad():
        lm.model.model.norm.weight.mul_(1.1)
    with pytest.raises(ModelRefused, match="not what they were when this session began"):
        session.apply(tiny_facts()[2:3])


@pytest.mark.parametrize("block", [0, 3])
def test_a_block_without_numbers_or_plain_weights_is_refused(block: int) -> None:
    for change, match in (
        (lambda mlp: mlp.down_proj.to("meta"), "no numbers"),
        (lambda mlp: mlp.down_proj.to(torch.float8_e4m3fn), "packed weights"),
    ):
        model = random_model("llama")
        change(model.model.layers[block].mlp)
        with pytest.raises(ModelRefused, match=match):
            LanguageModel(model, tiny_tokenizer(), "x")


def test_a_model_without_numbers_by_now_is_said(tmp_path: Path) -> None:
    lm = LanguageModel(random_model("llama"), tiny_tokenizer(), "a", "He ")
    session, (first, second) = tiny_session(lm), tiny_facts()[:2]
    session.apply([first])
    lm.model.to("meta")
    for ask in (
        lambda: session.apply([second]),
        lambda: session.generate(first.text, 3),
        lambda: session.predict(first.text),
        lambda: session.scope(first.text),
        lambda: session.evaluate(),
        lambda: session.why(first.text),
        lambda: session.lens(first.text),
        lambda: session.what_else(),
        lambda: session.save(tmp_path / "s"),
        lambda: session.export(tmp_path / "e", scope="off"),
        lambda: cv.report(session, tmp_path / "r.html"),
        lambda: tiny_session(lm),
        lambda: session.drift(),
    ):
        with pytest.raises(ModelRefused, match=r"a has no numbers.*meta device.*load_model"):
            ask()
    assert session.position == 1
    assert repr(lm).endswith("meta>")


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("part", ["down_proj", "q_proj", "lm_head"])
def test_layers_quantized_at_run_time_are_refused(part: str) -> None:
    model = random_model("llama").eval()
    names = {name for name, _ in model.named_modules() if name.endswith(part)}
    quantize = torch.ao.quantization.quantize_dynamic
    config = torch.ao.quantization.default_dynamic_qconfig
    quantized = quantize(model, dict.fromkeys(names, config))
    with pytest.raises(ModelRefused, match=r"quantized.*give the model as it was before"):
        LanguageModel(quantized, tiny_tokenizer(), "x")


def test_changed_weights_are_noticed() -> None:
    lm = LanguageModel(random_model("llama"), tiny_tokenizer(), "a", "He ")
    before, session = lm.fingerprint, tiny_session(lm)
    session.apply(tiny_facts()[:1])
    with torch.no_grad():
        lm.weight(3).mul_(1.01)
    assert lm.fingerprint != before
    with pytest.raises(ModelRefused, match="not what they were when this session began"):
        session.apply(tiny_facts()[1:2])
    assert session.position == 1


def test_changed_weights_are_not_saved_as_the_models(tmp_path: Path) -> None:
    lm = LanguageModel(random_model("llama"), tiny_tokenizer(), "a", "He ")
    session = tiny_session(lm)
    session.apply(tiny_facts()[:1])
    before = lm.weight(3).clone()
    with torch.no_grad():
        lm.weight(3).mul_(1.01)
    with pytest.raises(ModelRefused, match="not what they were"):
        session.save(tmp_path / "s")
    with torch.no_grad():
        lm.weight(3).copy_(before)
    session.save(tmp_path / "s")
    assert session.position == 1


@pytest.mark.parametrize("offload", ["cpu", "disk"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_offloaded_weights_are_brought_in(tmp_path: Path, offload: str, family: str) -> None:
    plain = LanguageModel(random_model(family), tiny_tokenizer(), "a", "He ")
    model = random_model(family)
    if offload == "cpu":
        cpu_offload(model, torch.device("cpu"))
    else:
        disk_offload(model, str(tmp_path), torch.device("cpu"))
    lm = LanguageModel(model, tiny_tokenizer(), "a", "He ")
    assert lm.device == torch.device("cpu")
    assert lm.fingerprint == plain.fingerprint
    expected, found = tiny_session(plain), tiny_session(lm)
    torch.testing.assert_close(
        found.apply(tiny_facts()[:2]).targets,
        expected.apply(tiny_facts()[:2]).targets,
        atol=1e-3,
        rtol=1e-3,
    )
    prompt = tiny_facts()[0].text
    assert found.generate(prompt, 4) == expected.generate(prompt, 4)


def test_a_device_map_is_handed_on(tmp_path: Path) -> None:
    lm = load_model(saved(tmp_path), device_map={"": "cpu"})
    assert lm.device == torch.device("cpu")
    assert isinstance(lm, cv.LanguageModel)
