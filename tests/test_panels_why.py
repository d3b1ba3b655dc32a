from __future__ import annotations

from pathlib import Path

import pytest
from hands import HOSTILE, STRONG, Hands, new_session, settle, texts, whole
from tiny import tiny_facts

from coachhook_viz import EditConfig, Session
from coachhook_viz.measure.why import Action
from coachhook_viz.panels import Ask, Drift, Facts, Interference, Playground, Why
from coachhook_viz.panels.desk import Desk

PROMPT = tiny_facts()[0].text


def edited(**changes: object) -> Session:
    session = new_session(scope="match", **{**STRONG, **changes})
    session.apply(tiny_facts()[:2])
    return session


def asked_why(session: Session) -> Playground:
    """A playground that was asked why of a prompt."""
    playground = Playground(session)
    whole(playground)
    playground.look_through("why")
    playground.why.look(PROMPT)
    settle(playground.why)
    return playground


def test_it_shows_the_gates_and_what_mends_the_broken_one() -> None:
    session = edited()
    panel = Why(session, PROMPT)
    settle(panel)
    found = session.why(PROMPT)
    assert texts(panel._gates, 4) == [gate.said for gate in found.gates]
    assert found.sentence in panel._sentence.html.replace("&#39;", "'")
    assert eval(panel.code(), {"session": session}).gates == found.gates  # noqa: S307
    session.mute(0)
    settle(panel)
    assert "is muted: unmute it" in panel._sentence.html
    assert not panel._act.hidden
    Hands(panel).press(panel._act)
    settle(panel)
    assert not session.muted
    assert session.why(PROMPT).sentence in panel._sentence.html


def test_a_wording_is_staged_and_another_scope_is_looked_at() -> None:
    session = edited()
    panel = Why(session, PROMPT)
    settle(panel)
    found = session.why(PROMPT)
    object.__setattr__(found, "action", Action("wording", "x", "", 0, None, "{} lives"))
    panel._show(found)
    panel.mend()
    assert panel.desk.staged[0].wordings == ("{} lives",)
    object.__setattr__(found, "action", Action("scope", "x", "", scope="off"))
    panel.mend()
    assert panel.desk.rule == "off"
    object.__setattr__(found, "action", Action("mute", "x", "", 1))
    panel.mend()
    assert session.muted == {1}


@pytest.mark.filterwarnings("ignore:no settings are known")
def test_edit_again_with_two_keys_replaces_the_session_and_the_old_one_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path))
    session = edited()
    alone = Why(session, PROMPT)
    settle(alone)
    found = session.why(PROMPT)
    action = Action("two keys", "Edit again with two keys and this wording.", "", 0, None, "A {}")
    object.__setattr__(found, "action", action)
    alone._show(found)
    assert alone._act.hidden  # on its own it shows no other session
    alone.close()
    playground = asked_why(session)
    panel = playground.why
    panel._show(found)
    assert panel._act.label == "Edit again with two keys"
    staged = tuple(tiny_facts()[-1:])
    playground.desk.stage(staged, playground)
    before, old = session.state.key, playground.desk.autosave
    Hands(panel).press(panel._act)
    whole(playground)
    other = playground.session
    assert other is not session
    assert other.config == EditConfig.for_model(session.lm, scope="two-key")
    assert [fact.text for fact in other.state.facts] == [fact.text for fact in session.state.facts]
    assert other.state.facts[0].wordings[0] == "A {}"
    assert session.state.key == before
    assert playground.lens is playground.why
    assert playground.desk.selection.prompt == PROMPT
    assert playground.why._why.prompt == PROMPT
    assert playground.desk.staged == staged
    assert str(old.folder) in playground.bar._note.html.replace("&#39;", "'")
    assert playground.desk.autosave.folder != old.folder
    playground.load(old.folder)
    whole(playground)
    assert playground.session.config == session.config
    assert playground.session.state.facts == session.state.facts
    playground.close()


def test_two_keys_that_cannot_be_are_told_and_change_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path))
    session = edited()
    playground = asked_why(session)
    panel = playground.why
    found = session.why(PROMPT)
    bad = "no slot"  # a wording without {}
    object.__setattr__(found, "action", Action("two keys", "x", "", 0, None, bad))
    panel._show(found)
    panel.mend()
    whole(playground)
    assert playground.session is session
    assert "write exactly one" in panel._alert.html
    playground.close()


def test_with_the_hooks_off_it_says_that_they_are() -> None:
    panel = Why(edited(), PROMPT)
    settle(panel)
    panel.desk.judge(None, hooks=False)
    settle(panel)
    assert "The hooks are off" in panel._gates.empty
    assert not panel._gates.cells
    assert panel._act.hidden
    panel.desk.judge(None, hooks=True)
    settle(panel)
    assert len(panel._gates.cells) == 6


def test_hostile_text_stays_text_and_an_empty_prompt_says_what_comes() -> None:
    panel = Why(edited(), HOSTILE)
    settle(panel)
    assert "<img" not in panel.view.root.picture()
    assert "<img" not in panel.static()._repr_html_()
    panel.look(" ")
    settle(panel)
    assert "Type a prompt" in panel._gates.empty
    panel.look(PROMPT, HOSTILE)
    settle(panel)
    assert "<img" not in panel.view.root.picture()


def test_it_opens_from_facts_ask_and_cells() -> None:
    session = edited(learning_rate=0.01, steps=4)  # nothing takes
    playground = Playground(session)
    assert playground.wait(30)
    settle(*playground._panels)
    facts, ask = playground.facts, playground.ask
    assert isinstance(facts, Facts)
    assert isinstance(ask, Ask)
    missed = [line.key for line in facts._listing.shown.values() if line.kind == "missed"]
    Hands(facts).set(facts._list, chosen=missed[:1])
    assert not facts._why.hidden
    Hands(facts).press(facts._why)
    settle(*playground._panels)
    assert playground.lens is playground.why
    assert playground.why._why is not None
    playground.look_through("drift")
    settle(*playground._panels)
    drift = playground.drift
    assert isinstance(drift, Drift)
    Hands(drift).set(drift._metric, value="generality")
    Hands(drift).set(drift._grid, selected=[0, 0])
    settle(*playground._panels)
    fact = drift._retention.facts[drift._retention.ids[0]]
    assert Desk.of(session).selection.prompt in fact.paraphrases
    Hands(drift).press(drift._why)
    settle(*playground._panels)
    assert playground.lens is playground.why
    assert playground.why._why.prompt in fact.paraphrases
    assert playground.why._why.target == fact.target
    playground.look_through("interference")
    settle(*playground._panels)
    pairs = playground.interference
    assert isinstance(pairs, Interference)
    Hands(pairs).set(pairs._grids["actual"], selected=[0, 1])
    settle(*playground._panels)
    Hands(pairs).press(pairs._why)
    settle(*playground._panels)
    assert playground.lens is playground.why
    ask.ask("The old river is")
    settle(*playground._panels)
    playground.look_through("scope")
    Hands(ask).press(ask._why)
    settle(*playground._panels)
    assert playground.lens is playground.why
    assert playground.why._why.prompt == "The old river is"
    playground.close()
