"""One playground in JupyterLab, for those who use no mouse, do not see it, or type odd things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from person import LENSES, Person, open_lab, run_first
from playwright.sync_api import Browser, ElementHandle, Locator, expect
from serving import TINY, Watch, serve_lab
from tiny import many_rounds

VIEWPORT = {"width": 1440, "height": 900}
LONG = ("responsibility " * 1_000)[:10_000]
HOSTILE = {
    "tag": "<img src=x onerror=window.hacked=1>",
    "emoji": "🗼👩‍👩‍👧🇮🇹",
    "right to left": "‮מגדל أيفل",
    "two slots": "The {} of {} is",
    "long": LONG,
}
FIELDS = [
    ("facts", "Prompt of the fact"), ("facts", "Subject"), ("facts", "Target"), ("facts", "Truth"),
    ("facts", "Wordings"), ("facts", "Paraphrases"), ("facts", "Neighbours"), ("facts", "Paste"),
    ("rounds", "Name"), ("rounds", "New branch"), ("ask", "Prompt to examine"),
    ("scope", "Prompts at once"),
]  # fmt: skip
BUTTONS = [
    ("facts", "Apply now"), ("facts", "Stage"), ("facts", "Read"), ("rounds", "Begin"),
    ("scope", "Check"),
]  # fmt: skip
# places of the rows that can be seen, and pairs of neighbours that do not meet
SEEN = """box => {
  const { top, bottom } = box.getBoundingClientRect();
  return [...box.querySelectorAll('[role=option]')].filter((row) => {
    const inner = row.getBoundingClientRect();
    return inner.bottom > top && inner.top < bottom;
  }).map((row) => row.ariaPosInSet);
}"""
GAPS = """box => {
  const rows = [...box.querySelectorAll('[role=option]')];
  const bounds = rows.map((row) => row.getBoundingClientRect());
  return rows.slice(1).map((row, i) => [row.ariaPosInSet - rows[i].ariaPosInSet,
    Math.abs(bounds[i + 1].top - bounds[i].bottom)]).filter(([step, gap]) => step === 1 && gap > 1);
}"""
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def person(browser: Browser, lab: str) -> Iterator[Person]:
    context = browser.new_context(viewport=VIEWPORT)
    page = context.new_page()
    watch = Watch(page)
    person = run_first(page, open_lab(page, lab))
    person.answers("Paris")
    person.under("z-score")  # several layers, and a threshold for each
    page.evaluate(Path(__file__).with_name("checks.js").read_text("utf-8"))
    yield person
    context.close()
    watch.check()


def check(element: Locator | ElementHandle, name: str) -> Any:
    """What one of `checks.js` finds."""
    return element.evaluate(f"one => window.checks.{name}(one)")


def focused(person: Person) -> Locator:
    return person.page.locator(":focus")


def tab_to(person: Person, wanted: Locator, key: str = "Tab") -> None:
    """Press Tab until `wanted` has the focus; it never falls to the page's body."""
    for _ in range(60):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        person.page.keyboard.press(key)
        assert person.page.evaluate("document.activeElement !== document.body")
    raise AssertionError(f"Tab does not reach {wanted}; it stands at {focused(person)}")


