"""A folder that holds a session: `session.json`, a safetensors file a round, and a README.

write       make a folder hold a session: whole or not at all
read        what a folder holds
folder_of      where a folder is that a person names
checksum_of    its checksum, if it holds just that
model_of    just which model it belongs to
summary     just how much it holds, without its tensors
replace_file   one file, whole or not at all

Round files are written first, then `session.json` takes the place of the one before in a single
rename. So a process may be killed at any moment: the folder holds the session before or after.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from coachhook_viz.models import LanguageModel
from coachhook_viz.store.format import (
    Saved,
    SessionFileError,
    describe,
    difference,
    from_content,
    migrated,
    schema,
    to_content,
    to_tensors,
)

_CONTENT = "session.json"
_README = "README.md"
_ROUND = "round-{:04d}.safetensors"
_TEMPORARY = ".tmp"
_LOCK = "session.lock"
_PATIENCE = 10.0  # seconds to wait for another process that is at it


def write(folder: Path, saved: Saved, expected: str | None = None) -> str:
    """Make `folder` hold `saved`, atomically.

    Parameters
    ----------
    folder : Path
        Made if needed.
    saved : Saved
    expected : str, optional
        The checksum that the folder must have now, where a journal goes on writing. None: it must
        be empty, or hold this session in an earlier state.

    Returns
    -------
    str
        The folder's checksum from now on.

    Raises
    ------
    SessionFileError
        If the folder holds another session, or has been written by somebody else meanwhile.
    OSError
        If the disk does not take it; the folder then holds what it held.
    """
    for path in (folder, *folder.parents):
        if path.is_file():
            raise SessionFileError(f"{path}: it is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, writing=True):
        return _write(folder, saved, expected)


def folder_of(folder: str | Path) -> Path:
    """Where a session's folder is that a person names: by the home folder, or by its content.

    Raises
    ------
    SessionFileError
        If nothing is named.
    """
    if not isinstance(folder, str | os.PathLike) or not str(folder).strip():
        raise SessionFileError("no folder is named; give one, as 'my session'")
    path = Path(os.path.expanduser(folder))
    return path.parent if path.name == _CONTENT and not path.is_dir() else path


@contextmanager
def _locked(folder: Path, writing: bool = False) -> Iterator[None]:
    """Within the context no other process writes to `folder`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / _LOCK, timeout=_PATIENCE))
        except Timeout:
            raise SessionFileError(f"{folder}: another process is writing there") from None
        except OSError:
            if writing:
                raise  # else it cannot be written to, and can be read as it stands
        yield


def _write(folder: Path, saved: Saved, expected: str | None) -> str:
    there = migrated(_parse(folder)) if (folder / _CONTENT).exists() else None
    if expected is not None and (there is None or there["checksum"] != expected):
        raise SessionFileError(
            f"{folder}: the session there was changed or removed by someone else since this one"
            " opened it; save to another folder, and load it from there"
        )
    if there is not None and there["id"] != saved.id:
        raise SessionFileError(
            f"{folder}: it holds another session. Session.load(folder, lm) opens that one; else"
            " choose another folder"
        )
    rounds = saved.history.rounds
    known = {} if there is None else {r["number"]: r["sha256"] for r in there["rounds"]}
    if expected is None:
        _check_same_way(folder, saved, known)
    digests: dict[int, str] = {}
    for number, round_ in rounds.items():
        path = folder / _ROUND.format(number)
        if expected is not None and number in known:  # what a journal wrote it need not compare
            digests[number] = known[number]
            continue
        data = safetensors.save(to_tensors(round_))
        digests[number] = hashlib.sha256(data).hexdigest()
        if known.get(number, digests[number]) != digests[number]:
            raise SessionFileError(
                f"{folder}: it holds another round {number} of the same session, which has"
                " gone two ways; choose another folder"
            )
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digests[number]:
            replace_file(path, data)
    content = to_content(saved, digests)
    content["checksum"] = _checksum(content)
    replace_file(folder / _CONTENT, _written(content).encode())
    wanted = {_ROUND.format(number) for number in rounds}
    with suppress(OSError):  # the session is written; what is left over does no harm
        if not (folder / _README).exists():
            replace_file(folder / _README, _readme(saved).encode())
        for path in folder.iterdir():
            if _is_round(path) and path.name not in wanted:
                path.unlink()
    return str(content["checksum"])


def _readme(saved: Saved) -> str:
    """What a person finds who opens the folder and does not know what it is."""
    name, lead, dtype = (saved.model[part] for part in ("name", "lead", "dtype"))
    return f"""# An edit session

Facts that were edited in a language model, round by round, with
coachhook-viz. `{_CONTENT}` says what was edited, and how; each round has a file
of numbers. The model itself is not here, and nothing here is run.

To open it, load the model that it was made with:

```python
import coachhook_viz as cv

lm = cv.load_model({name!r}, lead={lead!r}, dtype={dtype!r})
session = cv.Session.load("this folder", lm)
session.facts
```

Second moments of your own have to be given again: `cv.Session.load("this folder", lm, moments)`.

The folder may be copied, moved and zipped; `cv.Session.load` opens the zip, too.
"""


def _check_same_way(folder: Path, saved: Saved, known: dict[int, str]) -> None:
    """Refuse to drop rounds that the session being saved has never had."""
    newer = [number for number in known if number >= saved.history.next_round]
    if newer:
        raise SessionFileError(
            f"{folder}: it holds round {newer[0]}, which this session does not have: the same"
            " session has gone on there; choose another folder"
        )
    if not known:
        mine = {_ROUND.format(number) for number in saved.history.rounds}
        if any(_is_round(path) and path.name not in mine for path in folder.glob("*.safetensors")):
            raise SessionFileError(
                f"{folder}: it holds rounds of a session whose {_CONTENT} is missing; choose"
                " another folder"
            )


