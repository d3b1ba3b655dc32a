from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coachhook_viz import Fact, FactError, Neighbor, Probe
from coachhook_viz.facts import as_batch, batches, find_conflicts, find_problems, validate

GOOD: dict[str, Any] = {"prompt": "The capital of {} is", "subject": "France", "target": "Rome"}


def test_a_fact_reads_as_a_sentence() -> None:
    fact = Fact(**GOOD, paraphrases=["France's capital is"], neighbors=[("Italy's", "Rome")])
    assert fact.text == "The capital of France is"
    assert str(fact) == "The capital of France is → Rome"
    assert fact.paraphrases == ("France's capital is",)
    assert fact.neighbors == (Neighbor("Italy's", "Rome"),)
    assert Fact(**GOOD, neighbors=[{"prompt": "a"}, "b"]).neighbors == (
        Neighbor("a"),
        Neighbor("b"),
    )
    assert hash(fact) == hash(
        Fact(**GOOD, paraphrases=("France's capital is",), neighbors=fact.neighbors)
    )


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"prompt": "The capital is"}, "prompt", "it has 0 '{}'"),
        ({"prompt": "The capital of France is"}, "prompt", "here: 'The capital of {} is'"),
        ({"prompt": "{} and {}"}, "prompt", "it has 2 '{}'"),
        ({"prompt": "The capital of {} is "}, "prompt", "ends in a space"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": "a\r\n{}"}, "prompt", "it holds a carriage return (U+000D)"),
        ({"prompt": "a\u2028{}"}, "prompt", "U+2028"),
        ({"prompt": "{}:\n "}, "prompt", "ends in a space"),
        ({"subject": "Fr\nance"}, "subject", "it holds a line break; write it on one line"),
        ({"prompt": "x" * 3000 + "{}"}, "prompt", "3002 characters"),
        ({"subject": ""}, "subject", "empty"),
        ({"subject": "  "}, "subject", "empty"),
        ({"subject": " France"}, "subject", "begins or ends with a space"),
        ({"subject": "Fr{}ance"}, "subject", "brace"),
        ({"subject": "\u200b\u200d"}, "subject", "no visible character"),
        ({"subject": "a\u202eb"}, "subject", "U+202E"),
        ({"subject": "a\ud800b"}, "subject", "U+D800"),
        ({"subject": 7}, "subject", "must be text, not int"),
        ({"target": ""}, "target", "empty"),
        ({"target": "\t"}, "target", "empty"),
        ({"target": "Rome\n"}, "target", "it holds a line break; write it on one line"),
        ({"target": "Ro\tme"}, "target", "it holds a tab; write a space instead"),
        ({"relation": "a\nb"}, "relation", "line break"),
        ({"neighbors": (Neighbor("Italy's", "Ro\nme"),)}, "neighbors", "line break"),
        ({"target": "Ro\x00me"}, "target", "U+0000"),
        ({"target": " paris", "truth": "Paris"}, "target", "equals the truth"),
        ({"target": "Zoë  B", "truth": "Zoe\u0308 b"}, "target", "equals the truth"),
        ({"truth": ""}, "truth", "empty"),
        ({"paraphrases": ("",)}, "paraphrases", "empty"),
        ({"paraphrases": ("ends in a space ",)}, "paraphrases", "ends in a space"),
        ({"neighbors": (Neighbor("Italy's", ""),)}, "neighbors", "empty"),
        ({"neighbors": (Neighbor("a\rb"),)}, "neighbors", "U+000D"),
    ],
)
def test_problems_name_the_field(change: dict[str, Any], field: str, reason: str) -> None:
    facts = [Fact(**GOOD), Fact(**{**GOOD, **change})]
    found = [(p.index, p.field) for p in find_problems(facts)]
    assert found == [(1, field)]
    with pytest.raises(FactError) as caught:
        validate(facts)
    assert f"fact 2 ({facts[1].subject!r}" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "subject", ["Zürich", "日本", "القاهرة", "Anna 👩‍👩‍👧", "O'Hara", "<img src=x>"]
)
def test_any_script_and_emoji_are_fine(subject: str) -> None:
    validate([Fact(**{**GOOD, "subject": subject})])


def test_prompts_may_hold_line_breaks_and_tabs() -> None:
    validate(
        [
            Fact(
                "Q: What is the capital of Italy?\nA: Rome\n\nQ:\t{}?\nA:\n",
                "France",
                "Moscow",
                paraphrases=("France\nA:",),
                neighbors=(Neighbor("Spain\nA:\t", "Madrid"),),
            )
        ]
    )


def test_everything_wrong_is_said_at_once() -> None:
    facts = [Fact("no slot", " a ", "x", truth="X"), Fact("{} {}", "b", "y")]
    with pytest.raises(FactError) as caught:
        validate(facts)
    assert [(p.index, p.field) for p in caught.value.problems] == [
        (0, "prompt"), (0, "subject"), (0, "target"), (1, "prompt"),
    ]  # fmt: skip


