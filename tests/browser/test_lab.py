"""A person's path through the playground notebook: real JupyterLab, real Chromium, real model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from find_chromium import find_chromium
from playwright.sync_api import Page, expect, sync_playwright

import coachhook_viz as cv

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
NOTEBOOK = "01_playground.ipynb"
TOKEN = "for-this-test-only"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium() -> str:
    path = find_chromium()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium: make test installs one")
        pytest.skip("no Chromium on this machine")
    return path


@pytest.fixture
def lab(tmp_path: Path, lm: cv.LanguageModel) -> Iterator[str]:
    """Address of a JupyterLab that serves a copy of the notebook."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, notebooks)
    for name, values in SETTINGS.items():
        plugin, _, setting = name.partition("/")
        file = tmp_path / "settings" / "@jupyterlab" / plugin / f"{setting}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    info = tmp_path / "runtime"
    log = (tmp_path / "lab.log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0",
            "--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}",
            f"--LabApp.user_settings_dir={tmp_path / 'settings'}",
            f"--LabApp.workspaces_dir={tmp_path / 'workspaces'}",
            f"--ServerApp.root_dir={notebooks}",
        ],
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(info)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield address(server, info, tmp_path / "lab.log")
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def address(server: subprocess.Popen[bytes], info: Path, log: Path) -> str:
    """Where the server listens, once it answers."""
    for _ in range(600):
        files = list(info.glob("jpserver-*.json"))
        if files and server.poll() is None:
            url = json.loads(files[0].read_text("utf-8"))["url"]
            try:
                with urlopen(f"{url}api/status?token={TOKEN}") as answer:
                    assert answer.status == 200
                return str(url)
            except OSError:
                pass
        assert server.poll() is None, log.read_text("utf-8")
        time.sleep(0.1)
    raise TimeoutError(log.read_text("utf-8"))


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A page of a fresh browser that may speak to this machine only."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        yield page
        browser.close()


def watch(page: Page) -> tuple[list[str], list[str]]:
    """Requests that leave this machine, and errors, as they come."""
    abroad: list[str] = []
    errors: list[str] = []

    def route(route) -> None:
        if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            abroad.append(route.request.url)
            route.abort()

    page.route(re.compile("^https?://"), route)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return abroad, errors


def test_the_notebook_runs_in_jupyterlab(lab: str, page: Page) -> None:
    abroad, errors = watch(page)
    page.goto(f"{lab}lab/tree/{NOTEBOOK}?token={TOKEN}")
    notebook = page.locator(".jp-Notebook:visible")
    expect(notebook.locator(".jp-Cell").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells", exact=True).click()
    code = notebook.locator(".jp-CodeCell")
    expect(notebook.locator(".jp-OutputArea-output")).to_have_count(0, timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    last = code.last.locator(".jp-InputPrompt").first
    expect(last).to_have_text(f"[{code.count()}]:", timeout=240_000)

    expect(notebook.locator(".jp-RenderedText[data-mime-type*=stderr]")).to_have_count(0)
    expect(notebook.get_by_text(re.compile(r"before:.*Paris")).first).to_be_visible()
    expect(notebook.get_by_text(re.compile(r"after: .*Rome")).first).to_be_visible()
    expect(notebook.get_by_text(re.compile(r"no round in force:.*Paris"))).to_be_visible()
    pictures = notebook.locator(".jp-RenderedImage img")
    expect(pictures).to_have_count(2)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for i in range(pictures.count()):
        pictures.nth(i).scroll_into_view_if_needed()
        page.screenshot(path=SCREENSHOTS / f"lab-{i + 1}.png")
    assert abroad == []
    assert errors == []


def test_a_report_opens_from_disk(page: Page, lm: cv.LanguageModel, tmp_path: Path) -> None:
    session = cv.Session(lm)
    session.apply(cv.bundled_facts()[:1])
    path = cv.report(session, tmp_path / "report.html")
    abroad, errors = watch(page)
    page.goto(path.as_uri())
    expect(page.get_by_role("heading", name="Round 1")).to_be_visible()
    for image in page.locator("img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=SCREENSHOTS / f"report-{scheme}.png", full_page=True)
    assert abroad == []
    assert errors == []
