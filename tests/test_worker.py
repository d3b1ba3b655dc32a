from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from coachhook_viz.editing.progress import EditCancelled, Progress
from coachhook_viz.panels.running import progress
from coachhook_viz.panels.worker import Job, Worker
from coachhook_viz.warned import warn


class Gate:
    """A job that goes on when it is told to."""

    def __init__(self, seen: list[str], name: str) -> None:
        self.seen, self.name = seen, name
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> str:
        self.entered.set()
        while not self.opened.wait(0.01):
            if job.cancel():
                raise EditCancelled("asked for")
        self.seen.append(self.name)
        return self.name


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_jobs_run_one_after_the_other_off_the_main_thread(worker: Worker) -> None:
    threads: list[threading.Thread] = []
    for _ in range(3):
        worker.submit("look", lambda job: threads.append(threading.current_thread()))
    assert worker.wait(10)
    assert len(set(threads)) == 1
    assert threads[0] is not threading.main_thread()


def test_results_and_errors_go_where_they_should(worker: Worker) -> None:
    results: list[int] = []
    errors: list[Exception] = []

    def fail(job: Job) -> None:
        raise ValueError("the prompt has no token")

    worker.submit("good", lambda job: 7, results.append, errors.append)
    worker.submit("bad", fail, results.append, errors.append)
    assert worker.wait(10)
    assert results == [7]
    assert [str(error) for error in errors] == ["the prompt has no token"]


def test_a_failing_callback_stops_nothing(worker: Worker, caplog) -> None:
    results: list[int] = []

    def fail(result: object) -> None:
        raise TypeError("a bug in a panel")

    worker.submit("one", lambda job: 1, fail)
    worker.submit("two", lambda job: 2, results.append)
    assert worker.wait(10)
    assert results == [2]
    assert "the job 'one' failed" in caplog.text


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("ends", ["failed", "stopped"])
def test_what_fails_after_a_job_stops_nothing(
    worker: Worker, caplog, ends: str, begun: bool
) -> None:
    results: list[int] = []

    def fail(*told: object) -> None:
        raise TypeError("a bug in a panel")

    def work(job: Job) -> None:
        raise EditCancelled("asked for") if ends == "stopped" else ValueError("a wrong fact")

    gate = Gate([], "before")
    worker.submit("before", gate)
    job = worker.submit("one", work, failed=fail, stopped=fail)
    if not begun and ends == "stopped":
        job.stop()
    gate.opened.set()
    worker.submit("two", lambda job: 2, results.append)
    assert worker.wait(10)
    assert results == [2]
    assert "a bug in a panel" in caplog.text


def test_cancel_ends_a_job_and_says_nothing(worker: Worker) -> None:
    seen: list[str] = []
    gate = Gate(seen, "edit")
    job = worker.submit("edit", gate, seen.append, seen.append, exclusive=True)
    assert gate.entered.wait(10)
    assert worker.exclusive is job
    job.stop()
    assert worker.wait(10)
    assert seen == []
    assert worker.exclusive is None


def test_a_change_that_cancel_came_too_late_for_is_told(worker: Worker) -> None:
    seen: list[str] = []

    def edit(job: Job) -> str:
        job.stop()  # a person's click, after the last step has asked
        return "edited"

    worker.submit("edit", edit, seen.append, exclusive=True)
    worker.submit("look", edit, seen.append)
    assert worker.wait(10)
    assert seen == ["edited"]


def test_a_newer_job_with_the_same_key_takes_the_place_of_the_older(worker: Worker) -> None:
    seen: list[str] = []
    first, second, third = (Gate(seen, name) for name in ("first", "second", "third"))
    worker.submit("ask", first, key="ask")
    assert first.entered.wait(10)
    worker.submit("ask", second, key="ask")
    worker.submit("ask", third, key="ask")
    third.opened.set()
    assert worker.wait(10)
    assert seen == ["third"]
    assert not second.entered.is_set()


def test_what_changes_the_session_goes_first_and_the_background_last(worker: Worker) -> None:
    seen: list[str] = []
    gate = Gate(seen, "running")
    worker.submit("running", gate)
    assert gate.entered.wait(10)
    worker.submit("background", lambda job: seen.append("background"), patience=2)
    worker.submit("query", lambda job: seen.append("query"))
    worker.submit("edit", lambda job: seen.append("edit"), exclusive=True)
    gate.opened.set()
    assert worker.wait(10)
    assert seen == ["running", "edit", "query", "background"]


def test_the_background_makes_way_and_begins_again(worker: Worker) -> None:
    seen: list[str] = []
    runs: list[Job] = []
    entered = threading.Event()

    def score(job: Job) -> None:
        runs.append(job)
        entered.set()
        while len(runs) == 1 and not job.cancel():
            pass
        if job.cancel():
            raise EditCancelled("made way")
        seen.append("scores")

    worker.submit("scores", score, patience=2)
    assert entered.wait(10)
    worker.submit("query", lambda job: seen.append("query"))
    assert worker.wait(10)
    assert seen == ["query", "scores"]
    assert len(runs) == 2


def test_what_a_background_job_asks_for_when_done_does_not_make_it_begin_again(
    worker: Worker,
) -> None:
    seen: list[str] = []

    def show(result: None) -> None:
        worker.submit("query", lambda job: seen.append("query"))

    worker.submit("scores", lambda job: seen.append("scores"), show, patience=2)
    assert worker.wait(10)
    assert seen == ["scores", "query"]