def test_facts_rounds_and_the_grid_by_keyboard_alone(person: Person) -> None:
    press, type_ = person.page.keyboard.press, person.page.keyboard.type
    cells = person.page.locator(".jp-Notebook:visible .jp-Cell")
    count = cells.count()
    person.field("facts", "Prompt of the fact").focus()
    type_("The Eiffel Tower is located in the city of", delay=60)
    press("Tab")
    type_("Eiffel Tower", delay=60)
    press("Tab")
    expect(person.panel("facts")).to_contain_text(re.compile("last token.*Tower"))
    type_("Berlin", delay=60)
    tab_to(person, person.button("facts", "Apply now"))
    press("Enter")
    person.after(1, of=1)
    expect(person.button("facts", "Apply now")).to_be_focused()  # it rests, and keeps the focus
    person.answers("Berlin")

    # back and forth along the timeline, a way that notebooks use for other things
    tab_to(person, person.bar.get_by_role("button", name="Undo"), "Shift+Tab")
    press("Space")
    person.after(0, of=1)
    line = person.bar.get_by_role("grid", name="rounds in force")
    line.get_by_role("gridcell").first.focus()
    press("End")
    press("Enter")
    person.after(1, of=1)
    for key in ("a", "b", "m", "d", "d", "x"):
        press(key)
        expect(cells).to_have_count(count)
    expect(line.get_by_role("gridcell").last).to_be_focused()

    # the list of facts, and what is done with a fact
    row = person.fact("Eiffel Tower")
    tab_to(person, row)
    press("Enter")
    expect(row).to_have_attribute("aria-selected", "true")
    tab_to(person, person.button("facts", "Mute"))
    press("Space")
    person.answers("Paris")
    press("Space")
    person.answers("Berlin")

    # the lenses, and the token grid
    person.settled()
    tab_to(person, person.root.get_by_role("tab", name="Scope"))
    press("ArrowRight")
    layers = person.root.get_by_role("tab", name="Layers")
    expect(layers).to_be_focused()
    expect(layers).to_have_attribute("aria-selected", "true")
    press("Home")
    cell = person.cell("Tower", 0)
    cell.focus()
    press("ArrowDown")
    expect(person.cell("Tower", 1)).to_be_focused()
    press("Home")
    grid = person.grid("scope", "scope")
    expect(grid.get_by_role("row").nth(2).get_by_role("gridcell").first).to_be_focused()
    press("PageDown")
    press("PageUp")
    press("End")
    press("ArrowLeft")
    press("Enter")
    expect(focused(person)).to_have_attribute("aria-selected", "true")
    expect(person.panel("scope")).to_contain_text(re.compile("“.*” at layer 4 is reached by"))
    press("Tab")
    expect(grid.get_by_role("gridcell").and_(focused(person))).to_have_count(0)


def test_layers_why_and_what_else_in_one_visit(person: Person) -> None:
    person.show_bench()
    person.fact("Eiffel Tower").click()
    person.answers("Berlin")

    # layers: a click on a hooked one compares without its hook, one on a token reads there
    blocks = person.grid("layers", "probability")
    heads = blocks.get_by_role("columnheader")
    hooked = heads.filter(has_text="▪5")
    expect(hooked).to_be_visible()
    place = hooked.evaluate("head => head.cellIndex") - 1  # the corner
    blocks.locator("tbody").get_by_role("row").first.get_by_role("gridcell").nth(place).click()
    expect(blocks.get_by_role("rowheader").filter(has_text="without layer 5").first).to_be_visible()
    tokens = person.grid("layers", "read at")
    tokens.get_by_role("gridcell").nth(2).click()
    expect(tokens.get_by_role("gridcell").nth(2)).to_have_text("●")
    person.shoot("layers")

    # why, opened from Ask
    person.button("ask", "Why?").click()
    why = person.panel("why")
    expect(why).to_contain_text("as “Eiffel Tower → Berlin” wants")
    rows = person.grid("why", "gates").locator("tbody").get_by_role("row")
    expect(rows).to_have_count(6)
    person.type(person.field("ask", "Prompt to"), "The tower of Paris is in", 20)
    expect(why).to_contain_text("No subject of an edit in force stands in the prompt")
    person.shoot("why")

    # what else: asked at a click; table, map, and the line in the bar
    person.button("what else", "Ask").click()
    table = person.grid("what else", "prompts beside")
    lines = table.locator("tbody").get_by_role("row")
    expect(lines.nth(20)).to_be_visible()
    expect(person.bar).to_contain_text("same subject")
    person.settled()
    lines.nth(3).get_by_role("gridcell").nth(1).click()
    asked = lines.nth(3).get_by_role("gridcell").nth(1).inner_text()
    expect(person.field("ask", "Prompt to")).to_have_value(asked)
    plot = person.panel("what else").locator(".cv-dots svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    mouse = person.page.mouse
    mouse.move(box["x"] + 2, box["y"] + 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2, steps=5)
    mouse.up()
    expect(person.panel("what else")).to_contain_text(re.compile(r"\d+ of \d+ prompts"))
    person.shoot("what-else")
    person.button("what else", "Show all of them").click()
    expect(lines.nth(20)).to_be_visible()
    person.fact("Eiffel Tower").click()
    person.answers("Berlin")


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 720)])
def test_apply_answer_and_reason_on_one_screen(person: Person, width: int, height: int) -> None:
    size = person.page.viewport_size
    person.page.set_viewport_size({"width": width, "height": height})
    person.show_bench()
    person.fact("Eiffel Tower").click()
    person.answers("Berlin")
    inside = person.cell("Tower", 3)  # brings Scope to the front
    seen = [
        person.bar,
        person.button("facts", "Apply now"),
        person.panel("ask").locator(".cv-said").last,
        person.grid("scope", "scope"),
        inside,
    ]
    for one in seen:
        box = one.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
        expect(one).to_be_in_viewport(ratio=0.9)  # a wide grid is moved sideways
    for lens in LENSES:
        person.panel(lens)
        assert check(person.root, "clipped") == []
        person.shoot(f"keyboard-{lens}-{width}")
    if size is not None:
        person.page.set_viewport_size(size)


