"""What a person finds and does in a playground: by role, by label, by visible word.

open_lab, open_app   open the notebook; the playground in it
Person               someone at a playground
"""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect
from serving import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
SLOW = 120_000  # milliseconds: a round, on a busy machine
TABS = ("drift", "interference", "compare")

expect.set_options(timeout=SLOW)


class Person:
    """Someone at a playground, in JupyterLab or in Voilà."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator(".cv-playground")

    def panel(self, name: str) -> Locator:
        """The panel called `name`, brought to the front where it stands behind a tab."""
        panel = self.root.locator(f".cv-{name}")
        if name in TABS and not panel.is_visible():
            self.root.get_by_role("tab", name=name.title(), exact=True).click()
        return panel

    def says(self, *words: str) -> None:
        """The header says each of `words`."""
        for word in words:
            expect(self.root.locator(".cv-pills")).to_contain_text(word)

    def settled(self) -> None:
        """Nothing is being computed."""
        expect(self.root.get_by_role("status")).to_have_text("idle")

    def field(self, panel: str, label: str) -> Locator:
        """The input of a panel with that label, or one that starts so."""
        return self.panel(panel).get_by_label(re.compile(f"^{re.escape(label)}")).first

    def button(self, panel: str, name: str) -> Locator:
        """A button of a panel, by the words it starts with."""
        return self.panel(panel).get_by_role("button", name=re.compile(f"^{re.escape(name)}")).first

    def grid(self, panel: str, name: str) -> Locator:
        """A grid of a panel, by the words its name starts with."""
        return self.panel(panel).get_by_role("grid", name=re.compile(f"^{re.escape(name)}")).first

    def type_fact(self, prompt: str, subject: str, target: str) -> None:
        """Type a fact into the form and stage it."""
        self.field("facts", "Prompt").press_sequentially(prompt)
        self.field("facts", "Subject").press_sequentially(subject)
        last = subject.split()[-1]
        expect(self.panel("facts")).to_contain_text(re.compile(f"last token.*{last}"))
        self.field("facts", "Target").fill(target)
        self.button("facts", "Stage").click()
        self.staged(1)

    def staged(self, count: int) -> None:
        """So many facts are staged."""
        expect(self.button("rounds", f"Apply {count}")).to_be_enabled()

    def answers(self, word: str, side: str = "after") -> None:
        """The text on that side of Ask begins with `word`."""
        said = self.panel("ask").locator(".cv-said").nth(("before", "after").index(side))
        expect(said).to_contain_text(re.compile(rf"^\W*{word}"))

    def fact_row(self, words: str) -> Locator:
        """A row of the list of facts that contains `words`."""
        return self.grid("facts", "facts").get_by_role("row").filter(has_text=words).first

    def cell(self, column: str, row: int) -> Locator:
        """A cell of the scope grid under the token that contains `column`."""
        grid = self.grid("scope", "scope")
        tokens = grid.get_by_role("columnheader").all_inner_texts()
        place = next(i for i, text in enumerate(tokens) if column in text) - 1  # the corner
        return grid.locator("tbody").get_by_role("row").nth(row).get_by_role("gridcell").nth(place)

    def shoot(self, name: str, panels: tuple[str, ...] = ()) -> None:
        """Keep pictures of the whole, or of some panels, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": 1500, "height": 2600})  # all of it at once
        for panel in panels:
            self.panel(panel).screenshot(path=_file(f"{name}-{panel}"), animations="disabled")
        if not panels:
            self.root.screenshot(path=_file(name), animations="disabled")
        if size is not None:
            self.page.set_viewport_size(size)

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme to "Light" or "Dark"."""
        change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(change, f"JupyterLab {name}")
        light = str(name == "Light").lower()
        expect(self.page.locator(f"body[data-jp-theme-light={light}]")).to_have_count(1)
        self.page.wait_for_load_state("networkidle")


def open_lab(page: Page, address: str) -> Locator:
    """Open the notebook in JupyterLab, its kernel ready; the notebook."""
    page.goto(address)
    notebook = page.locator(".jp-Notebook:visible")
    expect(notebook.locator(".jp-Cell").first).to_be_visible()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
    return notebook


def run_first(page: Page, notebook: Locator) -> Person:
    """Run the first code cell; someone at the playground that it shows."""
    notebook.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    person = Person(page)
    expect(person.panel("scope")).to_be_visible()
    return person


def _file(name: str) -> Path:
    return SCREENSHOTS / f"{name}.png"
