"""What a person finds and does in a playground: by role, by label, by visible word.

open_lab, run_first   open the notebook; the playground in it
Person                someone at a playground
"""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect
from serving import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
SLOW = 120_000  # milliseconds: a round, on a busy machine
LENSES = (
    "scope", "layers", "why", "what else", "drift", "interference", "compare", "sweep", "rounds",
    "model",
)  # fmt: skip
KEY = 120  # milliseconds between two keys of somebody who types

expect.set_options(timeout=SLOW)


class Person:
    """Someone at a playground, in JupyterLab or in Voilà."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator(".cv-playground")

    def panel(self, name: str) -> Locator:
        """The panel called `name`; a lens is brought to the front."""
        panel = self.root.get_by_role("region", name=name.capitalize(), exact=True)
        if name in LENSES and not panel.is_visible():
            self.root.get_by_role("tab", name=name.capitalize(), exact=True).click()
        return panel

    @property
    def bar(self) -> Locator:
        """The bar: where the session stands."""
        return self.root.get_by_role("region", name="coachhook")

    def says(self, *words: str) -> None:
        """The bar says each of `words`."""
        for word in words:
            expect(self.bar).to_contain_text(word)

    def after(self, rounds: int, of: int) -> None:
        """So many rounds are in force, of so many."""
        line = self.bar.get_by_role("grid", name="rounds in force").get_by_role("gridcell")
        expect(line).to_have_count(of + 1)
        expect(line.nth(rounds)).to_have_attribute("aria-selected", "true")

    def settled(self) -> None:
        """Nothing is being computed."""
        expect(self.bar.locator(".cv-status")).to_have_text("idle")

    def field(self, panel: str, label: str) -> Locator:
        """The input of a panel with that label, or one that starts so."""
        return self.panel(panel).get_by_label(re.compile(f"^{re.escape(label)}")).first

    def button(self, panel: str, name: str) -> Locator:
        """A button of a panel, by the words it starts with."""
        return self.panel(panel).get_by_role("button", name=re.compile(f"^{re.escape(name)}")).first

    def press(self, name: str) -> None:
        """Press a button of the bar."""
        self.bar.get_by_role("button", name=name, exact=True).click()

    def under(self, rule: str) -> None:
        """Edit under that rule, before the first edit."""
        self.press(rule)
        expect(self.bar.get_by_role("button", name=rule, exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
        self.settled()

    def grid(self, panel: str, name: str) -> Locator:
        """A grid of a panel, by the words its name starts with."""
        return self.panel(panel).get_by_role("grid", name=re.compile(f"^{re.escape(name)}")).first

    def type(self, field: Locator, text: str, delay: int = KEY) -> None:
        """Click into a field, and type over what it holds, key by key."""
        field.click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text, delay=delay)

    def type_fact(self, prompt: str, subject: str, target: str, delay: int = KEY) -> None:
        """Type a fact into the form."""
        self.type(self.field("facts", "Prompt of the fact"), prompt, delay)
        self.type(self.field("facts", "Subject"), subject, delay)
        self.type(self.field("facts", "Target"), target, delay)
        last = subject.split()[-1]
        expect(self.panel("facts")).to_contain_text(re.compile(f"last token.*{last}"))

    def staged(self, count: int) -> None:
        """So many facts are staged."""
        expect(self.button("facts", f"Apply {count}")).to_have_attribute("aria-disabled", "false")

    def answers(self, word: str, side: str = "after") -> None:
        """The text on that side of Ask begins with `word`."""
        said = self.panel("ask").locator(".cv-said").nth(("before", "after").index(side))
        expect(said).to_contain_text(re.compile(rf"^\W*{word}"))

    @property
    def facts(self) -> Locator:
        """The rows of the list of facts."""
        return self.panel("facts").get_by_role("listbox", name="facts").get_by_role("option")

    def fact(self, words: str) -> Locator:
        """A row of the list of facts that contains `words`."""
        return self.facts.filter(has_text=words).first

    def cell(self, column: str, row: int) -> Locator:
        """A cell of the scope grid under the token that contains `column`."""
        grid = self.grid("scope", "scope")
        head = grid.get_by_role("columnheader").filter(has_text=column).first
        expect(head).to_be_visible()
        place = head.evaluate("head => head.cellIndex") - 1  # the corner
        return grid.locator("tbody").get_by_role("row").nth(row).get_by_role("gridcell").nth(place)

    def shoot(self, name: str) -> None:
        """Keep a picture of the page, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme to "Light" or "Dark"."""
        change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(change, f"JupyterLab {name}")
        light = str(name == "Light").lower()
        expect(self.page.locator(f"body[data-jp-theme-light={light}]")).to_have_count(1)
        self.page.wait_for_load_state("networkidle")

    def show_bench(self) -> None:
        """Scroll the notebook so that the bar is at its top, as it is after the cell was run."""
        self.root.evaluate("element => element.scrollIntoView({ block: 'start' })")


def open_lab(page: Page, address: str) -> Locator:
    """Open the notebook in JupyterLab, its kernel ready and the side bar closed; the notebook."""
    page.goto(address)
    notebook = page.locator(".jp-Notebook:visible")
    expect(notebook.locator(".jp-Cell").first).to_be_visible()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
    if page.locator(".jp-FileBrowser").is_visible():
        page.evaluate("window.jupyterapp.shell.collapseLeft()")
    return notebook


def run_first(page: Page, notebook: Locator) -> Person:
    """Run the first code cell; someone at the playground that it shows."""
    notebook.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    person = Person(page)
    expect(person.panel("ask")).to_be_visible()
    return person


def restart(page: Page) -> None:
    """Restart the kernel, through the menu."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
