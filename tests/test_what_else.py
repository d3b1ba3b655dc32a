from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from test_two_key import facts as two_key_facts
from test_two_key import two_key_session
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import (
    EditCancelled,
    EditConfig,
    Fact,
    Probe,
    Progress,
    Session,
    bundled_facts,
    figures,
)
from coachhook_viz.figures.style import AFTER, BEFORE
from coachhook_viz.measure.beside import CHANGE, KINDS, drawn, questions
from coachhook_viz.measure.metrics import SURE
from coachhook_viz.measure.what_else import headline, tally

BESIDE = Fact(
    "The capital of {} is", "France", "Rome", "Paris",
    paraphrases=("France has the capital",),
    neighbors=("The capital of Italy is",),
    probes=(Probe("The language of France is"), Probe("Rome is near", "river", "portability")),
)  # fmt: skip


def session_of(scope: str, **changes: Any) -> Session:
    given = {"scope": scope, "steps": 20, "clamp_factor": 4.0, **changes}
    session = tiny_session(tiny_model(bos=True), **given)
    session.apply([BESIDE])
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture(scope="module", params=["zscore", "match", "off"])
def session(request: pytest.FixtureRequest) -> Session:
    return session_of(request.param)


def said(session: Session, prompt: str, edited: bool) -> tuple[str, float, torch.Tensor]:
    with session.hooked(edited), torch.no_grad():
        logits = session.lm.model(**session.lm.encode([prompt])).logits[0, -1]
    shares = logits.softmax(-1)
    return session.lm.tokenizer.decode([int(shares.argmax())]), float(shares.max()), shares


def test_each_row_says_what_the_model_says_before_and_after(session: Session) -> None:
    frame = session.what_else(budget=60)
    asked = frame[frame["kind"] != "text"]
    assert set(frame["kind"]) <= set(KINDS)
    assert {"edit", "paraphrase", "portability", "same subject", "neighbour"} <= set(frame["kind"])
    for row in asked.itertuples():
        before, chance, shares = said(session, row.prompt, False)
        after, _, now = said(session, row.prompt, True)
        assert (row.before, row.after, row.kept) == (before, after, before == after)
        assert row.p_before == pytest.approx(chance, rel=1e-4)
        assert row.p_after == pytest.approx(float(now[shares.argmax()]), rel=1e-3)
        scope = session.scope(row.prompt)
        assert row.fired == bool(scope.in_scope.any())
        assert pd.isna(row.fact) == (not row.fired)
        assert pd.isna(row.fact) or row.fact in session.state.fact_ids
    own = asked[asked["kind"] == "same subject"]
    assert (own["prompt"] == "The language of France is").sum() == 1
    assert frame[["x", "y"]].notna().all().all()


def test_neutral_text_is_told_by_its_perplexity(session: Session) -> None:
    frame = session.what_else(budget=5)
    texts = frame[frame["kind"] == "text"]
    assert len(texts)
    for row in texts.head(3).itertuples():
        chances = []
        for edited in (False, True):
            inputs = session.lm.encode([row.prompt])
            with session.hooked(edited), torch.no_grad():
                logits = session.lm.model(**inputs).logits[0, :-1].log_softmax(-1)
            nll = -logits.gather(1, inputs["input_ids"][0, 1:, None]).mean()
            chances.append(float((-nll).exp()))
        assert [row.p_before, row.p_after] == pytest.approx(chances, rel=1e-3)
        assert row.before == f"{1 / row.p_before:.1f}"
        assert row.kept == (abs(row.p_before / row.p_after - 1) < 0.01)


def test_a_budget_draws_of_each_kind_the_same_ones_again(session: Session) -> None:
    few, more = session.what_else(budget=8), session.what_else(budget=20)
    asked = [frame.loc[frame["kind"] != "text", "prompt"].tolist() for frame in (few, more)]
    assert [len(prompts) for prompts in asked] == [8, 20]
    assert "of" in few.attrs["sampled"]
    everything = questions(dict(enumerate(session.state.facts)), session.state.facts)
    assert drawn(everything, 10**6) == everything
    assert [one.prompt for one in drawn(everything, 9)] == [
        one.prompt for one in drawn(everything, 9)
    ]
    assert len({one.prompt for one in everything}) == len(everything)


def test_what_was_asked_is_kept_by_state_and_can_be_cancelled() -> None:
    session = session_of("match")
    steps: list[Progress] = []
    frame = session.what_else(budget=30, progress=steps.append)
    assert {step.stage for step in steps} == {"what else"}
    assert [step.step for step in steps] == sorted(step.step for step in steps)
    assert steps[-1].step < steps[-1].total
    steps.clear()
    pd.testing.assert_frame_equal(session.what_else(budget=30, progress=steps.append), frame)
    assert not steps
    session.undo()
    with pytest.raises(EditCancelled):
        session.what_else(budget=30, cancel=lambda: True)
    fewer = session.what_else(budget=30)
    assert fewer.loc[fewer["kind"] == "edit", "of"].tolist() == [0]
    session.redo()
    steps.clear()
    session.what_else(budget=30, progress=steps.append)
    assert not steps


def test_what_cannot_be_asked_is_said() -> None:
    session = session_of("match")
    for words, ask in {
        "fact 7 is not in force": lambda: session.what_else([7]),
        "fact_ids is empty": lambda: session.what_else([]),
        "budget is 0": lambda: session.what_else(budget=0),
        "budget is None": lambda: session.what_else(budget=None),
    }.items():
        with pytest.raises(ValueError, match=words):
            ask()
    session.mute(0)
    with pytest.raises(ValueError, match="fact 0 is muted: unmute it"):
        session.what_else([0])
    session.go_to(0)
    with pytest.raises(ValueError, match="no fact is in force"):
        session.what_else()


