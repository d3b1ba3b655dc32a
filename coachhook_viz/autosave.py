"""Sessions that keep themselves: every finished change is on the disk a moment later.

Autosave           saves a session from its first round on, and never refuses a change
Kept               a session that was saved, without its tensors
recent             those that there are, the newest first
kept_in            what one folder holds
here               the notebook that this process belongs to
sessions_folder    where sessions go that were given no folder

    autosave = Autosave(session)
    ...
    session = Session.load(recent()[0].folder, lm, journal=False)
    autosave = Autosave(session, recent()[0].folder)
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from uuid import uuid4

from platformdirs import user_data_path

from coachhook_viz import store
from coachhook_viz.events import Event
from coachhook_viz.session import Session

_NOTEBOOK = "notebook.txt"  # beside session.json, so that older versions read that too
_log = logging.getLogger(__name__)


def sessions_folder() -> Path:
    """The user's sessions; the variable COACHHOOK_VIZ_SESSIONS moves it."""
    chosen = os.environ.get("COACHHOOK_VIZ_SESSIONS")
    return Path(chosen).expanduser() if chosen else user_data_path("coachhook-viz") / "sessions"


def here() -> str | None:
    """The notebook that this process belongs to, as Jupyter names it; None elsewhere."""
    return os.environ.get("JPY_SESSION_NAME") or None