def _is_round(path: Path) -> bool:
    return re.fullmatch(r"round-\d{4,}\.safetensors(\.tmp)?", path.name) is not None


def read(folder: Path, lm: LanguageModel) -> tuple[Saved, str]:
    """What `folder` holds, and its checksum; never the middle of another process's write.

    Raises
    ------
    SessionFileError
        If there is no session; if it is truncated, was changed by hand, or is of a newer version;
        if it belongs to another model than `lm`, or to another revision of it; if another process
        does not finish writing.
    """
    _require(folder)
    with _locked(folder):
        return _read(folder, lm)


def _read(folder: Path, lm: LanguageModel) -> tuple[Saved, str]:
    content = _parse(folder)
    checksum = str(content.pop("checksum"))
    try:
        content = migrated(content)
        if reason := difference(content["model"], describe(lm)):
            raise SessionFileError(f"{folder}: {reason}")
        tensors = {entry["number"]: _read_round(folder, entry) for entry in content["rounds"]}
        return from_content(content, tensors, lm), checksum
    except SessionFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SessionFileError(
            f"{folder / _CONTENT}: it does not describe a session: {type(error).__name__} {error}"
        ) from None


def checksum_of(folder: Path, saved: Saved) -> str | None:
    """The checksum of `folder` if `saved` is what it holds; None if it is anything else."""
    try:
        there = migrated(_parse(folder))
    except SessionFileError:
        return None
    digests = {entry["number"]: entry["sha256"] for entry in there["rounds"]}
    if digests.keys() != saved.history.rounds.keys():
        return None
    checksum = _checksum(to_content(saved, digests))
    return checksum if checksum == there["checksum"] else None


def model_of(folder: Path) -> dict[str, str]:
    """Name, fingerprint, dtype and lead of the model that the session in `folder` belongs to.

    Raises
    ------
    SessionFileError
        As `read` does.
    """
    _require(folder)
    model = migrated(_parse(folder)).get("model")
    if not isinstance(model, dict) or not {"name", "lead", "dtype"} <= model.keys():
        raise SessionFileError(f"{folder / _CONTENT}: it does not say which model it belongs to")
    return model


@dataclass(frozen=True)
class Summary:
    """How much a folder holds.

    Attributes
    ----------
    model : str
        Name of the session's model.
    rounds, facts : int
        Of the branch in force; of all branches, if that one has none.
    written : float
        When, in seconds since the epoch.
    """

    model: str
    rounds: int
    facts: int
    written: float


def summary(folder: Path) -> Summary:
    """What there is to be said of a session without its model and without reading its tensors.

    Raises
    ------
    SessionFileError
        As `read` does, but for damage within the rounds' files.
    OSError
        If the folder cannot be looked into.
    """
    _require(folder)
    content, written = migrated(_parse(folder)), (folder / _CONTENT).stat().st_mtime
    try:
        facts = {entry["number"]: len(entry["facts"]) for entry in content["rounds"]}
        lost = [number for number in facts if not (folder / _ROUND.format(number)).exists()]
        if lost:
            raise SessionFileError(f"{folder}: the file of round {lost[0]} is missing")
        rounds = content["branches"][content["current"]]["rounds"] or list(facts)
        held = sum(facts[number] for number in rounds)
        return Summary(str(content["model"]["name"]), len(rounds), held, written)
    except SessionFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SessionFileError(
            f"{folder / _CONTENT}: it does not describe a session: {type(error).__name__} {error}"
        ) from None


def _require(folder: Path) -> None:
    if not (folder / _CONTENT).exists():
        raise SessionFileError(f"{folder}: no session is saved there, it has no {_CONTENT}")


def _read_round(folder: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / _ROUND.format(entry["number"])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SessionFileError(f"{path}: it cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise SessionFileError(
            f"{path}: it is truncated, or was changed since it was saved; restore it from a copy"
        )
    try:
        tensors: dict[str, Tensor] = safetensors.load(data)
    except SafetensorError as error:
        raise SessionFileError(f"{path}: it is not a safetensors file: {error}") from None
    return tensors


def _parse(folder: Path) -> dict[str, Any]:
    path = folder / _CONTENT
    try:
        content = json.loads(path.read_text("utf-8"))
        version, checksum = content["schema"], content.pop("checksum")
        found = _checksum(content)
    except OSError as error:
        raise SessionFileError(f"{path}: it cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise SessionFileError(
            f"{path}: it is truncated, or not a session; restore it from a copy"
        ) from None
    if not isinstance(version, int) or version < 1:
        raise SessionFileError(f"{path}: its schema is {version!r}, which no version has written")
    if version > schema():
        raise SessionFileError(
            f"{path}: it was written by a newer version (schema {version}, this one knows"
            f" {schema()}); upgrade coachhook-viz"
        )
    if checksum != found:
        raise SessionFileError(
            f"{path}: it was changed since it was saved (its checksum differs); restore it from a"
            " copy"
        )
    return {**content, "checksum": checksum}


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _written(content: dict[str, Any]) -> str:
    """As JSON, one round a line: to indent all of it takes a third of a second for 1,000 facts."""
    parts = [
        f"{json.dumps(name)}: {_lines(value) if name == 'rounds' else _compact(value)}"
        for name, value in content.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}"


def _lines(values: list[Any]) -> str:
    return "[\n" + ",\n".join(map(_compact, values)) + "\n]"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside, and let it take the place of `path` once it is on the disk."""
    beside = path.with_name(path.name + _TEMPORARY)
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    with suppress(OSError, AttributeError):  # where folders can be synced: the rename itself too
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
