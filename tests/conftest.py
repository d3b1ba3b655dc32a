"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import coachhook_viz as cv

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"

collect_ignore = [] if find_spec("lm_eval") else ["test_harness.py"]  # not among the tests' needs

settings.register_profile(
    "default",
    deadline=None,
    derandomize=IN_CI,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def _sessions_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves a session among those of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COACHHOOK_VIZ_SESSIONS", str(tmp_path_factory.mktemp("sessions")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _guides_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a person's guides found changes no test, and no test's guide is kept for a person."""
    folder = tmp_path_factory.mktemp("guides") / "none yet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coachhook_viz.editing.guided.guides_dir", lambda: folder)
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may skip: a test that cannot run there is a hole, not a pass."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI=true: a skipped test counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference outputs and public data, which stand beside a checkout but are not part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        if IN_CI:
            pytest.fail("../shared is absent: CI needs the reference outputs")
        pytest.skip("../shared (reference outputs, public editing data) is not here")
    return folder


@pytest.fixture(scope="session")
def lm() -> cv.LanguageModel:
    """The real default model."""
    return cv.load_model()
