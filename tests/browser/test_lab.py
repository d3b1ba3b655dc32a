"""A person's path through the playground notebook: real JupyterLab, real Chromium, real model."""

from __future__ import annotations

import re

import pytest
from person import LENSES, Person, open_lab, restart, run_first
from playwright.sync_api import Page, expect
from serving import Watch

SIZES = {"1440": (1440, 900), "1280": (1280, 720)}

pytestmark = pytest.mark.browser


def test_a_persons_path_through_the_notebook(lab: str, page: Page, watch: Watch) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    notebook = open_lab(page, lab)
    twins = notebook.locator(".jp-OutputArea img")
    expect(twins).to_have_count(3)  # nobody has said to trust the notebook, and no kernel ran
    for image in twins.all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")

    person = run_first(page, notebook)
    person.says("0 facts")
    person.answers("Paris", "before")
    person.answers("Paris")
    expect(person.panel("scope")).to_contain_text("No round yet.")
    expect(person.panel("scope")).to_contain_text("Two keys: an edit changes one relation")
    person.under("z-score")
    expect(person.panel("scope")).to_contain_text("z-score, the published rule")
    bars = person.panel("ask").locator(".cv-grid-bars .cv-after")
    expect(bars).to_have_count(0)  # nothing has changed, so nothing is coloured

    # a fact, typed, is in force a moment later
    person.type_fact("The {} is located in the city of", "Eiffel Tower", "Rome")
    expect(person.panel("facts")).to_contain_text("Now says “Paris”")
    person.button("facts", "Apply now").click()
    person.says("editing 1 fact")
    expect(person.bar.get_by_role("button", name="Undo")).to_have_attribute("aria-disabled", "true")
    expect(person.button("facts", "Cancel")).to_be_visible()
    person.after(1, of=1)
    person.says("1 fact")
    person.answers("Rome")
    person.answers("Paris", "before")
    expect(bars.first).to_be_visible()

    look_at_the_scope(person)
    say_it_again(person)
    apply_in_rounds(person)
    look_through_all_lenses(person)

    # back and forth, and without one fact, wherever its row stands
    person.press("Undo")
    person.after(2, of=3)
    person.press("Redo")
    person.after(3, of=3)
    person.fact("Eiffel Tower").click()
    person.type_fact("The capital of {} is", "Norway", "Lima", 60)
    person.button("facts", "Stage").click()
    person.staged(1)
    expect(person.fact("Eiffel Tower")).to_have_attribute("aria-selected", "true")
    expect(person.fact("Norway")).to_have_attribute("aria-selected", "false")
    person.button("facts", "Mute fact").click()
    person.says("4 facts", "1 muted")
    expect(person.fact("Eiffel Tower")).to_contain_text("muted")
    person.answers("Paris")
    person.settled()

    # the kernel is restarted: the picture stays, and the next playground goes on
    expect(person.panel("facts")).to_contain_text("Saved at")
    restart(page)
    expect(person.root).to_contain_text("The kernel is gone")
    expect(person.fact("Eiffel Tower")).to_contain_text("muted")
    expect(person.field("ask", "Prompt to")).to_be_disabled()
    person.shoot("without-kernel")
    person = run_first(page, notebook)
    offer = person.root.get_by_role("button", name=re.compile("Go on: 3 rounds, 5 facts"))
    offer.click()
    person.after(3, of=3)
    person.says("4 facts", "1 muted")
    person.fact("Eiffel Tower").click()
    person.answers("Paris")
    person.button("facts", "Unmute fact").click()
    person.answers("Rome")

    # the cell once more: the same session, in one view
    person = run_first(page, notebook)
    expect(person.root).to_have_count(1)
    person.after(3, of=3)
    person.root.get_by_role("button", name="Start afresh").click()
    person.says("0 facts")
    person.under("two-key")
    one_relation_of_a_subject(person)
    watch.check()


def one_relation_of_a_subject(person: Person) -> None:
    """With two keys France gets another capital, and keeps its language."""
    person.type_fact("The capital of {} is", "France", "Rome", 60)
    person.button("facts", "Apply now").click()
    person.after(1, of=1)
    person.answers("Rome")
    said = re.compile("“France” is seen at token 4; the prompt asks for")
    expect(person.panel("scope")).to_contain_text(said)
    person.shoot("two-keys")
    person.type(person.field("ask", "Prompt to"), "The official language of France is", 60)
    expect(person.panel("scope")).to_contain_text("but nothing asks for")
    person.answers("French")


