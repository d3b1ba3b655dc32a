from __future__ import annotations

from html import unescape

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import LAYERS, tiny_facts, tiny_model, tiny_session

from coachhook_viz import Scope, figures
from coachhook_viz.figures.style import IN_SCOPE, literal, visible

EVIL = ["<b>bold</b>", "$x^2$", "&lt;", "$", "\u202eright to left", "日本", "{0}", "%s"]


def scope_of(kind: str = "zscore", tokens: tuple[str, ...] = ("\n", "The", " city")) -> Scope:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, len(tokens), generator=generator, dtype=torch.float64)
    match = torch.rand(2, 3, len(tokens), generator=generator, dtype=torch.float64)
    scores = match.amax(1) if kind == "match" else z
    facts = tuple(tiny_facts()[:3])
    return Scope(
        "".join(tokens), tokens, (2, 5), facts, kind, z.abs(), z,
        torch.tensor([0.3, 0.4]), match, 0.5, scores >= 0.5, match,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["zscore", "match", "off"])
def test_scope_grid_shows_the_scores_and_frames_what_is_in_scope(kind: str) -> None:
    scope = scope_of(kind)
    expected = (scope.match.amax(1) if kind == "match" else scope.z).tolist()
    inside = scope.in_scope.tolist()
    figure = figures.scope(scope)
    [heat] = figure.data
    assert [list(row) for row in heat.z] == expected
    marked = [[cell.endswith(IN_SCOPE) for cell in row] for row in heat.text]
    assert marked == inside
    frames = {((s.x0 + s.x1) / 2, (s.y0 + s.y1) / 2) for s in figure.layout.shapes}
    wanted = {(x, y) for y, row in enumerate(inside) for x, hit in enumerate(row) if hit}
    assert frames == wanted
    assert list(figure.layout.xaxis.ticktext) == ["↵", "The", "·city"]
    assert figure.layout.yaxis.ticktext[1].startswith("layer 5")

    axes = figures.scope(scope, backend="matplotlib").axes[0]
    [mesh] = axes.collections
    assert mesh.get_array().reshape(len(expected), -1).tolist() == expected
    frames = {(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height() / 2) for p in axes.patches}
    assert frames == {(x + 0.5, y + 0.5) for x, y in wanted}
    assert [t.get_text() for t in axes.get_xticklabels()] == ["↵", "The", "·city"]


def test_scope_grid_names_thresholds_and_ceiling() -> None:
    for backend in ("plotly", "matplotlib"):
        texts = texts_of(figures.scope(scope_of(), backend=backend))
        assert any("α 0.30" in text for text in texts)
        assert any("highest possible with 3 tokens: 1.15" in text for text in texts)
        match = texts_of(figures.scope(scope_of("match"), backend=backend))
        assert any("τ 0.50" in text for text in match)
        assert not any("highest possible" in text for text in match)


def texts_of(figure) -> list[str]:
    if hasattr(figure, "layout"):
        layout = figure.layout
        return [
            *layout.yaxis.ticktext, layout.xaxis.title.text, layout.title.text
        ]  # fmt: skip
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    return [*labels, axes.get_xlabel().replace("\n", " "), axes.get_title(loc="left")]


def test_scope_grid_of_a_real_reading_and_before_any_round() -> None:
    session = tiny_session(tiny_model(lead="He "))
    for _ in range(2):
        reading = session.scope(tiny_facts()[0].text)
        for backend in ("plotly", "matplotlib"):
            assert figures.scope(reading, backend=backend) is not None
        session.apply(tiny_facts()[:1])
    assert len(reading.layers) == len(LAYERS)


BEFORE = pd.DataFrame({"token": [" Paris", " Lyon"], "probability": [0.5, 0.2]})
AFTER = pd.DataFrame({"token": [" Rome", " Paris"], "probability": [0.9, 0.05]})


