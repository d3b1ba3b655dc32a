from __future__ import annotations

import time

import pandas as pd
import pytest
import torch
from tiny import FAMILIES, tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, Session, figures
from coachhook_viz.editing.hooks import attached
from coachhook_viz.measure.about import about, stands


@pytest.fixture
def session() -> Session:
    session = tiny_session(tiny_model(bos=True), scope="match", steps=20, clamp_factor=4.0)
    session.apply(tiny_facts()[:2])
    return session


def shares(session: Session, prompt: str, edited: bool) -> torch.Tensor:
    with session.hooked(edited), torch.no_grad():
        logits = session.lm.model(**session.lm.encode([prompt])).logits
    return logits[0, -1].softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_block_says_what_the_model_says(family: str) -> None:
    session = tiny_session(tiny_model(family, bos=True), scope="match")
    session.apply(tiny_facts()[:2])
    fact = tiny_facts()[0]
    frame = session.lens(fact.text, ("Rome", "Paris", "guitar"))
    last = frame[frame["block"] == session.lm.n_layers - 1]
    assert len(frame) == 2 * 3 * session.lm.n_layers
    for line in last.itertuples():
        said = shares(session, fact.text, line.edited)
        token = session.lm.tokenizer.convert_tokens_to_ids(line.answer)
        assert line.probability == pytest.approx(float(said[token]), rel=1e-4)
        assert line.rank == 1 + int((said > said[token]).sum())
    assert set(frame.loc[frame["hooked"], "block"]) == set(session.config.layers)


def test_each_block_is_read_through_norm_and_head(session: Session) -> None:
    lm, prompt = session.lm, tiny_facts()[0].text
    with session.hooked(), torch.no_grad():
        states = lm.model(**lm.encode([prompt]), output_hidden_states=True).hidden_states
        read = [lm.model.lm_head(lm.model.model.norm(h[0, -1])).softmax(-1) for h in states[1:-1]]
    token = lm.tokenizer.convert_tokens_to_ids("Rome")
    frame = session.lens(prompt, ("Rome",))
    found = frame[frame["edited"]]["probability"].tolist()[:-1]
    assert found == pytest.approx([float(p[token]) for p in read], rel=1e-4)


def test_a_layer_off_is_the_model_without_its_hook(session: Session) -> None:
    prompt, first = tiny_facts()[0].text, session.config.layers[0]
    frame = session.lens(prompt, ("Rome",), without=first)
    off = frame[frame["without"] == first].set_index("block")["probability"]
    on = frame[frame["edited"] & frame["without"].isna()].set_index("block")["probability"]
    before = frame[~frame["edited"]].set_index("block")["probability"]
    assert off[: first + 1].tolist() == before[: first + 1].tolist()
    assert off[session.lm.n_layers - 1] != on[session.lm.n_layers - 1]
    hooks = {at: h for at, h in session.state.hook_layers(session.lm.dtype).items() if at != first}
    with attached(session.lm, hooks), torch.no_grad():
        logits = session.lm.model(**session.lm.encode([prompt])).logits
    token = session.lm.tokenizer.convert_tokens_to_ids("Rome")
    said = float(logits[0, -1].softmax(-1)[token])
    assert off[session.lm.n_layers - 1] == pytest.approx(said, rel=1e-4)


def test_it_reads_at_any_token(session: Session) -> None:
    prompt = tiny_facts()[0].text
    whole = session.lm.token_ids(prompt)
    short = session.lm.tokenizer.decode(whole[1:4])
    assert session.lm.token_ids(short) == whole[:4]
    inside = session.lens(prompt, ("Rome",), token=3)
    alone = session.lens(short, ("Rome",))
    pd.testing.assert_frame_equal(inside, alone, rtol=1e-4)


def test_truth_and_target_are_the_default(session: Session) -> None:
    fact = tiny_facts()[0]
    wanted = [*filter(None, [fact.truth]), fact.target]
    assert list(session.lens(fact.text)["answer"].unique()) == wanted
    assert list(session.edited_model().lens(f"and {fact.subject}")["answer"].unique()) == wanted


