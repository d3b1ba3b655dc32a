"""How long a person waits for the playground: real JupyterLab, real browser, real model.

    python benchmarks/playground.py [--times 12]

Each time is taken in the page, from the event of a key or a click to the frame after the change
that it brings. The model is in the cache, the kernel fresh; one fact is in force.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

import coachhook_viz as cv

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from find_chromium import find_chromium
from person import KEY, SLOW, Person, open_lab, run_first
from serving import serve_lab

CITIES = (
    "Paris", "Rome", "London", "Berlin", "Madrid", "Vienna", "Moscow", "Tokyo", "Boston",
    "Chicago", "Dublin", "Athens",
)  # fmt: skip
KERNELS = 3  # fresh ones
TOKENS = 12

# From the next event of that kind to the first frame in which `shown` is true.
CLOCK = """([kind, shown]) => {
  const ready = new Function(`return ${shown}`);
  window.waited = new Promise((resolve) => {
    let start = null;
    const look = () => {
      if (start === null || !ready()) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    };
    const observer = new MutationObserver(look);
    observer.observe(document.body, {
      childList: true, subtree: true, attributes: true, characterData: true,
    });
    const begin = () => { start = performance.now(); };
    document.addEventListener(kind, begin, { capture: true, once: true });
  });
}"""
SEEN = "(document.querySelector('{}')?.getBoundingClientRect().height > 0)"
CAN_APPLY = """[...document.querySelectorAll('.cv-facts button')].some(
  (button) => button.textContent.startsWith('Apply 1') && button.ariaDisabled === 'false'
)"""
IDLE = "document.querySelector('.cv-status')?.textContent === 'idle'"
GRID = "document.querySelector('.cv-scope .cv-grid-tokens')"
AFTER = "document.querySelectorAll('.cv-said')[1].textContent"


def clock(page: Page, event: str, shown: str) -> None:
    """Start at the next `event`; stop once the expression `shown` is true."""
    page.evaluate(CLOCK, [event, shown])


def waited(page: Page) -> float:
    """Milliseconds."""
    return float(page.evaluate("window.waited"))


def first_paint(page: Page, address: str) -> tuple[float, float]:
    """From the key that runs the cell to the playground, and to panels one can use."""
    found = []
    for part in (".cv-playground", ".cv-ask .cv-grid-bars [role=gridcell]"):
        notebook = open_lab(page, address)
        clock(page, "keydown", SEEN.format(part))
        run_first(page, notebook)
        found.append(waited(page))
        Person(page).settled()
        restart(page)
    return found[0], found[1]


def restart(page: Page) -> None:
    """A fresh kernel, and a page that shows nothing of the old one."""
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")


def one_fact(person: Person, city: str) -> float:
    """From the click on Apply now to the new answer in Ask; then the fact is taken back."""
    person.type_fact("The {} is located in the city of", "Eiffel Tower", city, 20)
    person.settled()
    clock(person.page, "click", f"{AFTER}.trim().startsWith('… {city}')")
    person.button("facts", "Apply now").click()
    found = waited(person.page)
    person.settled()
    return found


def undone(person: Person, times: int) -> list[float]:
    """From a click on Undo or Redo to all being still, in states that were seen before."""
    found = []
    for place in range(times + 2):
        name = "Redo" if place % 2 else "Undo"
        line = "document.querySelector('.cv-coachhook .cv-grid-timeline [aria-selected=true]')"
        goal = 1 - (place % 2 == 0)
        clock(person.page, "click", f"{line}?.dataset.column === '{goal}' && {IDLE}")
        person.press(name)
        found.append(waited(person.page))
        person.page.wait_for_timeout(600)
        person.settled()
    return found[2:]  # the first two see their states for the first time


def echoes(person: Person, times: int) -> list[float]:
    """From a key to its letter in the field, while the model answers."""
    field = person.field("ask", "Prompt to examine")
    person.type(field, "The capital", KEY)
    found = []
    for place in range(times):
        letter = "abcdefghijkl"[place % 12]
        last = "document.activeElement.value.endsWith('{}')"
        clock(person.page, "keydown", last.format(letter))
        person.page.evaluate(  # a field's value is no mutation: say that the letter is there
            "document.activeElement.addEventListener('input', () =>"
            " document.body.toggleAttribute('data-typed'), { once: true })"
        )
        person.page.keyboard.press(letter)
        found.append(waited(person.page))
        person.page.wait_for_timeout(KEY)
    return found


def new_prompts(person: Person, times: int) -> list[float]:
    """From the last character of a prompt of 12 tokens to its grid."""
    field = person.field("ask", "Prompt to examine")
    found = []
    for place in range(times):
        city = CITIES[place % len(CITIES)]
        last = f"[...{GRID}.querySelectorAll('thead th')].at(-1)?.textContent.includes('{city}')"
        clock(person.page, "input", last)
        field.fill(f"The Eiffel Tower is located in the city of {city}")
        found.append(waited(person.page))
        person.settled()
        assert person.grid("scope", "scope").get_by_role("columnheader").count() == TOKENS + 1
    return found


def slider_steps(person: Person, times: int) -> list[float]:
    """From an arrow key on the slider to the grid that follows it."""
    slider = person.panel("scope").get_by_role("slider").first
    slider.focus()
    found = []
    rows = f"[...{GRID}.querySelectorAll('tbody th')].map((th) => th.textContent).join()"
    for place in range(times):
        before = person.page.evaluate(rows)
        clock(person.page, "keydown", f"{rows} !== {before!r}")
        slider.press("ArrowLeft" if place % 2 else "ArrowRight")
        found.append(waited(person.page))
        person.page.wait_for_timeout(400)
        person.settled()
    return found


def cancels(person: Person, times: int) -> list[float]:
    """From a click on Cancel while ten facts are edited to buttons that can be used again."""
    for relation in ("capital", "language"):
        person.field("facts", "Gallery").select_option(label=relation)
    person.staged(10)
    found = []
    for _ in range(times):
        person.button("facts", "Apply 10").click()
        person.page.get_by_text(re.compile("target states, step [3-9]")).wait_for(timeout=SLOW)
        clock(person.page, "click", CAN_APPLY)
        person.button("facts", "Cancel").click()
        found.append(waited(person.page))
        person.settled()
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=len(CITIES))
    times = parser.parse_args().times
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium: python tests/browser/find_chromium.py")
    cv.load_model()  # into the cache
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_lab(Path(folder)) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        paints = [first_paint(page, address) for _ in range(KERNELS)]
        person = run_first(page, open_lab(page, address))
        person.settled()
        applied = []
        for city in CITIES[1:4]:
            applied.append(one_fact(person, city))
            person.press("Undo")
            person.settled()
        applied.append(one_fact(person, "Vienna"))
        lines = [
            ("playground in a fresh kernel", [one for one, _ in paints], None),
            ("panels that can be used", [two for _, two in paints], 4000),
            ("Apply of one fact to the new answer", applied, 2000),
            ("Undo or Redo to all being still, a seen state", undone(person, times), 300),
            ("key to its letter, while the model answers", echoes(person, times), 100),
            (f"prompt of {TOKENS} tokens to its grid", new_prompts(person, times), 500),
            ("step of a threshold's slider to the grid", slider_steps(person, times), 100),
            ("click on Cancel, ten facts being edited, to its effect", cancels(person, 6), 1000),
        ]
        browser.close()
    print("| from the event to the frame, ms | median | slowest | times | target |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, found, target in lines:
        goal = "" if target is None else f"≤ {target}"
        print(f"| {name} | {median(found):.0f} | {max(found):.0f} | {len(found)} | {goal} |")


if __name__ == "__main__":
    main()
