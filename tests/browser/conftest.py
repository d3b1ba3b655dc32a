"""A browser, servers and pages, each started once where it can be."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from find_chromium import find_chromium
from playwright.sync_api import Browser, Page, sync_playwright
from serving import Watch, serve_app, serve_lab

import coachhook_viz as cv

VIEWPORT = {"width": 1500, "height": 1000}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium: make test installs one")
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a fresh context."""
    context = browser.new_context(viewport=VIEWPORT)
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(page: Page) -> Watch:
    """What happens in the page and should not; no request leaves this machine."""
    return Watch(page)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, lm: cv.LanguageModel) -> Iterator[str]:
    """Address of the notebook in a JupyterLab of its own; the model is in the cache."""
    with serve_lab(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, lm: cv.LanguageModel) -> Iterator[str]:
    """Address of the playground as an app, in a Voilà of its own."""
    with serve_app(tmp_path_factory.mktemp("app")) as address:
        yield address
