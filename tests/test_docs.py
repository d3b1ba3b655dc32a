"""The pages build without a warning, need no network, and what they show is what happens."""

from __future__ import annotations

import json
import pkgutil
import re
import runpy
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from sphinx.util.inventory import InventoryFile
from tiny import tiny_config, tiny_facts, tiny_model, tiny_moments, tiny_session

import coachhook_viz as cv
from coachhook_viz import cluster, comparing
from coachhook_viz import setup as made_with
from coachhook_viz.editing.config import _KNOWN as KNOWN
from coachhook_viz.editing.config import _OF_METHODS as OF_METHODS
from coachhook_viz.editing.config import _known_settings as known_settings
from coachhook_viz.editing.scope import CALIBRATION_MARGIN
from coachhook_viz.store.format import schema
from coachhook_viz.sweep_file import read as read_sweep

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
OTHERS = (  # files that are not of the project
    "session.json", "session.lock", "manifest.json", "sweep.json", "sweep.toml",
)  # fmt: skip
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    level = heading.split(" ")[0]
    return text.split(f"\n{heading}\n", 1)[1].split(f"\n{level} ", 1)[0]


def table(text: str, first: str) -> dict[str, list[str]]:
    """Cells beside each name in backquotes, from the table whose first column is headed so."""
    lines = re.search(rf"^\| {first} \|.*\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert lines is not None
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[1].splitlines()]
    return {name: row[1:] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


# --- the build ---


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them, but elsewhere."""
    folder = tmp_path_factory.mktemp("docs")
    command = re.search(r"-m (sphinx .*)", (ROOT / "Makefile").read_text("utf-8"))
    assert command is not None
    arguments = command[1].replace("build/", f"{folder}/").split()
    assert {"--fail-on-warning", "--nitpicky"} < set(arguments)
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "docs"


class Requests(HTMLParser):
    """What a browser would load for a page, of its own accord."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADING and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get(LOADING[tag]) or "")
        self.found += re.findall(r"url\((.*?)\)", given.get("style") or "")


def test_pages_ask_nothing_of_a_network(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for path in pages:
        parser = Requests()
        parser.feed(path.read_text("utf-8"))
        assert parser.found
        assert [url for url in parser.found if re.match(r"\s*[\"']?(\w+:)?//", url)] == []
    for path in built.rglob("*.css"):
        loaded = re.findall(r"url\(\s*[\"']?(.*?)[\"']?\s*\)", path.read_text("utf-8"))
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], path.name
        assert "@import" not in path.read_text("utf-8"), path.name


def test_every_class_and_function_has_its_place_in_the_reference(built: Path) -> None:
    inventory = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="")
    known = {name for kind in inventory.data.values() for name in kind}
    for info in pkgutil.walk_packages(cv.__path__, "coachhook_viz."):
        if info.name in (
            "coachhook_viz.__main__",
            "coachhook_viz.asking",
            "coachhook_viz.measuring",
        ):
            continue  # the command line; the bases of Session, whose methods stand there
        for name, value in vars(import_module(info.name)).items():
            if getattr(value, "__module__", None) == info.name and not name.startswith("_"):
                homes = {info.name, info.name.rpartition(".")[0], "coachhook_viz"}
                assert {f"{home}.{name}" for home in homes} & known, f"{info.name}.{name}"


