"""Incidents in the ledger: open one, add to its story, end it. It decides nothing and moves nothing."""

from __future__ import annotations

import time

from ..config.context import boot_id, new_id
from ..core import fast_json
from ..core.errors import LaunchRefused
from . import models, writers
from .database import Ledger
from .models import Incident, Launch


def open_for(ledger: Ledger, launch: Launch | None, *, trigger: str, reason: str) -> str:
    """Open an incident for a launch, or return the one that is still open."""
    current = ledger.open_incident()
    if current is not None:
        return current.id
    incident_id = new_id()
    at = launch.ended_at if launch and launch.ended_at and not trigger.startswith("request") else time.time()
    writers.open_incident(
        ledger,
        incident_id,
        at=at,
        trigger=trigger,
        reason=reason,
        launch=launch.id if launch else "",
        generation_from=launch.generation if launch else None,
    )
    return incident_id


def recover(ledger: Ledger, launch: models.CurrentLaunch, beat_at: float) -> None:
    """Write `recovered`: the heartbeat came from this launch, so from the target generation, after its start."""
    end(ledger, launch.incident, "recovered", beat_at, generation_to=launch.generation.number)


def end(ledger: Ledger, incident_id: str, outcome: str, at: float, **facts: object) -> None:
    """End an incident once; a second end changes nothing."""
    with ledger.transaction():
        row = ledger.incident(incident_id)
        if row is None or row.outcome:
            return
        writers.end_incident(ledger, incident_id, outcome, at=at, **facts)
        ledger.event(outcome, f"incident {incident_id}: {outcome}")


def rescue_branch(incident_id: str, move: int) -> str:
    """Name the branch that keeps the work that the `move`-th switch of an incident took away."""
    return f"rescue/{incident_id}" + ("" if move <= 1 else f"-{move}")


def count_moves(ledger: Ledger, incident_id: str, up_to: int) -> int:
    """Count the attempts of an incident that move code, up to and with attempt number `up_to`."""
    return sum(1 for a in ledger.attempts(incident_id) if a.number <= up_to and a.rung != models.RESTART)


def counted_attempts(ledger: Ledger, now: float, seconds: float) -> list[models.Attempt]:
    """Return the attempts that bounds go by: of the last `seconds`, and what answers the last launch in any case.

    None from before a person lifted the bounds.
    """
    reset_at = float(ledger.meta("limits_reset_at") or 0)
    since = max(now - seconds, reset_at if reset_at <= now else 0.0)  # a clock may have gone back
    after, last = int(ledger.meta("limits_reset_after") or 0), ledger.last_launch()
    return ledger.attempts_since(since, now, after=after, launch=last.id if last else "")


def lift_bounds(ledger: Ledger) -> None:
    """Let no attempt so far count any more: a person has decided."""
    ledger.set_meta("limits_reset_at", str(time.time()))
    ledger.set_meta("limits_reset_after", str(ledger.newest("attempts")))


def as_public(ledger: Ledger, row: Incident) -> dict[str, object]:
    """Return an incident as `incidents --json` shows it."""
    attempts = [
        {"number": a.number, "at": a.at, "rung": a.rung, "target": a.target, "reason": a.reason}
        for a in ledger.attempts(row.id)
    ]
    steps = [
        {"attempt": s.attempt, "name": s.name, "at": s.started_at,
         "seconds": round(s.ended_at - s.started_at, 4) if s.ended_at else None}
        for s in ledger.steps(row.id)
    ]  # fmt: skip
    return {
        "id": row.id, "at": row.at, "trigger": row.trigger, "reason": row.reason,
        "evidence": fast_json.loads(row.evidence), "decision": row.decision, "from": row.generation_from,
        "to": row.generation_to, "attempts": attempts, "steps": steps, "outcome": row.outcome or None,
        "seconds": round(row.ended_at - row.at, 3) if row.ended_at else None, "launch": row.launch,
    }  # fmt: skip


def record_unlaunched(ledger: Ledger, generation: int, why: str) -> None:
    """Record a launch that we could not even begin: the recovery process tries again, or halts with an alert."""
    now = time.time()
    writers.add_no_launch(
        ledger,
        new_id(),
        generation,
        at=now,
        boot_id=boot_id(),
        end=models.FAILED,
        trigger="cannot-launch",
        reason=f"it could not be started: {why}",
    )


def settle_last_launch(ledger: Ledger) -> None:
    """Close a launch that no runner closed: the machine went down, or the runner was killed.

    Only call this while holding the agent's lock: then no runner is alive. Raise LaunchRefused for a killed
    runner, because that is a failure and the recovery process has not seen it yet.
    """
    last = ledger.last_launch()
    if last is None or last.end != models.RUNNING:
        return
    if last.boot_id != boot_id():
        _close_rebooted(ledger, last)
        return
    close_lost(ledger, last)
    raise LaunchRefused("the last launch was cut off without a word; the recovery process has to look at it first")


def _close_rebooted(ledger: Ledger, last: Launch) -> None:
    """Record that the machine went down; the first power cuts of a probation give the try back that the launch cost."""
    now, generation = time.time(), ledger.generation(last.generation)
    cuts = 1 + sum(1 for launch in ledger.launches_since_good() if launch.end == models.REBOOTED)
    with ledger.transaction():
        if generation is not None and generation.status == "candidate" and cuts <= models.FREE_POWER_CUTS:
            writers.set_tries(ledger, generation.number, generation.tries_left + 1)
        reason = "the machine went down while it ran"
        writers.end_launch(ledger, last.id, models.REBOOTED, at=now, trigger="reboot", reason=reason)


def close_lost(ledger: Ledger, last: Launch) -> None:
    """Record that a runner ended without recording why (SIGKILL, out of memory)."""
    writers.end_launch(
        ledger, last.id, models.LOST, at=time.time(), trigger="runner-killed", reason="the runner was killed"
    )
