"""Facts from files: tables and JSON in the layouts that people have, and the set that ships."""

from coachhook_viz.errors import BadRecordWarning as BadRecordWarning
from coachhook_viz.errors import FactFileError as FactFileError
from coachhook_viz.reading.bundled import (
    Wordings,
    bundled_facts,
    bundled_foils,
    bundled_probes,
    bundled_wordings,
    known_relation,
)
from coachhook_viz.reading.files import (
    COLUMNS,
    FactList,
    Rejected,
    columns_of,
    left_out,
    read_facts,
)
from coachhook_viz.reading.layouts import WHICH

__all__ = [
    "COLUMNS",
    "WHICH",
    "FactList",
    "Rejected",
    "Wordings",
    "bundled_facts",
    "bundled_foils",
    "bundled_probes",
    "bundled_wordings",
    "columns_of",
    "known_relation",
    "left_out",
    "read_facts",
]
