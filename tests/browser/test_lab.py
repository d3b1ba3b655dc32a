"""A person's path through the playground notebook: real JupyterLab, real Chromium, real model."""

from __future__ import annotations

import re

import pytest
from person import Person, open_lab, run_first
from playwright.sync_api import Locator, Page, expect
from serving import Watch

PANELS = ("facts", "rounds", "ask", "scope", "drift", "interference", "compare")
EIFFEL = "The Eiffel Tower is located in the city of"

pytestmark = pytest.mark.browser


def test_a_persons_path_through_the_notebook(lab: str, page: Page, watch: Watch) -> None:
    notebook = open_lab(page, lab)
    twins = notebook.locator(".jp-OutputArea img")
    expect(twins).to_have_count(3)  # nobody has said to trust the notebook, and no kernel ran
    for image in twins.all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")

    person = run_first(page, notebook)
    person.says("round 0 of 0", "0 facts", "hooks off")
    person.answers("Paris", "before")
    person.answers("Paris")

    # a fact, typed, is in force a moment later
    person.type_fact("The {} is located in the city of", "Eiffel Tower", "Rome")
    person.button("rounds", "Apply").click()
    person.says("editing 1 fact")
    expect(person.button("rounds", "Cancel")).to_be_enabled()
    expect(person.button("rounds", "Undo")).to_be_disabled()
    expect(person.button("facts", "Stage")).to_be_disabled()
    person.says("round 1 of 1", "1 fact", "hooks on")
    person.answers("Rome")
    person.answers("Paris", "before")

    # where the hook speaks, and what another threshold would do
    inside = person.cell("Tower", 3)
    expect(inside).to_have_attribute("aria-label", re.compile(": in scope$"))
    expect(inside).to_have_class(re.compile("cv-framed"))
    person.button("scope", "match").click()
    first = person.grid("scope", "scope").get_by_role("rowheader").first
    expect(first).to_have_text("layer 4 · τ 0.50")
    expect(person.panel("scope")).to_contain_text("With this the model would say “Rome”")
    person.button("scope", "z-score").click()
    expect(first).to_contain_text("α")
    expect(person.panel("scope")).to_contain_text("The model says “Rome”")
    expect(person.cell("Tower", 3)).to_have_class(re.compile("cv-framed"))
    slider = person.panel("scope").get_by_role("slider").first
    slider.focus()
    slider.press("ArrowRight")
    expect(person.panel("scope")).to_contain_text("With this the model would say")
    silence(slider)
    expect(person.cell("Tower", 3)).to_have_attribute("aria-label", re.compile("not in scope$"))
    person.button("scope", "Calibrated").click()
    expect(person.cell("Tower", 3)).to_have_class(re.compile("cv-framed"))
    person.cell("Tower", 0).click()
    expect(person.panel("scope")).to_contain_text("is reached by")
    reach = person.grid("scope", "edits that reach")
    expect(reach.get_by_role("rowheader").first).to_contain_text("Eiffel Tower")

    # a second round, from the gallery
    person.field("facts", "Gallery").select_option(label="capital")
    person.staged(5)
    for left in (4, 3, 2, 1):
        person.fact_row("staged").get_by_role("gridcell").first.click()
        person.button("facts", "Take back").click()
        person.staged(left)
    person.button("rounds", "Apply").click()
    person.says("round 2 of 2", "2 facts")
    person.settled()
    expect(person.fact_row("Eiffel Tower")).to_contain_text("●")

    look_at_drift_and_interference(person)
    for theme in ("Light", "Dark"):
        person.theme(theme)
        person.shoot(f"lab-{theme.lower()}")
        person.shoot(f"lab-{theme.lower()}", PANELS)

    # back, forth, and without one fact
    person.button("rounds", "Undo").click()
    person.says("round 1 of 2", "1 fact")
    person.button("rounds", "Redo").click()
    person.says("round 2 of 2", "2 facts")
    person.fact_row("Eiffel Tower").get_by_role("gridcell").nth(1).click()
    person.button("rounds", "Mute fact").click()
    person.says("round 2 of 2", "1 fact")
    person.answers("Paris")
    expect(person.fact_row("Eiffel Tower")).to_contain_text("muted")

    # kept, and found again in another kernel
    keep(person, "kept", "Save")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
    expect(person.root).to_have_count(1)
    person = run_again(page, person)
    keep(person, "kept", "Open")
    person.says("round 2 of 2", "1 fact")
    expect(person.fact_row("Eiffel Tower")).to_contain_text("muted")
    person.answers("Paris")
    person.fact_row("Eiffel Tower").get_by_role("gridcell").nth(1).click()
    person.button("rounds", "Unmute fact").click()
    person.answers("Rome")
    watch.check()


def look_at_drift_and_interference(person: Person) -> None:
    retention = person.grid("drift", "retention")
    expect(retention.locator("tbody").get_by_role("row")).to_have_count(2)
    retention.get_by_role("gridcell").nth(1).click()
    expect(person.panel("drift")).to_contain_text("after round 2")
    person.button("drift", "Measure").click()
    person.settled()
    predicted = person.grid("interference", "predicted")
    expect(predicted.locator("tbody").get_by_role("row")).to_have_count(2)
    predicted.get_by_role("gridcell").nth(1).click()
    answers = person.grid("interference", "both prompts")
    expect(answers.locator("tbody").get_by_role("row")).to_have_count(2)
    expect(person.grid("compare", "settings")).to_be_visible()


def silence(slider: Locator) -> None:
    """Move α above what any token reaches, by keyboard."""
    slider.press("End")  # where the slider's range ended at first
    slider.press("PageUp")  # and where it does now


def keep(person: Person, folder: str, button: str) -> None:
    """Name a folder and press a button beside it."""
    person.root.get_by_label(re.compile("folder", re.IGNORECASE)).fill(folder)
    person.root.get_by_role("button", name=button, exact=True).click()
    done = {"Save": "Saved to", "Open": "Opened"}[button]
    said = re.compile(rf"{done} .*{folder}\.")
    expect(person.root.get_by_text(said)).to_be_visible()


def run_again(page: Page, old: Person) -> Person:
    """Run the first cell once more: what the old kernel's playground showed is gone."""
    notebook = page.locator(".jp-Notebook:visible")
    notebook.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(old.root.locator(".cv-pills")).to_contain_text("round 0 of 0")
    return Person(page)
