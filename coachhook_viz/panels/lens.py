"""What the lenses share: they measure what is in force, and only while a person can see it.

Lens    the base of Drift, Interference, Compare and Sweep
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from coachhook_viz.events import Event
from coachhook_viz.panels.desk import STATE_EVENTS, Selected
from coachhook_viz.panels.panel import Panel
from coachhook_viz.panels.running import Running
from coachhook_viz.panels.view import Node
from coachhook_viz.session import Session


class Lens(Panel):
    """A panel that measures what is in force.

    While nobody sees it, a change of the session costs nothing: `refresh` reads it afterwards.

    Parameters
    ----------
    session : Session
    body : sequence of Node
    beside : sequence of widgets
    running : Running
        The button that measures what is not measured unasked.
    """

    stale_after: tuple[type[Event], ...] = STATE_EVENTS
    """Events after which what was measured is of something else."""
    takes_choices: ClassVar[bool] = False
    """Whether a person has to choose something first: then the button rests, and is not hidden."""

    def __init__(
        self,
        session: Session,
        body: Sequence[Node],
        beside: Sequence[Any] = (),
        *,
        running: Running,
    ) -> None:
        self._running = running
        super().__init__(session, body, beside)
        self.click(running.button, self.measure)

    @property
    def ready(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.session.state.facts)

    def measure(self) -> None:
        """Measure all that is shown."""

    def follow(self) -> None:
        """Mark what is selected."""

    def hear(self, event: Event) -> None:
        """Measure again when something else is in force; follow what others select."""
        if isinstance(event, self.stale_after):
            self.drop()  # it is of what was in force
            self.renew()
            self.worked()
        elif isinstance(event, Selected) and event.source is not self:
            if self.visible:
                self.follow()
            else:
                self.renew()

    def worked(self) -> None:
        """How far a measurement has come; no button where there is nothing left to measure."""
        self._running.draw(self.ready)
        idle = not self.ready and self._running.job is None
        self._running.buttons.hidden = idle and not self.takes_choices

    def nothing(self, here: str) -> str:
        """What an empty place says where no fact is in force.

        Parameters
        ----------
        here : str
            What will stand there, as ``"each row here is a fact"``.
        """
        if not self.session.rounds:
            return f"After you apply facts, {here}."
        standing = self.desk.standing
        return (
            f"{standing[:1].upper()}{standing[1:]}: nothing to measure."
            f" With a fact in force, {here}."
        )
