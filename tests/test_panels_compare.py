"""The Compare panel without a browser: what it shows is what one public call gives."""

from __future__ import annotations

from typing import Any

import pytest
from test_panels_drift import HOSTILE, calls, settle, titles, two_rounds
from test_two_key import facts as worded
from test_two_key import two_key_session
from tiny import tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz import EditConfig, Session
from coachhook_viz.measure.quality import METRICS, readings
from coachhook_viz.panels.compare import Compare


@pytest.fixture
def session() -> Session:
    session = two_rounds()
    session.configure(steps=3)  # what is edited anew need not be edited well
    return session


def told(panel: Compare) -> list[list[str]]:
    return [[cell.get("text", "") for cell in line] for line in panel._grid.cells]


def expected(name: str, session: Session) -> list[str]:
    end = readings(session.quality())
    end = end[end["reading"] == "end"].set_index("metric")
    drift = session.drift()
    last = drift[(drift["metric"] == "perplexity") & (drift["round"] == session.position)]
    scores = ["{mean:.2f}  ({low:.2f}–{high:.2f})".format(**end.loc[metric]) for metric in METRICS]
    return [name, *scores, f"{last['value'].iloc[0]:.2f}"]


def test_each_setting_is_one_rerun_beside_the_session_as_it_is(
    session: Session, monkeypatch: Any
) -> None:
    panel = Compare(session)
    assert panel._running.button.disabled
    panel._boxes["match scope"].value = True
    panel._boxes["one single round"].value = True
    made = calls(session, monkeypatch, "rerun")
    panel._running.button.click()
    settle(panel)
    assert made == ["rerun", "rerun"]
    assert told(panel) == [
        expected("as it is", session),
        expected("match scope", session.rerun(scope="match")),
        expected("one single round", session.rerun(single_round=True)),
    ]
    drift = session.drift()
    unedited = drift[(drift["metric"] == "perplexity") & (drift["round"] == 0)]["value"].iloc[0]
    assert f"{unedited:.2f} before any edit" in panel._note.html
    assert "6 facts" in panel._note.html


def test_results_are_kept_until_the_rounds_change(session: Session, monkeypatch: Any) -> None:
    panel = Compare(session)
    panel._boxes["match scope"].value = True
    panel._running.button.click()
    settle(panel)
    made = calls(session, monkeypatch, "rerun", "quality")
    panel._boxes["no scope"].value = True
    panel._running.button.click()
    settle(panel)
    assert made == ["rerun"]
    assert [line[0] for line in told(panel)] == ["as it is", "match scope", "no scope"]
    session.undo()
    settle(panel)
    assert panel._grid.cells == []
    assert panel._note.hidden


def test_fields_take_other_numbers(session: Session) -> None:
    panel = Compare(session)
    assert panel._weight.placeholder == "3 as it is"
    panel._weight.value, panel._layers.value = " 90 ", "1, 2"
    assert panel._chosen() == {
        "covariance weight λ 90": {"covariance_weight": 90.0},
        "layers 1, 2": {"layers": (1, 2)},
    }
    panel._running.button.click()
    settle(panel)
    assert [line[0] for line in told(panel)] == [
        "as it is",
        "covariance weight λ 90",
        "layers 1, 2",
    ]
    assert "session.rerun(layers=(1, 2))" in panel.code()


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("_weight", "much", "'much' is not a number"),
        ("_layers", "1 to 3", "'1 to 3' are no layers: write numbers"),
        ("_weight", HOSTILE, "<img"),  # a field's error is set as text
    ],
)
def test_a_field_without_numbers_is_said_below_it(
    session: Session, field: str, text: str, said: str
) -> None:
    panel = Compare(session)
    getattr(panel, field).value = text
    panel._running.button.click()
    assert said in getattr(panel, field).error
    assert panel._running.job is None
    assert panel._grid.cells == []
    getattr(panel, field).value = ""
    assert getattr(panel, field).error == ""


def test_a_setting_that_does_not_fit_says_so_in_its_row(session: Session) -> None:
    panel = Compare(session)
    panel._layers.value = "99"
    panel._boxes["match scope"].value = True
    panel._running.button.click()
    settle(panel)
    lines = {line[0]: line for line in told(panel)}
    assert "99" in lines["layers 99"][1]
    assert lines["match scope"] == expected("match scope", session.rerun(scope="match"))


