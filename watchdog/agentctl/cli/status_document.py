"""Compose the status of an agent from facts. Pure: the clock is in them, instants stay seconds.

The keys are an interface (docs/cli.md). It renders nothing and reads nothing.
"""

from __future__ import annotations

from ..ledger import models
from ..ledger.models import Generation, Incident, Launch, by_blessing
from ..recovery import policy
from . import status_text
from .status_facts import StatusFacts

STOPPED, STARTING, PROBATION, STEADY = "stopped", "starting", "probation", "steady"
ROLLING_BACK, PAUSED, HALTED = "rolling-back", "paused", "halted"
PHASES = (STOPPED, STARTING, PROBATION, STEADY, ROLLING_BACK, PAUSED, HALTED)


def compose(facts: StatusFacts) -> dict:
    """Return the document that `status --json` prints."""
    phase = choose_phase(facts)
    running = running_launch(facts)
    generation = find_generation(facts, current_number(facts))
    is_trial = generation is not None and generation.status == "candidate"
    document = {
        "name": facts.name,
        "well": False,
        "phase": phase,
        "because": "",
        "generation": current_number(facts),
        "generation_status": status_of(generation) if generation else None,
        "commit": generation.commit_id or None if generation else None,
        "branch": (generation and generation.branch) or (facts.config and facts.config.agent.branch),
        "last_known_good": last_known_good(facts),
        "golden": next((g.number for g in facts.generations if g.is_golden), None),
        "tries_left": generation.tries_left if is_trial else None,
        "launch_id": running and running.id,
        "started_at": running and running.started_at,
        "ready_at": running and running.ready_at,
        "stopped_at": None if running or not facts.launch else facts.launch.ended_at,
        "last_heartbeat_at": _last_heartbeat(facts),
        "heartbeats": facts.live.get("heartbeats", 0) if running else 0,
        "heartbeat_limit_seconds": facts.config and facts.config.heartbeat.timeout,
        "judged_by": facts.live.get("judged_by") if running else None,
        "waits_for": facts.live.get("waits_for") or None if running else None,
        "agent": {
            "pid": facts.live.get("pid") if facts.is_agent_alive and running else None,
            "alive": bool(facts.is_agent_alive and running),
            "phase": facts.live.get("agent_phase") if running else None,
            "container": facts.live.get("container") if running else None,
            "image": facts.live.get("image") if running else None,
        },
        "last_incident": _incident(facts.incident) if facts.incident else None,
        "held": _held(facts),
        "head": facts.head or None,
        "over_budget": facts.over_budget,
        "watchdog": _watchdog(facts),
        "problems": facts.problems,
    }
    document["because"] = status_text.why_not_well(facts, document)
    document["well"] = not document["because"]
    document["next"] = status_text.sentences(facts, document)
    return document


def choose_phase(facts: StatusFacts) -> str:
    """Choose the one word for where the agent is."""
    if facts.intent is not None or facts.is_rolling_back:
        return ROLLING_BACK
    if facts.halted:
        return HALTED
    if facts.paused_until > facts.now:
        return PAUSED
    launch = running_launch(facts)
    if launch is None:
        return STARTING if facts.is_locked else STOPPED
    if not facts.has_ledger:
        told = facts.live.get("phase")
        return told if told in PHASES else STARTING
    if launch.ready_at is None:
        return STARTING
    generation = find_generation(facts, launch.generation)
    is_good = generation is not None and generation.status == "good"
    return STEADY if is_good else PROBATION


def running_launch(facts: StatusFacts) -> Launch | None:
    """Return the launch that runs now; None if none is seen to."""
    if not facts.is_runner_alive:
        return None
    if not facts.has_ledger:
        live = facts.live
        return Launch(
            id=live.get("launch_id") or "",
            generation=live.get("generation"),
            started_at=live.get("started_at"),
            ready_at=live.get("ready_at"),
            boot_id="",
        )
    launch = facts.launch
    is_open = launch is not None and launch.end == models.RUNNING
    return launch if is_open and launch.id == facts.live.get("launch_id") else None


def current_number(facts: StatusFacts) -> int | None:
    """Return the generation that runs, or that stands in the agent's path as far as is known."""
    running = running_launch(facts)
    if running is not None:
        return running.generation
    if facts.switched is not None:
        return facts.switched
    return facts.launch.generation if facts.launch else last_known_good(facts)


def last_known_good(facts: StatusFacts) -> int | None:
    """Return the newest blessed generation."""
    goods = [g for g in facts.generations if g.status == "good" and not g.is_pruned]
    newest = max(goods, key=by_blessing, default=None)
    return newest and newest.number


def find_generation(facts: StatusFacts, number: int | None) -> Generation | None:
    """Return a generation's row, None if it is not known."""
    return next((g for g in facts.generations if g.number == number), None)


def status_of(generation: Generation) -> str:
    """Return what a generation is called for people and in JSON."""
    return "golden" if generation.is_golden else generation.status


def _last_heartbeat(facts: StatusFacts) -> float | None:
    """Return the newest heartbeat of the last launch; the first one is in the ledger at once."""
    if not facts.has_ledger:
        return facts.live.get("last_heartbeat_at")
    if facts.launch is None:
        return None
    is_its = facts.launch.id == facts.live.get("launch_id")
    told = facts.live.get("last_heartbeat_at") if is_its else None
    return told or facts.launch.first_beat_at


def _watchdog(facts: StatusFacts) -> dict:
    """Return what the second detector says, the first being the runner's heartbeat."""
    told = facts.watchdog if facts.is_watchdog_alive else {}
    keys = ("state", "reason", "at", "offline_in_seconds", "store_problem", "listen")
    return {"running": facts.is_watchdog_alive, **{key: told.get(key) for key in keys}}


def _held(facts: StatusFacts) -> dict[str, object] | None:
    """Return what was put in place and not launched, with the command that has it launched; None if nothing was."""
    row = facts.incident
    if row is None or row.decision != f"{models.ROLLBACK}: {models.GOOD_STAYS}":
        return None
    refused = find_generation(facts, row.generation_from)
    if refused is None or refused.status == "good" or refused.number == current_number(facts):
        return None
    limits = facts.config and models.RollbackLimits.of_settings(facts.config.rollback)
    hold = policy.find_hold(facts.now, limits, facts.recent) if limits and refused.status == "candidate" else None
    return {
        "generation": refused.number,
        "reason": row.reason,
        "until": hold and hold.until,
        "hint": policy.tell_way_in(refused),
    }


def _incident(row: Incident) -> dict:
    ended = row.ended_at
    return {
        "id": row.id,
        "at": row.at,
        "trigger": row.trigger,
        "reason": row.reason,
        "from": row.generation_from,
        "to": row.generation_to,
        "decision": row.decision,
        "outcome": row.outcome or None,
        "seconds": round(ended - row.at, 3) if ended else None,
    }
