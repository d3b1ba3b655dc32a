"""How long a person waits at 1,000 facts in 100 rounds: real JupyterLab, real browser.

    python benchmarks/panels_at_size.py [--facts 1000 --rounds 100] [--session FOLDER]

The session is one of a tiny random model, so that what is timed is the page and what the panels
make for it, not the model; `--session` opens a saved one of the default model instead. Each time is
taken in the page, from the event to the frame after the change that it brings; "blocked" is the
longest task of the page's main thread meanwhile, during which it answers to nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "browser"), str(ROOT / "tests")]

from find_chromium import find_chromium  # noqa: E402
from person import LENSES, SLOW, Person, open_lab, run_first  # noqa: E402
from playground import CLOCK  # noqa: E402
from serving import TINY, serve_lab  # noqa: E402
from tiny import many_rounds  # noqa: E402

# What tells that the page has drawn what a click brings.
LIST = "document.querySelector('.cv-facts [role=listbox]')"
LINE = "document.querySelector('.cv-coachhook .cv-grid-timeline [aria-selected=true]')"
PROMPT = "document.querySelector('.cv-ask :is(textarea, input)')"
IDLE = "document.querySelector('.cv-status')?.textContent === 'idle'"
REAL = """\
import coachhook_viz as cv

session = cv.Session.load(%r, cv.load_model())
cv.playground(session)"""
BLOCKS = """() => {
  window.blocks = [];
  new PerformanceObserver((list) => window.blocks.push(...list.getEntries().map((e) => e.duration)))
    .observe({ type: 'longtask' });
}"""


class Timed:
    """Times and blocks of what a person does, by name."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: dict[str, list[tuple[float, float]]] = {}
        page.evaluate(BLOCKS)

    def __call__(self, name: str, event: str, shown: str, act: Callable[[], object]) -> None:
        """Do `act`; wait until `shown` is true, and until all is still."""
        page = self.page
        page.evaluate("window.blocks = []")
        page.evaluate(CLOCK, [event, shown])
        act()
        waited = float(page.evaluate("window.waited"))
        page.wait_for_timeout(400)
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
    person = Person(page)
    ready = f"({LIST}?.children.length > 5)"
    timed("the cell to the list of facts", "keydown", ready, lambda: run_first(page, notebook))
    person.panel("scope")
    for place in range(times):
        row = person.facts.nth(2 + place)
        words = row.locator(".cv-item-text").inner_text()
        picked = f"{LIST}.querySelector('[aria-selected=true]')?.textContent.includes({words!r})"
        timed("a click on a fact to its row", "click", picked, row.click)
        row = person.facts.nth(3 + place + times)
        words = row.locator(".cv-item-text").inner_text()
        asked = f"{PROMPT}?.value === {words!r} && {IDLE}"
        timed("a click on a fact to all being still", "click", asked, row.click)
    search = person.field("facts", "Search facts")
    search.click()
    total = "[...document.querySelectorAll('.cv-facts [role=option]')].length"
    for letter in "qbm"[:times]:
        page.evaluate(f"window.rowsBefore = {LIST}.style.height + {total}")
        fewer = f"{LIST}.style.height + {total} !== window.rowsBefore"
        timed("a letter in the search to fewer rows", "input", fewer, partial(search.press, letter))
        search.fill("")
        person.settled()
        page.wait_for_timeout(1000)
    for key in ("End", "Home") * times:
        person.facts.first.focus()
        there = "document.activeElement.role === 'option'"
        timed("End or Home in the list", "keydown", there, partial(page.keyboard.press, key))
    rounds = int(page.evaluate(f"{LINE}.dataset.column"))
    for place in range(2 * times):
        name, goal = ("Redo", rounds) if place % 2 else ("Undo", rounds - 1)
        moved = f"{LINE}?.dataset.column === '{goal}'"
        timed("Undo or Redo to the timeline", "click", moved, partial(person.press, name))
    for lens in LENSES[1:]:
        title = lens.capitalize()
        tab = person.root.get_by_role("tab", name=title, exact=True)
        open_ = "document.querySelector('.cv-lens [role=tab][aria-selected=true]')"
        timed(f"the tab {title}", "click", f"{open_}.textContent === {title!r}", tab.click)
    for lens in ("drift", "interference"):
        look_closely(timed, person, lens, times)
    return timed


def look_closely(timed: Timed, person: Person, lens: str, times: int) -> None:
    """Measure, open blocks, look at cells."""
    title, panel = lens.capitalize(), person.panel(lens)
    grid = f"document.querySelector('.cv-{lens} .cv-grid-heat')"
    cells = panel.locator(".cv-grid-heat").first.get_by_role("gridcell")
    there = f"{grid}?.querySelector('[role=gridcell]')"
    measure = person.button(lens, "Measure")
    if measure.is_visible():
        timed(f"{title}: Measure to the cells", "click", f"{there} != null", measure.click)
    out = panel.get_by_role("button", name="Zoom out")
    for place in range(times):
        if cells.count() and not out.is_visible():
            block = cells.nth(3 * place + 1)
            opened = f"{grid}.classList.contains('cv-picks-cell')"
            timed(f"{title}: a click on a block to its cells", "click", opened, block.click)
        cell = panel.locator(".cv-grid-heat").first.locator("td:not(.cv-none)").nth(place)
        picked = f"{grid}.querySelector('[aria-selected=true]') !== null"
        timed(f"{title}: a click on a cell", "click", picked, cell.click)
        if out.is_visible():
            closed = f"{grid}.classList.contains('cv-picks-block')"
            timed(f"{title}: Zoom out", "click", closed, out.click)


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
            many_rounds(arguments.facts, arguments.rounds).save(saved)
        code = (TINY if arguments.session is None else REAL) % str(saved.resolve())
        with serve_lab(folder, code) as address:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(SLOW)
            timed = visit(page, address, arguments.times)
            browser.close()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n{timed.table()}")


if __name__ == "__main__":
    main()
