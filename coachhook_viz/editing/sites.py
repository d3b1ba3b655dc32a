"""The site of an edit: which token it is written at, and for which prompts.

Site         what a site decides
SITES        by name: "subject", the published one, and "answer", this project's own
site_of      the site of a configuration
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coachhook_viz.editing.config import EditConfig, SiteKind


@dataclass(frozen=True)
class Site:
    """Which token an edit is written at.

    Attributes
    ----------
    at_subject : bool
        At the last token of the subject; else at the last token of the prompt.
    takes_wordings : bool
        Whether a fact's wordings each get a column of their own beside its prompt's.
    keeps_essence : bool
        Whether the target's optimisation keeps what the model says of the subject as such.
    """

    at_subject: bool
    takes_wordings: bool
    keeps_essence: bool

    def place(self, ids: tuple[int, ...], subject_last: int) -> int:
        """The token among a prompt's `ids` that the edit is written at."""
        return subject_last if self.at_subject else len(ids) - 1


SITES: Mapping[SiteKind, Site] = {
    "subject": Site(at_subject=True, takes_wordings=False, keeps_essence=True),
    "answer": Site(at_subject=False, takes_wordings=True, keeps_essence=False),
}


def site_of(config: EditConfig) -> Site:
    """Which token the edits of a configuration are written at.

    A method without z knows no subject: it writes where the target is predicted.
    """
    if config.method.aims_at == "gradient":
        return replace(SITES["answer"], takes_wordings=False)
    return SITES[config.site]