def test_cancel_stops_what_runs_and_what_waits(session: Session, monkeypatch: Any) -> None:
    panel = Compare(session)
    for name in ("match scope", "no scope", "one single round"):
        panel._boxes[name].value = True
    rerun, titles = session.rerun, []

    def slow(**kwargs: Any) -> Session:
        titles.append(panel.desk.worker.running.title)
        statuses = {line[0]: line[1] for line in told(panel)}
        assert statuses["match scope"] == "running"
        assert statuses["no scope"] == statuses["one single round"] == "waiting"
        panel._running.cancel.click()
        return rerun(**kwargs)

    monkeypatch.setattr(session, "rerun", slow)
    panel._running.button.click()
    settle(panel)
    assert titles == ["comparing 2 of 4, match scope"]
    assert told(panel)[0] == expected("as it is", session)
    assert [line[1] for line in told(panel)[1:]] == ["cancelled"] * 3
    assert not panel._running.button.disabled


def test_a_change_of_rounds_stops_a_comparison(session: Session, monkeypatch: Any) -> None:
    panel = Compare(session)
    panel._boxes["match scope"].value = True
    rerun = session.rerun

    def slow(**kwargs: Any) -> Session:
        session.undo()
        return rerun(**kwargs)

    monkeypatch.setattr(session, "rerun", slow)
    panel._running.button.click()
    settle(panel)
    assert panel._grid.cells == []


def test_the_settings_as_they_are_are_said() -> None:
    session = tiny_session(tiny_model(lead="He "))
    panel = Compare(session)
    session.configure(covariance_weight=45.0, layers=(1, 2))
    assert panel._weight.placeholder == "45 as it is"
    assert panel._layers.placeholder == "1, 2 as it is"
    assert panel._running.button.disabled


def test_the_present_rule_can_be_edited_anew_too(session: Session) -> None:
    panel = Compare(session)
    panel._boxes["z-score scope"].value = True
    panel._running.button.click()
    settle(panel)
    assert told(panel)[1] == expected("z-score scope", session.rerun())


def test_static_and_code_stand_for_what_is_shown(session: Session) -> None:
    panel = Compare(session)
    assert "Nothing compared" in panel.static()._repr_html_()
    panel._boxes["no scope"].value = True
    panel._running.button.click()
    settle(panel)
    page = panel.static()._repr_html_()
    assert "<img" in page
    assert "no scope" in page
    assert "<script" not in page
    names = {"session": session, "cv": cv}
    exec(panel.code(), names)  # noqa: S102
    assert names["other"].config.scope == "off"


def test_the_playground_shows_one_lens_at_a_time_and_the_others_catch_up(
    session: Session,
) -> None:
    playground = cv.playground(session)
    playground.look_through("drift")
    assert playground.wait(60)
    assert playground.drift._curves.figure is None
    assert len(playground.drift._grid.cells) == 6
    playground.look_through("interference")
    assert playground.wait(60)
    playground.interference._grids["actual"].selected = [4, 0]
    assert playground.desk.selection.prompt == session.facts[4].text
    playground.desk.select(None, round=2)
    assert playground.drift._grid.selected == []
    playground.look_through("drift")
    assert playground.drift._grid.selected == [4, 1]
    playground.close()


def test_a_comparison_makes_way_for_a_question(session: Session, monkeypatch: Any) -> None:
    panel = Compare(session)
    panel._boxes["match scope"].value = True
    rerun, seen = session.rerun, []

    def slow(**kwargs: Any) -> Session:
        seen.append("edit")
        if seen == ["edit"]:
            panel.desk.worker.submit("asking", lambda job: seen.append("ask"))
            assert kwargs["cancel"]()
            assert told(panel)[1][1] == "waiting"
        return rerun(**kwargs)

    monkeypatch.setattr(session, "rerun", slow)
    panel._running.button.click()
    settle(panel)
    assert seen == ["edit", "ask", "edit"]
    assert told(panel)[1] == expected("match scope", rerun(scope="match"))


@pytest.mark.filterwarnings("ignore:.*are a guess")
def test_beside_two_keys_stands_what_is_known_to_work_at_the_subject() -> None:
    session = two_key_session()
    session.apply(worded()[:1])
    panel = Compare(session)
    panel._boxes["match scope"].value = panel._boxes["one single round"].value = True
    panel._method.value, panel._scope.value = "memit", "match"
    chosen = panel._chosen()
    assert chosen.pop("one single round") == {"single_round": True}
    for name, changes in (
        ("match scope", {"scope": "match"}),
        ("MEMIT, match scope", {"scope": "match", "method": "memit"}),
    ):
        known = EditConfig.for_model(session.lm, **changes)
        assert session.config.changed(session.lm, **chosen.pop(name)) == known
    assert not chosen
    panel._running.button.click()
    settle(panel)
    assert [len(line) for line in told(panel)] == [5] * 4, told(panel)


