"""Every error and warning that the package raises of its own.

FactError             facts cannot be edited as they are; a `Problem` for each field that is wrong
FactFileError         a file of facts cannot be read at all
SessionFileError      a session's folder cannot be read, or must not be written
ModelNotFound         a model could not be had
ModelRefused          a model, or an architecture given for it, cannot be edited
SweepError            a sweep cannot begin, or cannot go on
EditCancelled         the caller's `cancel` answered True

BadRecordWarning      records of a file were left out
RepeatedFactWarning   facts are in force already
FirstTokenWarning     a subject is the first token of its prompt
WideScopeWarning      α has fallen so far that edits hardly stay local
OneByOneWarning       a batch has become several rounds, for a method of one fact a round
MomentsWarning        C0 is poorer than the method asks for
NullSpaceWarning      AlphaEdit may change nothing, or everything
WaitingWarning        another thread or process holds what is needed
FailedTrialWarning    trials of a sweep have failed, the others have not
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field of one fact: its place in the list, the field, the reason."""

    index: int
    field: str
    reason: str


class FactError(ValueError):
    """Some facts cannot be edited as they are.

    Attributes
    ----------
    problems : tuple of Problem
    """

    def __init__(self, problems: Iterable[Problem], facts: Sequence[Any] = ()) -> None:
        self.problems = tuple(problems)
        lines: dict[str, int] = {}
        for problem in self.problems:
            name = ""
            fact: Any = facts[problem.index] if problem.index < len(facts) else None
            if hasattr(fact, "subject") and not hasattr(fact, "columns"):
                name = f"fact {problem.index + 1} ({fact.subject!r} in {fact.prompt!r}), "
                name = name if len(name) < 200 else f"{name[:200]}…, "
            line = f"{name}{problem.field}: {problem.reason}"
            lines[line] = lines.get(line, 0) + 1
        told = (f"{line} ({count} times)" if count > 1 else line for line, count in lines.items())
        super().__init__("; ".join(told))

    def within(self, start: int) -> list[Problem]:
        """The problems as they count in a list where these facts begin at `start`."""
        return [replace(problem, index=problem.index + start) for problem in self.problems]


class FactFileError(ValueError):
    """A file of facts could not be read at all; the message names it and says why."""


class SessionFileError(ValueError):
    """A session's folder cannot be read, or must not be written."""


class ModelNotFound(OSError):
    """A model could not be had; the message says which, why, and what to do."""


class ModelRefused(ValueError):
    """A model cannot be edited, or not with this architecture; the message says why."""


class SweepError(ValueError):
    """A sweep cannot begin, or cannot go on; its finished trials stay in its folder."""


class EditCancelled(Exception):
    """The caller's `cancel` answered True; what was under way has changed nothing.

    Attributes
    ----------
    rounds : tuple of Round
        Those that `Session.apply_in_rounds` had finished before; they stay.
    guide : Guide or None
        What `guide` had found out by then, if it had tried any setting.
    """

    rounds: tuple[Any, ...] = ()
    guide: Any = None


class BadRecordWarning(UserWarning):
    """Some records of a file were left out; the message numbers them and says why."""


class RepeatedFactWarning(UserWarning):
    """Some facts of a batch are in force already, with the same target."""


class FirstTokenWarning(UserWarning):
    """A fact's subject is the sequence's first token, where every word has nearly the same key."""


class WideScopeWarning(UserWarning):
    """A short edit prompt has lowered α so far that edits hardly stay local."""


class OneByOneWarning(UserWarning):
    """The method edits one fact a round, so a batch has become several rounds."""


class MomentsWarning(UserWarning):
    """C0 is poorer than the method asks for; the message says how and what was done."""


class NullSpaceWarning(UserWarning):
    """AlphaEdit's null space is empty, or is everything: the message says what that does."""


class WaitingWarning(UserWarning):
    """Another thread or process holds what is needed; the message says what ends the wait."""


class FailedTrialWarning(UserWarning):
    """Some trials of a sweep failed; the message says why, and the next call tries them again."""
