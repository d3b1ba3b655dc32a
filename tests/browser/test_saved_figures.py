"""A saved figure in a real JupyterLab: live where its renderer is, whatever else was saved."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import plotly.io as pio
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from person import open_lab
from playwright.sync_api import Page, expect
from serving import NOTEBOOK, Watch, serve_lab

from coachhook_viz import figures

pytestmark = pytest.mark.browser


def test_jupyterlab_draws_the_live_figure_not_its_picture(
    page: Page, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    frame = pd.DataFrame({"token": [" Paris"], "probability": [0.5]})
    saved = figures.answers(frame, frame, "The city is")._repr_mimebundle_()
    assert "<img" in saved["text/html"]
    cell = new_code_cell("figure", outputs=[new_output("display_data", saved)])
    with serve_lab(tmp_path) as address:
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}
        saved_notebook = new_notebook(cells=[cell], metadata=kernel)
        nbformat.write(saved_notebook, tmp_path / "notebooks" / NOTEBOOK)
        notebook = open_lab(page, address)
        expect(notebook.locator(".js-plotly-plot")).to_be_visible()
        expect(notebook.locator(".jp-OutputArea img:visible")).to_have_count(0)
    watch.check()
