"""`guide` on tiny models: what it looks at, what it tries, what it keeps, and how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from tiny import (
    WORDS,
    fingerprint,
    random_model,
    tiny_facts,
    tiny_model,
    tiny_moments,
    tiny_tokenizer,
)

import coachhook_viz as cv
from coachhook_viz.editing import guided
from coachhook_viz.editing.forward import Batch, hidden
from coachhook_viz.editing.moments import cached_moments
from coachhook_viz.editing.progress import Watch
from coachhook_viz.measure import search
from coachhook_viz.measure.guide import _best_lead
from coachhook_viz.measure.search import mixed, windows
from coachhook_viz.measure.trace import MASSIVE, causal_trace, key_shares

COLUMNS = [
    "setting", "layers", "covariance_weight", "steps", "learning_rate", "weight_decay",
    "clamp_factor", "stop_loss", "reliability", "generality", "locality", "score", "seconds",
    "chosen",
]  # fmt: skip


@pytest.fixture(autouse=True)
def guides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to keep guides in."""
    monkeypatch.setattr(guided, "guides_dir", lambda: tmp_path / "guides")
    return tmp_path / "guides"


def known(lm: cv.LanguageModel, count: int = 4) -> list[cv.Fact]:
    """Tiny facts with the truth that the model happens to say, and its next best as the target."""
    found = []
    for fact in tiny_facts(6):
        with torch.no_grad():
            logits = lm.model(**lm.encode([fact.text])).logits[0, -1]
        best, second = logits.topk(2).indices.tolist()
        if min(best, second) > 1:
            truth, target = WORDS[best - 2], WORDS[second - 2]
            found.append(replace(fact, truth=truth, target=target, relation=fact.prompt))
    assert len(found) >= 2
    return found[:count]


def changed(lm: cv.LanguageModel, **changes: Any) -> cv.LanguageModel:
    """The same weights in a model of its own, under another name."""
    own = random_model("llama")
    own.load_state_dict(lm.model.state_dict())
    return cv.LanguageModel(own, tiny_tokenizer(), changes.pop("name", "nobody's"), **changes)


@pytest.fixture(scope="module")
def lm() -> cv.LanguageModel:
    return tiny_model(lead="He ")


def light(lm: cv.LanguageModel) -> dict[int, torch.Tensor]:
    """Second moments that the guide's covariance weights leave room beside."""
    return {layer: moment / 1000 for layer, moment in tiny_moments(lm).items()}


def run(lm: cv.LanguageModel, facts: Any = None, budget: int = 6, **given: Any) -> cv.Guide:
    facts = known(lm) if facts is None else facts
    given = {"moments": light(lm), "progress": lambda said: None, **given}
    return cv.guide(lm, facts, budget=budget, **given)