def test_tally_and_headline_count_what_stayed() -> None:
    frame = pd.DataFrame(
        {
            "kind": ["edit", "same subject", "same subject", "neighbour", "text"],
            "kept": [False, True, False, True, True],
            "fired": [True, True, True, False, False],
            "p_before": [0.5] * 4 + [0.1],
            "p_after": [0.5] * 4 + [0.08],
        }
    )
    table = tally(frame)
    assert list(table.index) == ["edit", "same subject", "neighbour", "text"]
    assert table["kept"].tolist() == [0, 1, 1, 1]
    assert table["should"].tolist() == ["change", "stay", "stay", "stay"]
    assert headline(frame) == "same subject 1 of 2, neighbours 1 of 1, text perplexity +25.0 %"


@pytest.mark.parametrize("relation", ["", "capital", "P36", "geography"])
@pytest.mark.parametrize("prompt", ["The capital of {} is", "The capital city of {} is"])
def test_prompts_are_made_by_the_kind_of_relation(relation: str, prompt: str) -> None:
    france = Fact(prompt, "France", "Moscow", relation=relation)
    made = questions({3: france}, [france])
    by_kind = {kind: [one for one in made if one.kind == kind] for kind in KINDS}
    assert "The official language of France is" in [one.prompt for one in by_kind["same subject"]]
    assert france.text in [one.prompt for one in by_kind["edit"]]
    near = [one.prompt for one in by_kind["neighbour"]]
    capitals = [f for f in bundled_facts("capital") if f.subject != "France"]
    assert near[: len(capitals)] == [prompt.replace("{}", f.subject) for f in capitals]
    assert f"{capitals[0].subject}'s capital is" in near[len(capitals) :]
    assert not any("France" in one.prompt for one in (*by_kind["neighbour"], *by_kind["bundled"]))
    odd = Fact("Somebody gave {} a", "Zog", "red")
    generic = [one.prompt for one in questions({0: odd}, [odd]) if one.kind == "same subject"]
    assert "Zog is known for" in generic
    assert CHANGE[0] == "edit"


def test_one_fact_fills_a_budget_of_six_hundred() -> None:
    france = bundled_facts("capital")[0]
    everything = questions({0: france}, [france])
    assert len(drawn(everything, 600)) == 600
    kinds = [one.kind for one in drawn(everything, 600)]
    assert kinds.count("neighbour") > 50
    assert kinds.count("bundled") > 400
    assert not any("France" in one.prompt for one in everything if one.kind == "bundled")


@pytest.mark.parametrize("scope", ["match", "two-key"])
def test_what_no_hook_speaks_on_is_not_asked_again(scope: str, monkeypatch) -> None:
    if scope == "two-key":
        session = two_key_session()
        session.apply(two_key_facts()[:2])
    else:
        session = session_of("match", match_threshold=0.98)
    session.what_else(budget=10**6)  # what the unedited model says is known from now on
    session.mute(session.state.fact_ids[-1])
    rows: list[int] = []
    forward = session.lm.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(session.lm.model, "forward", counted)
    frame = session.what_else(budget=10**6)
    assert frame["fired"].sum() <= sum(rows) < len(frame)
    if scope == "match":
        assert frame["fired"].sum() == sum(rows)
    quiet = frame[~frame["fired"]]
    assert quiet["kept"].all()
    assert (quiet["p_before"] == quiet["p_after"]).mean() > 0.9


@pytest.mark.model
def test_on_the_default_model_two_keys_keep_what_the_subject_site_moves(lm) -> None:
    kept = {}
    france = next(fact for fact in bundled_facts("capital") if fact.subject == "France")
    for scope in ("match", "two-key"):
        session = Session(lm, EditConfig.for_model(lm, scope=scope))
        session.apply([france])
        frame = session.what_else(budget=40)
        assert (frame.loc[frame["kind"] == "same subject", "p_before"] >= SURE).all()
        table = tally(frame)
        assert table.loc["edit", "kept"] == 0
        assert frame.loc[frame["kind"] == "edit", "fact"].tolist() == [0]
        kept[scope] = table.loc["same subject", "kept"] / table.loc["same subject", "prompts"]
        assert table.loc["neighbour", "kept"] >= table.loc["neighbour", "prompts"] - 1
    assert kept["two-key"] == 1 > kept["match"]


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_the_map_has_a_dot_for_each_prompt(backend: str) -> None:
    frame = pd.DataFrame(
        {
            "kind": ["edit", "same subject", "same subject", "text"],
            "prompt": ["a", "<b>b</b>", "c", "d"],
            "before": ["x", "y", "z", "1.0"],
            "after": ["q", "y", "w", "1.0"],
            "kept": [False, True, False, True],
            "fired": [True, False, True, False],
            "x": [0.0, 1.0, 2.0, 3.0],
            "y": [1.0, 0.0, 1.0, 0.0],
        }
    )
    figure = figures.what_else(frame, backend=backend)
    if backend == "plotly":
        assert [trace.name for trace in figure.data] == ["edit", "same subject", "text"]
        assert list(figure.data[1].x) == [1.0, 2.0]
        assert list(figure.data[1].marker.color) == [BEFORE, AFTER]
        assert list(figure.data[1].marker.line.width) == [0.0, 1.6]
        assert "<b>b" not in figure.to_json()
    else:
        [axes] = figure.axes
        assert [len(dots.get_offsets()) for dots in axes.collections] == [1, 2, 1]
        assert figure.svg()
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.what_else(frame.iloc[:0], backend=backend)
