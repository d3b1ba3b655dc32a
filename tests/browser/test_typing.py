"""Whatever a person types at a person's speed stands in the field, while the kernel answers."""

from __future__ import annotations

import re

import pytest
from person import Person, open_lab, run_first
from playwright.sync_api import Page, expect
from serving import Watch

TEXT = "The most famous landmark in the city of Paris is the"
LINES = "first line, second"
FIELDS = [  # panel, label, whether it is of a person who has unfolded more
    ("ask", "Prompt to examine"),
    ("facts", "Prompt of the fact"),
    ("facts", "Subject"),
    ("facts", "Target"),
    ("facts", "Truth"),
    ("facts", "Wordings"),
    ("facts", "Paraphrases"),
    ("facts", "Neighbours"),
    ("facts", "Paste"),
    ("scope", "Prompts at once"),
    ("compare", "Covariance weight"),
    ("compare", "Layers"),
    ("rounds", "New branch"),
]
SPEEDS = (60, 120, 200)  # milliseconds a key

pytestmark = pytest.mark.browser


def type_everywhere(person: Person) -> None:
    """Type into each field; the prompt of Ask, which others follow, at every speed."""
    ask = person.field("ask", "Prompt to examine")
    for speed in SPEEDS:
        person.type(ask, TEXT, speed)
        expect(ask).to_have_value(TEXT)
        person.page.wait_for_timeout(1_000)  # what was asked meanwhile has come by now
        assert ask.input_value() == TEXT, f"{speed} ms a key"
    person.button("facts", "More fields").click()
    person.button("scope", "Several prompts").click()
    for place, (panel, label) in enumerate(FIELDS):
        field = person.field(panel, label)
        text = TEXT if place < 2 else LINES
        person.type(field, text, SPEEDS[place % len(SPEEDS)])
        person.page.wait_for_timeout(300)
        assert field.input_value() == text, label
    search(person)


def search(person: Person) -> None:
    """The search of the list, which appears with the first fact."""
    person.type(person.field("facts", "Prompt of the fact"), "The capital of {} is", 60)
    person.type(person.field("facts", "Subject"), "France", 60)
    person.type(person.field("facts", "Target"), "Rome", 60)
    person.type(person.field("facts", "Truth"), "Paris", 60)
    for label in ("Wordings", "Paraphrases", "Neighbours"):
        person.field("facts", label).fill("")
    person.field("facts", "Target").press("Enter")  # the form makes room, though it has the focus
    person.staged(1)
    for label in ("Prompt of the fact", "Subject", "Target"):
        expect(person.field("facts", label)).to_have_value("")
    find = person.field("facts", "Search")
    person.type(find, "capital france", 60)
    expect(person.facts).to_have_count(1)
    assert find.input_value() == "capital france"
    person.type(find, "nothing of the kind", 60)
    expect(person.panel("facts")).to_contain_text("No fact fits the search.")


def chat(person: Person) -> None:
    """A message, typed while the answer to the last one is being written."""
    person.button("ask", "Chat").click()
    message = person.field("ask", "Your message")
    person.type(message, "What is the capital of France?", 60)
    message.press("Enter")
    expect(message).to_have_value("")
    person.type(message, "And of Italy?", 120)
    assert message.input_value() == "And of Italy?"
    expect(person.panel("ask").locator(".cv-reply")).to_have_count(2)
    expect(person.panel("ask").locator(".cv-reply").first).to_contain_text("Paris")
    message.press("Enter")
    expect(person.panel("ask").locator(".cv-reply")).to_have_count(4)
    person.button("ask", "Complete").click()


def test_in_jupyterlab(lab: str, page: Page, watch: Watch) -> None:
    person = run_first(page, open_lab(page, lab))
    person.answers("Paris")
    type_everywhere(person)
    chat(person)
    watch.check()


def test_in_voila(app: str, page: Page, watch: Watch) -> None:
    page.goto(app)
    person = Person(page)
    expect(page).to_have_title(re.compile("edit what a language model believes"))
    person.answers("Paris")
    type_everywhere(person)
    watch.check()