def test_the_bundled_model_keeps_the_settings_that_it_has(
    lm: cv.LanguageModel, guides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = changed(lm, lead="He ")
    assert run(bundled, budget=1).kept is not None
    assert cv.EditConfig.for_model(bundled).covariance_weight == 1000.0  # the first that is tried
    monkeypatch.setattr(guided.bundled, "NAME", bundled.name)
    monkeypatch.setattr(guided.bundled, "LEAD", bundled.lead)
    with pytest.warns(UserWarning, match="are a guess"):  # what was kept before is not taken
        known = cv.EditConfig.for_model(bundled)
    before = [file.stat().st_mtime_ns for file in guides.iterdir()]
    found = run(bundled, budget=2)
    assert found.kept is None
    assert found.settled
    assert "keeps its own, which were found on more facts" in found.explain()
    with pytest.warns(UserWarning, match="are a guess"):
        assert cv.EditConfig.for_model(bundled) == known
    assert [file.stat().st_mtime_ns for file in guides.iterdir()] == before
    other = cv.LanguageModel(bundled.model, bundled.tokenizer, bundled.name, "She ")
    assert not guided.settled(other)  # with another lead it is another model


def test_the_best_of_what_was_tried_is_kept_for_the_model(lm: cv.LanguageModel) -> None:
    before = fingerprint(lm)
    said: list[cv.Progress] = []
    found = run(lm, progress=said.append)
    assert fingerprint(lm) == before
    frame = found.frame
    assert list(frame.columns) == COLUMNS
    assert frame["setting"].tolist() == [1, 2, 3, 4, 5, 6]
    best = frame[frame["chosen"]].iloc[0]
    assert frame["chosen"].sum() == 1
    three = frame[["reliability", "generality", "locality"]].to_numpy()
    order = list(zip(-frame["score"], -three.mean(1).round(9), frame["setting"], strict=True))
    assert best["setting"] == min(order)[2]  # the first of equal ones
    assert best["reliability"] > 0
    assert found.config.layers == best["layers"]
    assert found.config.covariance_weight == best["covariance_weight"]
    with np.errstate(divide="ignore"):
        assert frame["score"].to_numpy() == pytest.approx(3 / (1 / three).sum(1))
    assert found.blocks["hooked"].to_numpy().nonzero()[0].tolist() == list(best["layers"])

    stages = list(dict.fromkeys(message.stage for message in said))
    assert stages[:4] == ["contexts", "known", "keys", "trace"] or stages[:3] == [
        "known", "keys", "trace",
    ]  # fmt: skip
    assert {m.setting for m in said if m.stage == "layers"} == {f"{n} of 6" for n in range(1, 7)}

    assert cv.EditConfig.for_model(lm) == found.config  # and without a warning
    assert cv.EditConfig.for_model(lm, steps=3) == replace(found.config, steps=3)
    with pytest.warns(UserWarning, match=r"cv\.guide"):
        assert cv.EditConfig.for_model(tiny_model(lead="She ")).layers == (0, 1, 2, 3)
    again = run(lm, budget=1)
    assert again.frame["score"][0] == pytest.approx(best["score"])  # it begins where it had got to


def test_scores_are_those_of_a_session(lm: cv.LanguageModel) -> None:
    facts = known(lm)
    found = run(lm, facts, budget=1)
    assert set(found.facts) == set(facts)
    session = cv.Session(lm, found.config, light(lm))
    session.apply(found.facts)
    means = session.quality().groupby("metric")["value"].mean()
    for metric in ("reliability", "generality", "locality"):
        assert found.frame[metric][0] == pytest.approx(means[metric]), metric


def test_a_setting_whose_optimisation_fails_is_the_last_choice(
    lm: cv.LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = search.edit_round

    def fails(lm: Any, state: cv.EditState, *given: Any) -> cv.Round:
        if state.config.covariance_weight == 1000:
            raise cv.FactError([], [])
        return own(lm, state, *given)

    monkeypatch.setattr(search, "edit_round", fails)
    found = run(lm, budget=3)
    assert found.frame["reliability"].isna().tolist() == [True, False, False]
    assert found.frame["score"][0] == 0
    assert not found.frame["chosen"][0]


def test_what_is_kept_is_for_the_same_weights_and_lead_only(
    lm: cv.LanguageModel, guides: Path
) -> None:
    found = run(lm, budget=1)
    assert found.kept is not None
    assert found.kept.parent == guides
    assert not list(guides.glob("*.tmp"))
    same = changed(lm, lead="He ", name="under another name")
    assert cv.EditConfig.for_model(same) == found.config
    other = changed(lm, lead="He ")
    with torch.no_grad():
        other.model.lm_head.weight[0, 0] += 1
    for stranger in (other, changed(lm, lead="She ")):
        with pytest.warns(UserWarning, match="are a guess"):
            cv.EditConfig.for_model(stranger)
    with pytest.warns(UserWarning, match="are a guess"):
        assert cv.EditConfig.for_model(lm, scope="two-key").site == "answer"


def spoilt(content: dict[str, Any], **settings: Any) -> str:
    return json.dumps({**content, "settings": {**content["settings"], **settings}})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: "",
        lambda content: "\0 not JSON",
        lambda content: "[" * 100_000,
        lambda content: "[]",
        lambda content: "null",
        lambda content: json.dumps({**content, "format": "something else"}),
        lambda content: json.dumps({**content, "fingerprint": "of another model"}),
        lambda content: json.dumps({**content, "settings": []}),
        lambda content: json.dumps({**content, "settings": {"layers": [1]}}),
        lambda content: spoilt(content, scope="off"),
        lambda content: spoilt(content, layers=[7]),
        lambda content: spoilt(content, layers="12"),
        lambda content: spoilt(content, layers=None),
        lambda content: spoilt(content, covariance_weight=float("nan")),
        lambda content: spoilt(content, learning_rate=-1),
        lambda content: spoilt(content, context_templates=[[1]]),
        lambda content: spoilt(content, context_templates=7),
        lambda content: spoilt(content, context_templates=[["{}", "no slot"]]),
    ],
)
def test_files_that_are_damaged_or_foreign_are_ignored(
    lm: cv.LanguageModel, spoil: Callable[[dict[str, Any]], str]
) -> None:
    with pytest.warns(UserWarning, match="are a guess"):
        guess = cv.EditConfig.for_model(lm)
    file = guided.keep(lm, vars(replace(guess, covariance_weight=7.0)))
    assert cv.EditConfig.for_model(lm).covariance_weight == 7.0
    file.write_text(spoil(json.loads(file.read_text("utf-8"))), "utf-8")
    with pytest.warns(UserWarning, match="are a guess"):
        assert cv.EditConfig.for_model(lm) == guess
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.warns(UserWarning, match="are a guess"):
        assert cv.EditConfig.for_model(lm) == guess
    guided.keep(lm, vars(replace(guess, covariance_weight=8.0)))  # a new one takes its place
    assert cv.EditConfig.for_model(lm).covariance_weight == 8.0


