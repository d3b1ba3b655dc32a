"""Find a Chromium for the browser tests, or install one: python tests/browser/find_chromium.py

Looks at $CHROMIUM, then at PATH, then at Playwright's own. Without any, installs Debian's as root,
Playwright's otherwise. Where that fails too, browser tests are skipped, except in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Path of a browser that starts; None where there is none."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        path = shutil.which(chosen)
        if path is None or not starts(path):
            raise FileNotFoundError(f"CHROMIUM={chosen} is not a browser that starts")
        return path
    paths = [shutil.which(name) for name in NAMES]
    return next((path for path in [*paths, playwrights_own()] if path and starts(path)), None)


def starts(path: str) -> bool:
    """Whether it can run at all: some systems put a stub under a browser's name."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def playwrights_own() -> str | None:
    """Path of the browser that Playwright downloaded, if it did."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def install() -> None:
    """Try to install a browser; whether it worked is for `find_chromium` to say."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update"], env=quiet)
        subprocess.run(["apt-get", "install", "-y", "chromium"], env=quiet)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"])


def main() -> int:
    """Print the path; 1 where CI has none."""
    path = find_chromium()
    if path is None:
        install()
        path = find_chromium()
    if path is not None:
        print(f"browser tests use {path}")
        return 0
    print("no Chromium and none could be installed: browser tests cannot run", file=sys.stderr)
    return int(os.environ.get("CI") == "true")


if __name__ == "__main__":
    sys.exit(main())
