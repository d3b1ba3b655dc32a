"""One list of dependencies: pyproject.toml. The conda environment and the lock follow it."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
LOCK = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
PYPI_NAMES = {"pytorch": "torch"}  # of the packages that conda-forge calls otherwise


def requirements(lines: list[str]) -> dict[str, SpecifierSet]:
    parsed = [Requirement(line) for line in lines]
    found = {canonicalize_name(one.name): one.specifier for one in parsed}
    assert len(found) == len(lines), "a package is named twice"
    return found


def test_conda_environment_is_the_projects_list() -> None:
    conda = [line for line in CONDA["dependencies"] if isinstance(line, str)]
    python, *conda = conda
    assert python == "python=3.11"
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")
    pip = [
        line for entry in CONDA["dependencies"] if isinstance(entry, dict) for line in entry["pip"]
    ]
    assert pip[-1] == "-e ."
    found = {PYPI_NAMES.get(name, name): spec for name, spec in requirements(conda).items()}
    assert found | requirements(pip[:-1]) == requirements(PROJECT["dependencies"])
    assert CONDA["channels"][0] == "conda-forge"


@pytest.mark.parametrize(
    "line", [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
)
def test_lock_satisfies(line: str) -> None:
    wanted = Requirement(line)
    (pin,) = requirements(LOCK)[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(pin.version)


def test_lock_is_nothing_but_exact_public_versions() -> None:
    assert [line for line in LOCK if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