def test_what_cannot_be_read_is_said(session: Session) -> None:
    prompt, subject = tiny_facts()[0].text, tiny_facts()[0].subject
    for words, ask in {
        "no subject of a fact in force": lambda: session.lens("The river is"),
        "no fact is in force": lambda: session.lens(prompt, state=session.state_at(0)),
        "has no token": lambda: session.lens(prompt, (" ",)),
        "give several": lambda: session.lens(prompt, "Rome"),
        "one or more": lambda: session.lens(prompt, ()),
        "not hooked": lambda: session.lens(prompt, without=0),
        "there is no token 40": lambda: session.lens(prompt, token=40),
        "the prompt has no token": lambda: tiny_session().lens("", ("Rome",)),
    }.items():
        with pytest.raises(ValueError, match=words):
            ask()
    session.mute(0)
    with pytest.raises(ValueError, match=f"“{subject} → .*” is muted"):
        session.lens(prompt)
    session.unmute(0)
    session.go_to(0)
    with pytest.raises(ValueError, match="is undone"):
        session.lens(prompt)


def test_a_prompt_is_about_the_fact_that_asks_just_this() -> None:
    capital = Fact(
        "The capital of {} is", "France", "Rome", paraphrases=("{} near".format("France"),)
    )
    language = Fact("The language of {} is", "France", "Latin")
    longer = Fact("The river of {} is", "New France", "Po")
    facts = [capital, language, longer]
    assert about("the capital of  France is", facts)[0] == 0
    assert about("France near", facts)[0] == 0
    assert about("Bread of France", facts) == [1, 0]
    assert about("Bread of New France", facts) == [2, 1, 0]
    assert about("Frances are", facts) == []
    assert about("FRANCE is near", facts) == [1, 0]
    two = [
        Fact("The capital of {} is", "France", "Moscow"),
        Fact("The official language of {} is", "France", "Russian"),
    ]
    assert about("What is the capital of France?", two) == [0, 1]
    assert about("The language spoken in France is", two) == [1, 0]
    assert about("The currency of France is the", two) == [1, 0]


@pytest.mark.parametrize(
    ("prompt", "subject", "named"),
    [
        ("中国的首都是", "中国", "中国"),  # no space tells where a word ends
        ("한국의 수도는", "한국", "한국"),
        ("Cafe\u0301  Roma is in", "Café Roma", "Cafe\u0301  Roma"),
        ("rome and ROME", "Rome", "ROME"),
        ("ROME and Rome and ROME", "Rome", "Rome"),
        ("Romeo is", "Rome", None),
        ("Rome is", "", None),
    ],
)
def test_a_subject_stands_where_its_words_do(prompt: str, subject: str, named: str | None) -> None:
    place = stands(prompt, subject)
    assert (place and prompt[slice(*place)]) == named
    assert about(prompt, [Fact("{} is", subject, "Lima")]) == [0] * (named is not None)


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_the_figure_draws_each_answer_before_and_after(session: Session, backend: str) -> None:
    prompt, layer = tiny_facts()[0].text, session.config.layers[1]
    frame = session.lens(prompt, ("Rome", "Paris"), without=layer)
    figure = figures.lens(frame, prompt, backend=backend)
    names = [
        f"{a}, {w}"
        for w in ("before", "after", f"after without layer {layer}")
        for a in ("Rome", "Paris")
    ]
    if backend == "plotly":
        assert [trace.name for trace in figure.data] == names
        assert len(figure.layout.shapes) == len(session.config.layers)
        lines = {trace.name: list(trace.y) for trace in figure.data}
    else:
        [axes] = figure.axes
        lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    part = frame[(frame["answer"] == "Rome") & ~frame["edited"]]
    assert lines["Rome, before"] == part["probability"].tolist()
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.lens(frame.iloc[:0])


@pytest.mark.model
def test_on_the_default_model_the_answer_flips_after_the_hooks(lm) -> None:
    session = Session(lm)
    fact = Fact("The capital of {} is", "France", "Moscow", "Paris")
    session.apply([fact])
    session.lens(fact.text)
    started = time.perf_counter()
    frame = session.lens(fact.text)
    assert time.perf_counter() - started < 2  # 0.5 s on an idle machine
    last = frame[frame["block"] == lm.n_layers - 1].set_index(["answer", "edited"])
    assert last.loc[("Paris", False), "rank"] == last.loc[("Moscow", True), "rank"] == 1
    assert last.loc[("Moscow", True), "probability"] > 0.9
    early = frame[frame["block"] < min(session.config.layers)]
    sides = [early[early["edited"] == edited]["probability"].tolist() for edited in (False, True)]
    assert sides[0] == sides[1]
