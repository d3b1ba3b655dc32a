"""How the package bounds the spin of torch's threads; benchmarks/busy.py measures what it does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = """
import os, threading
names = [thread.name for thread in threading.enumerate()]
print(os.environ.get("GOMP_SPINCOUNT"), "coachhook_viz spin" in names)
"""
MODEL = """
import sys; sys.path.insert(0, "tests")
from tiny import tiny_model; tiny_model("gpt2"); tiny_model("llama")
"""


def shown(code: str, **chosen: str) -> str:
    """The spin that libgomp reads, and whether a thread stays, after `code` in a fresh process."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + SHOW],
        env={**environment, **chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_spin_is_bounded_before_torch_is_loaded() -> None:
    assert shown("import coachhook_viz") == "5000 False"
    assert shown("import coachhook_viz; import torch" + MODEL) == "5000 False"


def test_where_torch_was_loaded_before_one_thread_stays_once_there_is_a_model() -> None:
    assert shown("import torch, coachhook_viz") == "None False"
    assert shown("import torch, coachhook_viz" + MODEL) == "None True"


@pytest.mark.parametrize("first", ["", "import torch\n"])
def test_what_the_user_chose_stays(first: str) -> None:
    code = first + "import coachhook_viz" + MODEL
    assert shown(code, GOMP_SPINCOUNT="7") == "7 False"
    assert shown(code, OMP_WAIT_POLICY="ACTIVE") == "None False"
