"""When torch's threads give way; benchmarks/busy.py measures what that does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import tiny_facts, tiny_model, tiny_session

from coachhook_viz import threads

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """With one thread, as where tests share the cores, nothing spins."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def guests() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "coachhook_viz guest"]


def test_a_guest_thread_stays_while_others_need_the_cores(monkeypatch) -> None:
    session = tiny_session(tiny_model(lead="He "))
    monkeypatch.setattr(threads, "_crowded", lambda: True)
    session.apply(tiny_facts()[:1])
    assert len(guests()) == 1
    monkeypatch.setattr(threads, "_crowded", lambda: False)
    leaving = guests()
    session.predict("Anna lives in")
    for thread in leaving:
        thread.join(10)
    assert guests() == []


def test_load_that_begins_within_a_round_is_noticed(monkeypatch) -> None:
    session = tiny_session(tiny_model(lead="He "), stop_loss=0.0)
    steps = 0

    def progress(message: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            monkeypatch.setattr(threads, "_crowded", lambda: True)
        if steps == 4:
            assert len(guests()) == 1

    monkeypatch.setattr(threads, "_crowded", lambda: False)
    session.apply(tiny_facts()[:1], progress=progress)
    assert steps >= 4
    monkeypatch.setattr(threads, "_crowded", lambda: False)
    leaving = guests()
    threads.give_way()
    for thread in leaving:
        thread.join(10)


@pytest.mark.parametrize("name", CHOICES)
def test_what_the_user_chose_stays(name: str, monkeypatch) -> None:
    monkeypatch.setenv(name, "ACTIVE")
    monkeypatch.setattr(threads, "_crowded", lambda: True)
    threads.give_way()
    assert guests() == []


def test_only_what_runs_in_other_processes_counts(monkeypatch, tmp_path: Path) -> None:
    proc = {"/proc/loadavg": tmp_path / "loadavg", "/proc/self/task": tmp_path / "task"}
    monkeypatch.setattr(threads, "Path", proc.__getitem__)
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for number, state in enumerate("RSR"):
        task = tmp_path / "task" / str(number)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{number} (a) R (name) {state} 1 2 3")
    (tmp_path / "loadavg").write_text("0.50 0.40 0.30 4/300 999\n")
    assert not threads._crowded()  # two others beside two threads on four cores
    (tmp_path / "loadavg").write_text("0.50 0.40 0.30 5/300 999\n")
    assert threads._crowded()
    (tmp_path / "loadavg").unlink()
    assert not threads._crowded()
