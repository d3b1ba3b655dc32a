from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from filelock import FileLock
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments, tiny_session

import coachhook_viz.session as session_module
from coachhook_viz import EditConfig, LanguageModel, Probe, Session
from coachhook_viz.events import Event
from coachhook_viz.store import SessionFileError, folder, format

KILLS = 50


def journalled(path: Path, rounds: int = 2) -> Session:
    lm = tiny_model(lead="He ")
    session = Session(lm, tiny_config(), tiny_moments(lm), folder=path)
    for start in range(0, 2 * rounds, 2):
        session.apply(tiny_facts()[start : start + 2])
    return session


def reopened(path: Path, **options) -> Session:
    lm = tiny_model(lead="He ")
    return Session.load(path, lm, tiny_moments(lm), **options)


def logits(session: Session) -> torch.Tensor:
    prompts = [fact.text for fact in tiny_facts()]
    with session.hooked(), torch.no_grad():
        rows = [session.lm.model(**session.lm.encode([p]), use_cache=False) for p in prompts]
    return torch.cat([row.logits[0] for row in rows])


def same(one: Session, other: Session) -> None:
    """Everything that can be seen of the two is equal, to the bit."""
    assert one.config == other.config
    assert one.branches.keys() == other.branches.keys()
    assert (one.current_branch, one.labels) == (other.current_branch, other.labels)
    for branch, twin in zip(one.branches.values(), other.branches.values(), strict=True):
        assert (branch.position, branch.muted) == (twin.position, twin.muted)
        for a, b in zip(branch.rounds, twin.rounds, strict=True):
            assert (a.facts, a.fact_ids, a.number) == (b.facts, b.fact_ids, b.number)
            assert (a.alphas, a.losses, a.seconds) == (b.alphas, b.losses, b.seconds)
            assert torch.equal(a.targets, b.targets)
            for layer, factors in a.factors.items():
                assert torch.equal(a.peaks[layer], b.peaks[layer])
                for part in ("residuals", "directions", "keys"):
                    assert torch.equal(getattr(factors, part), getattr(b.factors[layer], part))
    assert torch.equal(logits(one), logits(other))


def full(path: Path) -> Session:
    """A session with all that can be saved: branches, mutes, undone rounds, labels, odd text."""
    session = journalled(path)
    session.label(1, "people 👩‍🏫", 'a note\nof two lines: "{}" <b>')
    session.mute(1)
    session.branch("what if")
    session.apply(tiny_facts()[4:])
    session.switch("main")
    session.undo()
    return session


def test_a_journalled_session_reopens_as_it_was(tmp_path: Path) -> None:
    session = full(tmp_path / "s")
    again = reopened(tmp_path / "s", journal=False)
    same(session, again)
    again.redo()
    session.redo()
    same(session, again)
    for one in (session, again):
        one.switch("what if")
    same(session, again)


def test_a_session_from_before_sites_wordings_and_probes_opens_as_it_was(tmp_path: Path) -> None:
    session = full(tmp_path / "s")
    content = json.loads((tmp_path / "s" / "session.json").read_text("utf-8"))
    for name in ("site", "subject_layer", "subject_threshold"):
        del content["config"][name]
    for entry in content["rounds"]:
        del entry["owners"], entry["reached"]
        for fact in entry["facts"]:
            del fact["wordings"], fact["probes"], fact["foils"]
    rewritten(tmp_path / "s", config=content["config"], rounds=content["rounds"])
    again = reopened(tmp_path / "s", journal=False)
    same(session, again)
    assert [round_.reached for round_ in again.rounds] == [None] * len(again.rounds)


def test_a_reopened_session_edits_on_with_the_same_bits(tmp_path: Path) -> None:
    session = full(tmp_path / "s")
    session.save(tmp_path / "copy")
    again = reopened(tmp_path / "copy")
    one, other = session.apply(tiny_facts()[3:5]), again.apply(tiny_facts()[3:5])
    assert torch.equal(one.targets, other.targets)
    assert (one.number, one.fact_ids) == (other.number, other.fact_ids)
    assert torch.equal(logits(session), logits(again))


