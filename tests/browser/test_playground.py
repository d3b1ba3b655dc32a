"""One playground in JupyterLab, for those who use no mouse, do not see it, or type odd things."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from person import SLOW, TABS, Person, open_lab, run_first
from playwright.sync_api import Browser, Locator, expect
from serving import Watch

VIEWPORT = {"width": 1500, "height": 1000}
LONG = "x" * 10_000
HOSTILE = {
    "tag": "<img src=x onerror=window.hacked=1>",
    "emoji": "🗼👩‍👩‍👧🇮🇹",
    "right to left": "‮מגדל أيفل",
    "two slots": "The {} of {} is",
    "lines": "a\nb\r\n\nc",
    "long": LONG,
}
EXCLUDED: dict[str, str] = {}  # selector of what is not ours: why

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def person(browser: Browser, lab: str) -> Iterator[Person]:
    context = browser.new_context(viewport=VIEWPORT)
    page = context.new_page()
    watch = Watch(page)
    person = run_first(page, open_lab(page, lab))
    person.answers("Paris")
    yield person
    context.close()
    watch.check()


def focused(person: Person) -> Locator:
    return person.page.locator(":focus")


def tab_to(person: Person, wanted: Locator) -> None:
    """Press Tab until `wanted` has the focus."""
    for _ in range(40):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        person.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {wanted}; it stands at {focused(person)}")


def test_facts_rounds_and_the_grid_by_keyboard_alone(person: Person) -> None:
    press, type_ = person.page.keyboard.press, person.page.keyboard.type
    cells = person.page.locator(".jp-Notebook:visible .jp-Cell")
    count = cells.count()
    person.field("facts", "Prompt").focus()
    type_("The {} is located in the city of")
    press("Tab")
    type_("Eiffel Tower")
    press("Tab")
    expect(person.panel("facts")).to_contain_text(re.compile("last token.*Tower"), timeout=SLOW)
    person.page.keyboard.insert_text("Rome")
    tab_to(person, person.button("facts", "Stage"))
    press("Enter")
    person.staged(1)

    # what is staged, as a table to type into
    tab_to(person, person.button("facts", "More"))
    press("Space")
    table = person.grid("facts", "staged facts as a table")
    tab_to(person, table.get_by_role("gridcell").first)
    press("End")
    expect(focused(person)).to_have_text("Rome")
    press("F2")
    focused(person).fill("Berlin")
    press("Enter")
    expect(table.get_by_role("gridcell").last).to_have_text("Berlin", timeout=SLOW)
    expect(table.get_by_role("gridcell").last).to_be_focused()
    press("F2")
    focused(person).fill("Oslo")
    press("Escape")
    expect(table.get_by_role("gridcell").last).to_have_text("Berlin")

    tab_to(person, person.button("rounds", "Apply"))
    press("Enter")
    person.says("round 1 of 1")
    person.answers("Berlin")

    # back and forth along the timeline, a way that notebooks use for other things
    tab_to(person, person.button("rounds", "Undo"))
    press("Space")
    person.says("round 0 of 1")
    line = person.grid("rounds", "rounds in force")
    line.get_by_role("gridcell").first.focus()
    press("End")
    press("Enter")
    person.says("round 1 of 1", "1 fact")
    for key in ("a", "b", "d", "d", "x", "m", "ArrowDown", "ArrowUp"):
        press(key)
    expect(cells).to_have_count(count)

    # the token grid
    person.settled()
    cell = person.cell("Tower", 0)
    cell.focus()
    press("ArrowDown")
    expect(person.cell("Tower", 1)).to_be_focused()
    press("Home")
    expect(
        person.grid("scope", "scope").get_by_role("row").nth(2).get_by_role("gridcell").first
    ).to_be_focused()
    press("PageDown")
    press("PageUp")
    press("End")
    press("ArrowLeft")
    press("Enter")
    expect(focused(person)).to_have_attribute("aria-selected", "true")
    expect(person.panel("scope")).to_contain_text(re.compile("“.*” at layer 4 is reached by"))
    press("Tab")
    expect(
        person.grid("scope", "scope").get_by_role("gridcell").and_(focused(person))
    ).to_have_count(0)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_axe_finds_nothing_serious(person: Person, theme: str) -> None:
    person.theme(theme)
    person.settled()
    context = {"include": [[".cv-playground"]], "exclude": [[part] for part in EXCLUDED]}
    found = []
    for panel in ("facts", *TABS):
        person.panel(panel)  # brings its tab to the front
        found += Axe().run(person.page, context).response["violations"]
    serious = {
        f"{one['id']}: {node['target']}: {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    }
    assert not serious, "\n\n".join(sorted(serious))


FIELDS = [
    ("facts", "Prompt"), ("facts", "Subject"), ("facts", "Target"), ("facts", "Truth"),
    ("facts", "Paraphrases"), ("facts", "Neighbours"), ("facts", "Paste"),
    ("rounds", "Name"), ("rounds", "New branch"),
    ("ask", "Prompt"), ("scope", "Prompt"), ("scope", "Prompts at once"),
]  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_odd_text_is_text_in_every_field(person: Person, kind: str) -> None:
    text = HOSTILE[kind]
    for panel in ("facts", "rounds"):
        more = person.button(panel, "More")
        if "mod-active" not in (more.get_attribute("class") or ""):
            more.click()
    for panel, label in FIELDS:
        field = person.field(panel, label)
        field.fill(text)
        kept = field.input_value()
        assert kept in (text.replace("\r\n", "\n"), re.sub(r"[\r\n]", "", text)), label
    for panel, button in (
        ("facts", "Stage"), ("facts", "Read"), ("rounds", "Branch"), ("scope", "Check"),
    ):  # fmt: skip
        person.button(panel, button).click()
    person.settled()
    for panel, label in FIELDS[:3]:
        if text != "{}":
            assert person.field(panel, label).input_value(), label  # refused, and not lost
    unharmed(person)


def unharmed(person: Person) -> None:
    assert person.page.evaluate("window.hacked") is None
    expect(person.root.locator("img[src=x]")).to_have_count(0)
