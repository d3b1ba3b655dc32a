"""What the README shows is what happens."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import coachhook_viz as cv

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.model
def test_first_example_does_what_it_says(monkeypatch, tmp_path: Path, lm: cv.LanguageModel) -> None:
    """Each line whose comment is a text that goes on with "…" must give a text that starts so."""
    monkeypatch.setattr(cv, "load_model", lambda: lm)
    [example] = blocks("python")
    path = tmp_path / "example.py"
    shown = r"^(session\.\S+\(.*?\)) +# ' (.*)…'$"
    checked, count = re.subn(
        shown, r'assert \1.strip().startswith("""\2""".strip())', example, flags=re.MULTILINE
    )
    assert count == 2
    path.write_text(checked, "utf-8")
    assert runpy.run_path(str(path))["session"].position == 0


def test_sample_file_reads(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(blocks("text")[0], "utf-8")
    [fact] = cv.read_facts(path)
    assert (fact.text, fact.target) == ("The capital of France is", "Rome")
    assert len(fact.paraphrases) == 2
    assert fact.neighbors[0].answer == "Rome"


@pytest.mark.parametrize("target", re.findall(r"^\| `make (\w+)`", README, flags=re.MULTILINE))
def test_promised_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)


def test_linked_files_exist() -> None:
    for link in re.findall(r"(?:\]\(|src(?:set)?=\")([^)#\"]+)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_counts_of_bundled_facts_are_true() -> None:
    facts = cv.bundled_facts()
    said = " ".join(README.split())
    assert f"{len(facts)} facts in {len({f.relation for f in facts})} relations" in said