def test_code_of_a_session_does_not_rely_on_what_this_machine_keeps(lm: cv.LanguageModel) -> None:
    found = run(lm, budget=2)
    session = cv.Session(lm, moments=light(lm))
    assert session.config == found.config
    for name in guided.GUIDED:
        assert f"{name}=" in session.code(), name


def test_a_cache_that_cannot_be_written_to_is_said(lm: cv.LanguageModel, guides: Path) -> None:
    guides.write_text("a file where the folder should be", "utf-8")
    found = run(lm, budget=1)
    assert found.kept is None
    assert found.explain().endswith("They are not kept: use the guide's config.")


# --- how it fails ---


def test_input_that_it_cannot_work_with_is_said(lm: cv.LanguageModel) -> None:
    unknown = [replace(fact, truth=None) for fact in tiny_facts(3)]
    for facts in (unknown, [], known(lm)[0].__class__("{} is", "Anna", "Lima", truth="Oslo")):
        with pytest.raises(ValueError, match=r"knows none of these \d facts: give facts"):
            run(lm, facts)
    said = known(lm)[0]
    with pytest.raises(ValueError, match="knows none of these 1 facts"):
        run(lm, replace(said, target=str(said.truth)))
    with pytest.raises(cv.FactError, match="not a Fact"):
        run(lm, [{"subject": "Anna"}])
    for budget in (0, -1, 2.5, True, "4"):
        with pytest.raises(ValueError, match=r"budget is .*: it must be a whole number, 1 or more"):
            run(lm, budget=budget)  # type: ignore[arg-type]
    shallow = tiny_model(num_hidden_layers=2, lead="He ")
    with pytest.raises(ValueError, match=r"tiny-llama has 2 blocks: a guide needs 3 or more"):
        run(shallow, [])
    with pytest.raises(ValueError, match=r"no block to hook: .*, or moments has no C0"):
        run(lm, moments={})
    assert not guided.guides_dir().exists()


