"""How long a person waits at 1,000 facts in 100 rounds: real JupyterLab, real browser.

    python benchmarks/panels_at_size.py [--facts 1000 --rounds 100] [--session FOLDER]

The session is one of a tiny random model, so that what is timed is the page and what the panels
make for it, not the model; `--session` opens a saved one of the default model instead. Each time is
taken in the page, from the event to the frame after the change that it brings; "blocked" is the
longest task of the page's main thread meanwhile, during which it answers to nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

import coachhook_viz as cv

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "browser"), str(ROOT / "tests")]
from find_chromium import find_chromium
from person import LENSES, SLOW, Person, open_lab, run_first
from playground import CLOCK
from serving import NOTEBOOK, serve_lab
from tiny import WORDS, tiny_model, tiny_session

# The list and the cells that hang on a click, and what tells that the page has drawn them.
LIST = "document.querySelector('.cv-facts [role=listbox]')"
LINE = "document.querySelector('.cv-coachhook .cv-grid-timeline [aria-selected=true]')"
IDLE = "document.querySelector('.cv-status')?.textContent === 'idle'"
TINY = """\
import sys
sys.path[:0] = [{tests!r}]
import coachhook_viz as cv
from tiny import tiny_model, tiny_moments

lm = tiny_model(lead="He ")
session = cv.Session.load({folder!r}, lm, tiny_moments(lm))
cv.playground(session)"""
REAL = """\
import coachhook_viz as cv

