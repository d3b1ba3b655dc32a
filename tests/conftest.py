"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import coachhook_viz as cv

ROOT = Path(__file__).parent.parent
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference outputs and public data, which stand beside a checkout but are not part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("../shared is absent: CI needs the reference outputs")
        pytest.skip("../shared (reference outputs, public editing data) is not here")
    return folder


@pytest.fixture(scope="session")
def lm() -> cv.LanguageModel:
    """The real default model."""
    return cv.load_model()
