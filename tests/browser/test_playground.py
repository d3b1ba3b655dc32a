"""One playground in JupyterLab, for those who use no mouse, do not see it, or type odd things."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from person import TABS, Person, open_lab, run_first
from playwright.sync_api import Browser, Locator, expect
from serving import Watch

VIEWPORT = {"width": 1500, "height": 1000}
LONG = ("responsibility " * 1_000)[:10_000]
HOSTILE = {
    "tag": "<img src=x onerror=window.hacked=1>",
    "emoji": "🗼👩‍👩‍👧🇮🇹",
    "right to left": "‮מגדל أيفل",
    "two slots": "The {} of {} is",
    "lines": "a\nb\r\n\nc",
    "long": LONG,
}
THEIRS = {  # parts that are not drawn by us, and what axe holds against them
    ".noUi-handle": "ipywidgets gives the handle of its slider no name, only a label beside it",
}
FIELDS = [
    ("facts", "Prompt"), ("facts", "Subject"), ("facts", "Target"), ("facts", "Truth"),
    ("facts", "Paraphrases"), ("facts", "Neighbours"), ("facts", "Paste"),
    ("rounds", "Name"), ("rounds", "New branch"),
    ("ask", "Prompt"), ("scope", "Prompt"), ("scope", "Prompts at once"),
]  # fmt: skip
BUTTONS = [("facts", "Stage"), ("facts", "Read"), ("rounds", "Branch"), ("scope", "Check")]
CLIPPED = """root => [...root.querySelectorAll("*")].filter((element) => {
    const style = getComputedStyle(element);
    const words = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const hides = style.overflowX === "hidden" || style.overflowX === "clip";
    return words && hides && element.scrollWidth > element.clientWidth + 1;
}).map((element) => element.className + ": " + element.textContent)"""  # text that is cut off

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
    expect(person.panel("facts")).to_contain_text(re.compile("last token.*Tower"))
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
    expect(table.get_by_role("gridcell").last).to_have_text("Berlin")
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
    for key in ("a", "b", "m", "d", "d", "x"):
        press(key)
        expect(cells).to_have_count(count)
    expect(line.get_by_role("gridcell").last).to_be_focused()

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


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_two_columns_beside_the_side_bar_and_no_clipped_text(
    person: Person, width: int, height: int
) -> None:
    size = person.page.viewport_size
    person.page.set_viewport_size({"width": width, "height": height})
    expect(person.page.locator(".jp-FileBrowser")).to_be_visible()
    for panel in TABS:
        person.panel(panel)  # brings it to the front
        facts, ask = (person.panel(name).bounding_box() for name in ("facts", "ask"))
        assert facts is not None
        assert ask is not None
        assert ask["x"] >= facts["x"] + facts["width"]
        assert person.root.evaluate(CLIPPED) == []
    if size is not None:
        person.page.set_viewport_size(size)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_axe_finds_nothing_serious(person: Person, theme: str) -> None:
    person.theme(theme)
    person.field("facts", "Prompt").fill("a prompt without a slot")
    person.button("facts", "Stage").click()
    expect(wrong(person).first).to_be_visible()
    person.fact_row("Eiffel Tower").get_by_role("gridcell").nth(1).click()
    person.button("scope", "Prompts of the selected").click()
    table = person.grid("scope", "prompts, fired or missed")
    expect(table.get_by_role("gridcell").first).to_be_visible()
    person.settled()
    context = {"include": [[".cv-playground"]], "exclude": [[part] for part in THEIRS]}
    found = []
    for panel in TABS:
        person.panel(panel)  # brings it to the front
        found += Axe().run(person.page, context).response["violations"]
    serious = {
        f"{one['id']}: {node['target']}: {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    }
    assert not serious, "\n\n".join(sorted(serious))


@pytest.mark.parametrize("kind", HOSTILE)
def test_odd_text_is_text_in_every_field(person: Person, kind: str) -> None:
    text = HOSTILE[kind]
    for panel in ("facts", "rounds"):
        open_more(person, panel)
    for panel, label in FIELDS:
        field = person.field(panel, label)
        field.fill(text)
        assert field.input_value().split() == text.split(), label  # one line has no line breaks
    for panel, button in BUTTONS:
        person.button(panel, button).click()
    for problem in ("Prompt", "Target"):  # the slot is missing or there twice: refused, not lost
        assert person.field("facts", problem).input_value().split() == text.split()
    expect(wrong(person).first).to_be_visible()
    keep = person.root.locator(".cv-keep")
    keep.get_by_label(re.compile("folder", re.IGNORECASE)).fill(text)
    keep.get_by_role("button", name="Open").click()
    expect(keep.locator(".cv-alert")).to_be_visible()
    setting = person.grid("rounds", "settings").get_by_role("gridcell").nth(1)
    setting.dblclick()
    person.page.keyboard.insert_text(" ".join(text.split()))
    person.page.keyboard.press("Enter")
    expect(person.panel("rounds").locator(".cv-alert")).to_be_visible()
    person.says("round 1 of 1")
    unharmed(person)


def test_odd_facts_are_edited_like_others_and_shown_as_text(person: Person) -> None:
    for panel in ("ask", "scope"):
        person.field(panel, "Prompt").fill("The Eiffel Tower")
    tag = HOSTILE["tag"]
    person.field("facts", "Prompt").fill(f"{tag} {{}} is <b>in")
    person.field("facts", "Subject").fill("<u>Eiffel</u> 🗼")
    person.field("facts", "Target").fill("Oslo")
    for label in ("Truth", "Paraphrases", "Neighbours"):
        person.field("facts", label).fill("")
    person.button("facts", "Stage").click()
    person.staged(1)
    target = person.grid("facts", "staged facts as a table").get_by_role("gridcell").last
    target.dblclick()
    person.page.keyboard.insert_text("<i>Rome</i>")
    person.page.keyboard.press("Enter")
    row = person.fact_row("<u>Eiffel</u> 🗼")
    expect(row).to_contain_text(f"{tag} <u>Eiffel</u> 🗼 is <b>in")
    expect(row).to_contain_text("<i>Rome</i>")
    person.button("rounds", "Apply").click()
    person.says("round 2 of 2", "2 facts")
    row.get_by_role("gridcell").nth(1).click()
    expect(person.field("ask", "Prompt")).to_have_value(f"{tag} <u>Eiffel</u> 🗼 is <b>in")
    for panel in TABS:
        person.panel(panel)
    person.settled()
    unharmed(person)


def open_more(person: Person, panel: str) -> None:
    more = person.button(panel, "More")
    if "mod-active" not in (more.get_attribute("class") or ""):
        more.click()


def wrong(person: Person) -> Locator:
    """What is said beside the fields of a fact that cannot be edited."""
    return person.panel("facts").locator(".cv-bad").filter(has_text=re.compile(r"\w"))


def unharmed(person: Person) -> None:
    """Nothing that was typed has become a part of the page."""
    assert person.page.evaluate("window.hacked") is None
    ours = person.root.locator(".widget-html, .cv-grid-box")  # buttons have an <i> of their own
    expect(ours.locator("img, u, i, script")).to_have_count(0)