def look_at_the_scope(person: Person) -> None:
    """Where the hook speaks, and what another rule or threshold would do."""
    inside = person.cell("Tower", 3)
    expect(inside).to_have_attribute("aria-label", re.compile(": in scope$"))
    expect(inside).to_have_class(re.compile("cv-framed"))
    person.press("match")
    first = person.grid("scope", "scope").get_by_role("rowheader").first
    expect(first).to_have_text(re.compile(r"layer 4 · τ 0\.\d\d$"))
    expect(person.panel("scope")).to_contain_text("With this the model would say “Rome”")
    person.press("z-score")
    expect(first).to_contain_text("α")
    expect(person.panel("scope")).to_contain_text("The model says “Rome”")
    person.press("Hooks on")
    person.answers("Paris")
    person.press("Hooks off")
    person.answers("Rome")
    slider = person.panel("scope").get_by_role("slider").first
    slider.focus()
    slider.press("ArrowRight")
    expect(person.panel("scope")).to_contain_text("With this the model would say")
    slider.press("End")
    expect(person.cell("Tower", 3)).to_have_attribute("aria-label", re.compile("not in scope$"))
    person.button("scope", "Calibrated").click()
    expect(person.cell("Tower", 3)).to_have_class(re.compile("cv-framed"))
    person.cell("Tower", 0).click()
    expect(person.panel("scope")).to_contain_text("is reached by")
    reach = person.grid("scope", "edits that reach")
    expect(reach.get_by_role("rowheader").first).to_contain_text("Eiffel Tower")


def say_it_again(person: Person) -> None:
    """The same fact again is said before it is done."""
    person.type_fact("The {} is located in the city of", "Eiffel Tower", "Rome", 60)
    expect(person.panel("facts")).to_contain_text("Already edited in round 1")
    person.button("facts", "Apply now").click()
    for offer in ("Replace", "Apply anyway", "Leave out"):
        expect(person.button("facts", offer)).to_be_visible()
    person.button("facts", "Leave out").click()
    expect(person.field("facts", "Target")).to_have_value("")
    person.after(1, of=1)


def apply_in_rounds(person: Person) -> None:
    """Five facts of the gallery, four of them in two rounds, with a pause between."""
    person.field("facts", "Gallery").select_option(label="capital")
    person.staged(5)
    staged = person.facts.filter(has_text="staged")
    staged.last.click()
    person.button("facts", "Take back").click()
    person.staged(4)
    person.type(person.field("facts", "in rounds of"), "2")
    person.button("facts", "Apply 4").click()
    person.button("facts", "Pause").click()
    expect(person.panel("facts")).to_contain_text("Paused: 2 facts left.")
    person.after(2, of=2)
    person.button("facts", "Apply 2").click()
    person.after(3, of=3)
    person.says("5 facts")
    person.settled()
    expect(person.fact("Eiffel Tower")).to_contain_text("●")


def look_through_all_lenses(person: Person) -> None:
    """Each of them, at both sizes, in light and dark."""
    scores = person.grid("drift", "Scores of facts")
    expect(scores.locator("tbody").get_by_role("row")).to_have_count(5)
    scores.get_by_role("gridcell").nth(2).click()
    expect(person.panel("drift")).to_contain_text("after round 3")
    person.button("drift", "Measure").click()
    person.settled()
    predicted = person.grid("interference", "predicted")
    expect(predicted.locator("tbody").get_by_role("row")).to_have_count(5)
    predicted.get_by_role("gridcell").nth(1).click()
    person.fact("Eiffel Tower").click()
    person.answers("Rome")
    for theme in ("Light", "Dark"):
        person.theme(theme)
        for size, (width, height) in SIZES.items():
            person.page.set_viewport_size({"width": width, "height": height})
            person.show_bench()
            for lens in LENSES:
                person.panel(lens)
                person.settled()
                person.shoot(f"lab-{theme.lower()}-{size}-{lens}")
    person.theme("Light")
    person.page.set_viewport_size({"width": 1440, "height": 900})
    present(person)


def present(person: Person) -> None:
    """Large type, only the bar, Ask and one lens; the arrow keys go through the rounds."""
    toggle = person.bar.get_by_role("button", name="Files and sharing")
    toggle.click()
    person.press("Presentation")
    toggle.click()
    person.panel("scope")
    expect(person.panel("facts")).to_be_hidden()
    person.page.keyboard.press("ArrowLeft")
    person.after(2, of=3)
    person.page.keyboard.press("ArrowRight")
    person.after(3, of=3)
    size = (
        person.panel("ask").locator(".cv-said").last.evaluate("e => getComputedStyle(e).fontSize")
    )
    assert size == "20px"
    person.show_bench()
    person.shoot("presentation")
    toggle.click()
    person.press("Presentation")
    toggle.click()
    expect(person.panel("facts")).to_be_visible()
