"""Look at one agent: the ledger, the runner's live status, processes, locks, pressure. Looks only; may block."""

from __future__ import annotations

import os
import time

from ..config.context import boot_id
from ..core.errors import AgentctlError
from ..generations.agent_context import AgentContext
from ..host import procfs
from ..ledger import models
from ..ledger.database import sqlite3
from ..ledger.models import Launch
from ..runtime import runner_client, status_file
from . import availability

PROBE_SECONDS = 2.0
PRESSURE_PATHS = ("/proc/pressure/cpu", "/proc/pressure/memory")
START_MARGIN_SECONDS = 30.0


class Seen:
    """What one look saw; `problem` says what could not be read."""

    def __init__(self) -> None:
        self.stamp: tuple = ()  # of the ledger's files: as long as it is the same, so is what they say
        self.launch: Launch | None = None
        self.halted, self.paused_until, self.problem = "", 0.0, ""
        self.has_intent = self.is_rolling_back = self.is_runner_alive = self.is_preparing = False
        self.live: dict = {}

    @property
    def launch_id(self) -> str:
        """The launch that is meant to run."""
        return self.launch.id if self.launch else self.live.get("launch_id", "")

    @property
    def is_live_of_launch(self) -> bool:
        """Tell whether the live status is that of the last launch."""
        return bool(self.live) and self.live.get("launch_id") == self.launch_id


def look(context: AgentContext, before: Seen | None = None) -> Seen:
    """Read what is needed to judge the agent; a ledger that is as it was `before` is not opened again."""
    seen = Seen()
    live = status_file.read(context.paths.live_status_path)
    # Before the ledger: a runner writes there how it ended, and then it goes.
    is_runner_alive = procfs.is_runner(live.get("runner_pid") or 0, context.paths.name)
    seen.stamp = _stamp(context.paths.ledger_path)
    if before is not None and before.stamp == seen.stamp and not before.problem:
        vars(seen).update(vars(before))
    else:
        _read_ledger(context, seen)
    seen.live, seen.is_runner_alive = live, is_runner_alive
    locks = procfs.read_locks()
    seen.is_rolling_back = procfs.is_locked(context.paths.rollback_lock_path, locks)
    is_begun = os.path.exists(context.paths.launching_path)  # a runner that was killed leaves it, and no lock
    seen.is_preparing = is_begun and procfs.is_locked(context.paths.agent_lock_path, locks)
    return seen


def _stamp(path: str) -> tuple:
    found = []
    for name in (path, f"{path}-wal"):
        try:
            facts = os.stat(name)
            found.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def _read_ledger(context: AgentContext, seen: Seen) -> None:
    try:
        with context.ledger(read_only=True) as ledger:
            seen.launch = ledger.last_launch()
            seen.halted = ledger.meta("halted") or ""
            seen.paused_until = float(ledger.meta("paused_until") or 0)
            seen.has_intent = ledger.open_attempt() is not None
    except (AgentctlError, sqlite3.Error, ValueError) as error:
        seen.problem = f"the ledger cannot be read: {error}"


def why_not_expected(context: AgentContext, seen: Seen) -> tuple[bool, str]:
    """Tell whether somebody is bringing the agent up now, and why it is not expected to be up, '' if it is."""
    launch = seen.launch
    if seen.is_rolling_back or seen.has_intent:
        return True, "a rollback is under way"
    if seen.halted:
        return False, f"halted: {seen.halted}"
    if launch is None:
        return False, seen.problem or "it was never started"
    if launch.end != models.RUNNING and seen.is_preparing:
        return True, "its launch is being prepared"
    if launch.end == models.STOPPED:
        return False, "stopped by hand"
    is_of_other_boot = launch.boot_id != boot_id() and not seen.is_runner_alive
    if launch.end == models.REBOOTED or (launch.end == models.RUNNING and is_of_other_boot):
        return False, "not started since the machine came up"
    if launch.end == models.RUNNING and launch.ready_at is None and seen.is_runner_alive:
        limit = context.config.agent.ready_timeout + START_MARGIN_SECONDS
        if time.time() - launch.started_at < limit:
            return True, "it is starting"
    return False, ""


def is_process_gone(seen: Seen) -> bool | None:
    """Tell whether the agent's process has ended; None where nothing is known of it."""
    if seen.launch is not None and seen.launch.end != models.RUNNING:
        return True
    pid = seen.live.get("pid") if seen.is_live_of_launch else None
    return None if not pid else not procfs.is_alive(pid)


def is_unanswered(context: AgentContext) -> bool:
    """Ask the agent's runner whether it is there."""
    try:
        runner_client.ask(context.paths.api_socket_path, "GET", "/health", limit_seconds=PROBE_SECONDS)
    except (AgentctlError, ValueError):
        return True
    return False


def pressure() -> float:
    """Return how much of its time the machine's tasks wait, 0 to 1; 0 where the kernel does not tell."""
    texts = []
    for path in PRESSURE_PATHS:
        try:
            with open(path, encoding="ascii") as file:
                texts.append(file.read())
        except OSError:
            continue
    return availability.read_pressure(*texts)


def supervisor_pid(context: AgentContext) -> int:
    """Return the process of the agent's foreground supervisor, 0 if none runs."""
    try:
        with open(context.paths.supervisor_pid_path, encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return 0
    # Not by its lock: on an overlay file system the kernel names a locked file otherwise than stat does.
    return pid if procfs.is_alive(pid) and "supervis" in procfs.command_line(pid) else 0
