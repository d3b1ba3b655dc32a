from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_notebook_can_be_read_without_a_kernel(path: Path) -> None:
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert not any(output.get("name") == "stderr" for output in outputs(notebook))
    text = path.read_text("utf-8")
    assert len(text.encode()) < 1_000_000  # larger ones are not shown on a code host
    for path_of_this_machine in (Path.home(), NOTEBOOKS[0].parents[1]):
        assert str(path_of_this_machine) not in text


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_says_what_was_saved(path: Path) -> None:
    saved = nbformat.read(path, nbformat.NO_CONVERT)
    fresh = nbformat.read(path, nbformat.NO_CONVERT)
    NotebookClient(fresh, timeout=600, kernel_name="python3").execute()
    for before, after in zip(saved.cells, fresh.cells, strict=True):
        assert said(after) == said(before), f"cell {before.id}: run it again and save it"


def said(cell: nbformat.NotebookNode) -> str:
    """What a cell printed: greedy text, which does not hang on a machine's rounding."""
    return "".join(o.text for o in cell.get("outputs", []) if o.get("name") == "stdout")
