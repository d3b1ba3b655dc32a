"""A session's folder as one file: a zip of it, as a system's own tools make it.

opened    the folder to read from, unpacked for as long as it is needed
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from coachhook_viz.store.format import SessionFileError

_MEMBER = re.compile(r"session\.json|round-\d{4,}\.safetensors")
_SWOLLEN = 200  # times its packed size: more than numbers and text ever shrink


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A folder with the session that `path` holds: itself, or for a zip one of what is packed.

    Only a session's own files are unpacked, whatever else the zip holds.

    Raises
    ------
    SessionFileError
        If the zip cannot be read, or holds no session or several.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        inside = Path(temporary) / "session"
        inside.mkdir()
        _unpack(path, inside)
        try:
            yield inside
        except SessionFileError as error:
            raise SessionFileError(str(error).replace(str(inside), str(path))) from None


def _unpack(path: Path, into: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            # some tools of Windows write \ between the parts of a name
            packed = {PureWindowsPath(info.filename): info for info in archive.infolist()}
            members = {
                member: info
                for member, info in packed.items()
                if _MEMBER.fullmatch(member.name) and "__MACOSX" not in member.parts
            }
            homes = [member.parent for member in members if member.name == "session.json"]
            if len(homes) != 1:
                raise SessionFileError(
                    f"{path}: it holds {len(homes) or 'no'} session{'s' * (len(homes) > 1)}, zip"
                    " the one folder where a session was saved"
                )
            for member, info in members.items():
                if member.parent != homes[0]:
                    continue
                if info.file_size > _SWOLLEN * max(info.compress_size, 1000):
                    raise SessionFileError(
                        f"{path}: {info.filename} would swell to {info.file_size} bytes, which no"
                        " session does"
                    )
                with archive.open(info) as source, (into / member.name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise SessionFileError(
            f"{path}: it is neither a folder nor a zip of one that can be read ({error})"
        ) from None
    except (RuntimeError, NotImplementedError) as error:  # with a password, or packed otherwise
        raise SessionFileError(
            f"{path}: it cannot be unpacked ({error}); unpack it yourself, and load the folder"
        ) from None