def test_progress_losses_and_warnings_are_kept_with_the_job(worker: Worker) -> None:
    from coachhook_viz.editing.tokens import FirstTokenWarning

    told: list[str] = []
    worker.listen(lambda: told.append("" if worker.running is None else worker.running.title))

    def work(job: Job) -> None:
        job.progress(Progress("targets", 1, 20, 3.0))
        job.progress(Progress("targets", 2, 20, 2.0))
        warn("the subject comes first", FirstTokenWarning)

    job = worker.submit("edit", work)
    assert worker.wait(10)
    assert job.losses == [3.0, 2.0]
    assert job.warnings == ["the subject comes first"]
    assert job.seconds_left is not None
    assert told[-1] == ""
    assert "edit" in told


def test_a_stage_that_is_called_as_its_job_is_said_once(worker: Worker) -> None:
    said: list[str] = []

    def work(job: Job) -> None:
        job.progress(Progress("keys", 0, 18))
        said.append(str(progress(job)))

    worker.submit("reading keys", work)
    worker.submit("asking", work)
    assert worker.wait(10)
    assert "<p class='cv-note'>reading keys, 0 of 18</p>" in said[0]
    assert "asking · reading keys, 0 of 18" in said[1]


def test_a_listener_can_leave(worker: Worker) -> None:
    told: list[str] = []
    leave = worker.listen(lambda: told.append("heard"))
    leave()
    leave()
    worker.submit("look", lambda job: None)
    assert worker.wait(10)
    assert told == []


def test_a_script_that_ends_while_a_job_runs_ends_well() -> None:
    script = """
import threading, torch
from coachhook_viz.panels.worker import Worker
entered = threading.Event()
def work(job):
    entered.set()
    while not job.cancel():
        torch.ones(300, 300) @ torch.ones(300, 300)
    print("stopped")
worker = Worker()
worker.submit("long", work)
worker.submit("never begun", lambda job: print("begun"))
entered.wait()
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "stopped\n", "")


def test_a_dropped_job_is_forgotten_or_stopped(worker: Worker) -> None:
    seen: list[str] = []
    running, waiting = Gate(seen, "running"), Gate(seen, "waiting")
    worker.submit("running", running, seen.append, key="running")
    assert running.entered.wait(10)
    worker.submit("waiting", waiting, seen.append, key="waiting")
    worker.drop("waiting")
    assert worker.find("waiting") is None
    worker.drop("running")
    worker.drop("never heard of")
    assert worker.wait(10)
    assert seen == []
    assert not waiting.entered.is_set()


def test_a_job_is_found_by_its_key_the_one_that_goes_on_first(worker: Worker) -> None:
    seen: list[str] = []
    first, second = Gate(seen, "first"), Gate(seen, "second")
    old = worker.submit("first", first, key="ask")
    assert first.entered.wait(10)
    assert worker.find("ask") is old
    new = worker.submit("second", second, key="ask")
    assert old.cancel()
    assert worker.find("ask") is new
    second.opened.set()
    assert worker.wait(10)
    assert worker.find("ask") is None


@pytest.mark.parametrize("begun", [True, False])
def test_a_job_that_is_stopped_is_told_so(worker: Worker, begun: bool) -> None:
    seen: list[str] = []
    gate, other = Gate(seen, "edit"), Gate(seen, "other")
    if not begun:
        worker.submit("other", other)
        assert other.entered.wait(10)
    job = worker.submit(
        "edit", gate, seen.append, stopped=lambda: seen.append("stopped"), exclusive=True
    )
    assert not begun or gate.entered.wait(10)
    job.stop()
    other.opened.set()
    assert worker.wait(10)
    assert seen == ["other", "stopped"][begun:]
    assert gate.entered.is_set() == begun


def test_what_a_person_watches_makes_way_for_what_a_person_waits_for(worker: Worker) -> None:
    seen: list[str] = []
    gate = Gate(seen, "text")
    worker.submit("text", gate, patience=1)
    assert gate.entered.wait(10)
    worker.submit("scores", lambda job: seen.append("scores"), patience=2)
    worker.submit("bars", lambda job: (seen.append("bars"), gate.opened.set()))
    assert worker.wait(10)
    assert seen == ["bars", "text", "scores"]


def test_a_change_makes_way_while_it_waits_and_never_once_it_runs(worker: Worker) -> None:
    seen: list[str] = []
    first, edit = Gate(seen, "first"), Gate(seen, "edit")
    worker.submit("first", first)
    assert first.entered.wait(10)
    worker.submit("edit", edit, exclusive=True, patience=1)
    worker.submit("asked before", lambda job: seen.append("asked before"))
    first.opened.set()
    assert edit.entered.wait(10)
    worker.submit("asked meanwhile", lambda job: seen.append("asked meanwhile"))
    edit.opened.set()
    assert worker.wait(10)
    assert seen == ["first", "asked before", "edit", "asked meanwhile"]


def test_a_listener_that_fails_stops_nobody(worker: Worker, caplog) -> None:
    told: list[str] = []

    def fail() -> None:
        raise TypeError("a bug in a panel")

    worker.listen(fail)
    worker.listen(lambda: told.append("heard"))
    worker.submit("look", lambda job: None)
    assert worker.wait(10)
    assert told
    assert "a listener to the worker failed" in caplog.text