def test_conflicts_and_repeats() -> None:
    facts = [Fact(**GOOD), Fact(**{**GOOD, "target": "Oslo"}), Fact(**GOOD)]
    assert find_conflicts(facts) == [(0, 1), (1, 2)]
    with pytest.raises(FactError, match=r"an earlier fact of this batch .* and wants 'Rome'"):
        validate(facts[:2])
    with pytest.raises(FactError, match="wants the same: keep one"):
        validate([facts[0], facts[2]])
    with pytest.raises(FactError, match="the batch is empty"):
        validate([])


def test_conflicts_of_texts_that_read_the_same() -> None:
    told = Fact("{}  lives in", "Zoe\u0308", "Rome")  # the accent is a character of its own
    facts = [told, Fact("{} Lives in", "Zoë", " ROME "), Fact("{} lives in", "ZOË", "Oslo")]
    assert find_conflicts(facts) == [(0, 2), (1, 2)]


def test_batches_keep_the_order() -> None:
    facts = [Fact(**{**GOOD, "subject": name}) for name in "ABCDE"]
    assert [[fact.subject for fact in part] for part in batches(facts, 2)] == [
        ["A", "B"], ["C", "D"], ["E"],
    ]  # fmt: skip
    assert batches([], 3) == []
    for size in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="a round needs at least one fact"):
            batches(facts, size)


anything = st.text(max_size=30)


@given(anything, anything, anything, st.none() | anything, st.lists(anything, max_size=2))
def test_any_text_is_edited_or_refused_never_worse(prompt, subject, target, truth, more) -> None:
    fact = Fact(prompt, subject, target, truth, more, [(text, text) for text in more])
    try:
        validate([fact])
    except FactError as error:
        refused = error.problems
    else:
        refused = None
    if refused is not None:
        assert refused
        assert all(p.field and p.reason for p in refused)
    else:
        assert fact.text.count(subject) >= 1
        assert "{}" not in fact.text


def test_one_text_for_a_list_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="paraphrases is one text"):
        Fact("{} is", "Peru", "red", paraphrases="Peru's colour is")
    with pytest.raises(TypeError, match="neighbors is one text"):
        Fact("{} is", "Peru", "red", neighbors="Chile is")


def test_slots_belong_into_the_prompt_only() -> None:
    fact = Fact("{} is", "Peru", "red", paraphrases=("{} shines",), neighbors=("{} is",))
    fields = [problem.field for problem in find_problems([fact])]
    assert fields == ["paraphrases", "neighbors"]


def test_probes_may_be_given_as_texts_tuples_and_objects() -> None:
    fact = Fact(
        **GOOD,
        probes=[
            "a",
            ("b", "c"),
            {"prompt": "d", "kind": "neighbour"},
            Probe("e", "f", "paraphrase"),
        ],
    )
    assert fact.probes == (
        Probe("a", None, "same subject"),
        Probe("b", "c", "same subject"),
        Probe("d", None, "neighbour"),
        Probe("e", "f", "paraphrase"),
    )
    assert find_problems([fact]) == []
    with pytest.raises(TypeError, match="probes is one text"):
        Fact(**GOOD, probes="a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probes", "reason"),
    [
        ([""], "number 1: it is empty"),
        (["a", " "], "number 2: it is empty"),
        ([("a", None, "near")], "there is no kind 'near'; there are 'same subject', 'portability'"),
        (["a", ("A ", None)], "number 2: it ends in a space"),
        (["a", ("A", "b")], "number 2: it is the same as number 1; leave one out"),
        ([("a", "b\nc")], "number 1: its answer: it holds a line break"),
        ([("a", None, "portability")], "it has no answer; write what follows from the edit"),
        (["{} is"], "it holds '{}'"),
    ],
)
def test_what_is_wrong_with_probes_is_named(probes: list[Any], reason: str) -> None:
    [problem] = find_problems([Fact(**GOOD, probes=probes)])
    assert (problem.index, problem.field) == (0, "probes")
    assert reason in problem.reason