def test_facts_beside_ask_at_150_percent(person: Person) -> None:
    size = person.page.viewport_size
    person.page.set_viewport_size({"width": 853, "height": 480})  # 1280×720, zoomed
    person.show_bench()
    for one in (person.field("facts", "Prompt of the fact"), person.field("ask", "Prompt to")):
        expect(one).to_be_in_viewport(ratio=0.98)
    facts, ask = (person.panel(name).bounding_box() for name in ("facts", "ask"))
    assert facts is not None
    assert ask is not None
    assert ask["x"] >= facts["x"] + facts["width"]
    person.shoot("zoomed")
    if size is not None:
        person.page.set_viewport_size(size)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_button_can_be_read_in_every_state(person: Person, theme: str) -> None:
    person.theme(theme)
    unfold(person)
    seen, poor = 0, []
    for lens in LENSES:
        person.panel(lens)
        person.settled()
        for button in person.root.locator("button:visible").element_handles():
            if not button.is_visible():  # it went while others were looked at
                continue
            name = button.inner_text()
            states: dict[str, Any] = {"rest": check(button, "contrast")}
            button.hover()
            states["hover"] = check(button, "contrast")
            button.focus()
            states["focus"] = check(button, "contrast")
            was = button.get_attribute("aria-disabled")
            if was is not None:
                button.evaluate("one => one.setAttribute('aria-disabled', 'true')")
                states["disabled, hover"] = check(button, "contrast")
                person.page.mouse.move(0, 0)
                states["disabled"] = check(button, "contrast")
                button.evaluate("(one, was) => one.setAttribute('aria-disabled', was)", was)
            seen += len(states)
            poor += [
                f"{name} {state}: {ratio:.2f}"
                for state, (ratio, opacity) in states.items()
                if ratio < 4.5 or opacity < 1
            ]
    assert seen > 100
    assert poor == []
    unfold(person, open_=False)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_axe_finds_nothing_and_every_control_has_a_name(person: Person, theme: str) -> None:
    person.theme(theme)
    unfold(person)
    person.field("facts", "Prompt of the fact").fill("a prompt without a slot")
    person.button("facts", "Stage").click()
    expect(wrong(person).first).to_be_visible()
    person.fact("Eiffel Tower").click()
    person.button("scope", "Prompts of the selected").click()
    table = person.grid("scope", "prompts, fired or missed")
    expect(table.get_by_role("gridcell").first).to_be_visible()
    person.settled()
    found = []
    for lens in LENSES:
        person.panel(lens)
        found += Axe().run(person.page, {"include": [[".cv-playground"]]}).response["violations"]
        assert check(person.root, "unnamed") == []
    said = {
        f"{one['id']}: {node['target']}: {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    }
    assert not said, "\n\n".join(sorted(said))
    expect(person.root.locator("[title=null]")).to_have_count(0)
    for region in ("coachhook", "Facts", "Ask", "Scope"):
        named = person.root.get_by_role("region", name=region, exact=True)
        if region == "Scope":
            person.panel("scope")
        expect(named.locator("h2")).to_have_text(region)
    for toggle in person.root.locator("button[aria-expanded], button[aria-pressed]").all():
        states = [toggle.get_attribute(f"aria-{name}") for name in ("expanded", "pressed")]
        assert {"true", "false"} & set(states)
    after = person.panel("ask").locator(".cv-said").last
    expect(after).to_have_attribute("aria-live", "polite")
    unfold(person, open_=False)


@pytest.mark.parametrize("kind", HOSTILE)
def test_odd_text_is_text_in_every_field(person: Person, kind: str) -> None:
    text = HOSTILE[kind]
    unfold(person)
    for panel, label in FIELDS:
        field = person.field(panel, label)
        field.fill(text)
        assert field.input_value() == text, label
    for panel, button in BUTTONS:
        person.button(panel, button).click()
    for problem in ("Prompt of the fact", "Target"):  # refused, not lost
        assert person.field("facts", problem).input_value() == text
    expect(wrong(person).first).to_be_visible()
    person.bar.get_by_label("Session folder").fill(text)
    person.press("Open the session")
    expect(person.bar.locator(".cv-alert")).not_to_be_empty()
    setting = person.grid("rounds", "settings").get_by_role("gridcell").nth(1)
    setting.dblclick()
    person.page.keyboard.insert_text(text)
    person.page.keyboard.press("Enter")
    expect(person.panel("rounds").locator(".cv-alert")).not_to_be_empty()
    person.after(1, of=1)
    unharmed(person)


def test_odd_facts_are_edited_like_others_and_shown_as_text(person: Person) -> None:
    tag = HOSTILE["tag"]
    for label in ("Truth", "Wordings", "Paraphrases", "Neighbours"):
        person.field("facts", label).fill("")
    person.field("facts", "Prompt of the fact").fill(f"{tag} {{}} is <b>in")
    person.field("facts", "Subject").fill("<u>Eiffel</u> 🗼")
    person.field("facts", "Target").fill("<i>Rome</i>")
    person.button("facts", "Apply now").click()
    person.after(2, of=2)
    row = person.fact("<u>Eiffel</u> 🗼")
    expect(row).to_contain_text(f"{tag} <u>Eiffel</u> 🗼 is <b>in")
    expect(row).to_contain_text("<i>Rome</i>")
    row.click()
    expect(person.field("ask", "Prompt to")).to_have_value(f"{tag} <u>Eiffel</u> 🗼 is <b>in")
    for lens in LENSES:
        person.panel(lens)
    person.settled()
    unharmed(person)


def unfold(person: Person, open_: bool = True) -> None:
    """Open, or close, all that unfolds."""
    toggles = [
        person.button("facts", "More fields"),
        person.bar.get_by_role("button", name="Files and sharing"),
        person.button("scope", "Several prompts"),
    ]
    for toggle in toggles:
        if (toggle.get_attribute("aria-expanded") == "true") != open_:
            person.panel("scope")
            toggle.click()


def wrong(person: Person) -> Locator:
    """What is said beside the fields of a fact that cannot be edited."""
    return person.panel("facts").locator(".cv-bad").filter(has_text=re.compile(r"\w"))


def unharmed(person: Person) -> None:
    """Nothing that was typed has become a part of the page."""
    assert person.page.evaluate("window.hacked") is None
    expect(person.root.locator("img, u, i, script")).to_have_count(0)


def test_hundreds_of_facts_in_dozens_of_rounds(browser: Browser, tmp_path: Path) -> None:
    """The list draws what can be seen, and is whole to keys and ears; grids are in blocks."""
    many_rounds(400, 40).save(tmp_path / "many")
    context = browser.new_context(viewport=VIEWPORT)
    page = context.new_page()
    watch = Watch(page)
    with serve_lab(tmp_path / "lab", TINY % str(tmp_path / "many")) as address:
        person = run_first(page, open_lab(page, address))
        person.settled()
        rows, key = person.facts, page.keyboard.press
        expect(rows.first).to_have_attribute("aria-setsize", "400")
        assert 10 < rows.count() < 100
        rows.nth(3).click()
        expect(person.button("facts", "Mute fact")).to_be_visible()  # the list is less high now
        person.settled()
        key("End")
        expect(focused(person)).to_have_attribute("aria-posinset", "400")
        expect(focused(person)).to_be_in_viewport(ratio=0.9)
        key("Shift+ArrowUp")
        expect(focused(person)).to_have_attribute("aria-posinset", "399")
        expect(person.button("facts", "Mute 2")).to_be_visible()
        key("PageUp")
        expect(focused(person)).to_have_attribute("aria-posinset", "389")
        expect(focused(person)).to_be_in_viewport(ratio=0.9)
        key("Home")
        expect(focused(person)).to_have_attribute("aria-posinset", "1")
        key("Control+a")
        expect(person.button("facts", "Mute 400")).to_be_visible()
        box = person.panel("facts").locator(".cv-list")
        seen = set()
        for _ in range(40):  # no gap, wherever it is scrolled to
            box.hover()
            page.mouse.wheel(0, 700)
            page.wait_for_timeout(60)
            seen |= set(box.evaluate(SEEN))
        assert len(seen) > 100
        assert box.evaluate(GAPS) == []
        first = min(box.evaluate(SEEN))
        page.set_viewport_size({"width": 1100, "height": VIEWPORT["height"]})
        page.wait_for_timeout(300)
        assert min(box.evaluate(SEEN)) == first  # other lines, and still the same fact
        page.set_viewport_size(VIEWPORT)
        expect(rows.nth(0)).to_have_attribute("aria-posinset", "1")  # Tab still comes to it
        words = rows.last.locator(".cv-item-text b").inner_text()
        person.field("facts", "Search").fill(words)
        row = person.fact(words)
        row.click()
        expect(row).to_have_attribute("aria-selected", "true")
        person.field("facts", "Search").fill("")
        expect(rows.first).to_have_attribute("aria-setsize", "400")
        expect(row).to_be_in_viewport(ratio=0.9)  # the one that is chosen, of four hundred
        page.set_viewport_size({**VIEWPORT, "height": 760})  # the list is less high
        page.wait_for_timeout(300)
        expect(row).to_be_in_viewport(ratio=0.9)
        page.set_viewport_size(VIEWPORT)
        assert Axe().run(page, {"include": [[".cv-facts"]]}).response["violations"] == []

        for lens in ("drift", "interference"):
            person.button(lens, "Measure").click()
            grid = person.panel(lens).locator(".cv-grid-heat").first
            cells = grid.get_by_role("gridcell")
            expect(cells.first).to_be_visible()
            expect(person.panel(lens)).to_contain_text("click to open it")
            assert cells.count() <= 1250
            person.shoot(f"many-{lens}")
            cells.nth(1).click()
            expect(grid).to_have_class(re.compile("cv-picks-cell"))
            person.settled()
            grid.locator("td:not(.cv-none)").first.click()
            expect(grid.locator("[aria-selected=true]")).to_have_count(1)
            person.panel(lens).get_by_role("button", name="Zoom out").click()
            expect(grid).to_have_class(re.compile("cv-picks-block"))
            person.settled()
        context.close()
    watch.check()
