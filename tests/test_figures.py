from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from html import unescape
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook
from tiny import LAYERS, tiny_facts, tiny_model, tiny_session

from coachhook_viz import Fact, Scope, figures
from coachhook_viz.figures.style import AFTER as AFTER_COLOUR
from coachhook_viz.figures.style import IN_SCOPE, Look, literal, visible
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.measure.quality import readings

EVIL = ["<b>bold</b>", "$x^2$", "&lt;", "$", "\u202eright to left", "日本", "{0}", "%s"]

LIVE = "application/vnd.plotly.v1+json"


@contextmanager
def pio_renderer(name: str) -> Iterator[None]:
    """Plotly's default renderer is another one for a while."""
    before = pio.renderers.default
    pio.renderers.default = name
    yield
    pio.renderers.default = before


def scope_of(kind: str = "zscore", tokens: tuple[str, ...] = ("\n", "The", " city")) -> Scope:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, len(tokens), generator=generator, dtype=torch.float64)
    match = torch.rand(2, 3, len(tokens), generator=generator, dtype=torch.float64)
    scores = match.amax(1) if kind == "match" else z
    facts = tuple(tiny_facts()[:3])
    return Scope(
        "".join(tokens), tokens, (2, 5), facts, kind, z.abs(), z,
        torch.tensor([0.3, 0.4]), match, torch.full((2, 3), 0.5), scores >= 0.5, match,
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
    wanted = {(i, j) for i, row in enumerate(inside) for j, hit in enumerate(row) if hit}
    assert frames(figure) == wanted
    assert list(figure.layout.xaxis.ticktext) == ["↵", "The", "·city"]
    assert figure.layout.yaxis.ticktext[1].startswith("layer 5")

    picture = figures.scope(scope, backend="matplotlib")
    axes = picture.axes[0]
    [mesh] = axes.collections
    assert mesh.get_array().reshape(len(expected), -1).tolist() == expected
    assert frames(picture) == wanted
    assert [t.get_text() for t in axes.get_xticklabels()] == ["↵", "The", "·city"]


def test_scope_grid_names_thresholds_and_ceiling() -> None:
    for backend in ("plotly", "matplotlib"):
        text = shown(figures.scope(scope_of(), backend=backend))
        assert "α 0.30" in text
        assert "highest possible with 3 tokens: 1.15" in text
        match = shown(figures.scope(scope_of("match"), backend=backend))
        assert "τ 0.50" in match
        assert "highest possible" not in match


def test_scope_grid_of_a_long_prompt_marks_without_numbers() -> None:
    figure = figures.scope(scope_of(tokens=(" a",) * 16))
    assert {cell for row in figure.data[0].text for cell in row} == {"", f" {IN_SCOPE}"}


def test_scope_grid_of_a_real_reading_and_before_any_round() -> None:
    session = tiny_session(tiny_model(lead="He "))
    for fact in tiny_facts()[:2]:
        reading = session.scope(tiny_facts()[0].text)
        for backend in ("plotly", "matplotlib"):
            assert figures.scope(reading, backend=backend) is not None
        session.apply([fact])
    assert len(reading.layers) == len(LAYERS)


def test_line_breaks_of_a_prompt_are_marked() -> None:
    prompt = " Anna lives in\nOslo .\nBruno\tlives in\n"
    figure = figures.answers(BEFORE, AFTER, prompt)
    assert "“Anna lives in↵Oslo .↵Bruno⇥lives in↵”" in figure.layout.title.subtitle.text
    reading = tiny_session(tiny_model(lead="He ")).scope(prompt)
    assert "lives in↵Oslo .↵Bruno⇥" in figures.scope(reading).layout.title.subtitle.text


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


def test_a_live_figure_has_a_picture_of_itself_beside_plotlys_own() -> None:
    figure = figures.answers(BEFORE, AFTER, "<x>")
    assert isinstance(figure, go.Figure)
    with pio_renderer("plotly_mimetype"):
        bundle = figure._repr_mimebundle_()
    twin = figures.answers(BEFORE, AFTER, "<x>", backend="matplotlib")
    assert set(bundle) == {LIVE, "text/html"}
    assert len(bundle["text/html"]) < 100_000
    found = re.search(
        '^<img alt="(.*)" width="538" src="data:image/png;base64,(.*)">$', bundle["text/html"]
    )
    assert found[1] == "What the model says next “&lt;x&gt;”"
    assert b64decode(found[2]) == twin._repr_png_()
    assert go.Figure(figure).to_dict() == figure.to_dict() == deepcopy(figure).to_dict()


def test_where_plotly_opens_a_browser_no_picture_is_drawn() -> None:
    with pio_renderer("browser"):
        assert figures.answers(BEFORE, AFTER, "x")._repr_mimebundle_() == {}


@pytest.mark.notebook
def test_figures_of_the_default_backend_survive_in_a_page(session) -> None:
    tests = str(Path(__file__).parent)
    code = f"""
        import sys
        sys.path.insert(0, {tests!r})
        from tiny import tiny_facts, tiny_session
        from coachhook_viz import figures
        session = tiny_session()
        session.apply(tiny_facts()[:2])
        figures.quality(session.quality())
    """
    cells = [dedent(code), "figures.scope(session.scope(tiny_facts()[0].text)).show()"]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [output for cell in notebook.cells for output in cell.outputs if "data" in output]
    assert [set(output["data"]) for output in shown] == [{LIVE, "text/html"}] * 2
    page, _ = HTMLExporter().from_notebook_node(notebook)
    for output in shown:
        assert output["data"]["text/html"].startswith('<img alt="')
        [data] = re.findall('src="data:image/png;base64,(.*?)"', output["data"]["text/html"])
        assert data in page


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


def shown(figure) -> str:
    """All text of a figure."""
    if hasattr(figure, "layout"):
        layout = json.loads(figure.to_json())["layout"]
        text = str(layout) + str([trace.name for trace in figure.data])
        return unescape(text.replace("<br>", " "))
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def test_scope_grid_marks_the_subjects_last_token() -> None:
    marked = replace(scope_of(), subject_last=2)
    for backend in ("plotly", "matplotlib"):
        assert "·city ▲" in shown(figures.scope(marked, backend=backend))
        assert "▲: subject's last" in shown(figures.scope(marked, backend=backend))
        assert "▲" not in shown(figures.scope(scope_of(), backend=backend))


def frames(figure) -> set[tuple[int, int]]:
    """Row and column of each framed cell."""
    if hasattr(figure, "layout"):
        return {(s.y0 + 0.5, s.x0 + 0.5) for s in figure.layout.shapes}
    framed = [p for p in figure.axes[0].patches if not p.get_hatch()]
    return {(p.get_y(), p.get_x()) for p in framed}


HISTORY = pd.DataFrame(
    [
        (fact, edited, round_, metric, value + shift)
        for metric, shift in (("reliability", 0.0), ("generality", -0.5), ("locality", 0.0))
        for fact, edited, round_, value in [
            (4, 1, 1, 1.0),
            (4, 1, 2, 0.5),
            (4, 1, 3, 1.0),
            (5, 2, 2, 1.0),
            (5, 2, 3, 1.0),
            (7, 3, 3, 0.5),
        ]
    ],
    columns=["fact", "edited", "round", "metric", "value"],
)
GRID = [[1.0, 0.5, 1.0], [None, 1.0, 1.0], [None, None, 0.5]]


def cells(figure) -> list[list[list[float | None]]]:
    """Values of each heat map."""
    if hasattr(figure, "layout"):
        return [
            [[None if v is None else float(v) for v in row] for row in trace.z]
            for trace in figure.data
            if trace.type == "heatmap"
        ]
    drawn = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    grids = [np.ma.filled(axes.collections[0].get_array(), np.nan) for axes in drawn]
    return [[[None if np.isnan(v) else v for v in row] for row in grid.tolist()] for grid in grids]


def points(figure) -> dict[str, tuple[list[float], list[float]]]:
    """x and y of each named line."""
    if hasattr(figure, "layout"):
        lines = [t for t in figure.data if t.type == "scatter" and t.mode == "lines+markers"]
        return {line.name: (list(line.x), list(line.y)) for line in lines}
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


BOTH = pytest.mark.parametrize("backend", ["plotly", "matplotlib"])


@BOTH
def test_retention_has_a_cell_for_each_fact_and_round(backend) -> None:
    facts = {4: tiny_facts()[0]}
    figure = figures.retention(HISTORY, facts=facts, backend=backend)
    assert cells(figure) == [GRID]
    assert "Anna · 4" in shown(figure)
    assert frames(figure) == {(0, 1)}
    assert "hatched: not edited yet" in shown(figure)
    low = figures.retention(HISTORY, "generality", backend=backend)
    assert cells(low)[0][0] == [0.5, 0.0, 0.5]
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.retention(HISTORY, "target_rank", backend=backend)


@BOTH
def test_retention_frames_no_noise_and_no_tiny_cells(backend) -> None:
    noise = HISTORY.assign(value=HISTORY["value"].where(HISTORY["value"] > 0.5, 0.96))
    figure = figures.retention(noise, backend=backend)
    assert frames(figure) == set()
    assert "framed" not in shown(figure)
    many = pd.concat([HISTORY.assign(fact=HISTORY["fact"] + 10 * i) for i in range(20)])
    figure = figures.retention(many, backend=backend)
    assert len(cells(figure)[0]) == 60
    assert frames(figure) == set()
    assert "framed" not in shown(figure)


def test_numbers_stand_in_the_cells_while_they_are_few() -> None:
    [heat] = (t for t in figures.retention(HISTORY).data if t.type == "heatmap")
    assert [list(row) for row in heat.text] == [
        ["1.00", "0.50", "1.00"], ["", "1.00", "1.00"], ["", "", "0.50"]
    ]  # fmt: skip
    many = pd.concat([HISTORY.assign(fact=HISTORY["fact"] + 10 * i) for i in range(20)])
    assert figures.retention(many).data[0].text is None


@BOTH
def test_quality_has_a_band_for_each_metric_even_of_one_round(backend) -> None:
    figure = figures.quality(HISTORY[HISTORY["round"] == 1], backend=backend)
    if backend == "plotly":
        bands = [t for t in figure.data if t.fill == "toself"]
    else:
        bands = figure.axes[0].collections
    assert len(bands) == 3


def test_no_two_of_twelve_series_look_the_same() -> None:
    looks = [Look.of(i, hollow=True) for i in range(12)]
    assert len({(look.colour, look.face) for look in looks}) == 12
    assert len({(look.marker, look.symbol) for look in looks}) == 12
    assert AFTER_COLOUR not in {look.colour for look in looks}


@BOTH
def test_forgetting_curve_counts_facts_that_took(backend) -> None:
    figure = figures.forgetting_curve(HISTORY, backend=backend)
    [(x, y)] = points(figure).values()
    assert (x, y) == ([1, 2, 3], [0, 0.5, 0])
    assert "0 of 2 facts" in shown(figure)


@BOTH
def test_quality_lines_from_a_session_history(backend) -> None:
    found = points(figures.quality(HISTORY, backend=backend))
    assert found["reliability"] == ([1, 2, 3], pytest.approx([1, 0.75, 2.5 / 3]))


@pytest.fixture(scope="module")
def session():
    session = tiny_session(tiny_model(lead="He "))
    for start in (0, 2):
        session.apply(tiny_facts()[start : start + 2])
    return session


@BOTH
def test_weights_draw_norms_ranks_and_thresholds(session, backend) -> None:
    frame = session.drift()
    figure = figures.weights(frame, backend=backend)
    for metric, place in (("relative_norm", 0), ("effective_rank", 1), ("alpha", 2)):
        part = frame[(frame["metric"] == metric) & (frame["layer"] == LAYERS[1])]
        if backend == "plotly":
            lines = [t for t in figure.data if t.name == f"layer {LAYERS[1]}"]
            y = list(lines[place].y)
        else:
            y = figure.axes[place].get_lines()[1].get_ydata().tolist()
        assert y == part.sort_values("round")["value"].tolist()
    for text in ("‖ΔW‖ / ‖W₀‖", "effective rank of ΔW", "α", "rounds in force"):
        assert text in shown(figure)


@BOTH
def test_shift_draws_the_median_text_and_the_perplexity(session, backend) -> None:
    frame = session.drift()
    found = points(figures.shift(frame, backend=backend))
    last = frame[(frame["metric"] == "shift") & (frame["layer"] == LAYERS[-1])]
    medians = last.groupby("round")["value"].median().tolist()
    assert found[f"output of block {LAYERS[-1]}"] == ([0, 1, 2], pytest.approx(medians))
    perplexity = frame[frame["metric"] == "perplexity"]["value"].tolist()
    assert found["perplexity"] == ([0, 1, 2], perplexity)


@BOTH
def test_interference_draws_predicted_beside_actual(session, backend) -> None:
    frame = session.interference()
    figure = figures.interference(frame, session.facts, backend=backend)
    means = frame.groupby(["fact", "by"])[["predicted", "actual"]].mean().clip(lower=1e-3)
    for found, side in zip(cells(figure), ("predicted", "actual"), strict=True):
        expected = means[side].unstack().to_numpy()
        expected = np.log10(expected) if backend == "plotly" else expected
        assert np.array(found) == pytest.approx(expected)
    rho = rank_correlation(frame)["rho"].iloc[-1]
    assert f"ρ = {rho:.2f}" in shown(figure)
    assert "Predicted before editing" in shown(figure)
    one = frame[frame["layer"] == LAYERS[0]]
    alone = figures.interference(frame, layer=LAYERS[0], backend=backend)
    assert cells(alone) == cells(figures.interference(one, backend=backend))


@BOTH
def test_contributions_are_facts_by_tokens(session, backend) -> None:
    scope = session.scope(tiny_facts()[0].text)
    figure = figures.contributions(scope, backend=backend)
    expected = scope.contributions.sum(0).clamp(min=0).numpy()
    assert np.array(cells(figure)[0]) == pytest.approx(expected)
    assert f"{tiny_facts()[0].subject} → {tiny_facts()[0].target}" in shown(figure)
    one = figures.contributions(scope, layer=LAYERS[1], backend=backend)
    assert np.array(cells(one)[0]) == pytest.approx(scope.contributions[1].clamp(min=0).numpy())
    with pytest.raises(ValueError, match="layer 0 is not hooked"):
        figures.contributions(scope, layer=0, backend=backend)
    with pytest.raises(ValueError, match="no fact is in force"):
        figures.contributions(tiny_session().scope("Anna lives"), backend=backend)


def test_contributions_of_many_facts_share_a_row(session) -> None:
    few = session.scope(tiny_facts()[0].text)
    terms = few.contributions.repeat(1, 8, 1)
    many = replace(few, facts=few.facts * 8, contributions=terms)
    [grid] = cells(figures.contributions(many))
    assert len(grid) == 21
    assert "12 other facts" in shown(figures.contributions(many))


@BOTH
def test_comparison_has_a_point_for_each_setting_and_metric(backend) -> None:
    frame = pd.concat(
        [readings(HISTORY).assign(setting=name) for name in ("z-score", "<b>match</b>")]
    )
    figure = figures.comparison(frame, backend=backend)
    means = [
        readings(HISTORY).set_index(["reading", "metric"])["mean"]["end"][metric]
        for metric in ("reliability", "generality", "locality")
    ]
    if backend == "plotly":
        assert [list(points.y) for points in figure.data] == [means, means]
    else:
        assert [list(line.get_ydata()) for line in figure.axes[0].get_lines()] == [means, means]
    assert f"{means[1]:.2f}" in shown(figure)
    assert "z-score" in shown(figure)
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.comparison(frame, "never", backend=backend)


@BOTH
def test_an_empty_frame_and_another_backend_say_so(session, backend) -> None:
    empty = HISTORY.iloc[:0]
    for draw in (figures.retention, figures.forgetting_curve, figures.quality):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw(empty, backend=backend)
    for draw, frame in (
        (figures.retention, HISTORY),
        (figures.weights, session.drift()),
        (figures.interference, session.interference()),
    ):
        with pytest.raises(ValueError, match="backend is 'svg'"):
            draw(frame, backend="svg")


@pytest.mark.parametrize("text", EVIL)
def test_names_of_facts_are_drawn_as_text(text: str) -> None:
    facts = {4: Fact("{} is", text, "x"), 5: Fact("{} is", "a" * 300, "x")}
    for backend in ("plotly", "matplotlib"):
        figure = figures.retention(HISTORY, facts=facts, backend=backend)
        if backend == "plotly":
            assert figure.layout.yaxis.ticktext[0] == literal(f"{text} · 4")
            assert "<b>" not in figure.to_json()
        else:
            assert f"{text} · 4" in shown(figure)
            assert figure.svg()
        assert "a" * 100 not in shown(figure)


def compared(names: tuple[str, ...] = ("MEMIT", "<b>ROME</b>")) -> pd.DataFrame:
    """Two rounds of two facts under each setting, as `compare` gives them."""
    rows = []
    for i, name in enumerate(names):
        for round_ in range(3):
            rows.append((name, round_, None, "perplexity", 10.0 + i * round_))
            rows.append((name, round_, None, "norm", 0.1 * i * round_))
            for fact in range(2 * round_):
                rows.append((name, round_, fact, "reliability", 1 - 0.1 * fact * (round_ - 1)))
                rows.append((name, round_, fact, "locality", 0.75 - 0.25 * i))
    frame = pd.DataFrame(rows, columns=["setting", "round", "fact", "metric", "value"])
    return frame.astype({"fact": "Int64"})


@BOTH
def test_settings_over_rounds_have_a_line_for_each_setting(backend) -> None:
    figure = figures.settings_over_rounds(compared(), backend=backend)
    if backend == "plotly":
        lines = [(list(line.x), list(line.y)) for line in figure.data]
        assert [line.showlegend for line in figure.data] == [True, True] + [False] * 6
    else:
        lines = [
            (list(line.get_xdata()), list(line.get_ydata()))
            for axes in figure.axes
            for line in axes.get_lines()
        ]
    retention, again, locality, other, perplexity, _, _, norm = lines
    assert retention == again == ([2.0], [pytest.approx(0.95)])  # facts 0 and 1 after round 2
    assert (locality, other) == (([1.0, 2.0], [0.75, 0.75]), ([1.0, 2.0], [0.5, 0.5]))
    assert perplexity == ([0.0, 1.0, 2.0], [10.0, 10.0, 10.0])
    assert norm == ([0.0, 1.0, 2.0], pytest.approx([0.0, 0.1, 0.2]))
    assert "MEMIT" in shown(figure)
    with pytest.raises(ValueError, match="there is no metric 'speed'"):
        figures.settings_over_rounds(compared(), ["speed"], backend=backend)
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.settings_over_rounds(compared(), ["generality"], backend=backend)
    with pytest.raises(ValueError, match="backend is 'svg'"):
        figures.settings_over_rounds(compared(), backend="svg")


@BOTH
def test_damage_has_a_point_for_each_setting(backend) -> None:
    names = tuple(f"setting {i}" for i in range(9))
    figure = figures.damage(compared(names), backend=backend)
    if backend == "plotly":
        points = [(point.x[0], point.y[0]) for point in figure.data]
        assert [point.showlegend for point in figure.data] == [True] * 9 + [False] * 9
    else:
        points = [
            (line.get_xdata()[0], line.get_ydata()[0])
            for axes in figure.axes
            for line in axes.get_lines()
        ]
    success = pytest.approx(1 - 0.1 * (0 + 1 + 2 + 3) / 4)
    for i, (x, y) in enumerate(points):
        assert x == success
        wanted = 0.25 + 0.25 * i if i < 9 else (10 + 2 * (i - 9)) / 10
        assert y == pytest.approx(wanted)
    assert "setting 8" in shown(figure)
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.damage(compared().iloc[:0], backend=backend)
    with pytest.raises(ValueError, match="backend is 'svg'"):
        figures.damage(compared(), backend="svg")
