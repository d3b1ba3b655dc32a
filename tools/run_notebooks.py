"""Run the notebooks from top to bottom and save them so that they read without a kernel.

    python tools/run_notebooks.py [NOTEBOOK …]

Live widgets do not survive: their views are left out, and what is shown in their place while no
kernel runs. No state of them is saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Run those named, or all."""
    paths = [Path(name) for name in sys.argv[1:]]
    for path in paths or sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, nbformat.NO_CONVERT)
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", coalesce_streams=True)
        client.execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                cell.outputs = [one for one in cell.outputs if not live(one.get("data", {}))]
        title = {name: notebook.metadata[name] for name in ("title",) if name in notebook.metadata}
        notebook.metadata = {
            **title,
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3",
            },
            "language_info": {"name": "python"},
        }  # fmt: skip
        nbformat.validate(notebook)
        nbformat.write(notebook, path)


def live(data: dict[str, str]) -> bool:
    """Whether an output is a widget, or the picture that stands for one."""
    return VIEW in data or "cv-twin" in data.get("text/html", "")


if __name__ == "__main__":
    main()
