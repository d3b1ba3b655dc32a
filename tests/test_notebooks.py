from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_notebook_can_be_read_without_a_kernel(path: Path) -> None:
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(shows_picture(output) for output in outputs(notebook))
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert not any(output.get("name") == "stderr" for output in outputs(notebook))
    assert not any(VIEW in output.get("data", {}) for output in outputs(notebook))
    assert "widgets" not in notebook.metadata, (
        "live widgets do not survive: do not save their state"
    )
    assert path.stat().st_size < 1_000_000
    text = path.read_text("utf-8")
    assert len(text.encode()) < 1_000_000  # larger ones are not shown on a code host
    for path_of_this_machine in (Path.home(), NOTEBOOKS[0].parents[1]):
        assert str(path_of_this_machine) not in text


def shows_picture(output: nbformat.NotebookNode) -> bool:
    """Whether it has one that survives: scripts do not, nor SVG in a notebook nobody trusts yet."""
    data = output.get("data", {})
    return "image/png" in data or "src='data:image/png;" in data.get("text/html", "")


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_says_what_was_saved(path: Path) -> None:
    saved = nbformat.read(path, nbformat.NO_CONVERT)
    fresh = nbformat.read(path, nbformat.NO_CONVERT)
    client = NotebookClient(fresh, timeout=600, kernel_name="python3", coalesce_streams=True)
    client.execute()
    for before, after in zip(saved.cells, fresh.cells, strict=True):
        if "varies" not in before.metadata.get("tags", []):  # with the last bits of a processor
            assert said(after) == said(before), f"cell {before.id}: run tools/run_notebooks.py"
        assert kinds(after) == kinds(before), f"cell {before.id}: run tools/run_notebooks.py"


def kinds(cell: nbformat.NotebookNode) -> list[str]:
    """What it shows besides, without live widgets and the pictures that stand for them."""
    shown = [output for output in cell.get("outputs", []) if not live(output.get("data", {}))]
    return [kind for output in shown for kind in sorted(output.get("data", {"text": ""}))]


def live(data: dict[str, str]) -> bool:
    """Whether an output is a widget, or the picture that stands for one; neither is saved."""
    return VIEW in data or "cv-twin" in data.get("text/html", "")


def said(cell: nbformat.NotebookNode) -> str:
    """What a cell printed: greedy text, which does not hang on a machine's rounding."""
    return "".join(o.text for o in cell.get("outputs", []) if o.get("name") == "stdout")
