"""A sweep written down as a TOML file, for the command line.

read         what a file says, as far as it can be checked without a model
SweepFile    what it says
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.methods import from_fields
from coachhook_viz.errors import SweepError
from coachhook_viz.models import LanguageModel

_NEEDED = ("facts", "folder", "settings")
_OPTIONS = ("orders", "seeds", "rounds")
_KINDS: dict[str, tuple[type, str]] = {
    "facts": (str, "text"),
    "folder": (str, "text"),
    "settings": (dict, "a table"),
    "columns": (dict, "a table"),
    "model": (str, "text"),
    "lead": (str, "text"),
    "rounds": (int, "a whole number"),
    "orders": (list, "a list"),
    "seeds": (list, "a list"),
    "scheduler": (str, "text"),
}


@dataclass(frozen=True)
class SweepFile:
    """What a file says; paths in it are seen from its own folder.

    Attributes
    ----------
    path, facts, folder : Path
        The file itself, that of the facts, and the folder of the results.
    columns : dict of str to str, optional
        For `read_facts`.
    settings : mapping of str to mapping
        By name, changes of the settings that are known for the model.
    model, lead : str or None
        None: the bundled default, and its lead.
    scheduler : str or None
        Address of a Dask scheduler.
    options : dict
        Of orders, seeds and rounds those that are given.
    """

    path: Path
    facts: Path
    folder: Path
    columns: dict[str, str] | None
    settings: Mapping[str, Mapping[str, Any]]
    model: str | None
    lead: str | None
    scheduler: str | None
    options: dict[str, Any]

    def configs(self, lm: LanguageModel) -> dict[str, EditConfig]:
        """The settings for `lm`, by name: `EditConfig.for_model` with their changes.

        Raises
        ------
        SweepError
            If one of them does not fit; the message names it.
        """
        found = {}
        for name, changes in self.settings.items():
            where = f"{self.path}: the setting {name!r}"
            try:
                method = changes.get("method")
                own = {"method": from_fields(method)} if isinstance(method, dict) else {}
                found[name] = EditConfig.for_model(lm, **{**changes, **own})
            except KeyError as error:
                raise SweepError(
                    f"{where}: its method has no name, or there is no {error}"
                ) from None
            except (TypeError, ValueError) as error:
                raise SweepError(f"{where}: {error}") from None
        return found


def read(path: Path) -> SweepFile:
    """What a file says.

    Raises
    ------
    SweepError
        If it is not TOML, or says something else than a sweep.
    OSError
        If it cannot be read.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise SweepError(f"{path}: it is not TOML: it is no text in UTF-8") from None
    except ValueError as error:
        raise SweepError(f"{path}: it is not TOML: {error}") from None
    for name in _NEEDED:
        if name not in given:
            raise SweepError(f"{path}: it has no {name!r}")
    for name, value in given.items():
        if name not in _KINDS:
            raise SweepError(f"{path}: there is no {name!r}; there are {', '.join(_KINDS)}")
        kind, wanted = _KINDS[name]
        if type(value) is not kind:
            raise SweepError(f"{path}: {name} is {value!r}: it must be {wanted}")
    for name in ("facts", "folder"):
        if not given[name].strip():
            raise SweepError(f"{path}: {name} is empty")
    for name, changes in given["settings"].items():
        if not isinstance(changes, dict):
            raise SweepError(f"{path}: {name} is no table: write [settings.{name}] above its lines")
    beside, model = path.parent, given.get("model")
    if model is not None and (beside / model).is_dir():
        model = str(beside / model)
    options: dict[str, Any] = {name: given[name] for name in _OPTIONS if name in given}
    return SweepFile(
        path,
        beside / given["facts"],
        beside / given["folder"],
        given.get("columns"),
        given["settings"],
        model,
        given.get("lead"),
        given.get("scheduler"),
        options,
    )
