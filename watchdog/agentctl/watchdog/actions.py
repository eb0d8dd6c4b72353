"""What the server does to the agent when it is asked: restart, rollback, pause. Blocks; belongs in a thread.

Nothing of the agent's moves here: a rollback is asked of the recovery process, a restart of the runner.
"""

from __future__ import annotations

import os
import signal
import time

from ..core import durable
from ..core.errors import AgentctlError
from ..generations.agent_context import AgentContext
from ..ledger import models, writers
from ..ledger.models import Launch
from ..recovery import requests
from ..runtime import runner_client, systemd
from ..state import task
from . import observation

LONGEST_PAUSE_SECONDS = 30 * 86400.0
START_SECONDS = 30.0


def check_task(text: str) -> None:
    """Raise AgentctlError unless the text is a whole task file."""
    if not task.is_task(text.encode()):
        raise AgentctlError(
            "the task that was given is not a task file", "it begins with '# Current Task' and keeps its '## ' sections"
        )


def restart(context: AgentContext, given_task: str | None, launch_id: str) -> str:
    """Keep the task for the next launch, then restart the agent, or start it; return the launch that ends."""
    with context.ledger(read_only=True) as ledger:
        halted = ledger.meta("halted")
    if halted:
        raise AgentctlError(
            f"the agent is halted: {halted}", "'agentctl why' tells the story; 'agentctl resume' clears it"
        )
    if given_task is not None:
        durable.write(context.paths.given_task_path, given_task.encode(), 0o600)
    try:
        asked = runner_client.ask(context.paths.api_socket_path, "POST", "/restart", {"launch_id": launch_id})
        return asked["launch_id"]
    except AgentctlError:
        if not systemd.has_unit(context.paths):
            raise
    systemd.run(context.paths, "start", "--no-block", context.paths.unit, limit_seconds=START_SECONDS)
    return ""


def plan(context: AgentContext, target: str) -> requests.RollbackPlan:
    """Tell what a rollback would do."""
    with context.ledger(read_only=True) as ledger:
        return requests.plan(context, ledger, target)


def ask_rollback(context: AgentContext, target: str, reason: str) -> int:
    """Write a rollback down as wanted, and start the recovery process; return the request's number."""
    with context.ledger() as ledger:
        if target and ledger.generation(int(target)) is None:
            raise AgentctlError(f"there is no generation {target}", "GET /generations")
        number = writers.add_request(ledger, "rollback", target, at=time.time(), author="watchdog", reason=reason[:500])
    start_recovery(context)
    return number


def ask_offline(context: AgentContext, launch: Launch, reason: str) -> None:
    """Write down that the agent was seen offline, and start the recovery process, which decides what follows."""
    with context.ledger() as ledger:
        last = ledger.last_launch()
        if last is None or last.id != launch.id:
            return
        waiting = ledger.next_request()
        if last.end == models.RUNNING and waiting is None:
            writers.add_request(ledger, models.OFFLINE, launch.id, at=time.time(), author="watchdog", reason=reason)
    start_recovery(context)


def start_recovery(context: AgentContext) -> None:
    """Start the recovery process by whatever runs this agent, without waiting for its end."""
    supervisor = observation.supervisor_pid(context)
    if supervisor:
        os.kill(supervisor, signal.SIGUSR1)
    elif systemd.has_unit(context.paths):
        systemd.run(context.paths, "start", "--no-block", context.paths.rollback_unit, limit_seconds=START_SECONDS)
    else:
        requests.run_directly(context)


def pause(context: AgentContext, until: float | None) -> None:
    """Record a pause with its end, or its end now."""
    with context.ledger() as ledger, ledger.transaction():
        ledger.set_meta("paused_until", None if until is None else str(until))
        ledger.event("pause" if until else "resume", "by the watchdog's API")


def generations(context: AgentContext, count: int) -> list[dict]:
    """Return the newest generations, newest first."""
    with context.ledger(read_only=True) as ledger:
        rows = ledger.generations()[-count:][::-1]
    keys = ("number", "tree", "created_at", "blessed_at", "reason", "branch", "tries_left")
    return [{**{key: getattr(row, key) for key in keys}, "commit": row.commit_id,
             "status": "golden" if row.is_golden else row.status} for row in rows]  # fmt: skip


def pane(context: AgentContext) -> list[str]:
    """Return the newest lines of the agent's terminal, as its runner has them."""
    try:
        return runner_client.ask(context.paths.api_socket_path, "GET", "/pane", limit_seconds=2.0)["lines"]
    except (AgentctlError, ValueError, KeyError):
        return []