def test_answers_pair_each_token_before_and_after() -> None:
    figure = figures.answers(BEFORE, AFTER, "The city is")
    assert list(figure.layout.yaxis.ticktext) == ["·Rome", "·Paris", "·Lyon"]
    assert [trace.name for trace in figure.data] == ["before", "after"]
    assert list(figure.data[0].x) == [None, 0.5, 0.2]
    assert list(figure.data[1].x) == [0.9, 0.05, None]
    axes = figures.answers(BEFORE, AFTER, "The city is", backend="matplotlib").axes[0]
    before, after = axes.containers
    assert [bar.get_width() for bar in before] == [0, 0.5, 0.2]
    assert [bar.get_width() for bar in after] == [0.9, 0.05, 0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["·Rome", "·Paris", "·Lyon"]


def test_tokens_that_read_the_same_are_added_up() -> None:
    twice = pd.DataFrame({"token": ["Paris", "Paris"], "probability": [0.5, 0.1]})
    figure = figures.answers(twice, AFTER, "x")
    assert figure.data[0].x[list(figure.layout.yaxis.ticktext).index("Paris")] == 0.6


def test_plotly_is_given_only_entities_that_it_knows() -> None:
    assert literal("He said \"Paris\" & 'Rome' <b> $x$") == (
        "He said \"Paris\" &amp; 'Rome' &lt;b&gt; &#36;x&#36;"
    )


def test_a_very_long_prompt_can_still_be_drawn() -> None:
    picture = figures.scope(scope_of(tokens=(" a",) * 900), backend="matplotlib")
    assert picture.get_size_inches()[0] * 144 < 2**16


def test_quality_draws_the_mean_of_each_metric_by_round() -> None:
    frame = pd.DataFrame(
        [
            (0, 1, "reliability", 1.0),
            (1, 1, "reliability", 0.5),
            (0, 2, "reliability", 0.0),
            (0, 1, "locality", 0.25),
        ],
        columns=["fact", "round", "metric", "value"],
    )
    figure = figures.quality(frame)
    drawn = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
    assert drawn["reliability"] == {1: 0.75, 2: 0.0}
    assert drawn["locality"][1] == 0.25
    axes = figures.quality(frame, backend="matplotlib").axes[0]
    lines = [line.get_xydata().tolist() for line in axes.lines if len(line.get_xydata())]
    assert [[1, 0.75], [2, 0.0]] in lines
    assert [[1, 0.25]] in lines
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.quality(frame[:0])


@pytest.mark.parametrize("text", EVIL)
def test_text_stays_text(text: str) -> None:
    shown = scope_of(tokens=(text, " a", "b"))
    figure = figures.scope(shown)
    assert unescape(figure.layout.xaxis.ticktext[0]) == visible(text)
    for raw in (figure.layout.xaxis.ticktext[0], figure.layout.title.text):
        assert "<" not in raw
        assert "$" not in raw
    svg = figures.scope(shown, backend="matplotlib").svg()
    assert "<b>" not in svg
    frame = pd.DataFrame({"token": [text], "probability": [1.0]})
    assert "<b>" not in figures.answers(frame, frame, text, backend="matplotlib").svg()
    assert "<" not in figures.answers(frame, frame, text).layout.title.text


def test_pictures_show_themselves_in_a_notebook() -> None:
    picture = figures.answers(BEFORE, AFTER, "x", backend="matplotlib")
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture = figures.answers(BEFORE, AFTER, "x", backend="matplotlib")
    assert picture.svg() == figures.answers(BEFORE, AFTER, "x", backend="matplotlib").svg()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.scope(scope_of(), backend="ascii"),
        lambda: figures.answers(BEFORE, AFTER, "x", backend="ascii"),
        lambda: figures.quality(pd.DataFrame(), backend="ascii"),
    ],
)
def test_unknown_backend(draw) -> None:
    with pytest.raises(ValueError, match="use 'plotly' or 'matplotlib'"):
        draw()


@given(st.text(max_size=8))
def test_visible_tokens_are_one_printable_line(token: str) -> None:
    assert visible(token).isprintable()
    assert "\n" not in visible(token)
    assert unescape(literal(token)) == token.replace("\r", "\r")


def test_visible_marks_white_space() -> None:
    assert visible("  a b\n\t") == "··a b↵⇥"
    assert visible("\x00\u202e") == "\\u0000\\u202e"