session = cv.Session.load({folder!r}, cv.load_model())
cv.playground(session)"""
BLOCKS = """() => {
  window.blocks = [];
  new PerformanceObserver((list) => window.blocks.push(...list.getEntries().map((e) => e.duration)))
    .observe({ type: 'longtask' });
}"""


def make_session(folder: Path, facts: int, rounds: int) -> None:
    """Write `facts` facts in `rounds` rounds into a tiny model, and save the session."""
    session = tiny_session(tiny_model(lead="He "), scope="match", steps=1)
    people = [word for word in WORDS if word[0].isupper()]
    names = [" ".join(one) for one in list(permutations(people, 3))[:facts]]
    forms = ("{} lives in the old city of", "The new language of {} is", "He and {} was near")
    made = [
        cv.Fact(
            forms[i % 3],
            name,
            ("Oslo", "red blue", "Quito")[i % 3],
            paraphrases=(f"Today {name} works in",),
            neighbors=(cv.Neighbor(f"{people[i % len(people)]} is a"),),
        )
        for i, name in enumerate(names)
    ]
    size = facts // rounds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, facts, size):
            session.apply(made[start : start + size])
    session.save(folder)


class Timed:
    """Times and blocks of what a person does, by name."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: dict[str, list[tuple[float, float]]] = {}
        page.evaluate(BLOCKS)

    def __call__(
        self, name: str, event: str, shown: str, act: Callable[[], object], rest: bool = True
    ) -> None:
        """Do `act`; wait until `shown` is true, and until all is still."""
        page = self.page
        page.evaluate("window.blocks = []")
        page.evaluate(CLOCK, [event, shown])
        act()
        waited = float(page.evaluate("window.waited"))
        page.wait_for_timeout(400)
        if rest:
            Person(page).settled()
            page.wait_for_timeout(1500)  # the picture for when there is no kernel
        blocked = max(page.evaluate("window.blocks"), default=0.0)
        self.found.setdefault(name, []).append((waited, blocked))
        print(f"{name}: {waited:.0f} ms, blocked {blocked:.0f} ms", file=sys.stderr, flush=True)

    def table(self) -> str:
        """Medians and the slowest, as Markdown."""
        lines = ["| from the event to the frame, ms | median | slowest | blocked, longest |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        for name, found in self.found.items():
            waits = [waited for waited, _ in found]
            most = max(blocked for _, blocked in found)
            lines.append(f"| {name} | {median(waits):.0f} | {max(waits):.0f} | {most:.0f} |")
        return "\n".join(lines)


def visit(page: Page, address: str, times: int) -> Timed:
    """Do what a person does with so many facts."""
    notebook = open_lab(page, address)
    timed = Timed(page)
    ready = f"({LIST}?.children.length > 5)"
    person = Person(page)
    timed("the cell to the list of facts", "keydown", ready, lambda: run_first(page, notebook))
    person.panel("scope")
    for place in range(times):
        row = person.facts.nth(2 + place)
        text = row.locator(".cv-item-text").inner_text()
        prompt = "document.querySelector('.cv-ask textarea, .cv-ask input').value"
        picked = f"{LIST}.querySelector('[aria-selected=true]')?.textContent.includes({text!r})"
        timed("a click on a fact to its row", "click", picked, row.click)
        shown = f"{prompt}.includes({text.split()[1]!r}) && {IDLE}"
        row = person.facts.nth(3 + place + times)
        timed("a click on a fact to all being still", "click", shown, row.click)
    search = person.field("facts", "Search facts")
    search.click()
    few = f"{LIST}.getAttribute('aria-label') !== null && {IDLE}"
    for letter in "Rome Anna":
        key = f"document.activeElement.value.endsWith({letter!r})"
        timed(
            "a letter in the search to the field",
            "input",
            key,
            lambda k=letter: page.keyboard.press("Space" if k == " " else k),
        )
    search.fill("")
    end = "(document.activeElement.dataset.key === 'f999')"
    person.facts.first.click()
    timed(
        "End, to the last of the facts",
        "keydown",
        f"document.activeElement.role === 'option' && {IDLE}",
        lambda: page.keyboard.press("End"),
    )
    del few, end
    rounds = int(page.evaluate(f"{LINE}.dataset.column"))
    for place in range(2 * times):
        goal = rounds - (place % 2 == 0)
        name = "Redo" if place % 2 else "Undo"
        moved = f"{LINE}?.dataset.column === '{goal}'"
        timed("Undo or Redo to the timeline", "click", moved, lambda n=name: person.press(n))
    for lens in LENSES[1:]:
        tab = person.root.get_by_role("tab", name=lens.capitalize(), exact=True)
        there = f"document.querySelector('.cv-lens [role=tab][aria-selected=true]').textContent === {lens.capitalize()!r}"
        timed(f"the tab {lens.capitalize()}", "click", there, tab.click)
    for lens in ("drift", "interference"):
        person.panel(lens)
        grid = f"document.querySelector('.cv-{lens} .cv-grid-heat [role=gridcell]')"
        if person.button(lens, "Measure").is_visible():
            timed(
                f"{lens.capitalize()}: Measure to the cells",
                "click",
                f"{grid} !== null",
                person.button(lens, "Measure").click,
            )
        cells = person.panel(lens).locator(".cv-grid-heat").first.get_by_role("gridcell")
        print(lens, "cells", cells.count(), file=sys.stderr)
        for place in range(times):
            cell = cells.nth(place * 3 + 1)
            picked = f"{grid.replace('[role=gridcell]', '[aria-selected=true]')} !== null"
            timed(f"{lens.capitalize()}: a click on a cell", "click", picked, cell.click)
    return timed


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--session", type=Path, help="a saved session of the default model")
    arguments = parser.parse_args()
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium: python tests/browser/find_chromium.py")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        saved = arguments.session
        if saved is None:
            saved = folder / "many facts"
            make_session(saved, arguments.facts, arguments.rounds)
        code = (TINY if arguments.session is None else REAL).format(
            tests=str(ROOT / "tests"), folder=str(saved.resolve())
        )
        with serve_lab(folder) as address:
            notebook = folder / "notebooks" / NOTEBOOK
            content = json.loads(notebook.read_text("utf-8"))
            content["cells"] = [
                {"cell_type": "code", "source": code, "metadata": {}, "outputs": [],
                 "execution_count": None, "id": "only"}
            ]  # fmt: skip
            notebook.write_text(json.dumps(content), "utf-8")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(SLOW)
            timed = visit(page, address, arguments.times)
            browser.close()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n{timed.table()}")


if __name__ == "__main__":
    main()
