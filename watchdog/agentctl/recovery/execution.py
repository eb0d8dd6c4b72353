"""An attempt as it is carried out: decided and written down as an intent, its steps on record one by one.

The intent is on disk before anything moves and closed after everything stands; a kill anywhere in between is
continued by the next run, and the runner launches nothing until then.
"""

from __future__ import annotations

import time

from ..core import fast_json
from ..core.errors import AgentctlError
from ..generations.agent_context import AgentContext
from ..host import command
from ..ledger import incidents, models, writers
from ..ledger.database import Ledger
from ..ledger.models import Attempt, Generation, Incident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Execution:
    """An attempt as it is carried out: its incident, its rung, its target generation."""

    def __init__(self, context: AgentContext, ledger: Ledger, row: Attempt) -> None:
        self.context, self.ledger = context, ledger
        self.incident, self.number = row.incident, row.number
        self.rung, self.reason = row.rung, row.reason
        self._target = ledger.generation(row.target)
        self._ended: tuple[str, float, str] | None = None  # the last step, until the next write records its end
        self._with_end: list[Callable[[], object]] = []
        self.ignored_inquiry: command.Running | None = None
        self.is_short = False  # of room on the disk
        self.move = incidents.count_moves(ledger, self.incident, self.number)
        self.rescue_branch = incidents.rescue_branch(self.incident, self.move)
        self.quarantine = context.slots.quarantine_path(self.incident, self.move)

    @property
    def target(self) -> Generation:
        """The generation that goes in; raise AgentctlError if the ledger does not know it."""
        if self._target is None:
            raise AgentctlError(f"attempt {self.number} of {self.incident} aims at a generation that is not on record")
        return self._target

    @property
    def has_target(self) -> bool:
        """Tell whether the ledger knows the generation that goes in."""
        return self._target is not None

    @property
    def source(self) -> Generation | None:
        """The generation that failed, None if the ledger does not know it."""
        incident = self.ledger.incident(self.incident)
        return self.ledger.generation(incident.generation_from) if incident else None

    @classmethod
    def unfinished(cls, context: AgentContext, ledger: Ledger) -> Execution | None:
        """Return the attempt whose intent is still open, if any."""
        row = ledger.open_attempt()
        return cls(context, ledger, row) if row else None

    @classmethod
    def decide(
        cls, context: AgentContext, ledger: Ledger, world: models.PolicyInput, decision: models.Decision
    ) -> Execution:
        """Write the decision down: incident, intent and verdict in one transaction."""
        now = time.time()
        request, last = world.request, world.launch
        trigger = f"request:{request.verb}" if request else last.trigger or last.end if last else "unknown"
        if trigger == f"request:{models.OFFLINE}":
            trigger = models.OFFLINE
        with ledger.transaction():
            if request is not None or world.incident is None:
                _close_superseded(ledger)
            if request is not None:
                ledger.set_meta("halted", None)
            incident_id = incidents.open_for(ledger, last, trigger=trigger, reason=decision.reason)
            number = len(ledger.attempts(incident_id)) + 1
            is_open = decision.action != models.RESTART
            target = decision.target if decision.target is not None else undo_source(ledger).generation_from
            writers.add_attempt(
                ledger,
                incident_id,
                number,
                at=now,
                target=target,
                rung="undo" if decision.action == models.UNDO else decision.rung,
                reason=decision.reason,
                is_open=is_open,
            )
            if is_open and incidents.count_moves(ledger, incident_id, number) == 1 and last is not None:
                writers.set_origin(
                    ledger,
                    incident_id,
                    generation_from=last.generation,
                    trigger=trigger,
                    launch=last.id,
                    reason=decision.reason,
                )
            told = f"{decision.action}: {decision.rung}" if decision.rung else decision.action
            writers.set_decision(ledger, incident_id, told, target)
            if decision.condemn is not None:
                writers.condemn(ledger, decision.condemn, at=now, reason=decision.reason)
            if request is not None:
                writers.answer_request(ledger, request.number, incident_id)
            if decision.action == models.UNDO:
                ledger.set_meta(f"undo {incident_id}", undo_source(ledger).id)
            if world.failure not in ("", "unknown"):
                ledger.set_meta("answered", world.failure)
        row = ledger.attempt(incident_id, number)
        assert row is not None  # written just now
        return cls(context, ledger, row)

    # -- steps ----------------------------------------------------------------------------------------------

    def step(self, name: str, do: Callable[[], str | None]) -> str:
        """Do a step unless it is on record as done; return its detail. Its end and the next start share one write."""
        row = self.ledger.step(self.incident, self.number, name)
        if row is not None and row.ended_at is not None:
            return row.detail
        with self.ledger.transaction():
            self.record_ended()
            if row is None:
                writers.begin_step(self.ledger, self.incident, self.number, name, at=time.time())
        detail = do() or ""
        self._ended = (name, time.time(), detail)
        return detail

    def record_ended(self) -> None:
        """Write down the end of the last step, and what it wants written with it."""
        if self._ended is None:
            return
        name, at, detail = self._ended
        writers.end_step(self.ledger, self.incident, self.number, name, at=at, detail=detail)
        for write in self._with_end:
            write()
        self._ended, self._with_end = None, []

    def write_with_end(self, write: Callable[[], object]) -> None:
        """Have `write()` done in the transaction that records the end of the step under way."""
        self._with_end.append(write)

    def detail(self, name: str) -> dict[str, Any]:
        """Return what an earlier step of this attempt wrote down."""
        row = self.ledger.step(self.incident, self.number, name)
        facts = fast_json.loads(row.detail) if row and row.detail else None
        return facts if isinstance(facts, dict) else {}


def undo_source(ledger: Ledger) -> Incident:
    """Find the incident whose rollback `undo` takes back: the newest that moved code. Raise AgentctlError if none."""
    found = ledger.last_move()
    if found is None or found[0].rung == "undo":
        raise AgentctlError(
            "there is no rollback to undo" if found is None else "the last rollback is undone already",
            "'agentctl incidents' lists what happened",
        )
    return found[1]


def _close_superseded(ledger: Ledger) -> None:
    """End what still waits for a heartbeat: a person asked for something, or what it put in place was replaced."""
    current = ledger.open_incident()
    if current is not None:
        writers.end_incident(ledger, current.id, "nothing-to-do", at=time.time())