def test_results_are_kept_by_state_and_settings(session: Session, monkeypatch: Any) -> None:
    panel = Compare(session)
    panel._boxes["no scope"].value = True
    panel._running.button.click()
    settle(panel)
    before, note = told(panel), panel._note.html
    asked = titles(panel, monkeypatch)
    session.undo()
    assert panel._grid.cells == []
    session.redo()
    assert told(panel) == before
    session.configure(steps=4)
    assert panel._grid.cells == []
    session.configure(steps=3)
    assert told(panel) == before
    other = Compare(session)
    other._boxes["no scope"].value = True
    other._running.button.click()
    assert told(other) == before
    assert other._note.html == note
    assert asked == []


def test_a_hidden_lens_reads_afterwards_what_has_changed(
    session: Session, monkeypatch: Any
) -> None:
    panel = Compare(session)
    panel._boxes["no scope"].value = True
    panel._running.button.click()
    settle(panel)
    panel.visible = False
    asked = titles(panel, monkeypatch)
    session.undo()
    settle(panel)
    assert len(panel._grid.cells) == 2
    panel.visible = True
    settle(panel)
    assert panel._grid.cells == []
    assert asked == []


def test_a_comparison_goes_on_unseen(session: Session, monkeypatch: Any) -> None:
    panel = Compare(session)
    panel._boxes["match scope"].value = True
    rerun = session.rerun

    def slow(**kwargs: Any) -> Session:
        panel.visible = False
        return rerun(**kwargs)

    monkeypatch.setattr(session, "rerun", slow)
    panel._running.button.click()
    settle(panel)
    assert len(panel._found) == 2


def test_an_empty_place_says_what_will_stand_there_and_why_it_is_empty(session: Session) -> None:
    panel = Compare(tiny_session(tiny_model(lead="He ")))
    assert "After you apply facts, each row here is a setting" in panel._grid.empty
    panel = Compare(session)
    assert "Choose settings and press Run" in panel._grid.empty
    session.go_to(0)
    assert "Before round 1: nothing to measure" in panel._grid.empty


def test_a_method_under_a_scope_is_one_rerun(session: Session) -> None:
    panel = Compare(session)
    assert panel._scope.hidden
    panel._method.value = "memit"
    assert not panel._scope.hidden
    assert [value for _, value in panel._scope.options] == ["off", "zscore", "match"]
    panel._scope.value = "match"
    panel._running.button.click()
    settle(panel)
    again = session.rerun(method="memit", scope="match")
    assert told(panel)[1] == expected("MEMIT, match scope", again)
    panel._method.value = "alphaedit"
    assert panel._scope.value == "off"
    panel._running.button.click()
    settle(panel)
    assert [line[0] for line in told(panel)] == [
        "as it is", "MEMIT, match scope", "AlphaEdit, no scope",
    ]  # fmt: skip
    assert "Null space of layer 1: 0 of 64 directions" in panel._note.html
    names = {"session": session, "cv": cv}
    exec(panel.code().split("\nother = session.rerun(method=cv.methods.AlphaEdit")[0], names)  # noqa: S102
    assert names["other"].config == again.config


@pytest.mark.filterwarnings("ignore:.*are a guess")
def test_two_keys_are_a_choice_of_coachhook_alone() -> None:
    session = two_key_session()
    session.apply(worded()[:1])
    at_subject = Compare(session.rerun(scope="match"))
    at_subject._method.value = "coachhook"
    scopes = [value for _, value in at_subject._scope.options]
    assert scopes == ["zscore", "match", "two-key", "off"]
    at_subject._scope.value = "two-key"
    (name,) = chosen = at_subject._chosen()
    assert name == "CoachHooK, two keys"
    known = EditConfig.for_model(session.lm, scope="two-key")
    assert at_subject.session.config.changed(session.lm, **chosen[name]) == known
    at_subject._running.button.click()
    settle(at_subject)
    assert told(at_subject)[1] == expected(name, at_subject.session.rerun(**chosen[name]))
    at_subject._method.value = "memit"
    assert "two-key" not in [value for _, value in at_subject._scope.options]


def test_a_method_that_edits_one_layer_gets_the_middle_one(session: Session) -> None:
    panel = Compare(session)
    panel._method.value = "rome"
    assert panel._chosen() == {
        "ROME, no scope": {"method": cv.methods.Rome(), "layers": (2,), "scope": "off"}
    }
    panel._running.button.click()
    settle(panel)
    with pytest.warns(cv.OneByOneWarning):
        again = session.rerun(method="rome", layers=(2,), scope="off")
    assert told(panel)[1] == expected("ROME, no scope", again)
