"""Take README's pictures of the playground in the real JupyterLab: python tools/screenshots.py

A round of five facts from the gallery on the default model, one of them looked at; light and dark.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from find_chromium import find_chromium  # noqa: E402
from person import open_lab, run_first  # noqa: E402
from serving import serve_lab  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1440, "height": 900}


def main() -> None:
    """Write docs/images/playground-light.png and playground-dark.png."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    chromium = find_chromium()
    with (
        TemporaryDirectory() as folder,
        serve_lab(Path(folder)) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        person = run_first(page, open_lab(page, address))
        person.field("facts", "Gallery").select_option(label="capital")
        person.staged(5)
        person.button("facts", "Apply 5").click()
        person.after(1, of=1)
        person.settled()
        person.fact("France").click()
        person.answers("Moscow")
        person.settled()
        person.panel("scope").locator(".cv-framed").first.click()
        expect(person.panel("scope")).to_contain_text("is reached by")
        person.settled()
        for theme in ("Light", "Dark"):
            person.theme(theme)
            person.show_bench()
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)
            person.root.screenshot(path=IMAGES / f"playground-{theme.lower()}.png")
        browser.close()


if __name__ == "__main__":
    main()
