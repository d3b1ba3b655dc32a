"""JupyterLab and Voilà, on a copy of the playground notebook, for one who only looks at a page.

serve_lab, serve_app   context managers: the address of the notebook
Watch                  what a page asks of other machines, and the errors it logs
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from playwright.sync_api import Page, Route

ROOT = Path(__file__).parents[2]
NOTEBOOK = "01_playground.ipynb"
TOKEN = "for-this-test-only"
TINY = f"""\
import sys

sys.path.append({str(ROOT / "tests")!r})
import coachhook_viz as cv
from tiny import tiny_model, tiny_moments

lm = tiny_model(lead="He ")
session = cv.Session.load(%r, lm, tiny_moments(lm))
cv.playground(session)"""  # a playground on a saved session of a tiny model
LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


class Watch:
    """What happens in a page and should not.

    Attributes
    ----------
    abroad : list of str
        Requests that would have left this machine; they are stopped.
    errors : list of str
        Messages of the console and uncaught exceptions.
    """

    # said by others, and no concern of ours; the reason stands beside each
    NOISE = (
        "Could not restore the debugger state",  # JupyterLab, when its kernel is restarted
    )

    def __init__(self, page: Page) -> None:
        self.abroad: list[str] = []
        self.errors: list[str] = []
        page.route(re.compile("^https?://"), self._route)
        page.on("console", lambda m: self._hear(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self._hear(str(error)))

    def check(self) -> None:
        """Raise AssertionError if anything happened that should not."""
        assert self.abroad == [], self.abroad
        assert self.errors == [], self.errors

    def _route(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            self.abroad.append(route.request.url)
            route.abort()

    def _hear(self, text: str) -> None:
        if not any(known in text for known in self.NOISE):
            self.errors.append(text)


@contextmanager
def serve_lab(folder: Path, code: str = "") -> Iterator[str]:
    """JupyterLab in `folder`: the address at which it opens the notebook, or one of `code`."""
    notebooks = _copied(folder)
    if code:
        content = json.loads((notebooks / NOTEBOOK).read_text("utf-8"))
        empty = {"metadata": {}, "outputs": [], "execution_count": None, "id": "only"}
        content["cells"] = [{"cell_type": "code", "source": code, **empty}]
        (notebooks / NOTEBOOK).write_text(json.dumps(content), "utf-8")
    for name, values in LAB_SETTINGS.items():
        plugin, _, setting = name.partition("/")
        file = folder / "settings" / "@jupyterlab" / plugin / f"{setting}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    port = _free_port()
    command = [
        "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser",
        f"--LabApp.user_settings_dir={folder / 'settings'}",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        f"--ServerApp.root_dir={notebooks}",
    ]  # fmt: skip
    base = f"http://127.0.0.1:{port}/"
    with _running(command, folder, f"{base}api/status?token={TOKEN}"):
        yield f"{base}lab/tree/{NOTEBOOK}?token={TOKEN}"


@contextmanager
def serve_app(folder: Path) -> Iterator[str]:
    """Voilà in `folder`, as `make app` starts it: the address of the playground."""
    notebooks = _copied(folder)
    port = _free_port()
    command = ["-m", "voila", "--no-browser", f"--port={port}", str(notebooks / NOTEBOOK)]
    app = str(ROOT / "app")
    base = f"http://127.0.0.1:{port}/"
    with _running(command, folder, f"{base}api/status", JUPYTER_PATH=app, JUPYTER_CONFIG_PATH=app):
        yield base


@contextmanager
def _running(command: list[str], folder: Path, ready: str, **more: str) -> Iterator[None]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),  # kernels import this checkout
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_DATA_DIR": str(folder / "data"),  # what this user trusts does not count
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "COACHHOOK_VIZ_SESSIONS": str(folder / "sessions"),
        **more,
    }
    log = folder / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            _await(server, ready, log)
            yield
        finally:
            server.terminate()
            server.wait(timeout=30)


def _await(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Return once the server answers, whatever it answers."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text("utf-8")
        try:
            with urlopen(address, timeout=5):
                return
        except HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(log.read_text("utf-8"))


def _copied(folder: Path) -> Path:
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, notebooks)
    return notebooks


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
