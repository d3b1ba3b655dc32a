"""The Facts panel without a browser: typing, staging, rounds, and the list by identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hands import HOSTILE, Hands, Held, new_session, nodes, settle, submitted
from tiny import tiny_facts

import coachhook_viz as cv
from coachhook_viz import Fact, FactError, Neighbor, Probe, Session
from coachhook_viz.measure import answers
from coachhook_viz.panels import panel as module
from coachhook_viz.panels.controls import Text
from coachhook_viz.panels.facts import Facts

BARE = Fact("The river of {} is", "Peru", "red")
PROMPT = "The new language of Peru and of the old city near the river is not"


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOMENT", 0.01)


@pytest.fixture
def session() -> Session:
    session = new_session()
    session.apply(tiny_facts()[:2])
    return session


@pytest.fixture
def facts(session: Session) -> Iterator[Facts]:
    facts = Facts(session)
    settle(facts)
    yield facts
    settle(facts)
    facts.close()


@pytest.fixture
def hands(facts: Facts) -> Hands:
    return Hands(facts)


def fill(facts: Facts, hands: Hands, **typed: str) -> None:
    for name, text in typed.items():
        hands.type(facts._fields[name], text)
    settle(facts)


def keys(facts: Facts) -> list[str]:
    return [row["key"] for row in facts._list.rows]


def targets(facts: Facts) -> list[str]:
    return [row["target"].removeprefix("→\u00a0") for row in facts._list.rows]


def staged(facts: Facts, target: str) -> str:
    """Key of the staged row with that target."""
    (key,) = (
        row["key"]
        for row in facts._list.rows
        if row["kind"] == "staged" and row["target"].endswith(f"\u00a0{target}")
    )
    return str(key)


# What is typed


@pytest.mark.parametrize("name", ["prompt", "subject", "target", "truth", "paraphrases"])
def test_nothing_is_written_back_to_who_types(facts: Facts, hands: Hands, name: str) -> None:
    field = facts._fields[name]
    for stop in range(1, len(PROMPT) + 1, 3):
        hands.type(field, PROMPT[:stop])
        if stop % 5 == 0:
            settle(facts)
    hands.type(field, PROMPT)
    settle(facts)
    facts.session.undo()  # and whatever else happens meanwhile
    facts.session.redo()
    facts.stage([BARE])
    settle(facts)
    assert field.value == PROMPT
    assert hands.written(field) == []


def test_enter_stages_and_makes_room_for_the_next_fact(facts: Facts, hands: Hands) -> None:
    fill(facts, hands, prompt=BARE.prompt, subject=BARE.subject, target=BARE.target)
    hands.enter(facts._fields["target"])
    assert facts.desk.staged == (BARE,)
    assert facts.fact == Fact("", "", "")
    for name in ("prompt", "subject", "target"):
        (patch,) = hands.written(facts._fields[name])
        assert (patch["over"], patch["value"]) == (getattr(BARE, name), "")
    settle(facts)
    assert "Write {} where the subject goes" in facts._feedback.html


def test_it_says_what_the_model_says_now(facts: Facts, hands: Hands) -> None:
    fill(facts, hands, prompt=BARE.prompt, subject=BARE.subject)
    says = facts.session.predict(BARE.text, top=1)
    assert f"“{says['token'][0].strip()}”</b> ({says['probability'][0]:.2f})" in (
        facts._feedback.html
    )
    assert "last token “Peru”" in facts._feedback.html
    assert not any(field.error for field in facts._fields.values())


def test_it_says_it_again_when_something_else_is_in_force(facts: Facts, hands: Hands) -> None:
    facts.session.undo()
    fact = tiny_facts()[0]
    fill(facts, hands, prompt=fact.prompt, subject=fact.subject)
    before = facts._feedback.html
    facts.session.redo()
    settle(facts)
    assert facts._feedback.html != before
    assert "Round 1 edits the same question to “Oslo”." in facts._feedback.html


def test_where_a_short_prompt_would_lower_the_threshold_it_says_so(
    facts: Facts, hands: Hands
) -> None:
    fill(facts, hands, prompt="{} is", subject="Peru")
    scope = facts.session.scope("Peru is")
    assert scope.ceiling < float(scope.alpha.max())
    assert f"No z-score can exceed {scope.ceiling:.2f} here" in facts._feedback.html


def test_a_prompt_that_the_model_cannot_read_is_said_beside_the_form(
    facts: Facts, hands: Hands
) -> None:
    fill(facts, hands, prompt="{} is" + " red" * 80, subject="Peru")
    assert "token" in facts._feedback.html
    assert "✗" in facts._feedback.html
    fill(facts, hands, prompt=BARE.prompt)
    assert "✗" not in facts._feedback.html
    assert facts._alert.html == ""


def test_the_field_that_is_wrong_says_so_and_keeps_what_was_typed(
    facts: Facts, hands: Hands
) -> None:
    fill(facts, hands, prompt="The river is", subject="Peru")
    hands.press(facts._stage)
    assert "write exactly one" in facts._fields["prompt"].error
    assert "empty" in facts._fields["target"].error
    assert facts._fields["subject"].error == ""
    assert facts.desk.staged == ()
    hands.press(facts._now)
    settle(facts)
    assert len(facts.session.rounds) == 1
    assert (facts._fields["prompt"].value, facts._fields["subject"].value) == (
        "The river is",
        "Peru",
    )
    fill(facts, hands, prompt="The river of {} is", target="red")
    assert not any(field.error for field in facts._fields.values())


def test_a_sentence_that_names_the_subject_once_is_taken_as_it_is(
    facts: Facts, hands: Hands
) -> None:
    fill(facts, hands, prompt="The river of Peru is", subject="Peru", target="red")
    assert facts.fact == BARE
    assert "last token “Peru”" in facts._feedback.html
    hands.press(facts._stage)
    assert facts.desk.staged == (BARE,)


@pytest.mark.parametrize(
    ("sentence", "suggested"),
    [
        ("The river of Peru in Peru is", "The river of {} in Peru is"),
        ("Peru is old .\nThe river of Peru is", "{} is old .\nThe river of Peru is"),
        ("""Peru's "old" river , Peru's""", """{}'s "old" river , Peru's"""),
    ],
)
def test_a_suggestion_can_be_clicked(
    facts: Facts, hands: Hands, sentence: str, suggested: str
) -> None:
    fill(facts, hands, prompt=sentence, subject="Peru", target="red")
    assert "write exactly one" in facts._fields["prompt"].error
    assert facts._hints.options == [suggested]
    hands.pick(facts._hints, suggested)
    settle(facts)
    assert facts._fields["prompt"].value == suggested
    assert hands.written(facts._fields["prompt"]) == [{"over": sentence, "value": suggested}]
    assert facts._hints.options == []
    assert facts._fields["prompt"].error == ""


def test_all_that_a_fact_brings_along_goes_through_the_form(facts: Facts, hands: Hands) -> None:
    full = replace(
        tiny_facts()[2],
        prompt="He and {}\nlives in",
        truth="Rome",
        paraphrases=("{} .\nNear".replace("{}", "Carla"), "Carla\tis"),
        neighbors=(Neighbor("Emma is .\nShe is", "Lima"), Neighbor("Emma is a")),
    )
    facts.fill(full)
    assert facts.fact == full
    fill(facts, hands, truth="", paraphrases=" \nNear Carla is\n", neighbors="Emma is =>  Lima ")
    assert facts.fact == replace(
        full, truth=None, paraphrases=("Near Carla is",), neighbors=(Neighbor("Emma is", "Lima"),)
    )


# What is applied


def test_apply_now_is_one_round_with_that_fact_alone(facts: Facts, hands: Hands) -> None:
    facts.stage(tiny_facts()[3:5])
    fill(facts, hands, prompt=BARE.prompt, subject=BARE.subject, target=BARE.target)
    hands.press(facts._now)
    assert facts.fact == Fact("", "", "")
    settle(facts)
    assert [round_.facts for round_ in facts.session.rounds[1:]] == [(BARE,)]
    assert facts.desk.staged == tuple(tiny_facts()[3:5])
    assert (facts.desk.selection.fact, facts.desk.selection.prompt) == (2, BARE.text)
    assert facts._list.chosen == ["f2"]


def test_apply_writes_the_staged_facts_in_rounds_of_the_size_beside_it(
    facts: Facts, hands: Hands
) -> None:
    several = tiny_facts()[2:]
    facts.stage(several)
    assert facts._apply.label == "Apply 4"
    assert not facts._size.hidden
    hands.type(facts._size, "2")
    hands.press(facts._apply)
    settle(facts)
    assert [round_.facts for round_ in facts.session.rounds[1:]] == [
        tuple(several[:2]),
        tuple(several[2:]),
    ]
    assert facts._apply.hidden


def test_pause_leaves_the_rest_and_apply_goes_on(facts: Facts, hands: Hands, monkeypatch) -> None:
    held = Held(facts.session, monkeypatch)
    facts.stage(tiny_facts()[2:])
    hands.type(facts._size, "2")
    hands.press(facts._apply)
    held.wait()
    assert not facts._pause.hidden
    assert facts._pause.label == "Pause"
    assert "round 1 of 2" in facts._progress.html
    hands.press(facts._pause)
    assert facts._pause.label == "Go on"
    hands.press(facts._pause)
    assert facts._pause.label == "Pause"
    hands.press(facts._pause)
    held.go.set()
    settle(facts)
    assert len(facts.session.rounds) == 2
    assert facts._ended.html == "Paused: 2 facts left."
    assert facts._apply.label == "Apply 2"
    assert facts._pause.hidden
    assert "about" in facts._expected.html
    hands.press(facts._apply)
    settle(facts)
    assert len(facts.session.rounds) == 3
    assert facts._ended.html == ""
    assert facts._ended.hidden


def test_cancel_keeps_what_is_finished_and_clear_takes_the_rest_away(
    facts: Facts, hands: Hands, monkeypatch
) -> None:
    apply = facts.session.apply

    def second(written: Any, *args: Any, **kwargs: Any) -> Any:
        if len(facts.session.rounds) == 2:
            hands.press(facts._cancel)
        return apply(written, *args, **kwargs)

    monkeypatch.setattr(facts.session, "apply", second)
    facts.stage(tiny_facts()[2:])
    hands.type(facts._size, "2")
    hands.press(facts._apply)
    settle(facts)
    assert len(facts.session.rounds) == 2
    assert facts._ended.html == "Cancelled: 1 round finished and kept."
    assert len(facts.desk.staged) == 2
    hands.press(facts._clear)
    assert facts.desk.staged == ()
    assert facts._apply.hidden
    assert facts._ended.html == ""
    assert keys(facts) == ["f0", "f1", "f2", "f3"]


@pytest.mark.parametrize("size", ["many", "", "0", "-1", "2.5", HOSTILE])
def test_a_size_that_is_none_is_refused_beside_its_field(
    facts: Facts, hands: Hands, size: str
) -> None:
    facts.stage(tiny_facts()[2:4])
    hands.type(facts._size, size)
    hands.press(facts._apply)
    settle(facts)
    assert "whole number" in facts._size.error
    assert len(facts.session.rounds) == 1
    assert hands.written(facts._size) == []
    hands.type(facts._size, " 1 ")
    assert facts._size.error == ""
    hands.press(facts._apply)
    settle(facts)
    assert len(facts.session.rounds) == 3


def test_one_staged_fact_is_one_round_whatever_the_hidden_size_says(
    facts: Facts, hands: Hands
) -> None:
    hands.type(facts._size, "many")
    facts.stage([BARE])
    assert facts._size.hidden
    hands.press(facts._apply)
    settle(facts)
    assert len(facts.session.rounds) == 2


def test_while_a_round_is_written_what_would_clash_rests(
    facts: Facts, hands: Hands, monkeypatch
) -> None:
    held = Held(facts.session, monkeypatch)
    facts.stage([BARE])
    hands.press(facts._apply)
    hands.press(facts._apply)  # a double click is one round
    held.wait()
    assert all(b.disabled for b in (facts._now, facts._apply, facts._mute, facts._read))
    assert not facts._cancel.hidden
    assert facts._pause.hidden  # there is one round
    assert "editing 1 fact" in facts._progress.html
    for name, text in (("prompt", "{} is old"), ("subject", "Quito"), ("target", "new")):
        hands.type(facts._fields[name], text)
    hands.enter(facts._fields["target"])  # staging goes on
    assert len(facts.desk.staged) == 2
    held.go.set()
    settle(facts)
    assert len(facts.session.rounds) == 2
    assert [fact.subject for fact in facts.desk.staged] == ["Quito"]
    assert not facts._now.disabled
    assert facts._progress.hidden


def test_a_round_that_cannot_be_written_is_said(facts: Facts, hands: Hands) -> None:
    facts.stage([BARE, replace(BARE, target="blue")])
    hands.press(facts._apply)
    settle(facts)
    assert "apply them in different rounds" in facts._ended.html
    assert len(facts.desk.staged) == 2
    hands.type(facts._size, "1")
    hands.press(facts._apply)
    settle(facts)
    assert len(facts.session.rounds) == 3


def test_staging_by_code_is_checked(facts: Facts) -> None:
    with pytest.raises(FactError, match="write exactly one"):
        facts.stage([Fact("no slot", "Peru", "red")])
    assert facts.desk.staged == ()


# The list


def test_a_press_on_the_chosen_row_looks_at_its_fact_again(facts: Facts, hands: Hands) -> None:
    hands.choose(facts._list, "f1")
    facts.desk.select(None, prompt="something else")
    hands.say(facts._list, {"again": "f0"})  # it is not chosen any more
    assert facts.desk.selection.prompt == "something else"
    hands.say(facts._list, {"again": "f1"})
    assert facts.desk.selection.prompt == facts.session.facts[1].text


def test_the_chosen_row_is_the_same_fact_whatever_is_staged_or_shown(
    facts: Facts, hands: Hands
) -> None:
    hands.choose(facts._list, "f1")
    assert facts.desk.selection.fact == 1
    assert facts.desk.selection.prompt == tiny_facts()[1].text
    facts.stage(tiny_facts()[2:5])
    assert keys(facts)[-2:] == ["f0", "f1"]
    assert facts._list.chosen == ["f1"]
    hands.set(facts._sort, value="newest")
    hands.type(facts._search, "language")
    assert facts._list.chosen == ["f1"]
    hands.press(facts._mute)
    assert facts.session.muted == {1}
    hands.press(facts._mute)
    assert facts.session.muted == set()


def test_what_is_filtered_away_is_not_chosen_any_more(facts: Facts, hands: Hands) -> None:
    hands.choose(facts._list, "f0", "f1")
    hands.type(facts._search, tiny_facts()[1].subject)
    assert facts._list.chosen == ["f1"]
    hands.press(facts._mute)
    assert facts.session.muted == {1}  # and nothing that is out of sight
    hands.type(facts._search, "nowhere")
    assert facts._list.chosen == []
    assert facts._mute.hidden
    assert facts._list.empty == "No fact fits the search."


def test_several_are_muted_and_heard_again(facts: Facts, hands: Hands) -> None:
    hands.choose(facts._list, "f0", "f1")
    assert facts._mute.label == "Mute 2"
    assert facts._back.hidden
    hands.press(facts._mute)
    assert facts.session.muted == {0, 1}
    assert facts._mute.label == "Unmute 2"
    assert facts._list.chosen == ["f0", "f1"]
    hands.press(facts._mute)
    assert facts.session.muted == set()
    facts.session.mute(0)
    assert facts._mute.label == "Mute 2"  # one of them is not
    hands.press(facts._mute)
    assert facts.session.muted == {0, 1}


def test_one_staged_fact_is_taken_back_into_the_form(facts: Facts, hands: Hands) -> None:
    full = replace(
        tiny_facts()[3],
        relation="home",
        wordings=("{} is from",),
        foils=("{} works in",),
        probes=("He speaks of Peru", Probe("Now: Peru is", "old", "portability")),
    )
    facts.stage([BARE, full])
    hands.choose(facts._list, staged(facts, full.target))
    assert facts.desk.selection.prompt == full.text
    assert facts.desk.selection.fact is None
    assert facts._mute.hidden
    assert facts._back.label == "Take back"
    hands.press(facts._back)
    assert facts.fact == full
    assert facts.desk.staged == (BARE,)
    assert facts._list.chosen == []
    settle(facts)
    assert facts._more.label == "More (5)"  # all but the truth stay in the form
    hands.type(facts._fields["target"], "Quito")
    assert facts.fact == replace(full, target="Quito")
    hands.type(facts._fields["subject"], "Spain")  # what has no field was of another question
    assert facts.fact.relation == ""
    assert (facts.fact.wordings, facts.fact.foils) == (full.wordings, full.foils)
    assert facts.fact.probes == full.probes


def test_wordings_are_typed_and_wrong_ones_named(facts: Facts, hands: Hands) -> None:
    fill(facts, hands, prompt="The river of {} is", subject="Peru", target="red")
    fill(facts, hands, wordings="{}'s river is\n\nIn {}, the river is")
    assert facts.fact.wordings == ("{}'s river is", "In {}, the river is")
    assert not facts._fields["wordings"].error
    fill(facts, hands, wordings="Its river is")
    assert "{}" in facts._fields["wordings"].error
    fill(facts, hands, wordings="", foils="The river of {} is", probes="Peru is => ")
    assert "asks what the fact does" in facts._fields["foils"].error
    assert "its answer: it is empty" in facts._fields["probes"].error
    fill(facts, hands, foils="{} is a", probes="Question: Peru is\nNeighbor: Italy is => old")
    assert facts.fact.foils == ("{} is a",)
    assert facts.fact.probes == (
        Probe("Question: Peru is"), Probe("Italy is", "old", "neighbour"),
    )  # fmt: skip
    assert not facts._fields["foils"].error + facts._fields["probes"].error
    fill(facts, hands, wordings="Its river is")
    hands.press(facts._stage)
    assert facts.desk.staged == ()


def test_several_staged_facts_are_taken_off_the_stage(facts: Facts, hands: Hands) -> None:
    several = [replace(BARE, subject=name) for name in ("Peru", "Italy", "Spain")]
    facts.stage(several)
    rows = keys(facts)
    hands.choose(facts._list, rows[0], rows[2], "f0")
    assert (facts._back.label, facts._mute.label) == ("Take 2 back", "Mute fact")
    hands.press(facts._back)
    assert facts.desk.staged == (several[1],)
    assert facts.fact == Fact("", "", "")


def test_a_row_that_is_gone_is_not_chosen(facts: Facts, hands: Hands) -> None:
    facts.stage([BARE])
    gone = keys(facts)[0]
    hands.press(facts._clear)
    before = facts.desk.selection
    hands.choose(facts._list, gone)  # a click while the list changed
    assert facts._alert.html == ""
    assert facts.desk.selection == before
    hands.press(facts._back)
    assert facts._alert.html == ""
    assert facts.desk.staged == ()


def test_it_follows_what_is_selected_elsewhere(facts: Facts, hands: Hands) -> None:
    facts.desk.select("drift", fact=1, prompt="a paraphrase of it")
    assert facts._list.chosen == ["f1"]
    assert not facts._mute.hidden
    assert facts.desk.selection.prompt == "a paraphrase of it"


def test_search_filter_and_sort(facts: Facts, hands: Hands) -> None:
    assert not facts._tools.hidden
    hands.set(facts._filter, value="muted")
    assert keys(facts) == []
    facts.session.mute(0)
    assert keys(facts) == ["f0"]
    hands.set(facts._filter, value="all")
    hands.set(facts._sort, value="newest")
    assert keys(facts) == ["f1", "f0"]
    for stop in range(1, 6):
        hands.type(facts._search, "bruno"[:stop])
    assert keys(facts) == ["f1"]
    assert hands.written(facts._search) == []


def test_an_empty_list_says_what_will_stand_there() -> None:
    facts = Facts(new_session())
    assert "Your facts will stand here" in facts._list.empty
    assert facts._tools.hidden
    facts.close()


# Files


def test_five_facts_of_the_gallery(facts: Facts, hands: Hands) -> None:
    relation = cv.bundled_facts()[0].relation
    hands.set(facts._gallery, value=relation)
    first = facts.desk.staged
    assert len(first) == 5
    assert {fact.relation for fact in first} == {relation}
    assert hands.written(facts._gallery) == [{"value": ""}]
    hands.set(facts._gallery, value=relation)
    assert len(set(facts.desk.staged)) == 10  # five others


def test_facts_are_pasted_and_bad_records_are_said(facts: Facts, hands: Hands) -> None:
    hands.type(facts._pasted, "prompt,subject,target\nThe river of {} is,Peru,red\nbad,,\n")
    hands.press(facts._read)
    assert facts.desk.staged == (BARE,)
    assert "1 fact staged" in facts._found.html
    assert "1 of 2 records left out" in facts._found.html
    assert hands.written(facts._pasted) == []
    for bad in ("[not json", '{"prompt": 7}', "", HOSTILE):
        hands.type(facts._pasted, bad)
        hands.press(facts._read)
        assert "✗" in facts._found.html or "1 of 1 records left out" in facts._found.html
        assert "<img" not in facts._found.html
        assert facts.desk.staged == (BARE,)


def test_cells_of_a_spreadsheet_are_pasted_and_columns_named(facts: Facts, hands: Hands) -> None:
    hands.type(facts._pasted, "Prompt\tSubject\tTarget\nThe river of {} is\tPeru\tred\n")
    hands.press(facts._read)
    assert facts.desk.staged == (BARE,)
    hands.press(facts._clear)
    hands.type(facts._pasted, "question;who;answer\nThe river of Peru is;Peru;red\n")
    hands.press(facts._read)
    assert "it has the columns question, who, answer" in facts._found.html
    hands.type(facts._columns, "prompt question")
    hands.press(facts._read)
    assert "Write field = column" in facts._columns.error
    assert facts.desk.staged == ()
    hands.type(facts._columns, "Prompt = question; subject=who, target = answer")
    hands.press(facts._read)
    assert facts._columns.error == ""
    assert facts.desk.staged == (BARE,)


def test_why_records_were_left_out_is_shown_line_by_line(facts: Facts, hands: Hands) -> None:
    rows = ["The river of {} is,Peru,red,blue", "no slot,Peru,red,", "{} is,,red,", "{} is,,red,"]
    hands.type(facts._pasted, "\n".join(["prompt,subject,target,truth", *rows]))
    hands.press(facts._read)
    shown = facts._found.html
    assert "! 3 of 4 records left out:<" in shown
    assert "! record 2: prompt: it has 0 &#39;{}&#39;; write exactly one" in shown
    assert "! records 3, 4: subject: it is empty<" in shown


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("facts.csv", b"prompt,subject,target\nThe river of {} is,Peru,red\n"),
        ("facts.json", b'[{"prompt": "The river of {} is", "subject": "Peru", "target": "red"}]'),
        ("../a.jsonl", b'{"prompt": "The river of {} is", "subject": "Peru", "target": "red"}'),
    ],
)
def test_a_file_is_opened(facts: Facts, hands: Hands, name: str, data: bytes) -> None:
    hands.hand(facts._upload, name, data)
    assert facts.desk.staged == (BARE,)
    assert "1 fact staged" in facts._found.html


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"\xff\xfe\x00"), ("a.exe", b"MZ"), ("", b""), ("..", b"x"), ("a\0.csv", b"x")],
)
def test_a_file_that_is_none_is_said_and_nothing_is_lost(
    facts: Facts, hands: Hands, name: str, data: bytes
) -> None:
    facts.stage([BARE])
    hands.hand(facts._upload, name, data)
    assert facts._found.html or facts._alert.html
    assert facts.desk.staged == (BARE,)


def test_what_was_pasted_makes_room_once_it_is_staged(facts: Facts, hands: Hands) -> None:
    hands.type(facts._pasted, "The river of {} is\tPeru\tred")  # without a line of headings
    hands.press(facts._read)
    said = str(facts._found.html)
    assert "pasted.csv: the columns prompt, subject, target are missing" in said
    assert "Name them so in the first line" in said
    assert "in Columns of other names" in said
    assert "columns={" not in said
    assert facts._pasted.value
    hands.type(facts._pasted, "prompt\tsubject\ttarget\nThe river of {} is\tPeru\tred")
    hands.press(facts._read)
    assert "1 fact staged" in facts._found.html
    assert facts._pasted.value == ""


def test_a_table_pasted_as_a_prompt_is_told_where_it_goes(facts: Facts, hands: Hands) -> None:
    hands.type(facts._fields["prompt"], "{} is\tPeru\tred\n{} is\tChile\tred\n")
    settle(facts)
    assert "paste it under More" in facts._fields["prompt"].error


def test_a_long_file_with_repeats_is_taken_once_and_listed_whole(
    facts: Facts, hands: Hands
) -> None:
    lines = [f"The river of {{}} is,Peru {i},red" for i in range(300)]
    again = ["The river of {} is,Peru 3,blue", "The river of {} is,Peru 4,red"]
    data = "\n".join(["prompt,subject,target", *lines, *again]).encode()
    hands.hand(facts._upload, "many.csv", data)
    assert "fact left out" in facts._found.html
    number = len(facts.desk.staged)
    assert number == len(set(facts.desk.staged)) >= 300
    assert facts._apply.label == f"Apply {number}"
    assert len(keys(facts)) == number + 2
    hands.hand(facts._upload, "many.csv", data)
    assert len(facts.desk.staged) == number  # it is staged already


def test_what_the_model_says_already_is_said(facts: Facts, hands: Hands, monkeypatch) -> None:
    monkeypatch.setattr(answers, "_SAID", 0.0)  # a random model is never sure
    fact = tiny_facts()[3]
    says = facts.session.predict(fact.text, top=2)["token"].tolist()
    so, other = (replace(fact, target=target.strip()) for target in says)
    facts.stage([other])
    settle(facts)
    assert facts._already.hidden
    facts.stage([so])
    settle(facts)
    assert f"{so.subject} → {so.target}" in facts._already.html
    assert f"{other.subject} → {other.target}" not in facts._already.html
    hands.press(facts._clear)
    settle(facts)
    assert facts._already.hidden
    fill(facts, hands, prompt=so.prompt, subject=so.subject, target=so.target)
    assert "Already so" in facts._feedback.html
    fill(facts, hands, target=other.target)
    assert "Already so" not in facts._feedback.html


# All of it


@pytest.mark.parametrize(
    "text", [HOSTILE, "x" * 10_000, "🙂 emoji", "مرحبا", "two\nlines", "{} and {}", "$x^2$ &amp;"]
)
def test_hostile_text_is_text_or_refused_and_nothing_is_lost(
    facts: Facts, hands: Hands, text: str
) -> None:
    for name in facts._fields:
        facts.fill(BARE)
        fill(facts, hands, **{name: text})
        hands.press(facts._stage)
        settle(facts)
    for node in nodes(facts):
        if isinstance(node, Text):
            assert "<img" not in node.html
    assert "<img" not in str(facts.picture()) + facts.static()._repr_html_()
    compile(facts.code(), "facts", "exec")
    assert facts.session.position == 1


def test_its_code_makes_the_facts(facts: Facts) -> None:
    facts.stage([*tiny_facts()[2:4], BARE])
    names: dict[str, Any] = {"cv": cv}
    exec(compile(facts.code(), "facts", "exec"), names)  # noqa: S102
    assert names["facts"] == list(facts.desk.staged)


def test_a_fact_that_was_read_once_is_read_at_no_cost(
    facts: Facts, hands: Hands, monkeypatch
) -> None:
    fill(facts, hands, prompt=BARE.prompt, subject=BARE.subject)
    said = facts._feedback.html
    titles = submitted(facts.desk, monkeypatch)
    fill(facts, hands, subject="Perux")
    fill(facts, hands, subject="Peru")
    assert facts._feedback.html == said
    facts.session.undo()
    settle(facts)
    facts.session.redo()
    settle(facts)
    assert facts._feedback.html == said
    assert titles == ["reading the prompt"] * 2  # of another subject, and before round 1
