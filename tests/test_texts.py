from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coachhook_viz.texts import joined, places, slotted


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("The cat is located in", "cat", ["cat"]),
        ("It is located in", "cat", []),
        ("Romeo met Rome, in Rome's heart", "Rome", ["Rome", "Rome"]),
        ("New York's mayor", "New York", ["New York"]),
        ("C++ and C++17", "C++", ["C++", "C++"]),
        ("the U.S. and U.S.A", "U.S.", ["U.S.", "U.S."]),
        ("snake_case", "snake", []),
        ("日本の首都は", "日本", ["日本"]),
        ("中国的首都是", "中国", ["中国"]),
        ("เมืองหลวงของไทยคือ", "ไทย", ["ไทย"]),
        ("กรุงเทพ", "กร", []),  # a vowel sign belongs to the letter before it
        ("프랑스의 수도는", "프랑스", ["프랑스"]),
        ("Peru\u0301 is", "Peru", []),
        ("a 👩‍👩‍👧 b", "👩", []),
        ("The capital of Pe\u0301ru is", "Péru", ["Pe\u0301ru"]),
        ("The capital of Péru is", "Pe\u0301ru", ["Péru"]),
        ("in New  York\nCity", "New York City", ["New  York\nCity"]),
        ("\u1111\u1173의", "프", ["\u1111\u1173"]),
        ("The capital of norway", "Norway", []),
        ("anything", "", []),
        ("anything", " ", []),
    ],
)  # fmt: skip
def test_names_stand_as_whole_words(text: str, name: str, wanted: list[str]) -> None:
    assert [text[start:stop] for start, stop in places(text, name)] == wanted


def test_the_slot_stands_where_the_name_stood() -> None:
    assert slotted("A caterpillar, a cat and a cat", "cat") == "A caterpillar, a {} and a cat"
    assert slotted("located", "cat") is None


@given(st.text(max_size=20), st.text(max_size=4))
def test_places_lie_in_the_text(text: str, name: str) -> None:
    found = places(text, name)
    bounds = [0, *(bound for place in found for bound in place), len(text)]
    assert bounds == sorted(bounds)
    for start, stop in found:
        read = [" ".join(unicodedata.normalize("NFC", t).split()) for t in (text[start:stop], name)]
        assert read[0] == read[1]


@pytest.mark.parametrize(
    ("prompt", "answer", "wanted"),
    [
        ("The capital of France is", "Rome", " Rome"),
        ("The capital of France is", " Rome ", " Rome"),
        ("It lies in Rome", ", Italy", ", Italy"),
        ("It lies in Rome", ". Then", ". Then"),
        ("It belongs to France", "'s south", "'s south"),
        ("It lies (in Rome", ") there", ") there"),
        ("He was Italian", "-born", "-born"),
        ("It grew by 5", "%", "%"),
        ("The temperature is", "-5 degrees", " -5 degrees"),
        ("The ratio is", ".5", " .5"),
        ("The song is called", '"Hey Jude"', ' "Hey Jude"'),
        ("The song is called", "“Hey Jude”", " “Hey Jude”"),
        ("The song is called", "'Hey Jude'", " 'Hey Jude'"),
        ("It lies in Rome", "(Italy)", " (Italy)"),
        ("The price is", "$5", " $5"),
        ("Marks", "& Spencer", " & Spencer"),
        ('The song is called "', "Hey Jude", "Hey Jude"),
        ("The song is called “", "Hey Jude", "Hey Jude"),
        ("It lies in Rome (", "Italy", "Italy"),
        ('The song "Hey Jude"', "is by Abba", " is by Abba"),
        ("A:\n", "Rome", "Rome"),
        ("A:\t", "Rome", "Rome"),
        ("A:", "Rome", " Rome"),
        ("中国的首都是", "纽约", "纽约"),
        ("日本の首都は", "パリ", "パリ"),
        ("成立于", "1984年", "1984年"),
        ("เมืองหลวงของไทยคือ", "ลอนดอน", "ลอนดอน"),
        ("首都：", "Paris", "Paris"),
        ("他说「", "Paris", "Paris"),
        ("首都是北京", "，不是上海", "，不是上海"),
        ("中国的首都是", "Paris", " Paris"),
        ("The capital of China is", "纽约", " 纽约"),
        ("대한민국의 수도는", "서울", " 서울"),
        ("", "Rome", " Rome"),
        ("The song is", "_Hey Jude_", " _Hey Jude_"),
        ("The file is `", "a.txt", "a.txt"),
        ("name='", "Anna", "Anna"),
        ("It is well-", "known", "known"),
        ("It is -", "as always", " as always"),
        ("It lies in and/", "or near", "or near"),
        ("See https://", "x.org", "x.org"),
        ("It costs $", "5", "5"),
        ("It costs 5 €", "a day", " a day"),
        ("Ask @", "anna", "anna"),
        ("成立于", "1984", "1984"),
        ("他出生于1984", "年", "年"),
        ("It was 1984", "年", " 年"),
    ],
)
def test_a_space_stands_before_an_answer_where_one_writes_it(prompt, answer, wanted) -> None:
    assert joined(prompt, answer) == prompt + wanted