def test_the_same_prompt_may_be_two_kinds_of_probe() -> None:
    probes = (Probe("a", "b", "portability"), Probe("a"))
    assert find_problems([Fact(**GOOD, probes=probes)]) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"paraphrases": 7}, "paraphrases is 7: give a list, or leave it out"),
        ({"wordings": None}, "wordings is None: give a list"),
        ({"neighbors": {"prompt": "Chile is"}}, "neighbors is one dict: give a list"),
        ({"neighbors": Neighbor("Chile is")}, "neighbors is one neighbour"),
        ({"neighbors": [{"prompt": "Chile is", "ground_truth": "red"}]},
         "neighbors: number 1 has the unknown field 'ground_truth'; it takes prompt, answer"),
        ({"neighbors": ["Chile is", {"answer": "red"}]}, "number 2 has no prompt"),
        ({"neighbors": [("a", "b", "c")]}, r"number 1 is \('a', 'b', 'c'\); give a text, or"),
        ({"neighbors": [None]}, "number 1 is None"),
        ({"probes": [{"prompt": "a", "target": "b"}]}, "probes: number 1 has the unknown field"),
        ({"probes": [7]}, "probes: number 1 is 7"),
    ],
)  # fmt: skip
def test_what_no_list_can_be_made_of_is_named(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Fact(**{**GOOD, **given})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("paraphrases", [["a"]]),
        ("paraphrases", [None]),
        ("wordings", [{"a": 1}]),
        ("neighbors", [["a", ["b"]]]),
        ("neighbors", [[["a"]]]),
        ("neighbors", [[["a"], "b"]]),
        ("probes", [[["a"]]]),
        ("probes", [["a", 7]]),
        ("prompt", None),
        ("subject", ["a"]),
        ("truth", 7.5),
    ],
)
def test_odd_values_within_a_fact_are_named_never_worse(field: str, value: Any) -> None:
    problems = find_problems([Fact(**{**GOOD, field: value})])
    assert {problem.field for problem in problems} == {field}
    assert all("must be text, not" in problem.reason for problem in problems)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("The Eiffel {} is in", "Tower"), ("The {} is in", "Eiffel Tower")),
        (("{} is in", "Peru"), ("{} IS in", "peru")),
        (("{} is in", "New York"), ("{} is  in", "New  York")),
        (("{} is in", "Pérou"), ("{} is in", "Pe\u0301rou")),
    ],
)
def test_what_reads_the_same_is_one_fact(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = Fact(*one, "Rome"), Fact(*other, "rome ")
    with pytest.raises(FactError, match="an earlier fact of this batch asks the same") as caught:
        validate([first, Fact(**GOOD), second])
    [problem] = caught.value.problems
    assert (problem.index, problem.field) == (2, "target")
    assert f"{first.text!r}, and wants the same" in problem.reason
    with pytest.raises(FactError, match=r"wants 'Rome'.*in different rounds"):
        validate([first, Fact(*other, "Oslo")])


def test_a_name_within_a_word_is_no_subject() -> None:
    [problem] = find_problems([Fact("It is located in", "cat", "Rome")])
    assert "here:" not in problem.reason
    [problem] = find_problems([Fact("It is located in the cat", "cat", "Rome")])
    assert "here: 'It is located in the {}'" in problem.reason
    [problem] = find_problems([Fact("{} is", "cat", "Rome", wordings=["located"])])
    assert "it does not name the subject" in problem.reason


class Table:
    """What a data frame looks like from afar."""

    columns = ("prompt", "subject")
    subject = prompt = "a column"


@pytest.mark.parametrize(
    ("given", "reasons"),
    [
        ({"prompt": "a"}, ["it is a dict, not a Fact; read_facts makes facts of records"]),
        ([Fact(**GOOD), GOOD], ["", "it is a dict, not a Fact; read_facts"]),
        ([("{} is", "a", "b")], [r"it is a tuple, not a Fact; write Fact(prompt"]),
        (Table(), ["it is a Table, not a Fact; read_facts makes facts of records and tables"]),
        ("text", ["it is of the type str, not a Fact"]),
        (b"text", ["it is of the type bytes, not a Fact"]),
        (pd.Series(GOOD), ["it is a Series, not a Fact; read_facts makes facts of records"]),
        ([[Fact(**GOOD)]], ["it is a list of facts, not a Fact; give all facts in one list"]),
        ({7: Fact(**GOOD)}, ["it is a dict of facts, not a Fact; give its values"]),
        (None, ["it is of the type NoneType, not a Fact"]),
        (7, ["it is of the type int, not a Fact"]),
    ],
)
def test_what_is_no_batch_is_named(given: Any, reasons: list[str]) -> None:
    with pytest.raises(FactError) as caught:
        as_batch(given)
    wanted = [(i, "fact", reason) for i, reason in enumerate(reasons) if reason]
    found = [(p.index, p.field, p.reason) for p in caught.value.problems]
    assert [(i, field) for i, field, _ in found] == [(i, field) for i, field, _ in wanted]
    assert all(reason in said for (*_, reason), (*_, said) in zip(wanted, found, strict=True))


def test_a_batch_is_walked_once() -> None:
    fact = Fact(**GOOD)
    assert as_batch(fact) == [fact]
    assert as_batch(iter([fact, fact])) == [fact, fact]
    assert batches((f for f in [fact, fact]), 1) == [[fact], [fact]]  # type: ignore[arg-type]
    assert as_batch({fact: 1}.keys()) == [fact]
