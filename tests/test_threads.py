"""How the package bounds the spin of torch's threads; benchmarks/busy.py measures what it does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import threads

SHOW = "\nimport os; print(os.environ.get('GOMP_SPINCOUNT'), threads._loaded_before)"


def shown(code: str, **chosen: str) -> str:
    """The spin that libgomp reads, and whether `give_way` acts, in a fresh process."""
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
    assert shown("from coachhook_viz import threads") == "5000 False"


def test_where_torch_was_loaded_before_edits_give_way() -> None:
    assert shown("import torch; from coachhook_viz import threads") == "None True"


@pytest.mark.parametrize("first", ["", "import torch; "])
def test_what_the_user_chose_stays(first: str) -> None:
    code = first + "from coachhook_viz import threads"
    assert shown(code, GOMP_SPINCOUNT="7") == "7 False"
    assert shown(code, OMP_WAIT_POLICY="ACTIVE") == "None False"


def guests() -> int:
    return [thread.name for thread in threading.enumerate()].count("coachhook_viz guest")


def test_a_guest_thread_stays_while_others_need_the_cores(monkeypatch) -> None:
    crowded = True
    monkeypatch.setattr(threads, "_crowded", lambda: crowded)
    threads.give_way()
    assert guests() == 0  # the variable is set: nothing to do
    monkeypatch.setattr(threads, "_loaded_before", True)
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:1])
    assert guests() == 1
    crowded = False
    session.predict("Anna lives in")
    left = [t for t in threading.enumerate() if t.name == "coachhook_viz guest"]
    for thread in left:
        thread.join(10)
    assert guests() == 0


def test_crowded_counts_others_only(monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1_000_000)
    assert not threads._crowded()
    monkeypatch.setattr(os, "cpu_count", lambda: 0)
    assert threads._crowded()
    monkeypatch.setattr(threads, "Path", lambda name: _Absent())
    assert not threads._crowded()


class _Absent:
    def read_text(self) -> str:
        raise OSError