def test_a_model_that_cannot_be_edited_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = cv.Architecture(("llama",), "model.layers", "mlp.down_proj", written="self_attn.o_proj")
    lm = changed(tiny_model(lead="He "), lead="He ")
    object.__setattr__(lm, "architecture", wrong)
    with pytest.raises(cv.ModelRefused):
        run(lm, known(tiny_model(lead="He ")))


def test_facts_that_cannot_be_edited_together_are_left_out(lm: cv.LanguageModel) -> None:
    facts = known(lm)
    twice = replace(facts[0], target="Peru" if facts[0].target != "Peru" else "Rome")
    long = replace(facts[1], paraphrases=("old " * 70,))
    found = run(lm, [*facts, twice, long, replace(facts[0], truth=None)], budget=1)
    assert set(found.facts) == set(facts)


@pytest.mark.parametrize("stage", ["known", "keys", "trace", "targets", "layers", "quality"])
def test_cancelling_loses_nothing(lm: cv.LanguageModel, stage: str) -> None:
    kept = run(lm, budget=1)
    content = kept.kept.read_bytes() if kept.kept else b""
    before, seen = fingerprint(lm), list[str]()

    with pytest.raises(cv.EditCancelled, match=r"cancelled at \w+, step") as raised:
        run(lm, progress=lambda said: seen.append(said.stage), cancel=lambda: stage in seen)
    assert fingerprint(lm) == before
    assert raised.value.guide is None
    assert kept.kept is not None
    assert kept.kept.read_bytes() == content
    assert cv.EditConfig.for_model(lm) == kept.config


def test_what_was_tried_before_cancelling_is_there(lm: cv.LanguageModel) -> None:
    settings: list[str | None] = [None]
    with pytest.raises(cv.EditCancelled, match="had tried 2 of 6 settings, and kept") as raised:
        run(
            lm,
            progress=lambda said: settings.append(said.setting),
            cancel=lambda: settings[-1] == "3 of 6",
        )
    assert len(raised.value.guide.frame) == 2
    assert "not kept" in raised.value.guide.explain()
    assert guided.kept(lm) is None


# --- what it looks at ---


def test_shares_of_key_energy_are_those_of_one_token() -> None:
    """One layer is given a massive activation: its gate answers to one token a hundredfold."""
    model = random_model("llama")
    token = 2 + WORDS.index("He")
    with torch.no_grad():
        for parameter in (
            *(block.self_attn.o_proj.weight for block in model.model.layers),
            *(block.mlp.down_proj.weight for block in model.model.layers),
        ):
            parameter[0] = 0  # nothing else writes to the first dimension of hidden states
        model.model.embed_tokens.weight[:, 0] = 0
        model.model.embed_tokens.weight[token, 0] = 20
        mlp = model.model.layers[2].mlp
        mlp.gate_proj.weight[:, 0] = mlp.up_proj.weight[:, 0] = 50
    lm = cv.LanguageModel(model, tiny_tokenizer(), "tiny", lead="He ")
    shares = key_shares(lm, Watch())
    assert [share > MASSIVE for share in shares] == [False, False, True, False, False]
    assert shares[2] > 0.95
    assert min(shares) >= 1 / 64
    found = run(lm, known(lm, 2), budget=50)
    assert {2} & {layer for layers in found.frame["layers"] for layer in layers} == set()
    assert f"energy: block 2 ({shares[2]:.2%})." in found.explain()
    assert found.blocks["massive"].tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neo"])
