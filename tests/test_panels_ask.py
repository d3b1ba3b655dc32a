"""The Ask panel without a browser: both answers, what differs, and conversations."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hands import HOSTILE, STRONG, Hands, Held, kinds, new_session, nodes, settle, submitted, texts
from markupsafe import escape
from tiny import tiny_facts

from coachhook_viz import Session
from coachhook_viz.editing.progress import Progress
from coachhook_viz.panels import ask as asking
from coachhook_viz.panels import panel as module
from coachhook_viz.panels.ask import Ask
from coachhook_viz.panels.controls import Text
from coachhook_viz.panels.desk import Desk
from coachhook_viz.panels.scope import Scope
from coachhook_viz.panels.worker import Job

PROMPT = "The new language of Peru and of the old city near the river is"
TURN = 6
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}He is{% endif %}"
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOMENT", 0.01)


@pytest.fixture
def session() -> Session:
    session = new_session(scope="off", **STRONG)
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def ask(session: Session) -> Iterator[Ask]:
    ask = Ask(session, tiny_facts()[0].text)
    settle(ask)
    yield ask
    settle(ask)
    ask.close()


@pytest.fixture
def chat(session: Session, monkeypatch) -> Iterator[Ask]:
    monkeypatch.setattr(asking, "_TURN", TURN)  # the tiny model reads 64 tokens at most
    session.lm.tokenizer.chat_template = TEMPLATE
    ask = Ask(session)
    ask._mode.value = "chat"
    settle(ask)
    yield ask
    settle(ask)
    ask.close()
    session.lm.tokenizer.chat_template = None


def turns(text: Text) -> list[str]:
    """What was said, questions and answers, without the head."""
    lines = re.findall(r"<p class='cv-(?:turn|reply)'>(.*?)</p>", text.html, re.DOTALL)
    return [str(line) for line in lines]


def talk(session: Session, *asked: str, **how: Any) -> list[str]:
    messages: list[dict[str, str]] = []
    said: list[str] = []
    for turn in asked:
        messages.append({"role": "user", "content": turn})
        reply = session.chat(messages, TURN, **how)
        messages.append({"role": "assistant", "content": reply})
        said += [turn, str(escape(reply.strip())) or "(the model stops here)"]
    return said


@pytest.mark.parametrize("name", ["ask", "scope"])
def test_nothing_is_written_back_to_who_types(session: Session, name: str) -> None:
    panels = {"ask": Ask(session), "scope": Scope(session)}
    typed, other = panels[name], panels["scope" if name == "ask" else "ask"]
    settle(*panels.values())
    hands = Hands(typed)
    for stop in range(1, len(PROMPT) + 1):
        hands.type(typed._prompt, PROMPT[:stop])
        if stop % 7 == 0:  # the person rests, and the worker answers
            settle(*panels.values())
    session.undo()
    session.redo()
    settle(*panels.values())
    assert hands.written(typed._prompt) == []
    assert typed._prompt.value == other._prompt.value == PROMPT
    assert typed.desk.selection.prompt == PROMPT
    hands.type(typed._prompt, f"{PROMPT} x")
    hands.type(typed._prompt, PROMPT)  # taken back at once
    settle(*panels.values())
    assert hands.written(typed._prompt) == []
    assert typed.desk.selection.prompt == PROMPT
    for panel in panels.values():
        panel.close()


def test_enter_asks_at_once(ask: Ask) -> None:
    hands = Hands(ask)
    hands.type(ask._prompt, PROMPT)
    hands.enter(ask._prompt)
    assert ask.desk.selection.prompt == PROMPT


def test_both_answers_and_what_differs(ask: Ask) -> None:
    session, prompt = ask.session, tiny_facts()[0].text
    for bars, edited in zip(ask._bars, (False, True), strict=True):
        frame = session.predict(prompt, 4, edited=edited)
        assert texts(bars) == [f"{p:.2f}" for p in frame["probability"]]
        assert bars.rows == frame["token"].tolist()
        assert [line[0]["bar"] for line in bars.cells] == frame["probability"].tolist()
    before, after = (session.generate(prompt, 16, edited=edited) for edited in (False, True))
    assert before != after
    assert ask._said[0].html == f"… {before}"
    assert "<mark>" in ask._said[1].html
    assert re.sub("</?mark>", "", ask._said[1].html) == f"… {after}"


def test_bars_have_a_colour_only_where_something_differs(ask: Ask) -> None:
    assert set(kinds(ask._bars[0])) == {"before"}
    assert "after" in kinds(ask._bars[1])
    ask.session.undo()
    settle(ask)
    assert {*kinds(ask._bars[0]), *kinds(ask._bars[1])} == {"before"}
    assert "<mark>" not in ask._said[1].html
    ask.session.redo()
    ask.desk.judge(None, hooks=False)
    settle(ask)
    assert {*kinds(ask._bars[0]), *kinds(ask._bars[1])} == {"before"}


def test_where_the_model_stops_it_says_so(session: Session, monkeypatch) -> None:
    def silent(prompt: str, tokens: int, **how: Any) -> str:
        return "" if how["state"].facts else "red\n\nblue"

    monkeypatch.setattr(session, "generate", silent)
    ask = Ask(session, PROMPT)
    settle(ask)
    assert [said.html for said in ask._said] == ["… red ↵↵ blue", "(the model stops here)"]
    ask.close()


def test_the_head_tells_muted_from_no_round() -> None:
    session = new_session()
    ask = Ask(session, PROMPT)
    heads = [ask._heads[1].html]
    session.apply(tiny_facts()[:1])
    heads.append(ask._heads[1].html)
    session.mute(0)
    heads.append(ask._heads[1].html)
    session.undo()
    heads.append(ask._heads[1].html)
    settle(ask)
    assert heads == [
        "no round yet",
        "after round 1",
        "after round 1, the only fact muted",
        "before round 1",
    ]
    assert ask._heads[0].html == "before, with no hook"
    ask.close()


def test_the_prompts_of_the_selected_fact(ask: Ask) -> None:
    hands, fact = Hands(ask), tiny_facts()[1]
    assert ask._of_fact.hidden
    ask.desk.select(None, fact=1)
    assert not ask._of_fact.hidden
    listed = [*fact.paraphrases, *(n.prompt for n in fact.neighbors)]
    assert [value for _, value in ask._of_fact.options] == ["", fact.text, *listed]
    assert [text.partition(":")[0] for text, _ in ask._of_fact.options[1:]] == [
        "edit",
        "paraphrase",
        "neighbour",
        "neighbour",
    ]
    hands.set(ask._of_fact, value=listed[0])
    settle(ask)
    assert ask._prompt.value == ask.desk.selection.prompt == listed[0]
    assert ask._of_fact.value == ""
    ask.session.undo()  # the fact is undone, and still there
    assert not ask._of_fact.hidden


def test_no_prompt_says_what_will_stand_there(ask: Ask) -> None:
    hands = Hands(ask)
    hands.type(ask._prompt, "  ")
    settle(ask)
    assert [bars.cells for bars in ask._bars] == [[], []]
    assert "Type a prompt" in ask._bars[0].empty
    assert ask._said[1].html == ""
    hands.type(ask._prompt, PROMPT)
    hands.enter(ask._prompt)
    hands.type(ask._prompt, "")  # before the worker has an answer
    hands.enter(ask._prompt)
    settle(ask)
    assert "Type a prompt" in ask._bars[0].empty
    assert ask._said[1].html == ""
    assert ask._alert.html == ""


def test_a_prompt_that_is_too_long_is_said_until_it_is_not(ask: Ask) -> None:
    Hands(ask).type(ask._prompt, "red " * 80)
    settle(ask)
    assert "tokens" in ask._alert.html
    Hands(ask).type(ask._prompt, PROMPT)
    settle(ask)
    assert ask._alert.html == ""


def test_a_rule_changes_what_the_model_says(session: Session) -> None:
    ask = Ask(session, tiny_facts()[0].text)
    ask.desk.judge(None, "zscore")
    settle(ask)
    state = session.state.judged("zscore")
    assert texts(ask._bars[1]) == [
        f"{p:.2f}" for p in session.predict(tiny_facts()[0].text, 4, state=state)["probability"]
    ]
    assert session.config.scope == "off"
    ask.close()


def test_a_state_that_was_seen_costs_nothing(ask: Ask, monkeypatch) -> None:
    shown = [ask._said[1].html, texts(ask._bars[1])]
    titles = submitted(ask.desk, monkeypatch)
    ask.session.undo()
    settle(ask)
    assert titles == ["asking", "writing on"]
    ask.session.redo()
    settle(ask)
    ask.session.undo()
    ask.session.redo()
    settle(ask)
    assert titles == ["asking", "writing on"]
    assert [ask._said[1].html, texts(ask._bars[1])] == shown


def test_the_mode_is_offered_where_there_is_a_template(ask: Ask, session: Session) -> None:
    assert ask._mode.hidden
    session.lm.tokenizer.chat_template = TEMPLATE
    other = Ask(session)
    session.lm.tokenizer.chat_template = None
    assert not other._mode.hidden
    settle(other)
    other.close()


def test_a_conversation_of_several_turns_on_both_sides(chat: Ask) -> None:
    hands, session = Hands(chat), chat.session
    assert chat._completing.hidden
    assert not chat._chatting.hidden
    asked = ["Anna lives in the old city of", "red", "The river"]
    for number, turn in enumerate(asked, 1):
        hands.type(chat._turn, turn)
        hands.enter(chat._turn)
        assert hands.written(chat._turn)[-1] == {"over": turn, "value": ""}
        hands.enter(chat._turn)
        assert not chat._alert.html
        settle(chat)
        for side, edited in enumerate((False, True)):
            assert turns(chat._talk[side]) == talk(session, *asked[:number], edited=edited)
    assert turns(chat._talk[0]) != turns(chat._talk[1])
    assert "after round 1" in chat._talk[1].html


def test_what_was_answered_is_not_answered_again(chat: Ask, monkeypatch) -> None:
    made: list[int] = []
    say = chat.session.chat

    def counted(messages: Any, *args: Any, **kwargs: Any) -> str:
        made.append(len(messages))
        return say(messages, *args, **kwargs)

    monkeypatch.setattr(chat.session, "chat", counted)
    for turn in ("Anna", "red"):
        chat.send(turn)
        settle(chat)
    assert made == [1, 1, 3, 3]  # one answer a side, each in the whole conversation


def test_after_undo_the_same_questions_are_answered_anew(chat: Ask, monkeypatch) -> None:
    session, asked = chat.session, ["Anna lives in the old city of", "red"]
    for turn in asked:
        chat.send(turn)
        settle(chat)
    edited = turns(chat._talk[1])
    session.undo()
    settle(chat)
    assert turns(chat._talk[1]) == turns(chat._talk[0]) == talk(session, *asked, edited=False)
    assert "before round 1" in chat._talk[1].html
    titles = submitted(chat.desk, monkeypatch)
    session.redo()
    settle(chat)
    assert turns(chat._talk[1]) == edited
    assert titles == []


def test_a_new_chat_forgets_and_drops_what_is_being_answered(chat: Ask) -> None:
    hands = Hands(chat)
    chat.send("Anna")
    hands.press(chat._anew)
    settle(chat)
    assert turns(chat._talk[0]) == turns(chat._talk[1]) == []
    assert "Both answers will stand here" in chat._talk[0].html
    chat.send("red")
    settle(chat)
    assert turns(chat._talk[1]) == talk(chat.session, "red")


def test_several_messages_may_wait_and_an_empty_one_is_none(chat: Ask) -> None:
    hands = Hands(chat)
    hands.type(chat._turn, " ")
    hands.press(chat._speak)
    assert "Type a message first." in chat._alert.html
    for turn in ("Anna", "red"):
        hands.type(chat._turn, turn)
        hands.press(chat._speak)
    settle(chat)
    assert chat._alert.html == ""
    for side, edited in enumerate((False, True)):
        assert turns(chat._talk[side]) == talk(chat.session, "Anna", "red", edited=edited)


def test_of_several_that_wait_the_good_ones_are_answered(chat: Ask, monkeypatch) -> None:
    say = chat.session.chat

    def refusing(messages: Any, *args: Any, **kwargs: Any) -> str:
        if any(message["content"] == "bad" for message in messages):
            raise ValueError("the template does not take these messages")
        return say(messages, *args, **kwargs)

    monkeypatch.setattr(chat.session, "chat", refusing)
    with chat.desk.drawing:  # so that no answer comes between
        for turn in ("Anna", "red", "bad"):
            chat.send(turn)
    settle(chat)
    assert turns(chat._talk[1]) == talk(chat.session, "Anna", "red")
    assert "The template does not take" in chat._alert.html
    assert chat._turn.value == "bad"


def test_a_message_that_cannot_be_answered_is_said_and_taken_back(chat: Ask) -> None:
    hands = Hands(chat)
    chat.send("Anna")
    settle(chat)
    said = turns(chat._talk[1])
    hands.type(chat._turn, "red " * 80)
    hands.press(chat._speak)
    settle(chat)
    assert "tokens" in chat._alert.html
    assert turns(chat._talk[1]) == said
    assert chat._turn.value == "red " * 80  # to be shortened
    hands.type(chat._turn, "red")
    hands.press(chat._speak)
    settle(chat)
    assert chat._alert.html == ""
    assert turns(chat._talk[1])[:2] == said
    assert len(turns(chat._talk[1])) == 4


def test_while_one_chats_prompts_of_elsewhere_cost_nothing(chat: Ask, monkeypatch) -> None:
    titles = submitted(chat.desk, monkeypatch)
    chat.desk.select(None, prompt=PROMPT, fact=1)
    settle(chat)
    assert titles == []
    assert chat._of_fact.hidden
    chat._mode.value = "complete"
    settle(chat)
    assert titles == ["asking", "writing on"]
    assert chat._prompt.value == PROMPT
    assert not chat._of_fact.hidden


def test_what_is_shown_without_a_kernel_and_as_code(ask: Ask) -> None:
    shown = ask.static()._repr_html_()
    assert "<img" in shown
    assert "<script" not in shown
    assert tiny_facts()[0].text in shown
    names: dict[str, Any] = {"session": ask.session}
    exec(compile(ask.code(), "ask", "exec"), names)  # noqa: S102
    assert str(ask.session.predict(tiny_facts()[0].text, 4)["token"][0]).strip() in ask.picture()


def test_the_code_is_of_what_is_looked_at(ask: Ask) -> None:
    assert "state=" not in ask.code()
    ask.desk.judge(None, "match")
    assert ask.code().count(", state=session.state.judged(scope='match')") == 2
    names: dict[str, Any] = {"session": ask.session}
    exec(compile(ask.code(), "ask", "exec"), names)  # noqa: S102
    ask.desk.judge(None, hooks=False)
    assert ask.code().count(", edited=False") == 4


def test_an_old_answer_does_not_stand_under_another_prompt(ask: Ask, monkeypatch) -> None:
    held = Held(ask.session, monkeypatch)
    assert ask._bars[0].cells
    assert all(said.html for said in ask._said)
    ask.desk.applying.begin(tiny_facts()[2:3])
    held.wait()
    Hands(ask).type(ask._prompt, PROMPT)
    ask._timer.join(5)
    assert not any(bars.cells for bars in ask._bars)
    assert ask._bars[0].empty == "It waits for what runs now: editing 1 fact."
    assert ask._said[1].html == ""
    held.go.set()
    settle(ask)
    assert ask._bars[0].cells


def test_no_text_of_another_state_stands_beside_new_bars(ask: Ask, monkeypatch) -> None:
    write, seen, before = ask._write, [], ask._said[1].html

    def writing(*given: Any) -> str:
        seen.append(ask._said[1].html)
        return write(*given)

    monkeypatch.setattr(ask, "_write", writing)
    ask.session.undo()
    settle(ask)
    assert before not in seen
    assert seen[0] == "…"
    assert ask._said[1].html not in (before, "…")


def test_it_says_when_something_long_runs_first(ask: Ask) -> None:
    begun, go = threading.Event(), threading.Event()

    def long(job: Job) -> None:
        job.progress(Progress("trials", 0, 3))
        begun.set()
        assert go.wait(30)

    ask.desk.worker.submit("sweeping", long)
    assert begun.wait(30)
    Hands(ask).type(ask._prompt, PROMPT)
    ask._timer.join(5)
    assert not any(bars.cells for bars in ask._bars)
    assert ask._bars[0].empty == "It waits for what runs now: sweeping."
    go.set()
    settle(ask)
    assert ask._bars[0].cells


def test_the_code_of_a_conversation(chat: Ask) -> None:
    chat.send("Anna")
    settle(chat)
    chat.send("red")
    settle(chat)
    seen: list[Any] = []

    class Fake:
        def chat(self, messages: Any, tokens: int, edited: bool = True) -> None:
            assert tokens == TURN
            seen.append((messages, edited))

    exec(compile(chat.code(), "ask", "exec"), {"session": Fake()})  # noqa: S102
    assert [edited for _, edited in seen] == [False, True]
    for side, (messages, _) in enumerate(seen):
        assert [m["role"] for m in messages[:3]] == ["user", "assistant", "user"]
        assert messages[1]["content"] == chat._replies[side][0]
        assert messages[-1] == {"role": "user", "content": "red"}


@pytest.mark.parametrize("text", [HOSTILE, "x" * 10_000, "مرحبا 🙂", "two\nlines", "$x^2$ &amp;"])
def test_hostile_text_is_text(ask: Ask, text: str) -> None:
    hands = Hands(ask)
    hands.type(ask._prompt, text)
    settle(ask)
    for node in nodes(ask):
        if isinstance(node, Text):
            assert "<img" not in node.html
    compile(ask.code(), "ask", "exec")


def test_hostile_answers_and_turns_are_text(chat: Ask, monkeypatch) -> None:
    def hostile(*args: Any, stream: Any = None, **kwargs: Any) -> str:
        if stream is not None:
            stream(HOSTILE)
        return HOSTILE

    monkeypatch.setattr(chat.session, "chat", hostile)
    monkeypatch.setattr(chat.session, "generate", hostile)
    chat.send(HOSTILE)
    settle(chat)
    assert turns(chat._talk[1]) == [str(escape(HOSTILE))] * 2
    chat._mode.value = "complete"
    chat.ask("red")
    settle(chat)
    assert "&lt;img" in chat._said[0].html
    assert "<img" not in str(chat.picture())


def test_two_panels_on_one_session_share_the_prompt(session: Session) -> None:
    one, other = Ask(session, PROMPT), Ask(session)
    assert other._prompt.value == PROMPT
    assert Desk.of(session).selection.prompt == PROMPT
    one.ask("red")
    assert other._prompt.value == "red"
    settle(one, other)
    one.close()
    other.close()
