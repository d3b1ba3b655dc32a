"""A folder that holds a sweep: what it is of, and a Parquet file for each finished trial.

SweepFolder    opens it, and keeps and reads results
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from torch import Tensor, trace

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.errors import SweepError
from coachhook_viz.facts import Fact
from coachhook_viz.store.folder import replace_file
from coachhook_viz.store.format import difference, to_config

_CONTENT = "sweep.json"
_LOCK = "sweep.lock"
_FORMAT = "coachhook_viz sweep 1"


def sweep_of(
    version: str,
    model: Mapping[str, str],
    facts: Sequence[Fact],
    rounds: int,
    moments: Mapping[int, Tensor] | None,
    configs: Mapping[str, EditConfig],
) -> dict[str, Any]:
    """What a sweep is of, as its folder says it: two that differ in it have other results.

    Parameters
    ----------
    version : str
        Of this package.
    model : mapping of str to str
        As `describe` gives it.
    facts : sequence of Fact
    rounds : int
    moments : mapping of int to Tensor or None
        None: those of the cache.
    configs : mapping of str to EditConfig
    """
    said = json.dumps([asdict(fact) for fact in facts], ensure_ascii=False)
    content = {
        "format": _FORMAT,
        "version": version,
        "model": dict(model),
        "facts": {"count": len(facts), "sha256": hashlib.sha256(said.encode()).hexdigest()},
        "rounds": rounds,
        "moments": None
        if moments is None
        else {str(n): float(trace(m)) for n, m in moments.items()},
        "settings": {name: to_config(config) for name, config in configs.items()},
    }
    as_read: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists
    return as_read


class SweepFolder:
    """The results of a sweep on disk: ``trials/<id>.parquet``, or why there is none.

    `pandas.read_parquet` of the folder ``trials`` reads all at once.

    Parameters
    ----------
    folder : str or Path
    """

    def __init__(self, folder: str | Path) -> None:
        if folder is None or not str(folder).strip():
            raise SweepError("no folder is named; give one, as folder='my sweep'")
        self.path = Path(folder).expanduser()
        self._trials, self._failed = self.path / "trials", self.path / "failed"

    @contextmanager
    def opened(self, sweep: Mapping[str, Any]) -> Iterator[None]:
        """Within the context the folder is of `sweep`, and of no other process.

        A folder of the same sweep with other settings is of both from then on.

        Raises
        ------
        SweepError
            If it holds another sweep, or other files; if another process is at it; or if it
            cannot be written to.
        """
        if self.path.is_file():
            raise SweepError(f"{self.path}: it is a file; choose a folder")
        with self._writing():
            if not (self.path / _LOCK).exists():  # else another process may just begin there
                self._read()  # what is no folder of a sweep stays as it is
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SweepError(
                f"{self.path}: another process runs this sweep; wait for it, or end it"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            there = self._read()  # nobody else writes it any more
            if there is not None and (reason := _differs(there, sweep)):
                raise SweepError(f"{self.path}: it holds another sweep: {reason}")
            known = {} if there is None else there["settings"]
            content = {**sweep, "settings": {**known, **sweep["settings"]}}
            with self._writing():
                self._trials.mkdir(exist_ok=True)
                text = json.dumps(content, indent=1, ensure_ascii=False)
                replace_file(self.path / _CONTENT, text.encode())
            yield
        finally:
            lock.release()

    def keep(self, trial: str, result: pd.DataFrame) -> None:
        """Write the result of the trial with that id, whole or not at all.

        Raises
        ------
        SweepError
            If the disk does not take it.
        """
        data = BytesIO()
        result.to_parquet(data, index=False)
        with self._writing():
            replace_file(self._trials / f"{trial}.parquet", data.getvalue())
            (self._failed / f"{trial}.txt").unlink(missing_ok=True)

    def keep_failure(self, trial: str, text: str) -> Path:
        """Write why the trial with that id has no result; the file.

        Raises
        ------
        SweepError
            If the disk does not take it.
        """
        with self._writing():
            self._failed.mkdir(exist_ok=True)
            replace_file(self._failed / f"{trial}.txt", text.encode())
        return self._failed / f"{trial}.txt"

    def result(self, trial: str) -> pd.DataFrame | None:
        """The result of the trial with that id; None if there is none that can be read."""
        with suppress(Exception):  # cut short or not ours: found anew either way
            return pd.read_parquet(self._trials / f"{trial}.parquet")
        return None

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads((self.path / _CONTENT).read_text("utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError
            if any(not isinstance(content[name], kind) for name, kind in _PARTS.items()):
                raise TypeError
            int(content["facts"]["count"])
            return {name: content[name] for name in _PARTS}
        except FileNotFoundError:
            if self.path.is_dir() and any(one.name != _LOCK for one in self.path.iterdir()):
                raise SweepError(
                    f"{self.path}: it holds other files, and no {_CONTENT}; choose another folder"
                ) from None
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SweepError(
                f"{self.path / _CONTENT}: it is damaged, or of a newer version; choose another"
                " folder"
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> SweepError:
        return SweepError(
            f"{self.path}: the disk does not take it ({error.strerror or error}). What is finished"
            " is kept: make room, or make it writable, and call again"
        )


_PARTS: Mapping[str, Any] = {
    "version": str, "model": dict, "facts": dict, "rounds": int, "moments": dict | None,
    "settings": dict,
}  # fmt: skip


def _differs(there: Mapping[str, Any], sweep: Mapping[str, Any]) -> str | None:
    """Why the sweep `there` is not this one, and what to do; None if it is."""
    advice = "choose another folder"
    if there["version"] != sweep["version"]:
        return f"it is of version {there['version']}, and this is {sweep['version']}; {advice}"
    if reason := difference(there["model"], sweep["model"]):
        return f"{reason}, or {advice}"
    if there["facts"] != sweep["facts"]:
        return f"its {there['facts']['count']} facts are others; {advice}"
    if there["rounds"] != sweep["rounds"]:
        return f"its facts fall into {there['rounds']} rounds, not {sweep['rounds']}; {advice}"
    if there["moments"] != sweep["moments"]:
        return f"it was made with other moments C0; {advice}"
    for name, config in sweep["settings"].items():
        if there["settings"].get(name, config) != config:
            return f"its setting {name!r} is another; give this one another name, or {advice}"
    return None
