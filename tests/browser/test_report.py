"""A report in a browser, opened from disk: no kernel, no server, no network."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from person import SCREENSHOTS
from playwright.sync_api import Browser, Locator, Page, expect
from serving import Watch
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv

WIDTHS = {"desk": {"width": 1280, "height": 720}, "phone": {"width": 400, "height": 800}}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def session() -> cv.Session:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:3])
    session.apply(tiny_facts()[3:])
    session.label(2, "the <b>rest</b>")
    return session


@pytest.fixture(scope="module")
def address(session: cv.Session, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = cv.report(session, tmp_path_factory.mktemp("report") / "report.html")
    return path.as_uri()


@pytest.fixture(scope="module")
def long_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a report with more rounds than a phone has room for."""
    session = tiny_session(tiny_model(lead="He "))
    for one, other in permutations(("Anna", "Bruno", "Carla", "Diego"), 2):
        session.apply([cv.Fact("The city of {} is", f"{one} {other}", "Oslo")])
    path: Path = cv.report(session, tmp_path_factory.mktemp("report") / "report.html")
    return path.as_uri()


def row(page: Page, subject: str) -> Locator:
    return page.locator("#retention tbody tr").filter(has_text=f"{subject} →")


def shares(page: Page, side: str) -> list[str]:
    """The numbers on one side of the fact that is looked at."""
    table = page.get_by_role("table", name=f"likeliest next tokens {side}", exact=True)
    return table.locator("td.number").all_inner_texts()


def test_the_slider_moves_retention_answers_and_scope_together(
    session: cv.Session, address: str, page: Page, watch: Watch
) -> None:
    page.goto(address)
    slider = page.get_by_role("slider", name="Rounds in force")
    expect(slider).to_have_attribute("aria-valuetext", "2 of 2: the <b>rest</b>")
    fact = tiny_facts()[0]
    row(page, fact.subject).get_by_role("button").click()
    panel = page.get_by_role("region", name=f"{fact.text} → {fact.target}")
    expect(panel).to_be_visible()
    heard = page.locator("#live")
    slider.focus()
    for key, place in (("ArrowLeft", 1), ("End", 2), ("Home", 0), ("ArrowRight", 1)):
        slider.press(key)
        expect(slider).to_be_focused()
        cell = row(page, fact.subject).locator("td").first
        if place == 0:
            expect(page.locator("#where")).to_have_text("none: the unedited model")
            expect(cell).to_have_text("–")
            expect(panel.get_by_text("not edited yet")).to_be_visible()
            expect(heard).to_contain_text("before any round")
            continue
        state, when = session.state_at(place), f"after {place} round{'s' * (place > 1)}"
        quality = session.quality().set_index(["fact", "round", "metric"])["value"]
        expect(cell).to_have_text(f"{quality[0, place, 'target_probability']:.2f}")
        top = session.predict(fact.text, state=state)["probability"]
        assert shares(page, when) == [f"{p:.2f}" for p in top]
        scope = session.scope(fact.text, fact.subject, state)
        assert panel.locator(".scope td.in").count() == int(scope.in_scope.sum())
        for name in scope.layer_names:
            expect(panel.get_by_role("rowheader", name=name)).to_be_visible()
        expect(panel.get_by_text(scope.explain())).to_be_visible()
        expect(heard).to_contain_text(f"{when}: {3 * place} facts")
    expect(page.get_by_role("columnheader", name="1", exact=True)).to_have_class("now")
    page.get_by_role("button", name="One round less").click()
    expect(page.locator("#where")).to_have_text("none: the unedited model")
    expect(page.get_by_role("button", name="One round less")).to_be_disabled()
    watch.check()


def test_a_click_on_a_fact_shows_its_prompts_before_and_after(
    session: cv.Session, address: str, page: Page, watch: Watch
) -> None:
    page.goto(address)
    fact = tiny_facts()[4]
    button = row(page, fact.subject).get_by_role("button")
    button.focus()
    button.press("Enter")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#retention [aria-pressed=true]")).to_have_count(1)
    lines = page.locator("#fact .prompts tbody tr")
    prompts = [fact.text, *fact.paraphrases, *(neighbor.prompt for neighbor in fact.neighbors)]
    for line, prompt in zip(lines.all(), prompts, strict=True):
        before, after = (
            session.predict(prompt, 1, edited=edited).iloc[0] for edited in (False, True)
        )
        cells = line.locator("td")
        expect(cells.nth(1)).to_have_text(prompt)
        expect(cells.nth(2)).to_contain_text(f"{before['token']} {before['probability']:.2f}")
        expect(cells.nth(3)).to_contain_text(f"{after['token']} {after['probability']:.2f}")
        spoke = session.scope(prompt).in_scope.any()
        expect(cells.nth(4)).to_have_text("speaks" if spoke else "silent")
    row(page, fact.subject).locator("td").nth(1).click()  # round 1, before this fact's own
    expect(page.locator("#fact")).to_contain_text("This fact is edited in round 2.")
    watch.check()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_anyone_can_use_it(
    long_address: str, page: Page, watch: Watch, width: str, scheme: str
) -> None:
    page.set_viewport_size(WIDTHS[width])
    page.emulate_media(color_scheme=scheme)
    page.goto(long_address)
    for image in page.locator("img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    for opened in (False, True):
        if opened:
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"report-{scheme}-{width}.png", full_page=True)
    watch.check()


def test_without_javascript_all_of_it_is_there(address: str, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_role("slider")).to_be_hidden()
    for fact in tiny_facts():
        expect(row(page, fact.subject)).to_be_visible()
    page.locator("summary").first.click()
    prompts = page.get_by_role("region", name="Prompts of fact 0")
    expect(prompts.get_by_text(tiny_facts()[0].paraphrases[0])).to_be_visible()
    expect(page.get_by_role("region", name="Scope on the prompt of fact 0")).to_be_visible()
    context.close()


def test_on_paper_nothing_is_cut_off(address: str, page: Page, watch: Watch) -> None:
    page.goto(address)
    page.emulate_media(media="print")
    expect(page.get_by_role("slider")).to_be_hidden()
    for card in page.locator(".bench > .card").all():
        assert card.evaluate("card => card.scrollHeight <= card.clientHeight + 1")
    watch.check()
