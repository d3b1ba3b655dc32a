from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from test_store import journalled, logits, reopened, same
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments

from coachhook_viz import Session, autosave
from coachhook_viz.autosave import Autosave, Kept, recent, sessions_folder
from coachhook_viz.store import folder as store_folder


@pytest.fixture(autouse=True)
def kept_in(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path / "sessions"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a notebook.ipynb")
    return tmp_path / "sessions"


def new_session() -> Session:
    lm = tiny_model(lead="He ")
    return Session(lm, tiny_config(), tiny_moments(lm))


def folder_of(saver: Autosave) -> Path:
    assert saver.wait(60)
    assert saver.folder is not None
    return saver.folder


def test_every_change_is_kept_from_the_first_round_on(kept_in: Path) -> None:
    session = new_session()
    saver = Autosave(session)
    session.configure(steps=5)
    assert saver.wait(60)
    assert not kept_in.exists()
    assert (saver.folder, saver.saved, saver.error) == (None, None, "")
    changes = [
        lambda: session.apply(tiny_facts()[:2]),
        lambda: session.mute(1),
        lambda: session.label(1, "first"),
        lambda: session.apply(tiny_facts()[2:4]),
        lambda: session.undo(),
        lambda: session.branch("what if"),
        lambda: session.configure(steps=3),
        lambda: session.go_to(0),
    ]
    for change in changes:
        change()
        same(session, reopened(folder_of(saver), journal=False))
        assert saver.error == ""
        assert saver.saved is not None
    assert [path.name for path in kept_in.iterdir()] == [folder_of(saver).name]
    saver.close()
    session.go_to(1)
    assert reopened(folder_of(saver), journal=False).position == 0


def test_a_session_goes_on_where_it_was_kept(kept_in: Path) -> None:
    session = new_session()
    first = Autosave(session)
    session.apply(tiny_facts()[:2])
    folder = folder_of(first)
    first.close()
    again = reopened(folder, journal=False)
    second = Autosave(again, folder)
    again.apply(tiny_facts()[2:3])
    assert folder_of(second) == folder
    same(again, reopened(folder, journal=False))
    assert len(list(kept_in.iterdir())) == 1


def test_of_a_session_with_a_folder_it_only_reports(tmp_path: Path, kept_in: Path) -> None:
    session = journalled(tmp_path / "mine", rounds=1)
    saver = Autosave(session)
    heard: list[datetime | None] = []
    end = saver.on_saved(lambda: heard.append(saver.saved))
    session.undo()
    end()
    session.redo()
    assert saver.folder == tmp_path / "mine"
    assert len(heard) == 1
    assert heard[0] is not None
    assert not kept_in.exists()
    assert not (tmp_path / "mine" / "notebook.txt").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full."),
        (errno.EROFS, "cannot be written to"),
        (errno.EACCES, "cannot be written to"),
        (errno.EIO, "could not be saved: Input/output error"),
    ],
)
def test_a_disk_that_takes_nothing_stops_nobody(kept_in, monkeypatch, number, words) -> None:
    session = new_session()
    saver = Autosave(session)
    heard: list[str] = []
    saver.on_saved(lambda: heard.append(saver.error))
    saver.on_saved(lambda: 1 / 0)  # nor does a callback
    session.apply(tiny_facts()[:1])
    folder = folder_of(saver)
    saved, before = saver.saved, reopened(folder, journal=False)
    real = store_folder.replace_file

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(store_folder, "replace_file", refuse)
    session.apply(tiny_facts()[1:2])
    session.mute(0)
    assert saver.wait(60)
    assert words in saver.error
    assert saver.saved == saved
    assert (session.muted, len(session.rounds)) == ({0}, 2)
    same(before, reopened(folder, journal=False))
    monkeypatch.setattr(store_folder, "replace_file", real)
    if number == errno.EIO:
        saver.close()  # it tries once more
    else:
        session.unmute(0)
        assert saver.wait(60)
    assert saver.error == ""
    assert folder_of(saver) == folder
    same(session, reopened(folder, journal=False))
    assert heard[0] == ""
    assert words in heard[1]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path / "file" / "sessions"))
    session = new_session()
    saver = Autosave(session)
    session.apply(tiny_facts()[:1])
    assert saver.wait(60)
    place = tmp_path / "file"
    assert saver.error == f"The session could not be saved: {place}: it is a file; give a folder."
    assert recent() == []


def test_two_that_keep_one_session_part_and_lose_nothing(kept_in: Path) -> None:
    session = new_session()
    saver = Autosave(session)
    session.apply(tiny_facts()[:1])
    folder = folder_of(saver)
    other = reopened(folder, journal=False)
    second = Autosave(other, folder)
    other.apply(tiny_facts()[1:2])
    assert folder_of(second) == folder
    session.apply(tiny_facts()[2:3])  # this one comes second now
    assert folder_of(saver) != folder
    session.mute(0)
    other.mute(0)
    assert saver.error == second.error == ""
    same(other, reopened(folder_of(second), journal=False))
    same(session, reopened(folder_of(saver), journal=False))
    assert len(recent()) == 2