def test_the_causal_trace_is_that_of_one_block_at_a_time(family: str) -> None:
    lm = tiny_model(family, lead="He ")
    facts = known(lm, 3)
    trace = causal_trace(lm, facts, Watch())
    assert list(trace.columns) == ["fact", "block", "clean", "corrupted", "restored"]
    assert trace["block"].tolist() == list(range(5)) * len(facts)
    embed = lm.model.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    spans = []
    for fact in facts:
        ids = lm.token_ids(fact.text)
        subject = [2 + WORDS.index(word) for word in fact.subject.split()]
        first = next(i for i in range(len(ids)) if ids[i : i + len(subject)] == subject)
        spans.append((ids, list(range(first, first + len(subject)))))
    with torch.no_grad():
        every = torch.cat([embed(torch.tensor(ids))[at] for ids, at in spans])
        scale = 3 * float(every.std())
        for index, (fact, (ids, at)) in enumerate(zip(facts, spans, strict=True)):
            truth = 2 + WORDS.index(str(fact.truth))
            noise = scale * torch.randn(3, len(at), every.shape[1], generator=generator)
            rows = trace[trace["fact"] == index].set_index("block")
            clean, states = one_pass(lm, ids, truth)
            assert rows["clean"][0] == pytest.approx(clean, abs=1e-5)
            noisy = [one_pass(lm, ids, truth, at, draw)[0] for draw in noise]
            assert rows["corrupted"][0] == pytest.approx(sum(noisy) / 3, abs=1e-5)
            for block in range(5):
                back = (block, at[-1], states[block][at[-1]])
                said = [one_pass(lm, ids, truth, at, draw, back)[0] for draw in noise]
                assert rows["restored"][block] == pytest.approx(sum(said) / 3, abs=1e-5), block
    # the subject is not the prompt's end, so at the last block nothing takes its state up
    assert rows["restored"][4] == pytest.approx(rows["corrupted"][4], abs=1e-6)


