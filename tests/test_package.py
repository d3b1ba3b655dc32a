from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import coachhook_viz as cv

ROOT = Path(__file__).parent.parent
PUBLIC = {
    "Architecture", "BadRecordWarning", "EditCancelled", "EditConfig", "EditState", "EditedModel",
    "Fact", "FactError", "FactFileError", "FailedTrialWarning", "FirstTokenWarning", "Guide",
    "LanguageModel", "ModelNotFound", "ModelRefused", "MomentsWarning", "Neighbor",
    "NullSpaceWarning", "OneByOneWarning", "Probe", "Progress", "RepeatedFactWarning", "Round",
    "Scope", "Session", "SessionFileError", "SweepError", "WaitingWarning", "Why",
    "WideScopeWarning", "bundled_facts", "collect_moments", "compare", "diff", "figures", "guide",
    "known_facts", "load_model", "methods", "panels", "playground", "read_facts", "report", "sweep",
}  # fmt: skip
HEAVY = {"torch", "transformers", "numpy", "pandas", "matplotlib", "plotly", "ipywidgets"}


def in_a_fresh_process(code: str) -> str:
    """What `code` prints where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    modules = in_a_fresh_process("import sys, coachhook_viz; print(*sys.modules)").split()
    assert "coachhook_viz" in modules
    assert not HEAVY & set(modules)


def test_a_fact_needs_no_torch() -> None:
    code = "import sys, coachhook_viz as cv; cv.Fact('{} is', 'A', 'B'); print(*sys.modules)"
    assert not HEAVY & set(in_a_fresh_process(code).split())


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(cv, name)
    assert getattr(value, "__doc__", None)
    assert getattr(cv, name) is value


def test_public_names_are_listed() -> None:
    assert set(cv.__all__) == PUBLIC
    assert set(dir(cv)) >= PUBLIC
    assert len(dir(cv)) == len(set(dir(cv)))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(cv.__file__).read_text("utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname for node in imports for alias in node.names} == PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cv.nonsense  # noqa: B018


@pytest.mark.parametrize("name", ["figures", "panels"])
def test_modules_are_modules(name: str) -> None:
    module = getattr(cv, name)
    assert isinstance(module, ModuleType)
    assert module.__name__ == f"coachhook_viz.{name}"


def test_a_playground_appears_before_torch_is_imported() -> None:
    code = "import sys, coachhook_viz as cv; cv.playground; print(*sys.modules)"
    modules = set(in_a_fresh_process(code).split())
    assert "ipywidgets" in modules
    assert not {"torch", "transformers", "pandas", "matplotlib", "plotly"} & modules


def test_report_is_the_function_whatever_is_imported_before() -> None:
    code = "import coachhook_viz.html_report, coachhook_viz as cv; print(type(cv.report).__name__)"
    assert in_a_fresh_process(code) == FunctionType.__name__


def test_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert cv.__version__ == project["version"]