def test_a_save_is_a_copy_and_can_be_saved_over(tmp_path: Path) -> None:
    session = journalled(tmp_path / "s")
    session.save(tmp_path / "copy")
    session.apply(tiny_facts()[4:5])
    assert len(reopened(tmp_path / "copy", journal=False).rounds) == 2
    session.save(tmp_path / "copy")
    same(session, reopened(tmp_path / "copy"))
    session.save(tmp_path / "s")  # where it is journalled
    session.undo()
    same(session, reopened(tmp_path / "s"))


def test_a_session_without_a_folder_writes_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_session(tiny_model(lead="He ")).apply(tiny_facts()[:1])
    assert list(tmp_path.iterdir()) == []


@contextmanager
def before_line(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Within the context, call `act` before the `number`-th line that runs in session or folder."""
    files = {module.__file__ for module in (folder, session_module)}
    left = number

    def trace(frame: FrameType, event: str, arg: object):
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                act()
        return trace if frame.f_code.co_filename in files else None

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(outer)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("change", ["apply", "go_to"])
def test_after_an_interrupt_session_and_folder_agree(tmp_path: Path, monkeypatch, change) -> None:
    """Ctrl-C before each line of a change: it is done or not, on disk as in memory.

    The lines are also those at which a `with` ends, so a file may be closed only when collected.
    """
    session = journalled(tmp_path / "s")
    session.undo()
    new = session.rounds[1]
    monkeypatch.setattr(session_module, "edit_round", lambda *args: new)
    heard: list[Event] = []
    session.subscribe(heard.append)
    outcomes = []
    for line in itertools.count(1):
        heard.clear()
        done = False
        try:
            with before_line(line, interrupt):
                session.apply(new.facts) if change == "apply" else session.go_to(2)
                done = True
        except KeyboardInterrupt:
            pass
        assert len(heard) <= (session.position == 2)
        outcomes.append(session.position)
        again = reopened(tmp_path / "s", journal=False)
        assert again.position == session.position
        assert [r.number for r in again.rounds] == [r.number for r in session.rounds]
        session.label(1, f"line {line}")  # it can still be changed
        session.go_to(1)
        assert reopened(tmp_path / "s", journal=False).labels == session.labels
        if done:
            break
    assert outcomes == sorted(outcomes)
    assert set(outcomes[:-1]) == {1, 2}


def test_reading_without_a_journal_leaves_the_folder_alone(tmp_path: Path) -> None:
    journalled(tmp_path / "s")
    before = (tmp_path / "s" / "session.json").read_bytes()
    session = reopened(tmp_path / "s", journal=False)
    session.undo()
    assert (tmp_path / "s" / "session.json").read_bytes() == before


def test_a_reader_waits_until_another_has_written(tmp_path: Path, monkeypatch) -> None:
    """While the lock is held the folder may be in the middle of a write."""
    session = journalled(tmp_path / "s")
    path = tmp_path / "s" / "round-0002.safetensors"
    data = path.read_bytes()
    entered, real = threading.Event(), folder.FileLock.acquire

    def acquire(lock, *args, **kwargs):
        entered.set()
        return real(lock, *args, **kwargs)

    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / "s" / "session.lock"):
            monkeypatch.setattr(folder.FileLock, "acquire", acquire)
            path.unlink()
            again = pool.submit(reopened, tmp_path / "s", journal=False)
            assert entered.wait(60)
            path.write_bytes(data)
        same(session, again.result())
    monkeypatch.setattr(folder, "_PATIENCE", 0)
    with (
        FileLock(tmp_path / "s" / "session.lock"),
        pytest.raises(SessionFileError, match="another process is writing"),
    ):
        reopened(tmp_path / "s")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_to_can_be_read(
    tmp_path: Path, monkeypatch, number: int
) -> None:
    session = journalled(tmp_path / "s")

    def refuse(*args, **kwargs) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder.FileLock, "acquire", refuse)
    again = reopened(tmp_path / "s")
    same(session, again)
    with pytest.raises(OSError, match=os.strerror(number)):
        again.undo()
    assert again.position == 2


def test_files_of_rounds_that_no_branch_has_are_removed(tmp_path: Path) -> None:
    session = journalled(tmp_path / "s", rounds=2)
    session.undo()
    session.apply(tiny_facts()[4:5])
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    rounds = [name for name in names if name.startswith("round")]
    assert rounds == ["round-0001.safetensors", "round-0003.safetensors"]


@pytest.mark.parametrize(
    ("folder", "match"),
    [("", "no folder"), (None, "no folder"), (7, "no folder"), ("f", "a file"), ("f/g", "a file")],
)
def test_what_names_no_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Any, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("")
    with pytest.raises(SessionFileError, match=match):
        tiny_session(tiny_model(lead="He ")).save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_folder_of_another_session_is_refused(tmp_path: Path) -> None:
    journalled(tmp_path / "s", rounds=1)
    with pytest.raises(SessionFileError, match=r"Session\.load\(folder, lm\) opens"):
        journalled(tmp_path / "s")
    with pytest.raises(SessionFileError, match="another session"):
        tiny_session(tiny_model(lead="He ")).save(tmp_path / "s")
    assert len(reopened(tmp_path / "s").rounds) == 1


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.tmp").write_text("mine")
    session = journalled(tmp_path / "s", rounds=1)
    (tmp_path / "s" / "round-0009.safetensors.tmp").write_text("half written")
    session.undo()
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert "notes.tmp" in names
    assert "round-0009.safetensors.tmp" not in names
    (tmp_path / "s" / "session.json").unlink()
    with pytest.raises(SessionFileError, match=r"whose session\.json is missing"):
        tiny_session(tiny_model(lead="He ")).save(tmp_path / "s")
    assert (tmp_path / "s" / "round-0001.safetensors").exists()


def test_two_that_journal_in_one_folder_are_told_and_lose_nothing(tmp_path: Path) -> None:
    one = journalled(tmp_path / "s", rounds=1)
    other = reopened(tmp_path / "s")
    other.apply(tiny_facts()[2:3])
    heard: list[Event] = []
    one.subscribe(heard.append)
    for change in (one.undo, lambda: one.apply(tiny_facts()[4:5])):
        with pytest.raises(SessionFileError, match="save to another folder"):
            change()
    assert (one.position, len(one.rounds), heard) == (1, 1, [])
    one.save(tmp_path / "elsewhere")
    same(other, reopened(tmp_path / "s"))


def test_a_refused_change_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    """Another has made the very same one: still this session did not change, and says so."""
    one = journalled(tmp_path / "s")
    reopened(tmp_path / "s").undo()
    with pytest.raises(SessionFileError, match="changed or removed by someone else"):
        one.undo()
    assert one.position == 2


def test_two_ways_of_one_session_do_not_overwrite_each_other(tmp_path: Path) -> None:
    one = journalled(tmp_path / "s", rounds=1)
    other = reopened(tmp_path / "s", journal=False)
    one.apply(tiny_facts()[2:3])
    other.apply(tiny_facts()[4:5])
    with pytest.raises(SessionFileError, match="gone two ways"):
        other.save(tmp_path / "s")
    same(one, reopened(tmp_path / "s"))


def test_a_full_disk_leaves_session_and_folder_as_they_were(tmp_path: Path, monkeypatch) -> None:
    session = journalled(tmp_path / "s", rounds=1)
    real = os.fsync

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        session.undo()
    monkeypatch.setattr(os, "fsync", real)
    assert session.position == 1
    same(session, reopened(tmp_path / "s"))
    assert not list((tmp_path / "s").glob("*.tmp"))


def test_saving_does_not_drop_rounds_that_another_has_added(tmp_path: Path) -> None:
    one = journalled(tmp_path / "s", rounds=1)
    other = reopened(tmp_path / "s")
    other.apply(tiny_facts()[2:3])
    with pytest.raises(SessionFileError, match="changed or removed by someone else"):
        one.save(tmp_path / "s")
    same(other, reopened(tmp_path / "s"))
    other.save(tmp_path / "copy")
    with pytest.raises(SessionFileError, match="holds round 2, which this session does not have"):
        one.save(tmp_path / "copy")
    same(other, reopened(tmp_path / "copy"))


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_saving_again_repairs_a_damaged_round_file(tmp_path: Path, damage: str) -> None:
    session = journalled(tmp_path / "s")
    path = tmp_path / "s" / "round-0001.safetensors"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:99])
    session.save(tmp_path / "s")
    same(session, reopened(tmp_path / "s"))


def test_a_save_that_was_cut_off_can_be_repeated(tmp_path: Path) -> None:
    session = journalled(tmp_path / "s")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "s" / "round-0001.safetensors", tmp_path / "copy")
    (tmp_path / "copy" / "round-0002.safetensors.tmp").write_text("half")
    session.save(tmp_path / "copy")
    same(session, reopened(tmp_path / "copy"))


def test_slightly_other_moments_and_older_files_can_be_edited_on(
    tmp_path: Path, monkeypatch
) -> None:
    session = journalled(tmp_path / "s")
    close = {layer: m * (1 + 1e-6) for layer, m in tiny_moments(session.lm).items()}
    again = Session.load(tmp_path / "s", session.lm, close)
    again.apply(tiny_facts()[4:5])
    monkeypatch.setattr(format, "MIGRATIONS", (lambda content: {**content, "new": 1},))
    later = reopened(tmp_path / "s")
    later.apply(tiny_facts()[5:6])
    assert len(reopened(tmp_path / "s").rounds) == 4


def test_probes_are_saved_and_older_sessions_have_none(tmp_path: Path) -> None:
    session = journalled(tmp_path / "s", rounds=1)
    probes = (Probe("Anna speaks", "red", "portability"), Probe("Anna was born near"))
    session.apply([replace(tiny_facts()[2], probes=probes)])
    assert reopened(tmp_path / "s", journal=False).facts == session.facts
    rounds = json.loads((tmp_path / "s/session.json").read_text("utf-8"))["rounds"]
    for round_ in rounds:
        for fact in round_["facts"]:
            del fact["probes"]  # as before there were any
    rewritten(tmp_path / "s", rounds=rounds)
    older = reopened(tmp_path / "s")
    assert [fact.probes for fact in older.facts.values()] == [(), (), ()]
    assert torch.equal(logits(older), logits(session))


def test_a_change_during_a_round_is_refused() -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:1])

    def meddle(progress: object) -> None:
        if session.position:
            session.undo()

    with pytest.raises(RuntimeError, match="was changed while a round was computed"):
        session.apply(tiny_facts()[1:2], progress=meddle)
    assert (session.position, len(session.rounds)) == (0, 1)


@pytest.mark.parametrize("name", ["session.json", "round-0002.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "changed", "missing"])
def test_damaged_files_are_noticed(tmp_path: Path, name: str, damage: str) -> None:
    journalled(tmp_path / "s")
    path = tmp_path / "s" / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        place = data.index(b"Oslo") if name == "session.json" else len(data) - 9
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(SessionFileError, match=name):
        reopened(tmp_path / "s")


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 1, "checksum": "", "x": NaN}',
        "[]",
        "{}",
        "null",
        '{"schema": 1}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_what_is_no_session_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(SessionFileError, match="not a session"):
        reopened(tmp_path)
    with pytest.raises(SessionFileError, match="no session is saved there"):
        reopened(tmp_path / "nowhere")


def rewritten(path: Path, **changes) -> None:
    """Change session.json and sign it again, as a program that knows the format might."""
    content = json.loads((path / "session.json").read_text())
    content.pop("checksum")
    content.update(changes)
    content["checksum"] = folder._checksum(content)
    (path / "session.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "changes",
    [
        {"current": "nowhere"},
        {"branches": {"main": {"rounds": [1], "position": 2, "muted": []}}},
        {"branches": {"main": {"rounds": [7], "position": 0, "muted": []}}},
        {"branches": []},
        {"rounds": [{}]},
        {"config": {"layers": [1, 2, 3]}},
        {"config": {"layers": [2], "covariance_weight": 30.0}},
        {"model": None},
    ],
)
def test_signed_nonsense_is_refused(tmp_path: Path, changes: dict) -> None:
    journalled(tmp_path / "s", rounds=1)
    rewritten(tmp_path / "s", **changes)
    with pytest.raises(SessionFileError):
        reopened(tmp_path / "s")


def test_a_round_file_must_hold_what_the_model_needs(tmp_path: Path) -> None:
    journalled(tmp_path / "s", rounds=1)
    content = json.loads((tmp_path / "s" / "session.json").read_text())
    content["rounds"][0]["facts"] *= 2
    rewritten(tmp_path / "s", rounds=content["rounds"])
    with pytest.raises(SessionFileError, match="columns belong to"):
        reopened(tmp_path / "s")


def test_newer_and_older_versions(tmp_path: Path, monkeypatch) -> None:
    session = journalled(tmp_path / "s")
    rewritten(tmp_path / "s", schema=2)
    with pytest.raises(SessionFileError, match=r"newer version \(schema 2, this one knows 1\)"):
        reopened(tmp_path / "s")
    rewritten(tmp_path / "s", schema=0)
    with pytest.raises(SessionFileError, match="no version has written"):
        reopened(tmp_path / "s")

    def first_to_second(content: dict) -> dict:
        return {**content, "current": content["present"]}

    rewritten(tmp_path / "s", schema=1, present="main", current=None)
    monkeypatch.setattr(format, "MIGRATIONS", (first_to_second,))
    again = reopened(tmp_path / "s")
    same(session, again)
    again.undo()
    assert json.loads((tmp_path / "s" / "session.json").read_text())["schema"] == 2


def test_another_model_revision_dtype_lead_or_moments(tmp_path: Path) -> None:
    journalled(tmp_path / "s", rounds=1)
    lm = tiny_model(lead="He ")

    def refused(lm: LanguageModel, moments: dict[int, torch.Tensor], match: str) -> None:
        with pytest.raises(SessionFileError, match=match):
            Session.load(tmp_path / "s", lm, moments)

    other = tiny_model("gpt2", lead="He ")
    refused(other, tiny_moments(other), "its model was 'tiny-llama', not 'tiny-gpt2'")
    low = tiny_model(lead="He ", dtype=torch.bfloat16)
    refused(low, tiny_moments(lm), "in float32, not in bfloat16")
    deep = tiny_model(lead="He ", num_hidden_layers=6)
    refused(replace(deep, name=lm.name), tiny_moments(lm), "another revision of 'tiny-llama'")
    refused(tiny_model(lead="The "), tiny_moments(lm), "had the lead 'He '")
    doubled = {layer: 2 * moment for layer, moment in tiny_moments(lm).items()}
    refused(lm, doubled, "other moments")


def test_sampled_contexts_are_saved(tmp_path: Path) -> None:
    lm = tiny_model(lead="He ")
    config = EditConfig(layers=(1, 2), covariance_weight=30.0, context_templates=None, steps=2)
    session = Session(lm, config, tiny_moments(lm), folder=tmp_path / "s")
    again = Session.load(tmp_path / "s", lm, tiny_moments(lm))
    assert again.config == session.config
    assert again.config.context_templates is not None


def digest(session: Session) -> str:
    return hashlib.sha256(logits(session).numpy().tobytes()).hexdigest()


def nursery(call: str, **options) -> subprocess.Popen[str]:
    """A process that calls a function of this module, and forks as no process with threads may."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += f"import torch; torch.set_num_threads(1)\nimport test_store; test_store.{call}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.Popen(command, text=True, env=environment, **options)


def kill_at_random(path: str) -> None:
    """Fork a child that edits and saves for each line that comes in, and say when it is dead."""
    tiny_moments(tiny_model(lead="He "))
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            edit_on(Path(path))
        _, status = os.waitpid(child, 0)
        print("dead", os.waitstatus_to_exitcode(status), flush=True)


def edit_on(path: Path) -> None:
    session = reopened(path)
    say("open", os.getpid(), session.position, digest(session))
    while True:
        if len(session.rounds) > 6:
            session.go_to(2)
        session.apply(tiny_facts()[session.position % 5 :][:2])
        session.label(session.rounds[-1].number, "round")
        say("did", session.position, digest(session))


def say(*words: object) -> None:
    """A line at once: whoever is killed within `print` leaves half of one."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_killed_process_loses_at_most_the_round_in_flight(tmp_path: Path) -> None:
    """kill -9 at random moments of editing and saving; what reopens is what was last said."""
    journalled(tmp_path / "s", rounds=1)
    generator = random.Random(0)
    with nursery(
        f"kill_at_random({str(tmp_path / 's')!r})", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said: dict[int, str] = {}
        for _ in range(KILLS):
            process.stdin.write("go\n")
            process.stdin.flush()
            word, *rest = process.stdout.readline().split()
            assert word == "open"
            child, position, found = int(rest[0]), int(rest[1]), rest[2]
            for last in said:  # the state that was said last, or the one in flight
                assert position in ((last, 2, 3) if last == 7 else (last, last + 1))
                assert said.get(position, found) == found
            said = {position: found}
            time.sleep(generator.uniform(0, 0.4))
            os.kill(child, signal.SIGKILL)
            word, *rest = process.stdout.readline().split()
            while word == "did":
                said = {int(rest[0]): rest[1]}
                word, *rest = process.stdout.readline().split()
            assert [word, *rest] == ["dead", str(-signal.SIGKILL)]
        process.stdin.close()


def kill_before_each_line(path: str, change: str) -> None:
    """Kill a child before each line of a change, and look at what is in the folder then."""
    before, there = Path(path, "before"), Path(path, "s")
    if change == "save":
        session = journalled(Path(path, "elsewhere"))
        before.mkdir()
    else:
        session = journalled(before)
        session.undo()  # the file of round 2 is dropped when another is applied
        session = reopened(before)
        session._journal = replace(session._journal, folder=there)
    new = session.rounds[1]
    session_module.edit_round = lambda *args: new

    def seen() -> object:
        if not (there / "session.json").exists():
            return None
        again = reopened(there, journal=False)
        weights = [at.delta_weight.numpy().tobytes() for at in again.state.layers.values()]
        return [r.number for r in again.rounds], again.position, weights

    outcomes: list[object] = []
    for line in itertools.count(1):
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(before, there)
        child = os.fork()
        if not child:
            with before_line(line, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                session.save(there) if change == "save" else session.apply(new.facts)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        outcomes.append(seen())
        if not status:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        session.save(there) if change == "save" else reopened(there).label(1, "it goes on")
    start, end = outcomes[0], outcomes[-1]
    written = outcomes.index(end)
    assert 0 < written < len(outcomes) - 1
    assert outcomes == [start] * written + [end] * (len(outcomes) - written)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("change", ["apply", "save"])
def test_a_kill_at_any_line_leaves_the_folder_before_or_after(tmp_path: Path, change: str) -> None:
    with nursery(f"kill_before_each_line({str(tmp_path)!r}, {change!r})") as process:
        assert process.wait() == 0


def test_a_folder_may_be_named_by_home_or_by_its_content(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    lm = tiny_model(lead="He ")
    session = tiny_session(lm)
    session.save("~/mine")
    assert (tmp_path / "mine" / "session.json").exists()
    assert not (tmp_path / "~").exists()
    for name in ("~/mine", "~/mine/session.json", tmp_path / "mine" / "session.json"):
        loaded = Session.load(name, lm, tiny_moments(lm))
        assert loaded.folder == tmp_path / "mine"
    for bad in ("", " "):
        with pytest.raises(SessionFileError, match="no folder is named; give one"):
            session.save(bad)
        with pytest.raises(SessionFileError, match="no folder is named"):
            Session.load(bad, lm, tiny_moments(lm))
        with pytest.raises(SessionFileError, match="no folder is named"):
            Session(lm, tiny_config(), tiny_moments(lm), folder=bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
