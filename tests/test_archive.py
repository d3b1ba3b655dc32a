"""A session's folder, zipped, and the README in it."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from tiny import tiny_facts, tiny_model, tiny_moments, tiny_session

import coachhook_viz as cv
from coachhook_viz import Session, SessionFileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    session = tiny_session(tiny_model(bos=True))
    session.apply(tiny_facts()[:2])
    session.save(tmp_path / "mine")
    return tmp_path / "mine"


def load(path: Path) -> Session:
    lm = tiny_model(bos=True)
    return Session.load(path, lm, tiny_moments(lm))


@pytest.mark.parametrize("within", [True, False])
def test_a_zip_opens(folder: Path, within: bool) -> None:
    root, base = (folder.parent, "mine") if within else (folder, None)
    path = Path(shutil.make_archive(str(folder.parent / "packed"), "zip", root, base))
    before, session = path.read_bytes(), load(path)
    for layer in session.config.layers:
        assert torch.equal(session.delta_weight(layer), load(folder).delta_weight(layer))
    assert session.folder is None
    session.apply(tiny_facts()[2:3])
    assert path.read_bytes() == before
    session.save(folder.parent / "other")
    assert len(load(folder.parent / "other").rounds) == 2


def test_a_zip_with_the_separator_of_windows_opens(folder: Path) -> None:
    files = {f"mine\\{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert load(packed(folder, **files)).facts == load(folder).facts


def packed(folder: Path, **files: bytes) -> Path:
    path = folder.parent / "made.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_zips_that_hold_no_session_say_so(folder: Path) -> None:
    content = (folder / "session.json").read_bytes()
    with pytest.raises(SessionFileError, match="it holds no session"):
        load(packed(folder, **{"readme.txt": b""}))
    with pytest.raises(SessionFileError, match="it holds 2 sessions"):
        load(packed(folder, **{"a/session.json": content, "b/session.json": content}))
    with pytest.raises(SessionFileError, match=r"made\.zip.*cannot be read"):
        load(packed(folder, **{"a/session.json": content}))
    with pytest.raises(SessionFileError, match="which no session does"):
        load(packed(folder, **{"session.json": b" " * 10_000_000}))
    text = folder.parent / "notes.zip"
    text.write_text("no zip")
    with pytest.raises(SessionFileError, match="neither a folder nor a zip"):
        load(text)
    whole = packed(folder, **{"a/session.json": content}).read_bytes()
    text.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SessionFileError, match="neither a folder nor a zip"):
        load(text)


def test_nothing_is_unpacked_elsewhere(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    name = "../../round-0009.safetensors"
    session = load(packed(folder, **files, **{name: b"", "../session.json.exe": b""}))
    assert len(session.rounds) == 1
    assert not list(folder.parent.parent.glob("round-*"))


def test_a_readme_says_how_to_open_it(folder: Path) -> None:
    text = (folder / "README.md").read_text("utf-8")
    assert "lm = cv.load_model('tiny-llama', lead='', dtype='float32')" in text
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(code, "README", "exec")
    assert 'cv.Session.load("this folder", lm, moments)' in text
    session = load(folder)
    (folder / "README.md").write_text("my own words")
    session.apply(tiny_facts()[2:3])
    session.save(folder)
    assert (folder / "README.md").read_text("utf-8") == "my own words"
    assert cv.Session is Session
