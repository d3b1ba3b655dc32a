from __future__ import annotations

import pandas as pd
import pytest
import torch
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import EditedModel, Session
from coachhook_viz.editing.progress import Watch


@pytest.fixture
def session() -> Session:
    session = tiny_session(
        tiny_model(bos=True), scope="match", steps=20, clamp_factor=4.0, covariance_weight=0.1
    )
    session.apply(tiny_facts()[:1])
    session.apply(tiny_facts()[1:2])
    return session


def test_it_says_what_the_session_says_at_each_position(session: Session) -> None:
    for position in (None, 0, 1, 2):
        edited, state = session.edited_model(position), session.state_at(position)
        assert isinstance(edited, EditedModel)
        assert edited.state.key == state.key
        for fact in tiny_facts()[:2]:
            pd.testing.assert_frame_equal(
                edited.predict(fact.text, 3), session.predict(fact.text, 3, state=state)
            )
            assert edited.generate(fact.text, 4) == session.generate(fact.text, 4, state=state)
            assert torch.equal(
                edited.scope(fact.text).in_scope, session.scope(fact.text, state=state).in_scope
            )
    assert "1 fact in force" in repr(session.edited_model(1))
    with pytest.raises(ValueError, match="no position 3"):
        session.edited_model(3)


def test_it_stays_what_it_is(session: Session) -> None:
    fact = tiny_facts()[0]
    edited, said = session.edited_model(), session.predict(fact.text)
    session.go_to(0)
    pd.testing.assert_frame_equal(edited.predict(fact.text), said)
    assert not session.predict(fact.text).equals(said)
    with edited.hooked(), torch.no_grad():
        inside = session.lm.model(**session.lm.encode([fact.text])).logits[0, -1].softmax(-1)
    assert float(inside.max()) == pytest.approx(said["probability"].iloc[0], rel=1e-5)


def test_unedited_and_a_state_are_not_asked_for_at_once(session: Session) -> None:
    prompt, state = tiny_facts()[0].text, session.state_at(1)
    for ask in (
        lambda: session.predict(prompt, edited=False, state=state),
        lambda: session.generate(prompt, edited=False, state=state),
        lambda: session.hooked(False, state),
        lambda: session.chat([{"role": "user", "content": "Anna"}], edited=False, state=state),
    ):
        with pytest.raises(ValueError, match="give only one"):
            ask()
    pd.testing.assert_frame_equal(
        session.predict(prompt, edited=True, state=state), session.predict(prompt, state=state)
    )


def test_what_is_measured_is_kept_by_the_whole_state(session: Session) -> None:
    measured, facts = session._measured, dict(enumerate(tiny_facts()[:2]))
    quiet = session.state.judged("match", 0.999999)
    loud = session.state.judged("off")
    found = [measured.score(s, facts, Watch())["value"].tolist() for s in (quiet, loud, quiet)]
    fresh = tiny_session(
        tiny_model(bos=True), scope="match", steps=20, clamp_factor=4.0, covariance_weight=0.1
    )
    assert found[1] == fresh._measured.score(loud, facts, Watch())["value"].tolist()
    assert found[0] == found[2] != found[1]
