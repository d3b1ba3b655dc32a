from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

import coachhook_viz as cv
from coachhook_viz import EditConfig, Fact, Neighbor, Session
from coachhook_viz.models import Architecture, LanguageModel
from coachhook_viz.models.cache import cache_dir
from coachhook_viz.recipe import fact_source

SAVE = "\nimport sys; session.save(sys.argv[1])\n"


def in_a_fresh_process(session: Session, folder: Path, cache: Path) -> Session:
    """What the session's code makes, where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", session.code() + SAVE, str(folder)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "COACHHOOK_VIZ_CACHE": str(cache)},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr}\n{session.code()}"
    return Session.load(folder, session.lm, journal=False)


@pytest.fixture
def saved_lm(tmp_path: Path, monkeypatch) -> LanguageModel:
    """A tiny model that can be loaded by its name, a folder."""
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path / "cache"))
    tiny, folder = tiny_model(), tmp_path / "tiny model"
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return cv.load_model(folder, lead="He ")


def logits(session: Session, position: int, branch: str) -> torch.Tensor:
    with session.hooked(state=session.state_at(position, branch)), torch.no_grad():
        return torch.cat(
            [
                session.lm.model(**session.lm.encode([fact.text]), use_cache=False).logits[0, -1]
                for fact in tiny_facts()
            ]
        )


def same(one: Session, other: Session, number: dict[int, int] | None = None) -> None:
    """All that there is of `one` is in `other`, under other numbers of rounds where given."""
    number = number or {r: r for b in one.branches.values() for r in (x.number for x in b.rounds)}
    assert one.config == other.config
    assert one.current_branch == other.current_branch
    assert one.branches.keys() == other.branches.keys()
    assert {number[n]: label for n, label in one.labels.items()} == other.labels
    for name, branch in one.branches.items():
        twin = other.branches[name]
        assert branch.position == twin.position
        ids = dict(zip(branch.fact_ids, twin.fact_ids, strict=True))
        assert {ids[fact_id] for fact_id in branch.muted} == twin.muted
        assert [r.facts for r in branch.rounds] == [r.facts for r in twin.rounds]
        assert [number[r.number] for r in branch.rounds] == [r.number for r in twin.rounds]
        for mine, its in zip(branch.rounds, twin.rounds, strict=True):
            assert mine.settings == its.settings
            for layer, alpha in mine.alphas.items():
                assert its.alphas[layer] == pytest.approx(alpha, abs=1e-5)
        for position in range(len(branch.rounds) + 1):
            torch.testing.assert_close(
                logits(one, position, name), logits(other, position, name), rtol=1e-3, atol=1e-3
            )


def test_code_makes_the_same_session_in_a_fresh_process(saved_lm, tmp_path: Path) -> None:
    """Facts with all their fields, settings, labels, mutes, branches and undone rounds."""
    facts = tiny_facts()
    odd = Fact(
        "{} said:\n'\"", "Anna\\", "red", "blue", ("a\tb",), (("c\n", None), "d"), "r", ("e",)
    )
    assert eval(fact_source(odd), {"cv": cv}) == odd  # noqa: S307
    config = tiny_config(scope="match", context_templates=None)
    session = Session(saved_lm, config)
    session.apply(facts[:2])
    session.label(1, 'it\'s "first"', "two\nlines")
    session.mute(0)
    session.configure(steps=4)
    session.apply(facts[2:3])  # while a fact is muted
    session.unmute(0)
    session.branch("what if")
    session.apply(facts[3:4])
    session.mute(3)
    session.switch("main")
    session.apply(facts[4:])
    session.branch("same")
    session.switch("main")
    session.configure(steps=6)
    session.go_to(1)
    made = in_a_fresh_process(session, tmp_path / "made", tmp_path / "cache")
    same(session, made)
    assert made.facts == session.facts


def test_rounds_that_are_gone_are_left_out(saved_lm, tmp_path: Path) -> None:
    facts = tiny_facts()
    session = Session(saved_lm, tiny_config())
    session.apply(facts[:1])
    session.apply(facts[1:2])
    session.branch("kept")  # has a round that its own branch loses
    session.switch("main")
    session.undo()
    session.apply(facts[2:3])
    session.undo()
    session.apply(facts[3:4])
    session.mute(3)
    session.label(4, "the fourth")
    made = in_a_fresh_process(session, tmp_path / "made", tmp_path / "cache")
    same(session, made, {1: 1, 2: 2, 4: 3})


def test_a_fresh_session_is_three_lines_and_says_what_it_lacks(lm_default) -> None:
    known = EditConfig.for_model(lm_default)
    moments = dict.fromkeys(known.layers, tiny_moments(tiny_model())[0])
    plain = Session(lm_default, known, moments)
    assert plain.code().splitlines()[-2:] == [
        "lm = cv.load_model('smollm2-135m')", "session = cv.Session(lm, None, moments)",
    ]  # fmt: skip
    assert "# Give `moments`" in plain.code()
    changed = Session(lm_default, EditConfig.for_model(lm_default, steps=5), moments)
    assert "cv.EditConfig.for_model(lm, steps=5)" in changed.code()


@pytest.fixture
def lm_default() -> LanguageModel:
    """Of the default's name and the tiny model's size."""
    tiny = tiny_model(num_hidden_layers=9)
    return LanguageModel(tiny.model, tiny.tokenizer, "smollm2-135m", "\n")


def test_code_says_how_the_model_was_loaded() -> None:
    tiny = tiny_model(dtype=torch.float64)
    own = Architecture(("mine",), "model.layers", "mlp.down_proj")
    lm = LanguageModel(tiny.model, tiny.tokenizer, "me/mine", "He ", own)
    code = Session(lm, tiny_config(), tiny_moments(lm)).code()
    compile(code, "code", "exec")
    assert code.startswith("import torch\n")
    assert (
        "lm = cv.load_model('me/mine', dtype=torch.float64, lead='He ',"
        " architecture=cv.Architecture(('mine',), 'model.layers', 'mlp.down_proj'))"
    ) in code


def test_a_fact_that_is_long_stands_on_several_lines() -> None:
    fact = Fact(
        "The capital of {} is", "France", "Rome", "Paris",
        (f"It is well known that the capital city of France is {'so ' * 20}called",),
        (Neighbor("The capital of Italy is", "Rome"), Neighbor("Berlin is in")),
    )  # fmt: skip
    source = fact_source(fact, 4)
    assert eval(source, {"cv": cv}) == fact  # noqa: S307
    assert source.splitlines()[-1] == "    )"
    assert fact_source(Fact("{} is", "A", "b")) == "cv.Fact('{} is', 'A', 'b')"


@pytest.mark.model
def test_code_of_the_default_model(lm, tmp_path: Path) -> None:
    session = Session(lm)
    session.apply(cv.bundled_facts()[:2])
    session.mute(1)
    same(session, in_a_fresh_process(session, tmp_path / "made", cache_dir()))
