"""The same playground as an app: real Voilà, no code, nothing fetched from elsewhere."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from person import Person
from playwright.sync_api import Page, expect
from serving import Watch

pytestmark = pytest.mark.browser


def test_a_persons_path_through_the_app(app: str, page: Page, watch: Watch) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(app)
    person = Person(page)
    expect(person.panel("ask")).to_be_visible()
    expect(page.get_by_text("import coachhook_viz")).to_have_count(0)
    expect(page.get_by_role("heading", name="What you see")).to_have_count(0)
    person.answers("Paris")
    person.type_fact("The {} is located in the city of", "Eiffel Tower", "Rome")
    person.button("facts", "Apply now").click()
    person.after(1, of=1)
    person.answers("Rome")
    expect(person.panel("scope")).to_contain_text(
        re.compile("“Eiffel Tower” is seen at token .*asks")
    )
    expect(person.cell("Tower", 1)).to_have_attribute("aria-label", re.compile("subject seen$"))
    asks = person.cell("of", 0)
    expect(asks).to_have_class(re.compile("cv-framed"))
    asks.click()
    expect(person.panel("scope")).to_contain_text("is reached by")
    slider = person.panel("scope").get_by_role("slider").first
    slider.press("End")
    expect(person.panel("scope")).to_contain_text("With this the model would say")
    person.settled()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    person.shoot("app-dark")
    assert axe(page) == set()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) != dark
    person.shoot("app-light")
    assert axe(page) == set()
    person.press("Files and sharing")
    for button, name in {
        "Share report": "report.html",
        "Code": "session.py",
        "Data (CSV)": "facts.csv",
        "Picture": "picture.png",
    }.items():
        with page.expect_download() as download:
            person.press(button)
        assert download.value.suggested_filename == name
        assert download.value.path().stat().st_size > 100
    person.press("Undo")
    person.after(0, of=1)
    person.answers("Paris")
    watch.check()


def axe(page: Page) -> set[str]:
    found = Axe().run(page, {"include": [[".cv-playground"]]}).response["violations"]
    return {f"{one['id']}: {node['target']}" for one in found for node in one["nodes"]}