def test_a_folder_that_another_session_has_stays_as_it_is(tmp_path: Path) -> None:
    journalled(tmp_path / "theirs", rounds=1)
    before = (tmp_path / "theirs" / "session.json").read_bytes()
    session = new_session()
    saver = Autosave(session, tmp_path / "theirs")
    session.apply(tiny_facts()[:1])
    assert folder_of(saver).parent == sessions_folder()
    assert (tmp_path / "theirs" / "session.json").read_bytes() == before
    same(session, reopened(folder_of(saver), journal=False))


def test_a_folder_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    session = new_session()
    saver = Autosave(session, tmp_path / "mine")
    session.apply(tiny_facts()[:1])
    folder = folder_of(saver)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    session.mute(0)
    same(session, reopened(folder_of(saver), journal=False))


def test_a_save_that_waits_does_not_hold_the_session_up(kept_in: Path) -> None:
    session = new_session()
    saver = Autosave(session)
    session.apply(tiny_facts()[:1])
    folder = folder_of(saver)
    started = threading.Event()
    with FileLock(folder / "session.lock"):  # another process is at it
        session.apply(tiny_facts()[1:2])
        session.mute(0)
        session.undo()
        assert not saver.wait(0)
        started.set()
    same(session, reopened(folder_of(saver), journal=False))
    assert folder_of(saver) == folder


def test_recent_sessions_of_a_notebook(kept_in: Path, monkeypatch) -> None:
    assert recent() == []
    session = new_session()
    saver = Autosave(session)
    session.apply(tiny_facts()[:2])
    session.apply(tiny_facts()[2:3])
    session.undo()
    mine = folder_of(saver)
    saver.close()
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert autosave.here() is None
    other = new_session()
    second = Autosave(other)
    other.apply(tiny_facts()[:1])
    theirs = folder_of(second)
    (kept_in / "a file").write_text("")
    (kept_in / "foreign").mkdir()
    new_session().save(kept_in / "no rounds")
    os.utime(theirs / "session.json", (0, 0))
    found = recent()
    assert [kept.folder for kept in found] == [mine, theirs]
    assert [(k.model, k.rounds, k.facts) for k in found] == [
        ("tiny-llama", 2, 3), ("tiny-llama", 1, 1),
    ]  # fmt: skip
    assert [kept.notebook for kept in found] == ["/home/me/a notebook.ipynb", None]
    assert [kept.folder for kept in recent("/home/me/a notebook.ipynb")] == [mine]
    assert recent("another.ipynb") == []


def test_a_session_on_an_empty_branch_is_offered_too() -> None:
    session = new_session()
    saver = Autosave(session)
    session.apply(tiny_facts()[:2])
    session.go_to(0)
    session.branch("what if")
    folder_of(saver)
    assert [(kept.rounds, kept.facts) for kept in recent()] == [(1, 2)]


@pytest.mark.parametrize("damage", ["truncated", "changed", "emptied", "newer", "lost", "binary"])
def test_damaged_sessions_are_not_offered(kept_in: Path, damage: str) -> None:
    session = new_session()
    saver = Autosave(session)
    session.apply(tiny_facts()[:1])
    folder = folder_of(saver)
    content = folder / "session.json"
    text = content.read_text("utf-8")
    (folder / "notebook.txt").write_bytes(b"\xff\xfe")
    assert len(recent()) == 1
    if damage == "lost":
        (folder / "round-0001.safetensors").unlink()
    else:
        content.write_bytes(
            {
                "truncated": text[: len(text) // 2].encode(),
                "changed": text.replace('"tiny-llama"', '"other"').encode(),
                "emptied": b"",
                "newer": text.replace('"schema": ', '"schema": 9').encode(),
                "binary": bytes(range(256)),
            }[damage]
        )
    assert recent() == []


@pytest.mark.parametrize(
    ("ago", "format"),
    [
        (timedelta(), "3 rounds, 11 facts, {0:%H:%M}"),
        (timedelta(days=400), "3 rounds, 11 facts, {0.day} {0:%b} {0.year} {0:%H:%M}"),
    ],
)
def test_what_is_kept_reads_as_a_sentence(ago: timedelta, format: str) -> None:
    saved = datetime.now().astimezone() - ago
    assert Kept(Path(), "m", 3, 11, saved.astimezone(UTC), None).sentence == format.format(saved)
    assert Kept(Path(), "m", 1, 1, saved, None).sentence.startswith("1 round, 1 fact, ")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_autosave import new_session
from tiny import tiny_facts
from coachhook_viz.autosave import Autosave
from coachhook_viz.store import folder
session = new_session()
saver = Autosave(session)
session.apply(tiny_facts()[:1])
assert saver.wait(60)
left, real = int(sys.argv[2]), os.replace
def replace(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
os.replace = replace
session.apply(tiny_facts()[1:2])
if left == 2:  # it ends like any program, and has been saved by then
    sys.exit()
saver.wait(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("writes", [0, 1, 4])
def test_killed_between_two_writes_it_is_as_before_or_after(kept_in: Path, writes: int) -> None:
    """The round's file and session.json are two writes; with more the process ends by itself."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(writes)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if writes == 4 else -signal.SIGKILL), done.stderr
    (kept,) = recent()
    assert kept.rounds == (2 if writes == 4 else 1)
    session = reopened(kept.folder)
    assert len(session.rounds) == kept.rounds
    reference = new_session()
    reference.apply(tiny_facts()[:1])
    if writes < 4:
        assert logits(session).equal(logits(reference))
    session.apply(tiny_facts()[2:3])  # and it goes on
