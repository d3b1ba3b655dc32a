"""An edit session: rounds on branches, and which of them are in force.

session = Session(lm, EditConfig.for_model(lm), folder="my session")
session.apply(facts)
session.predict("The capital of France is")
session.undo()
session = Session.load("my session", lm)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coachhook_viz import asking, in_rounds, measuring, store
from coachhook_viz.clashes import warn_of_repeats
from coachhook_viz.edited_model import EditedModel
from coachhook_viz.editing.config import OPTIMISATION, EditConfig
from coachhook_viz.editing.editor import edit_round, parts_of
from coachhook_viz.editing.methods import NullSpace
from coachhook_viz.editing.progress import (
    Bar,
    CancelCallback,
    ProgressCallback,
    Watch,
)
from coachhook_viz.editing.scopes import SCOPES
from coachhook_viz.editing.state import EditState, Round
from coachhook_viz.errors import ModelRefused
from coachhook_viz.events import (
    BranchChanged,
    Configured,
    Emitter,
    Event,
    FactMuted,
    Moved,
    RoundApplied,
    RoundLabelled,
    Subscriber,
)
from coachhook_viz.export import export
from coachhook_viz.facts import Fact, FactError, as_batch
from coachhook_viz.history import Branch, History, Label
from coachhook_viz.measure.over_rounds import OverRounds
from coachhook_viz.models import LanguageModel
from coachhook_viz.recipe import recipe
from coachhook_viz.setup import Setup


class Session:
    """Rounds of edits on a model that itself is never modified.

    Whatever changes the session takes a `source`, any value, which its event then carries.

    Parameters
    ----------
    lm : LanguageModel
    config : EditConfig, optional
        None: `EditConfig.for_model`.
    moments : mapping of int to Tensor, optional
        Layer to C0 (d_key, d_key). None: from the user's cache, or collected over the shipped
        corpus the first time. A method that has no use for it takes none.
    folder : str or Path, optional
        An empty or new folder that each change is written to at once.
    progress, cancel : callables, optional
        As in `apply`, for what the session has to collect first; None draws a bar.

    Raises
    ------
    ModelRefused
        If the model cannot be edited, see `LanguageModel.check`; a ValueError.
    ValueError
        If the configuration or the moments do not fit the model.
    SessionFileError
        If the folder holds a session already; `Session.load` opens it.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: EditConfig | None = None,
        moments: Mapping[int, Tensor] | None = None,
        *,
        folder: str | Path | None = None,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> None:
        with Bar() as bar:
            self._setup = Setup.of(lm, config, moments, Watch(progress or bar, cancel))
        self._model, self._samples = store.describe(lm), lm.samples()
        self._id = uuid4().hex
        self._measured = OverRounds(self.lm, self.config, self._setup.preserved.base)
        self._emitter = Emitter()
        self._history = History()
        self._state = self._setup.state(())
        self._journal: store.Journal | None = None
        if folder is not None:
            self._journal = store.Journal(store.folder_of(folder)).write(self._saved(self._history))

    @property
    def lm(self) -> LanguageModel:
        """The model, which is never modified."""
        return self._setup.lm

    @property
    def config(self) -> EditConfig:
        """The settings, their context templates filled in."""
        return self._setup.config

    @property
    def moments(self) -> Mapping[int, Tensor] | None:
        """As they were given."""
        return self._setup.moments

    def __repr__(self) -> str:
        count = len(self.state.facts)
        return (
            f"<session on {self.lm.name}: round {self.position} of {len(self.rounds)},"
            f" {count} fact{'s' * (count != 1)} in force>"
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        lm: LanguageModel,
        moments: Mapping[int, Tensor] | None = None,
        *,
        journal: bool = True,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> Session:
        """Open a session that was saved, and go on writing each change to its folder.

        Parameters
        ----------
        folder : str or Path
            Or a zip of one, which is only read: the session then has no folder until it is saved.
        lm : LanguageModel
            The model that it was made with.
        moments : mapping of int to Tensor, optional
            As it was made with.
        journal : bool
            False: only read; the folder stays as it is.
        progress, cancel : callables, optional
            As in `Session`.

        Raises
        ------
        SessionFileError
            If there is no session, its files are damaged or newer, or it belongs to another model,
            another revision of it, or other moments.
        """
        folder = store.folder_of(folder)
        with store.opened(folder) as inside:
            saved, checksum = store.read(inside, lm)
        session = cls(lm, saved.config, moments, progress=progress, cancel=cancel)
        for layer, trace in saved.moments.items():
            if abs(session._setup.traces[layer] - trace) > 1e-3 * abs(trace):
                raise store.SessionFileError(
                    f"{folder}: it was made with other moments C0; pass them as moments="
                )
        session._id, session._history = saved.id, saved.history
        session._setup = replace(session._setup, traces=dict(saved.moments))
        session._state = session._after(session._history.branch.in_force())
        if journal and inside == folder:
            session._journal = store.Journal(folder, checksum)
        return session

    def save(self, folder: str | Path) -> None:
        """Write the whole session to a folder, atomically.

        Parameters
        ----------
        folder : str or Path
            A new or empty one, or one where this session was saved before.

        Raises
        ------
        SessionFileError
            If the folder holds another session.
        OSError
            If the disk does not take it; the folder then holds what it held.
        """
        self._check_weights()
        folder = store.folder_of(folder)
        if self.folder is not None and folder.resolve() == self.folder.resolve():
            self._keep(self._history, self._state)
        store.write(folder, self._saved(self._history))

    def _check_weights(self) -> None:
        """Refuse to go on with rounds on other weights than they were made for."""
        now = store.describe(self.lm)
        if (now["dtype"], now["fingerprint"]) != (self._model["dtype"], self._model["fingerprint"]):
            if now["dtype"] != self._model["dtype"] and self._rounded():
                return
            raise ModelRefused(
                "the model's weights are not what they were when this session began, so its rounds"
                " do not fit them: put them back, or begin a new session"
            )

    def _rounded(self) -> bool:
        """Whether the weights are those of the beginning but for rounding, in another dtype."""
        now = self.lm.samples()
        return now.keys() == self._samples.keys() and all(
            known.shape == now[name].shape and torch.allclose(now[name], known, 0.02, 1e-5)
            for name, known in self._samples.items()
        )

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with an `events.Event` after each change of state.

        Returns
        -------
        callable
            Ends the subscription.
        """
        return self._emitter.subscribe(subscriber)

    @property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds of the branch, those in force first."""
        return self._history.branch.rounds

    @property
    def position(self) -> int:
        """How many rounds are in force."""
        return self._history.branch.position

    @property
    def facts(self) -> dict[int, Fact]:
        """The facts of all rounds of the branch by id, muted ones too."""
        return {
            fact_id: fact
            for round_ in self.rounds
            for fact_id, fact in zip(round_.fact_ids, round_.facts, strict=True)
        }

    @property
    def muted(self) -> frozenset[int]:
        """Ids of the facts that are muted on this branch."""
        return self._history.branch.muted

    @property
    def branches(self) -> Mapping[str, Branch]:
        """All branches by name."""
        return self._history.branches

    @property
    def current_branch(self) -> str:
        """Name of the branch in force."""
        return self._history.current

    @property
    def labels(self) -> Mapping[int, Label]:
        """What rounds are called, by number of the round."""
        return self._history.labels

    @property
    def folder(self) -> Path | None:
        """Where each change is written to at once; None if nowhere."""
        return None if self._journal is None else self._journal.folder

    def snapshot(self) -> store.Saved:
        """The session as it stands, as `store.write` takes it: a value that no change reaches."""
        return self._saved(self._history)

    @property
    def state(self) -> EditState:
        """What is in force."""
        return self._state

    def state_at(self, position: int | None = None, branch: str | None = None) -> EditState:
        """What would be in force with the first `position` rounds of a branch.

        Parameters
        ----------
        position : int, optional
            None: as the branch stands.
        branch : str, optional
            None: the one in force.

        Raises
        ------
        ValueError
            If there is no such branch, or it has not that many rounds.
        """
        found = self._history.find(self.current_branch if branch is None else branch)
        position = found.position if position is None else position
        if not 0 <= position <= len(found.rounds):
            raise ValueError(f"there is no position {position}: {len(found.rounds)} rounds")
        return self._after(found.in_force(position))

    def edited_model(self, position: int | None = None) -> EditedModel:
        """The model as it is after the first `position` rounds of the branch, to be asked.

        What the session does afterwards leaves it as it is.

        Parameters
        ----------
        position : int, optional
            None: as the session stands.

        Raises
        ------
        ValueError
            If there are not that many rounds.
        """
        return EditedModel(self.lm, self.state_at(position))

    def as_model(self, position: int | None = None) -> PreTrainedModel:
        """The edited model as one of transformers: `EditedModel.as_model`.

        What the session does afterwards leaves it as it is.

        Parameters
        ----------
        position : int, optional
            As in `edited_model`.

        Raises
        ------
        ValueError
            If there are not that many rounds.
        """
        return self.edited_model(position).as_model()

    check = in_rounds.check
    apply_in_rounds = in_rounds.apply_in_rounds

    hooked = asking.hooked
    predict = asking.predict
    generate = asking.generate
    chat = asking.chat
    chat_text = asking.chat_text
    scope = asking.scope
    lens = asking.lens
    why = asking.why

    evaluate = measuring.evaluate
    quality = measuring.quality
    drift = measuring.drift
    interference = measuring.interference
    forgotten = measuring.forgotten
    scope_quality = measuring.scope_quality
    what_else = measuring.what_else
    conflicts = measuring.conflicts
    clashes = measuring.clashes
    compare = measuring.compare

    export = export

    def apply(
        self,
        facts: Iterable[Fact] | Fact,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
        *,
        source: object = None,
    ) -> Round:
        """Edit a batch of facts as one round on top of those in force.

        A method that edits one fact at a time makes a round of each of them.

        Rounds of this branch that had been undone are dropped. It happens whole or not at all:
        after an error or a cancel the session is as it was, and so it is after an interrupt, unless
        that comes when the folder has the round already.

        Parameters
        ----------
        facts : iterable of Fact, or one Fact
        progress : callable, optional
            Called with a `Progress` before each step.
        cancel : callable, optional
            Asked before each step; True stops the round.
        source : object
            For the `RoundApplied` event.

        Returns
        -------
        Round
            The last one, if there are several.

        Raises
        ------
        FactError
            If a fact cannot be edited; it names fact and field.
        EditCancelled
            If `cancel` answered True.
        SessionFileError, OSError
            If the session's folder cannot be written to.
        RuntimeError
            If a callback or another thread changed the session meanwhile.

        Warns
        -----
        RepeatedFactWarning
            If a fact is in force already, with the same target.
        OneByOneWarning
            If the batch becomes several rounds.
        """
        facts = as_batch(facts)
        history, state, watch = self._history, self._state, Watch(progress, cancel)
        self._check_weights()
        self._keep(history, state)  # fail now rather than after the work
        warn_of_repeats(facts, state.rounds, stacklevel=2)
        parts = parts_of(self.lm, self.config, facts)
        changed, applied = history, []
        for place, part in enumerate(parts):
            if SCOPES[state.config.scope].by_fact:
                preserved = self._setup.preserved.base  # no edit can reach another one's keys
            else:
                below = changed.branch.rounds[: changed.branch.position]
                preserved = self._setup.preserved.after(below)
            try:
                round_ = edit_round(self.lm, state, part, preserved, watch)
            except FactError as error:
                raise FactError(error.within(place), facts) from error
            changed = changed.applied(round_)
            applied.append(changed.branch.rounds[-1])
            state = state.then(applied[-1]) if len(parts) > 1 else state
        if self._history is not history:
            raise RuntimeError("the session was changed while a round was computed on top of it")
        self._commit(changed, *(RoundApplied(source, round_) for round_ in applied))
        return applied[-1]

    def go_to(self, position: int, *, source: object = None) -> None:
        """Put the first `position` rounds in force, bit for bit as when they were applied.

        Raises
        ------
        ValueError
            If there are not that many rounds.
        """
        history = self._history.moved(position)
        if position != self.position:
            self._commit(history, Moved(source, position))

    def undo(self, *, source: object = None) -> None:
        """Take the last round in force back.

        Raises
        ------
        ValueError
            If none is in force.
        """
        if not self.position:
            raise ValueError("nothing to undo: no round is in force")
        self.go_to(self.position - 1, source=source)

    def redo(self, *, source: object = None) -> None:
        """Put the next round in force again.

        Raises
        ------
        ValueError
            If all are in force.
        """
        if self.position == len(self.rounds):
            raise ValueError("nothing to redo: all rounds are in force")
        self.go_to(self.position + 1, source=source)

    def mute(self, fact_id: int, *, source: object = None) -> None:
        """Switch one fact's edit off by dropping its columns; all others stay as they are.

        Its key stays preserved in later rounds and thresholds stay where they are, so `unmute`
        restores the very same bits.

        Raises
        ------
        ValueError
            If the branch has no such fact.
        """
        self._mute(fact_id, True, source)

    def unmute(self, fact_id: int, *, source: object = None) -> None:
        """Switch a muted fact's edit on again.

        Raises
        ------
        ValueError
            If the branch has no such fact.
        """
        self._mute(fact_id, False, source)

    def _mute(self, fact_id: int, silent: bool, source: object) -> None:
        history = self._history.muted(fact_id, silent)
        if history.branch.muted != self.muted:
            self._commit(history, FactMuted(source, fact_id, silent))

    def branch(self, name: str, *, source: object = None) -> None:
        """Begin another branch with what is in force, and go on there.

        Raises
        ------
        ValueError
            If the name is empty or taken.
        """
        self._commit(self._history.branched(name), BranchChanged(source, name, new=True))

    def switch(self, name: str, *, source: object = None) -> None:
        """Go on with another branch, as it was left.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        history = self._history.switched(name)
        if name != self.current_branch:
            self._commit(history, BranchChanged(source, name, new=False))

    def label(self, number: int, name: str = "", note: str = "", *, source: object = None) -> None:
        """Call a round something and note something about it; nothing takes both away.

        Parameters
        ----------
        number : int
            `Round.number`.
        name, note : str

        Raises
        ------
        ValueError
            If there is no such round, or the name is long or has control characters.
        """
        history = self._history.labelled(number, Label(name, note))
        self._commit(history, RoundLabelled(source, number))

    def configure(self, *, source: object = None, **changes: Any) -> None:
        """Change settings for the rounds to come.

        Parameters
        ----------
        source : object
            For the `Configured` event.
        **changes
            Fields of `EditConfig`. Those of the target optimisation (steps, learning_rate,
            weight_decay, kl_weight, clamp_factor, stop_loss) at any time; what all rounds share
            only while there is none, on any branch.

        Raises
        ------
        ValueError
            If a setting is out of its range, or rounds hang on it.
        TypeError
            If a change names no field.
        """
        config = replace(self.config, **changes)
        config.check(self.lm)
        shared = [
            name
            for name in changes
            if name not in OPTIMISATION and getattr(config, name) != getattr(self.config, name)
        ]
        if shared and self._history.rounds:
            raise ValueError(
                f"{', '.join(shared)}: the rounds that there are hang on it; begin another session,"
                " or use `rerun`"
            )
        before = self._setup, self._measured, self._state
        history = replace(self._history)
        try:
            if shared:
                self._setup = Setup.of(self.lm, config, self.moments, Watch())
                self._measured = OverRounds(self.lm, self.config, self._setup.preserved.base)
                self._state = self._setup.state(())
            else:
                self._setup = replace(self._setup, config=config)
                self._state = replace(self._state, config=config)
            self._commit(history, Configured(source, self.config))
        except BaseException:
            if self._history is not history:  # it is not on disk either
                self._setup, self._measured, self._state = before
            raise

    def rerun(
        self,
        single_round: bool = False,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
        *,
        instead: Mapping[int, Fact] | None = None,
        **changes: Any,
    ) -> Session:
        """The facts in force edited anew under other settings, in a session of their own.

        Parameters
        ----------
        single_round : bool
            True: all in one round, instead of in the rounds that they came in.
        progress, cancel : callables, optional
            As in `apply`.
        instead : mapping of int to Fact, optional
            What is edited in place of some of the facts, by their ids.
        **changes
            Fields of `EditConfig`. From two keys to another scope or back, all other settings are
            those that `EditConfig.for_model` knows for it.

        Returns
        -------
        Session

        Raises
        ------
        FactError, EditCancelled, ValueError, TypeError
            As in `Session` and `apply`.
        """
        config = self.config.changed(self.lm, **changes)
        session = Session(self.lm, config, self.moments, progress=progress, cancel=cancel)
        other = {} if instead is None else instead
        if absent := sorted(set(other) - set(self.state.fact_ids)):
            raise ValueError(f"instead names the facts {absent}: they are not in force")
        batches = [
            [other.get(i, f) for i, f in zip(r.fact_ids, r.facts, strict=True)]
            for r in self.state.rounds
        ]
        if single_round:
            batches = [[fact for batch in batches for fact in batch]]
        for batch in filter(None, batches):
            session.apply(batch, progress, cancel)
        return session

    def _commit(self, history: History, *events: Event) -> None:
        """The one place where the session changes: state, disk, memory, and then the events."""
        state = self._after(history.branch.in_force())
        try:
            self._keep(history, state)
        finally:
            if self._history is history:
                for event in events:
                    self._emitter.emit(event)

    def _keep(self, history: History, state: EditState) -> None:
        """Put a change on disk and then in memory: in both or, whatever interrupts it, in none."""
        journal, saved = self._journal, self._saved(history)
        if journal is None:
            self._history, self._state = history, state
            return
        try:
            self._journal, self._history, self._state = journal.write(saved), history, state
        except store.SessionFileError:
            raise  # refused: it may hold the very same change, but by someone else
        except BaseException:
            written = journal.holding(saved)
            if written is not None:  # the interrupt came after the rename
                self._journal, self._history, self._state = written, history, state
            raise

    def _after(self, rounds: tuple[Round, ...]) -> EditState:
        return self._setup.state(rounds, self._state)

    def _saved(self, history: History) -> store.Saved:
        return store.Saved(self._id, self._model, self.config, self._setup.traces, history)

    def code(self) -> str:
        """Python that makes this session again in a fresh process, as ``session``.

        Model, settings, facts with all their fields, undone rounds, labels, mutes and branches are
        there; rounds that no branch has any more are not, and the numbers of later ones move up.
        """
        return recipe(self.lm, self.config, self._history, moments=self.moments is not None)

    def null_spaces(self) -> dict[int, NullSpace]:
        """By layer, the directions that AlphaEdit may use here; of none under another method."""
        return self._setup.preserved.null_spaces

    def delta_weight(self, layer: int) -> Tensor:
        """ΔW (d_model, d_key) in force at a hooked layer, float64.

        Raises
        ------
        ValueError
            If the layer is not hooked.
        """
        if layer not in self._state.layers:
            raise ValueError(f"layer {layer} is not hooked; hooked are {self.config.layers}")
        return self._state.layers[layer].delta_weight.clone()
