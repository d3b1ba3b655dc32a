"""A session asked with what is in force, without, or in any other state: methods of `Session`.

hooked, predict, generate, chat, chat_text    `EditedModel`'s, of the state that is told
scope, lens, why                              these too
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pandas as pd

from coachhook_viz.edited_model import EditedModel
from coachhook_viz.editing.inspect import Scope
from coachhook_viz.editing.state import EditState
from coachhook_viz.facts import Fact
from coachhook_viz.measure.about import Idle
from coachhook_viz.measure.why import Why
from coachhook_viz.measure.why import why as explain
from coachhook_viz.models import LanguageModel


class Asked(Protocol):
    """What asking needs of a session."""

    @property
    def lm(self) -> LanguageModel:
        """The model."""

    @property
    def state(self) -> EditState:
        """What is in force."""

    @property
    def facts(self) -> dict[int, Fact]:
        """The facts of all rounds of the branch by id."""

    @property
    def muted(self) -> frozenset[int]:
        """Ids of the facts that are muted."""


def hooked(
    session: Asked, edited: bool = True, state: EditState | None = None
) -> AbstractContextManager[None]:
    """Within the context `lm.model` is the edited model, for any code of yours.

    Parameters
    ----------
    edited : bool
        False: the unedited model, whatever is in force.
    state : EditState, optional
        Of `state_at` or `EditState.judged`; None: what is in force.

    Raises
    ------
    ValueError
        If `edited` is False and a state is given: it is one or the other.
    """
    return _model(session, edited, state).hooked()


def predict(
    session: Asked, prompt: str, top: int = 5, edited: bool = True, state: EditState | None = None
) -> pd.DataFrame:
    """The likeliest next tokens: `EditedModel.predict`; `edited` and `state` as in `hooked`."""
    return _model(session, edited, state).predict(prompt, top)


def generate(
    session: Asked,
    prompt: str,
    max_new_tokens: int = 20,
    edited: bool = True,
    state: EditState | None = None,
    stream: Callable[[str], object] | None = None,
) -> str:
    """Greedy continuation: `EditedModel.generate`; `edited` and `state` as in `hooked`."""
    return _model(session, edited, state).generate(prompt, max_new_tokens, stream)


def chat(
    session: Asked,
    messages: Sequence[Mapping[str, str]],
    max_new_tokens: int = 60,
    edited: bool = True,
    state: EditState | None = None,
    stream: Callable[[str], object] | None = None,
) -> str:
    """The answer in a conversation: `EditedModel.chat`; `edited` and `state` as in `hooked`."""
    return _model(session, edited, state).chat(messages, max_new_tokens, stream)


def chat_text(session: Asked, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt that `chat` makes of a conversation: `EditedModel.chat_text`."""
    return _model(session).chat_text(messages)


def scope(
    session: Asked, prompt: str, subject: str | None = None, state: EditState | None = None
) -> Scope:
    """Where the hook layers speak: `EditedModel.scope`; `state` as in `hooked`."""
    return _model(session, state=state).scope(prompt, subject)


def lens(
    session: Asked,
    prompt: str,
    answers: Sequence[str] | None = None,
    *,
    without: int | None = None,
    token: int | None = None,
    state: EditState | None = None,
) -> pd.DataFrame:
    """Probability and rank of answers at every block's output: `EditedModel.lens`.

    Parameters
    ----------
    prompt : str
    answers : sequence of str, optional
        None: truth and target of the fact in force whose subject stands in the prompt.
    without : int, optional
        A hooked layer: the edited model is also read with its hook off.
    token : int, optional
        The place among the prompt's tokens where it is read; None: the last one.
    state : EditState, optional
        None: what is in force.

    Returns
    -------
    DataFrame
        block : int; hooked : bool; answer : str; edited : bool; without : int or NA;
        probability : float; rank : int, 1 for the likeliest.

    Raises
    ------
    ValueError
        As in `measure.lens.lens`; if the fact that the prompt is about is muted or undone, it says
        so.
    """
    if answers is None and state is None and (idle := _idle(session, prompt)) is not None:
        raise ValueError(f"{idle}, or give the answers, answers=(…)")
    return _model(session, state=state).lens(prompt, answers, without=without, token=token)


def why(
    session: Asked, prompt: str, target: str | None = None, *, state: EditState | None = None
) -> Why:
    """Why a prompt gets an edit's target, or not: gates, a sentence, and what mends it.

    Parameters
    ----------
    prompt : str
    target : str, optional
        None: that of the fact in force that the prompt is about.
    state : EditState, optional
        None: what is in force. Only then muted and undone facts are known.

    Returns
    -------
    Why

    Raises
    ------
    ValueError
        If the prompt has no token or too many, or the target has none after it.
    """
    if state is not None:
        return _model(session, state=state).why(prompt, target)
    return explain(session.lm, session.state, prompt, target, _idle(session, prompt))


def _idle(session: Asked, prompt: str) -> Idle | None:
    """The fact that a prompt is about, if it is muted or undone."""
    return Idle.of(prompt, session.facts, session.state.fact_ids, session.muted)


def _model(session: Asked, edited: bool = True, state: EditState | None = None) -> EditedModel:
    """The edited model that is asked."""
    if not edited and state is not None:
        raise ValueError("edited=False asks the unedited model, state= that state: give only one")
    if not edited:
        state = EditState.of(session.lm, session.state.config)
    return EditedModel(session.lm, session.state if state is None else state)
