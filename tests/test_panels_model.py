"""The Model panel: it looks for settings at a click only, shows what was found, and hands it on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hands import HOSTILE, Hands, new_session, settle, submitted, texts
from test_guide import known, light
from tiny import tiny_facts

import coachhook_viz as cv
from coachhook_viz.editing import guided
from coachhook_viz.panels import Model, Playground


@pytest.fixture(autouse=True)
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short one, on facts that the tiny model knows."""
    monkeypatch.setattr(guided, "guides_dir", lambda: tmp_path / "guides")

    def short(lm: cv.LanguageModel, **given: Any) -> cv.Guide:
        return cv.guide(lm, known(lm), budget=3, moments=light(lm), **given)

    monkeypatch.setattr("coachhook_viz.panels.model.guide", short)


def test_nothing_is_computed_before_a_click_and_then_all_is_shown(monkeypatch) -> None:
    panel = Model(new_session())
    titles = submitted(panel.desk, monkeypatch)
    assert "5 blocks" in panel.picture()
    assert "Press Find settings" in panel._grid.empty
    assert panel._use.hidden
    settle(panel)
    assert titles == []
    Hands(panel).press(panel._running.button)
    settle(panel)
    assert titles == ["looking for settings"]
    found = panel._found
    assert found is not None
    assert "All 5 blocks have passed the check. 3 settings tried" in panel._story.html
    assert len(panel._grid.cells) == len(found.frame) == 3
    assert sum("chosen" in text for text in texts(panel._grid)) == 1
    assert "data:image/png" in panel._picture.html
    assert "recovery" in panel._numbers.html
    assert "data:image/png" in panel.static()._repr_html_()
    compile(panel.code(), "code", "exec")
    assert Model(panel.session)._found is found  # a panel that is made anew


def test_the_settings_become_the_sessions_before_the_first_edit() -> None:
    session = new_session(scope="match", steps=3)
    panel = Model(session)
    panel.measure()
    settle(panel)
    config = panel._found.config
    assert not panel._use.disabled
    Hands(panel).press(panel._use)
    settle(panel)
    assert session.config.layers == config.layers
    assert session.config.steps == config.steps
    assert session.config.scope == "match"  # which is not the guide's to choose
    assert panel._use.disabled
    assert "The session has these settings" in panel._hint.html
    assert panel._alert.html == ""


def test_after_an_edit_they_are_not_offered_any_more() -> None:
    session = new_session()
    panel = Model(session)
    panel.measure()
    settle(panel)
    assert not panel._use.disabled
    session.apply(tiny_facts()[:1])
    assert panel._use.disabled
    assert "begin another session" in panel._hint.html
    before = session.config
    Hands(panel).press(panel._use)
    settle(panel)
    assert session.config == before


def test_the_settings_of_an_answer_session_bring_another_scope() -> None:
    session = new_session(scope="two-key", site="answer", layers=(3,), subject_layer=1)
    panel = Model(session)
    panel.measure()
    settle(panel)
    assert "the session then has the z-score scope" in panel._hint.html
    Hands(panel).press(panel._use)
    settle(panel)
    assert session.config == panel._found.config
    assert panel.desk.rule == "zscore"


def test_cancelled_it_shows_what_it_had_found(monkeypatch) -> None:
    panel = Model(new_session())
    begun, go_on = threading.Event(), threading.Event()
    worker = panel.desk.worker

    def held(job: Any, said: cv.Progress) -> None:
        if said.setting == "2 of 3":
            begun.set()
            assert go_on.wait(10)

    own = type(panel)._look
    monkeypatch.setattr(
        Model, "_look", lambda self, job: own(self, _Heard(job, lambda said: held(job, said)))
    )
    panel.measure()
    assert begun.wait(30)
    assert "setting 2 of 3" in panel._running.said.html
    Hands(panel).press(panel._running.cancel)
    go_on.set()
    settle(panel)
    assert worker.find(panel._running.key) is None
    assert len(panel._grid.cells) == 1
    assert "They are not kept" in panel._story.html


class _Heard:
    """A job whose progress is heard by somebody else, too."""

    def __init__(self, job: Any, hear: Any) -> None:
        self.cancel = job.cancel
        self._job, self._hear = job, hear

    def progress(self, said: cv.Progress) -> None:
        self._job.progress(said)
        self._hear(said)


def test_a_model_that_knows_no_fact_is_said_in_the_panel(monkeypatch) -> None:
    def fails(lm: cv.LanguageModel, **given: Any) -> cv.Guide:
        raise ValueError(f"{HOSTILE} knows none of these facts")

    monkeypatch.setattr("coachhook_viz.panels.model.guide", fails)
    panel = Model(new_session())
    panel.measure()
    settle(panel)
    assert "knows none of these facts" in panel._alert.html
    assert "<img" not in panel._alert.html


def test_what_the_session_does_leaves_a_search_alone() -> None:
    session = new_session()
    playground: Playground = cv.playground(session)
    playground.look_through("model")
    playground.model.measure()
    session.configure(steps=4)
    playground.look_through("scope")
    assert playground.wait(60)
    settle(playground.model)
    assert playground.model._found is not None
    playground.close()