def one_pass(
    lm: cv.LanguageModel,
    ids: list[int],
    truth: int,
    at: list[int] | None = None,
    noise: torch.Tensor | None = None,
    back: tuple[int, int, torch.Tensor] | None = None,
) -> tuple[float, list[torch.Tensor]]:
    """The plain form: one prompt, one draw, one block."""
    states: list[torch.Tensor] = []

    def hide(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[0, at] += noise
        return output

    def put_back(module: Any, args: Any, output: Any) -> None:
        hidden(output)[0, back[1]] = back[2]

    def keep(module: Any, args: Any, output: Any) -> None:
        states.append(hidden(output)[0].clone())

    handles = [block.register_forward_hook(keep) for block in lm.blocks]
    if noise is not None:
        handles.append(lm.model.get_input_embeddings().register_forward_hook(hide))
    if back is not None:
        handles.append(lm.blocks[back[0]].register_forward_hook(put_back))
    with torch.no_grad():
        logits = lm.model(**Batch.of([ids], lm.device).inputs, use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    return float(logits.softmax(-1)[truth]), states


def blocks_of(recovery: list[float], massive: tuple[int, ...] = ()) -> pd.DataFrame:
    count = len(recovery)
    return pd.DataFrame(
        {
            "block": range(count),
            "massive": [at in massive for at in range(count)],
            "recovery": recovery,
        }
    )


def test_windows_follow_the_trace_and_miss_massive_layers() -> None:
    lm = tiny_model(num_hidden_layers=12)
    start = cv.EditConfig((1, 2, 3), 1.0)
    curve = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 0.95, 0.7, 0.5, 0.2, 0.0, 0.0]
    assert windows(lm, start, blocks_of(curve), None) == [
        (1, 2, 3), (3, 4, 5), (4, 5, 6), (6, 7, 8),
    ]  # fmt: skip
    assert windows(lm, start, blocks_of(curve, (2, 5)), None) == [(6, 7, 8)]
    assert windows(lm, start, blocks_of(curve, (2, 5, 8)), None) == [(3, 4), (6, 7)]
    for flat in ([0.0] * 12, [-1.0] * 12, [float("nan")] * 12):
        assert windows(lm, start, blocks_of(flat), None)[0] == (1, 2, 3)
        assert len(windows(lm, start, blocks_of(flat), None)) == 4
    only = dict.fromkeys((4, 5, 6), torch.eye(1))
    assert windows(lm, start, blocks_of(curve), only) == [(4, 5, 6)]
    with pytest.raises(ValueError, match="no block to hook: one token carries most"):
        windows(lm, start, blocks_of(curve, tuple(range(11))), None)


def test_facts_of_all_relations_come_first() -> None:
    facts = tiny_facts(6)
    named = [replace(fact, relation="ab"[i > 3]) for i, fact in enumerate(facts)]
    assert mixed(named) == [named[i] for i in (0, 4, 1, 5, 2, 3)]
    assert mixed([]) == []


def test_a_lead_is_suggested_where_the_tokenizer_adds_no_token() -> None:
    bare, leading, bos = tiny_model(), tiny_model(lead="He "), tiny_model(bos=True)
    found = run(bare, known(bare), budget=1)
    assert set(found.known_with) == {"", "<s>", "<unk>"}  # a line break is no token of this one
    assert found.known_with[""] == len(known(bare))
    assert run(leading, budget=1).known_with == run(bos, known(bos), budget=1).known_with == {}
    assert run(leading, budget=1).lead is None
    assert _best_lead({"": 3, "\n": 4, "<s>": 5}) == "<s>"
    assert _best_lead({"": 3, "\n": 5, "<s>": 5}) == "\n"
    assert _best_lead({"": 6, "\n": 5}) is None
    assert _best_lead({"": 6}) is _best_lead({}) is None
    told = replace(found, lead="<s>", known_with={"": 2, "<s>": 3})
    assert "load it with lead='<s>'" in told.explain()
    assert "lead" not in replace(found, lead=None).explain()


# --- what it says ---


def test_sentences_and_figures(lm: cv.LanguageModel) -> None:
    found = run(lm, budget=3)
    text = found.explain()
    assert text.startswith("3 settings tried on ")
    assert "that tiny-llama knows: layers " in text
    assert text.endswith("EditConfig.for_model has these settings from now on.")
    assert repr(found).startswith("<guide to tiny-llama: layers ")
    figure = cv.figures.guide(found)
    lines = {trace.name: list(trace.y) for trace in figure.data}
    assert lines["key energy"] == found.blocks["share"].tolist()
    assert lines["neighbours kept"] == found.frame["locality"].tolist()
    assert [shape.x0 + 0.5 for shape in figure.layout.shapes].count(
        float(found.frame.index[found.frame["chosen"]][0] + 1)
    )
    picture = cv.figures.guide(found, backend="matplotlib")
    drawn = {line.get_label(): line for axes in picture.axes for line in axes.lines}
    assert drawn["reliability"].get_ydata().tolist() == found.frame["reliability"].tolist()
    plt.close("all")
    poor = replace(found, frame=found.frame.assign(reliability=0.1))
    assert "Edits hardly take" in poor.explain()
    untraced = replace(found, blocks=found.blocks.assign(recovery=float("nan")))
    assert "brought nothing back" in untraced.explain()
    for backend in ("plotly", "matplotlib"):
        assert cv.figures.guide(untraced, backend=backend) is not None
    with pytest.raises(ValueError, match="backend"):
        cv.figures.guide(found, backend="paper")  # type: ignore[arg-type]


@pytest.mark.model
def test_the_default_model_is_guided_past_its_massive_layer() -> None:
    lm = cv.load_model()
    start = cv.EditConfig.for_model(lm)
    facts = [fact for fact in cv.bundled_facts()[:20] if fact.relation == "capital"][:3]
    moments = cached_moments(lm, start.layers)
    found = cv.guide(lm, facts, budget=1, moments=moments, progress=lambda said: None)
    massive = found.blocks[found.blocks["massive"]]["block"].tolist()
    assert 11 in massive
    assert not set(massive) & set(start.layers)
    trace = found.blocks.set_index("block")["recovery"]
    assert trace[:12].mean() > 0.5 > 0.1 > trace[25:].mean()
    assert found.frame["reliability"][0] == 1
    assert cv.EditConfig.for_model(lm) == found.config