class Autosave:
    """Saves a session after each change, in a thread of its own, from the first round on.

    Nothing that happens here reaches the session: what cannot be saved is said in `error`, and
    saved with the next change. A folder that holds another session, or that another process has
    written to meanwhile, stays as it is; this session then goes on in a new folder. One with a
    `folder` of its own writes each change by itself; of that session this only reports.

    Parameters
    ----------
    session : Session
        If it has rounds already, it is saved at once.
    folder : str or Path, optional
        A new or empty one, or where this session was loaded from. None: a new one in
        `sessions_folder`.
    notebook : str, optional
        What `recent` finds the session by. None: `here`.

    Attributes
    ----------
    folder : Path or None
        Where the session is; None before the first round, if it was given no folder.
    saved : datetime or None
        When it was last saved, since this began; UTC.
    moved : str
        That it goes on in another folder than it was given, and why, in a sentence.
    error : str
        Why the last change could not be saved, in a sentence; empty if it was.
    """

    def __init__(
        self, session: Session, folder: str | Path | None = None, notebook: str | None = None
    ) -> None:
        self._session = session
        self._notebook = here() if notebook is None else notebook
        self.folder = session.folder or (None if folder is None else Path(folder).expanduser())
        self.saved: datetime | None = None
        self.moved = ""
        self.error = ""
        self._checksum: str | None = None
        self._noted: Path | None = None
        self._callbacks: list[Callable[[], object]] = []
        self._lock = Lock()
        self._wanted: store.Saved | None = None
        self._last: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, "autosave")  # Python waits for it before it ends
        self._end = session.subscribe(self._changed)
        self._changed()

    def on_saved(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after each attempt, in the thread that made it, until told to stop.

        Returns
        -------
        callable
            Ends it.
        """
        entry = [callback]  # one may come twice
        self._callbacks.append(callback)

        def end() -> None:
            if entry:
                self._callbacks.remove(entry.pop())

        return end

    def wait(self, timeout: float | None = None) -> bool:
        """Until all that has happened is saved or has failed; whether it was in `timeout` s."""
        last = self._last
        return last is None or not wait([last], timeout).not_done

    def close(self) -> None:
        """Stop listening; what could not be saved is tried once more."""
        self._end()
        self.wait()
        if self.error:
            self._changed()
        self._pool.shutdown(wait=True)

    def _changed(self, event: Event | None = None) -> None:
        if not any(branch.rounds for branch in self._session.branches.values()):
            return
        if self._session.folder is None:
            self._ask()
        else:
            self._try(self._note)

    def _ask(self) -> None:
        """Have the session saved as it is now; several changes in a row are saved at once."""
        with self._lock:
            asked = self._wanted is not None
            self._wanted = self._session.snapshot()
        if not asked:
            try:
                self._last = self._pool.submit(self._try, self._write)
            except RuntimeError:  # Python ends, and starts no more work
                self._try(self._write)

    def _try(self, act: Callable[[], object]) -> None:
        """Do it, and say what became of it; this is where every error ends."""
        try:
            act()
            self.saved, self.error = datetime.now(UTC), ""
        except OSError as error:
            self.error = _told(error)
        except Exception as error:
            _log.exception("a session could not be saved")
            self.error = f"The session could not be saved: {error}."
        for callback in list(self._callbacks):
            try:
                callback()
            except Exception:
                _log.exception("a callback of Autosave failed")

    def _write(self) -> None:
        with self._lock:
            saved, self._wanted = self._wanted, None
        if saved is None:
            return
        self.folder = self.folder or _new_folder()
        try:
            self._checksum = store.write(self.folder, saved, self._checksum)
        except store.SessionFileError as error:  # it is somebody else's by now
            self.folder, self._checksum = _new_folder(), None
            reason = str(error).partition(";")[0]
            self.moved = f"{reason}. So this session is kept in {self.folder}."
            self._checksum = store.write(self.folder, saved)
        self._note()

    def _note(self) -> None:
        """Which notebook the folder belongs to, for `recent`."""
        folder = self.folder
        if folder is None or self._noted == folder or self._notebook is None:
            return
        if folder.resolve().parent == sessions_folder().resolve():
            (folder / _NOTEBOOK).write_text(self._notebook, "utf-8")
        self._noted = folder


def _new_folder() -> Path:
    """A name of the time, and something to tell two of one minute apart; it is made by the save."""
    return sessions_folder() / f"{datetime.now():%Y-%m-%d %H.%M} {uuid4().hex[:8]}"


def _told(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full. Make room: the next change saves all of the session."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        place = f" ({error.filename})" if error.filename else ""
        return f"The folder of the session cannot be written to{place}."
    return f"The session could not be saved: {error.strerror or error}."


@dataclass(frozen=True)
class Kept:
    """A session that was saved.

    Attributes
    ----------
    folder : Path
        For `Session.load`.
    model : str
        Name of its model.
    rounds, facts : int
        Of the branch in force, undone rounds too; of all branches, if that one has none.
    saved : datetime
        UTC.
    notebook : str or None
        As `here` had it.
    """

    folder: Path
    model: str
    rounds: int
    facts: int
    saved: datetime
    notebook: str | None

    @property
    def sentence(self) -> str:
        """How much it is and when it was saved, here: "3 rounds, 11 facts, 24 Nov 10:42"."""
        saved, now = self.saved.astimezone(), datetime.now().astimezone()
        day = ""
        if saved.date() != now.date():
            year = "" if saved.year == now.year else f"{saved.year} "
            day = f"{saved.day} {saved:%b} {year}"
        counts = [
            f"{number} {name}{'s' * (number != 1)}"
            for number, name in ((self.rounds, "round"), (self.facts, "fact"))
        ]
        return f"{', '.join(counts)}, {day}{saved:%H:%M}"


def recent(notebook: str | None = None) -> list[Kept]:
    """The sessions in `sessions_folder` that have rounds, the newest first; damaged ones left out.

    Parameters
    ----------
    notebook : str, optional
        Only those that were made there. None: all.
    """
    found = []
    with suppress(OSError):  # there is no such folder, or nobody may look into it
        for folder in sessions_folder().iterdir():
            kept = kept_in(folder, notebook)
            if kept is not None:
                found.append(kept)
    return sorted(found, key=lambda kept: (kept.saved, kept.folder), reverse=True)


def kept_in(folder: Path, wanted: str | None = None) -> Kept | None:
    """What a folder holds; None if it is not to be offered: no session, damaged, no rounds.

    Parameters
    ----------
    folder : Path
    wanted : str, optional
        Only if it was made in that notebook.
    """
    try:
        made = folder / _NOTEBOOK
        notebook = made.read_text("utf-8", "replace") if made.exists() else None
        if wanted is not None and notebook != wanted:
            return None
        summary = store.summary(folder)
        if not summary.rounds:
            return None
        saved = datetime.fromtimestamp(summary.written, UTC)
        return Kept(folder, summary.model, summary.rounds, summary.facts, saved, notebook)
    except (OSError, store.SessionFileError):
        return None
