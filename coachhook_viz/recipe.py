"""A session as Python: the public calls that make it again in a fresh process.

recipe         the whole program
fact_source    the call that makes one fact
literal        a setting's value
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from coachhook_viz.editing import guided
from coachhook_viz.editing.config import OPTIMISATION, EditConfig
from coachhook_viz.editing.methods import CoachHook, Method
from coachhook_viz.editing.state import Round
from coachhook_viz.facts import Fact
from coachhook_viz.history import MAIN, Branch, History
from coachhook_viz.models import LanguageModel, bundled
from coachhook_viz.models.architectures import ARCHITECTURES
from coachhook_viz.warned import heard

_WIDTH = 100
_GUESSED = ("layers", "covariance_weight")  # of an unknown model; written out they need no warning


def recipe(lm: LanguageModel, config: EditConfig, history: History, *, moments: bool) -> str:
    """A program that makes a session again; afterwards ``session`` is that session.

    Rounds that no branch has any more are left out, so the numbers of later ones move up. What
    a session does not remember cannot be written: the order of labels, or which optimisation
    settings a round had that was saved by an early version (it gets the settings in force).

    Parameters
    ----------
    lm : LanguageModel
    config : EditConfig
    history : History
    moments : bool
        Whether the session was given moments of its own, which the program then takes from its
        reader as ``moments``.
    """
    writer = _Writer(config)
    writer.replay(history)
    needs = [f"import torch\n\n{_IMPORT}" if "torch." in (load := _load(lm)) else _IMPORT, load]
    if moments:
        needs.insert(1, "# Give `moments` here, layer to matrix: the session had C0 of its own.")
    return "\n".join([*needs, *_session(lm, writer.first, moments), *writer.lines]) + "\n"


_IMPORT = "import coachhook_viz as cv\n"


def fact_source(fact: Fact, indent: int = 0) -> str:
    """The call that makes `fact`, with the fields that it has.

    Parameters
    ----------
    fact : Fact
    indent : int
        Of the line that the call begins on: where it is too long for one line, all others follow.

    Examples
    --------
    >>> fact_source(Fact("The capital of {} is", "France", "Rome", truth="Paris"))
    "cv.Fact('The capital of {} is', 'France', 'Rome', truth='Paris')"
    """
    parts: list[tuple[str, Any]] = [("", fact.prompt), ("", fact.subject), ("", fact.target)]
    named = {
        "truth": fact.truth,
        "paraphrases": fact.paraphrases,
        "neighbors": tuple(
            n.prompt if n.answer is None else (n.prompt, n.answer) for n in fact.neighbors
        ),
        "relation": fact.relation,
        "wordings": fact.wordings,
        "probes": tuple((p.prompt, p.answer, p.kind) for p in fact.probes),
        "foils": fact.foils,
    }
    parts += [(f"{name}=", value) for name, value in named.items() if value]
    return _bracketed("cv.Fact(", parts, ")", indent)


def literal(value: Any) -> str:
    """Python for a setting."""
    return f"cv.methods.{value!r}" if isinstance(value, Method) else repr(value)


def _value(value: Any, indent: int) -> str:
    """A literal, a tuple over several lines where one does not hold it."""
    if not isinstance(value, tuple) or not value:
        return literal(value)
    closing = ",)" if len(value) == 1 else ")"
    return _bracketed("(", [("", item) for item in value], closing, indent)


def _bracketed(
    opening: str, parts: Sequence[tuple[str, Any]], closing: str, indent: int, room: int = 4
) -> str:
    """Prefixed values in brackets: on one line, or one on each; `room` for what may follow."""
    flat = opening + ", ".join(name + literal(value) for name, value in parts) + closing
    if indent + len(flat) + room <= _WIDTH:
        return flat
    inner = indent + 4
    rows = [f"{' ' * inner}{name}{_value(value, inner)},\n" for name, value in parts]
    return f"{opening.rstrip()}\n{''.join(rows)}{' ' * indent}{closing.lstrip(',')}"


def _load(lm: LanguageModel) -> str:
    """The call that loads the model as it is here; its device is left to the next machine."""
    default = lm.name == bundled.NAME
    arguments = [repr(lm.name)]
    if not default or lm.dtype != torch.float32:
        arguments.append(f"dtype={lm.dtype}")
    if lm.lead != ("\n" if default else ""):
        arguments.append(f"lead={lm.lead!r}")
    if lm.architecture not in ARCHITECTURES:
        entry = lm.architecture
        parts = [repr(part) for part in (entry.model_types, entry.blocks, entry.down_projection)]
        parts += [
            f"{field.name}={value!r}"
            for field in fields(entry)[3:]
            if (value := getattr(entry, field.name)) not in (field.default, entry.down_projection)
        ]
        arguments.append(f"architecture=cv.Architecture({', '.join(parts)})")
    return f"lm = cv.load_model({', '.join(arguments)})"


def _session(lm: LanguageModel, config: EditConfig, moments: bool) -> list[str]:
    with heard() as guesses:
        own: dict[str, Any] = {"scope": config.scope} if config.scope == "two-key" else {}
        own |= {"method": config.method} if config.method != CoachHook() else {}
        known = EditConfig.for_model(lm, **own)
    here = set(_GUESSED) if guesses else set()
    if config.scope != "two-key" and guided.kept(lm) is not None:
        here = set(guided.GUIDED)  # what a guide has found, this machine alone knows
    changes = own | {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if getattr(config, field.name) != getattr(known, field.name) or field.name in here
    }
    given = ", moments" if moments else ""
    if not changes:
        return [f"session = cv.Session(lm{', None' if moments else ''}{given})"]
    parts = [(f"{name}=", value) for name, value in changes.items()]
    call = _bracketed("cv.EditConfig.for_model(lm, ", parts, ")", 0, room=9)
    return [f"config = {call}", f"session = cv.Session(lm, config{given})"]


class _Writer:
    """Replays a history on a session that it imagines, and writes each call down.

    Rounds are applied in the order of their numbers, each on the first branch that has it, so
    that rounds and facts get the numbers they had.

    Attributes
    ----------
    lines : list of str
        The calls.
    first : EditConfig
        The settings that the session begins with.
    """

    def __init__(self, config: EditConfig) -> None:
        self.lines: list[str] = []
        self.first = config
        self._config = config
        self._branches = {MAIN: Branch()}
        self._current = MAIN
        self._new_ids: dict[int, int] = {}

    def replay(self, history: History) -> None:
        """Write all that leads to `history`."""
        rounds = history.rounds
        if rounds:
            self.first = self._settings(next(iter(rounds.values())))
            last, self._config = self._config, self.first
        owners = {
            number: next(n for n, b in history.branches.items() if number in _numbers(b.rounds))
            for number in rounds
        }
        for new, (number, round_) in enumerate(rounds.items(), start=1):
            owner = owners[number]
            chain = history.branches[owner].rounds
            below = chain[: _numbers(chain).index(number)]
            self._stand_on(owner, below, owners)
            self._mute(round_.muted)
            self._configure(self._settings(round_))
            self._apply(round_, new, history)
        for name, branch in history.branches.items():
            if name not in self._branches:
                self._stand_on(name, branch.rounds, owners)
        if rounds:
            self._configure(last)
        for name, branch in history.branches.items():
            now = self._branches[name]
            if (now.position, now.muted) != (branch.position, branch.muted):
                self._switch(name)
                self._go_to(branch.position)
                self._mute(branch.muted)
        self._switch(history.current)

    def _stand_on(self, name: str, below: tuple[Round, ...], owners: Mapping[int, str]) -> None:
        """On branch `name`, which begins here if it is new, with just `below` in force."""
        if name not in self._branches:
            self._switch(owners[below[-1].number] if below else MAIN)
            self._go_to(len(below))
            self.lines.append(f"session.branch({name!r})")
            here = self._branches[self._current]
            ids = {fact_id for round_ in below for fact_id in round_.fact_ids}
            self._branches[name] = Branch(below, len(below), here.muted & ids)
            self._current = name
        self._switch(name)
        self._go_to(len(below))

    def _switch(self, name: str) -> None:
        if name != self._current:
            self.lines.append(f"session.switch({name!r})")
            self._current = name

    def _go_to(self, position: int) -> None:
        here = self._branches[self._current]
        if position != here.position:
            self.lines.append(f"session.go_to({position})")
            self._branches[self._current] = Branch(here.rounds, position, here.muted)

    def _mute(self, muted: frozenset[int]) -> None:
        here = self._branches[self._current]
        muted &= set(here.fact_ids)
        for fact_id in sorted(muted ^ here.muted):
            call = "mute" if fact_id in muted else "unmute"
            self.lines.append(f"session.{call}({self._new_ids[fact_id]})")
        self._branches[self._current] = Branch(here.rounds, here.position, muted)

    def _settings(self, round_: Round) -> EditConfig:
        return replace(self._config, **round_.settings)

    def _configure(self, config: EditConfig) -> None:
        changes = [
            (f"{name}=", getattr(config, name))
            for name in OPTIMISATION
            if getattr(config, name) != getattr(self._config, name)
        ]
        if changes:
            self.lines.append(_bracketed("session.configure(", changes, ")", 0))
            self._config = config

    def _apply(self, round_: Round, number: int, history: History) -> None:
        facts = "".join(f"    {fact_source(fact, 4)},\n" for fact in round_.facts)
        self.lines += ["", f"# Round {number}", f"session.apply([\n{facts}])"]
        if label := history.labels.get(round_.number):
            note = f", {label.note!r}" if label.note else ""
            self.lines.append(f"session.label({number}, {label.name!r}{note})")
        for fact_id in round_.fact_ids:
            self._new_ids[fact_id] = len(self._new_ids)
        here = self._branches[self._current]
        rounds = (*here.rounds[: here.position], round_)
        self._branches[self._current] = Branch(rounds, len(rounds), here.muted)


def _numbers(rounds: Sequence[Round]) -> list[int]:
    return [round_.number for round_ in rounds]
