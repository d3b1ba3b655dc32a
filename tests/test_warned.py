"""Warnings, and which thread hears them."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from tiny import tiny_facts, tiny_model, tiny_session

import coachhook_viz as cv
from coachhook_viz.panels.worker import Job, Worker
from coachhook_viz.warned import heard, hushed, warn


class Odd(UserWarning):
    """One kind."""


def test_the_nearest_that_listens_for_a_kind_hears_it() -> None:
    with heard() as all_, heard(Odd) as odd:
        warn("odd", Odd)
        warn("other")
    assert [str(one) for one in odd] == ["odd"]
    assert [(str(one), type(one)) for one in all_] == [("other", UserWarning)]
    with pytest.warns(Odd, match="again") as told:
        warn("again", Odd)
    assert told[0].filename == __file__


def test_threads_that_listen_in_turns_hear_their_own() -> None:
    before = warnings.filters[:], warnings.showwarning
    step = Barrier(2, timeout=10)

    def first() -> list[str]:
        with heard() as said:
            step.wait()  # the second one comes
            step.wait()
            warn("first")
        step.wait()
        return [str(one) for one in said]

    def second() -> list[str]:
        step.wait()
        with heard() as said:
            step.wait()
            warn("second")
            step.wait()  # the first one is gone
        return [str(one) for one in said]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(first), pool.submit(second)
        assert (one.result(), other.result()) == (["first"], ["second"])
    assert (warnings.filters[:], warnings.showwarning) == before


def test_a_job_leaves_the_warnings_of_the_notebook_alone() -> None:
    worker, step = Worker(), Barrier(2, timeout=10)
    jobs: list[Job] = []

    def work(job: Job) -> None:
        jobs.append(job)
        step.wait()
        step.wait()
        warn("heard by the job")

    before = warnings.filters[:], warnings.showwarning
    worker.submit("test", work)
    step.wait()
    with hushed():  # from the middle of the job to after its end
        step.wait()
        worker.wait(10)
    assert jobs[0].warnings == ["heard by the job"]
    assert (warnings.filters[:], warnings.showwarning) == before


def test_code_lists_guessed_settings_while_others_listen() -> None:
    session = tiny_session(tiny_model(lead="He "))
    session.apply(tiny_facts()[:1])
    alone = session.code()
    with heard(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert session.code() == alone
    assert "layers=" in alone
    with pytest.warns(UserWarning, match="are a guess"):
        cv.EditConfig.for_model(session.lm)
