"""The folder that each change of a session is written to at once.

Journal    a folder and what it holds, as a value: writing gives another
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coachhook_viz.store.folder import checksum_of, write
from coachhook_viz.store.format import Saved


@dataclass(frozen=True)
class Journal:
    """A folder, and the checksum of what it must hold now to be written on.

    Attributes
    ----------
    folder : Path
    checksum : str or None
        None: it is empty yet.
    """

    folder: Path
    checksum: str | None = None

    def write(self, saved: Saved) -> Journal:
        """Make the folder hold `saved`, and go on from there: see `folder.write`."""
        return Journal(self.folder, write(self.folder, saved, self.checksum))

    def holding(self, saved: Saved) -> Journal | None:
        """The journal that goes on from `saved`, if that is what the folder holds."""
        checksum = checksum_of(self.folder, saved)
        return None if checksum is None else Journal(self.folder, checksum)
