"""Facts in rounds of one size: methods of `Session`.

check              what is wrong with them, before anything is edited
apply_in_rounds    edits them, one round after the other
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from coachhook_viz.editing import editor
from coachhook_viz.editing.config import EditConfig
from coachhook_viz.editing.progress import CancelCallback, EditCancelled, ProgressCallback
from coachhook_viz.editing.state import Round
from coachhook_viz.editing.tokens import FirstTokenWarning
from coachhook_viz.facts import Fact, FactError, Problem, as_batch, batches
from coachhook_viz.models import LanguageModel
from coachhook_viz.warned import heard


class Edits(Protocol):
    """What editing in rounds needs of a session."""

    @property
    def lm(self) -> LanguageModel:
        """The model."""

    @property
    def config(self) -> EditConfig:
        """The settings."""

    def apply(
        self,
        facts: Sequence[Fact],
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
        *,
        source: object = None,
    ) -> Round:
        """Edit a batch of facts as one round."""


def check(session: Edits, facts: Iterable[Fact] | Fact, size: int | None = None) -> None:
    """Raise what `apply` would refuse a batch of facts for, and edit nothing.

    It takes milliseconds a fact: for a form that is being filled in, or before a long run.

    Parameters
    ----------
    facts : iterable of Fact, or one Fact
    size : int, optional
        How many are edited as one round, as in `apply_in_rounds`. None: all of them.

    Raises
    ------
    FactError
        If they cannot be edited: an empty batch, a malformed field, two facts of a round that
        ask the same, or, where all fields are sound, a text whose tokens this model cannot
        edit or measure. Its `problems` name all facts and fields in the order of the facts.
    ValueError
        If `size` is not a whole number from 1.
    """
    problems: list[Problem] = []
    facts = as_batch(facts)
    parts = [facts] if size is None else batches(facts, size)
    for number, part in enumerate(parts or [[]]):  # no fact at all is an empty batch
        try:
            with heard(FirstTokenWarning):
                editor.check(session.lm, session.config, part)
        except FactError as error:
            problems += error.within(number * (size or 0))
    if problems:
        raise FactError(problems, facts)


def apply_in_rounds(
    session: Edits,
    facts: Iterable[Fact] | Fact,
    size: int,
    progress: ProgressCallback | None = None,
    cancel: CancelCallback | None = None,
    *,
    source: object = None,
) -> tuple[Round, ...]:
    """Edit facts in order, `size` in each round; the last round may have fewer.

    All facts are checked before the first one is edited. Each round then happens as `apply`
    has it, and stays when a later one is cancelled or fails. A method that edits one fact at a
    time has rounds of one, and a warning says so.

    Parameters
    ----------
    facts : iterable of Fact, or one Fact
        Two that ask the same may not fall into one round.
    size : int
    progress : callable, optional
        As in `apply`; each `Progress` also has its `round` and the number of `rounds`.
    cancel : callable, optional
        As in `apply`.
    source : object
        For the `RoundApplied` events.

    Returns
    -------
    tuple of Round

    Raises
    ------
    ValueError
        If `size` is not a whole number from 1.
    FactError
        If a fact cannot be edited; its `problems` count in the whole list.
    EditCancelled
        If `cancel` answered True; its `rounds` are those that were finished.
    SessionFileError, OSError, RuntimeError
        As in `apply`.
    """
    facts = as_batch(facts)
    check(session, facts, size)
    one_by_one = session.config.method.one_by_one
    if one_by_one and size > 1:
        editor.warn_of_rounds_of_one(session.config, len(facts), stacklevel=3)
    parts = batches(facts, 1 if one_by_one else size)
    done: list[Round] = []
    for number, part in enumerate(parts):
        tell = None if progress is None else _placed(progress, number + 1, len(parts))
        try:
            done.append(session.apply(part, tell, cancel, source=source))
        except FactError as error:
            raise FactError(error.within(number * len(parts[0])), facts) from error
        except EditCancelled as error:
            error.rounds = tuple(done)
            raise
    return tuple(done)


def _placed(progress: ProgressCallback, number: int, of: int) -> ProgressCallback:
    """`progress`, told also which round of how many is being edited."""
    return lambda message: progress(replace(message, round=number, rounds=of))
