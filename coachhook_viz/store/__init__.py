"""Sessions on disk, see `folder` for how and `format` for what."""

from coachhook_viz.store.archive import opened as opened
from coachhook_viz.store.folder import folder_of as folder_of
from coachhook_viz.store.folder import model_of as model_of
from coachhook_viz.store.folder import read as read
from coachhook_viz.store.folder import summary as summary
from coachhook_viz.store.folder import write as write
from coachhook_viz.store.format import Saved as Saved
from coachhook_viz.store.format import SessionFileError as SessionFileError
from coachhook_viz.store.format import describe as describe
from coachhook_viz.store.journal import Journal as Journal

__all__ = [
    "Journal",
    "Saved",
    "SessionFileError",
    "describe",
    "folder_of",
    "model_of",
    "opened",
    "read",
    "summary",
    "write",
]