def test_floors_are_those_of_the_contract(built: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    wanted = [
        (len(layers) - i, module.strip(" ()"))
        for i, layer in enumerate(layers)
        for module in layer.split("|")
    ]
    text = (built / "architecture.html").read_text("utf-8")
    rows = [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr.*?</tr>", text.split("</table>")[0], re.DOTALL)[1:]
    ]
    assert [(int(floor), module) for floor, module, _ in rows] == wanted
    assert all(said for _, _, said in rows)


# --- what the pages say ---


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The default model and all that hangs on it are tiny, in other processes, too."""
    folder, made = tmp_path_factory.mktemp("model"), tiny_model(lead="He ")
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    lm = replace(made, name=str(folder))
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(cluster, "workers_here", lambda bytes_needed: 1)
    monkeypatch.setattr(cv, "load_model", lambda: lm)
    monkeypatch.setattr(cv.EditConfig, "for_model", lambda lm, **changes: tiny_config(**changes))
    for module in (made_with, comparing):
        monkeypatch.setattr(module, "cached_moments", lambda lm, layers, watch: tiny_moments(made))


def run(name: str, folder: Path) -> dict[str, Any]:
    """Run the Python of a page from top to bottom."""
    path = folder / "page.py"
    path.write_text("\n\n".join(blocks(page(name))), "utf-8")
    return runpy.run_path(str(path))


@pytest.mark.parametrize("name", [name for name in PAGES if "```python" in page(name)])
def test_python_of_pages_runs(name: str, tiny: None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    run(name, tmp_path)


def test_the_sweep_of_the_page_reads(tmp_path: Path) -> None:
    (content,) = blocks(page("notebook-to-a-cluster.md"), "toml")
    (tmp_path / "sweep.toml").write_text(content, "utf-8")
    said = read_sweep(tmp_path / "sweep.toml")
    assert (said.options, said.folder) == ({"rounds": 2, "seeds": [0, 1]}, tmp_path / "my sweep")
    configs = said.configs(replace(tiny_model(num_hidden_layers=9), name="smollm2-135m"))
    strong = configs["AlphaEdit, strong"].method
    assert strong == cv.methods.AlphaEdit(weight=10.0)
    assert [config.scope for config in configs.values()] == ["zscore", "off", "off"]


def test_the_panel_of_the_page_is_a_panel(tiny: None, tmp_path: Path, monkeypatch) -> None:
    """It follows the session and the selection, says errors, and survives without a kernel."""
    session = tiny_session(tiny_model(lead="He "))
    panel = run("add-a-panel.md", tmp_path)["Weights"](session)
    assert panel.desk.worker.wait(30)
    assert [line[0]["text"] for line in panel._grid.cells] == ["0.000"] * 3
    session.apply(tiny_facts()[:2])
    assert panel.desk.worker.wait(30)
    norms = {layer: float(session.delta_weight(layer).norm()) for layer in (1, 2, 3)}
    assert [line[0]["text"] for line in panel._grid.cells] == [f"{n:.3f}" for n in norms.values()]
    assert panel._grid.rows == ["layer 1", "layer 2", "layer 3"]
    panel._grid.selected = [1, 0]
    assert panel.desk.selection.layer == 2
    for layer, norm in norms.items():
        assert f"<p>layer {layer}: {norm:.3f}</p>" in panel.static()._repr_html_()
    assert panel.code().splitlines() == [f"session.delta_weight({n}).norm()" for n in norms]
    monkeypatch.setattr(session, "delta_weight", lambda layer: 1 / 0)
    session.apply(tiny_facts()[2:3])
    assert panel.desk.worker.wait(30)
    assert panel._alert.html == "Division by zero"
    panel.close()


def test_settings_are_those_of_the_code() -> None:
    text = section(page("method.md"), "## Settings")
    published = {field.name: field.default for field in fields(cv.EditConfig)}
    here = known_settings("smollm2-135m")
    deviations = table(text, "setting")
    assert set(deviations) == {n for n in here if n not in ("layers", "covariance_weight")}
    for name in set(deviations) - {"context_templates"}:
        assert deviations[name] == [str(published[name]), str(here[name])], name
    models = table(text, "model")
    for name, (layers, weight, others) in models.items():
        settings = dict(known_settings(name))
        first, last = layers.split("–")
        assert settings.pop("layers") == tuple(range(int(first), int(last) + 1)), name
        assert settings.pop("covariance_weight") == float(weight), name
        if name != "smollm2-135m":
            assert others == ", ".join(f"`{n}` {value}" for n, value in settings.items()), name
    assert len(models) == len(KNOWN)


def test_settings_of_methods_are_those_of_the_code() -> None:
    shown = {}
    for line in re.findall(r"^\| `.*", section(page("methods.md"), "## One form"), re.MULTILINE):
        name, *given = re.findall(r"`([^`]+)`", line)
        if name in cv.methods.METHODS:
            calls = [one if "=" in one.split("(")[0] else f"method={one}" for one in given]
            shown[name] = eval(f"dict({', '.join(calls)})", vars(cv.methods))  # noqa: S307
    assert shown == known_settings("smollm2-135m", OF_METHODS)


def test_margin_of_the_calibration_is_that_of_the_code() -> None:
    assert f"the margin is {CALIBRATION_MARGIN} and" in " ".join(page("method.md").split())


def test_a_sessions_folder_holds_what_the_page_says(tmp_path: Path) -> None:
    lm = tiny_model(lead="He ")
    session = cv.Session(lm, tiny_config(), tiny_moments(lm), folder=tmp_path / "session")
    session.apply(tiny_facts()[:2])
    text = page("file-formats.md")
    assert f"### session.json, schema {schema()}" in text
    content = json.loads((tmp_path / "session" / "session.json").read_text("utf-8"))
    assert list(table(text, "field")) == list(content)
    rounds = section(text, f"### session.json, schema {schema()}").split("A round in it:")[1]
    assert list(table(rounds, "field")) == list(content["rounds"][0])
    tensors = load_file(tmp_path / "session" / "round-0001.safetensors")
    shapes = {"b": 2, "c": 2, "d_model": lm.d_model, "d_key": lm.d_key}
    said = {
        name.replace("l.", f"{layer}."): tuple(
            shapes[axis] for axis in re.findall(r"\w+", cells[0])
        )
        for layer in session.config.layers
        for name, cells in table(text, "tensor").items()
    }
    assert said == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    checksum = run("file-formats.md", tmp_path)["checksum"]
    assert checksum(content) == content["checksum"]


@pytest.mark.parametrize(
    ("heading", "suffix", "language"),
    [
        ("CSV", ".csv", "text"),
        ("JSON", ".json", "json"),
        ("JSON lines", ".jsonl", "text"),
        ("CounterFact", ".json", "json"),
        ("zsRE", ".json", "json"),
        ("RippleEdits", ".json", "json"),
        ("MQuAKE", ".json", "json"),
        ("KnowEdit", ".json", "json"),
        ("WikiBigEdit", ".json", "json"),
    ],
)
def test_files_of_facts_read(heading: str, suffix: str, language: str, tmp_path: Path) -> None:
    found = blocks(section(page("file-formats.md"), f"### {heading}"), language)
    assert found
    for content in found:
        path = tmp_path / f"facts{suffix}"
        path.write_text(content, "utf-8")
        facts = cv.read_facts(path)
        assert (facts[0].subject, facts[0].target) == ("France", "Rome")
        assert "{}" in facts[0].prompt


def test_fields_of_facts_are_all_named() -> None:
    facts = table(section(page("file-formats.md"), "## Files of facts"), "field")
    assert list(facts) == [field.name for field in fields(cv.Fact)]


@pytest.mark.parametrize("name", [*(f"docs/{name}" for name in PAGES), "CONTRIBUTING.md"])
def test_what_pages_name_is_there(name: str) -> None:
    """Files, targets of make, and what links of a file outside docs/ lead to."""
    text = (ROOT / name).read_text("utf-8")
    for path in re.findall(r"`([\w/]+\.(?:py|css|json|yml|lock|toml|md))`", text):
        places = [ROOT / path, ROOT / "coachhook_viz" / path]
        assert any(p.exists() for p in places) or path in OTHERS, path
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / name).parent / link).exists(), link
