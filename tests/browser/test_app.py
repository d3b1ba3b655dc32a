"""The same playground as an app: real Voilà, no code, nothing fetched from elsewhere."""

from __future__ import annotations

import re

import pytest
from person import Person
from playwright.sync_api import Page, expect
from serving import Watch

pytestmark = pytest.mark.browser


def test_a_persons_path_through_the_app(app: str, page: Page, watch: Watch) -> None:
    page.goto(app)
    person = Person(page)
    expect(person.panel("scope")).to_be_visible()
    expect(page.get_by_text("import coachhook_viz")).to_have_count(0)
    expect(page.get_by_role("heading", name="What you see")).to_have_count(0)
    person.answers("Paris")
    person.type_fact("The {} is located in the city of", "Eiffel Tower", "Rome")
    person.button("rounds", "Apply").click()
    person.says("round 1 of 1", "1 fact", "hooks on")
    person.answers("Rome")
    inside = person.cell("Tower", 3)
    expect(inside).to_have_class(re.compile("cv-framed"))
    inside.click()
    expect(person.panel("scope")).to_contain_text("is reached by")
    slider = person.panel("scope").get_by_role("slider").first
    slider.press("End")
    slider.press("PageUp")
    expect(person.cell("Tower", 3)).to_have_attribute("aria-label", re.compile("not in scope$"))
    person.button("rounds", "Undo").click()
    person.says("round 0 of 1", "hooks off")
    person.answers("Paris")
    person.shoot("app-light")
    watch.check()
