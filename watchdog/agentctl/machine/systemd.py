"""systemd, as a command: which manager, start, stop, restart without waiting. Reads and writes no unit files."""

from __future__ import annotations

import os

from ..errors import AgentctlError, CommandFailed
from ..paths import USER, Places
from . import command

PROGRAM = "/usr/bin/systemctl"


def is_running() -> bool:
    """Tell whether systemd is this machine's service manager."""
    return os.path.isdir("/run/systemd/system")


def run(places: Places, *words: str, check: bool = True, limit_seconds: float = 600) -> command.Result:
    """Run systemctl for the manager that holds this agent's units."""
    scope = ["--user"] if places.scope == USER else []
    return command.run([PROGRAM, *scope, *words], env=dict(os.environ), check=check, limit_seconds=limit_seconds)


def restart_without_waiting(places: Places) -> None:
    """Ask for a restart from inside the unit: the job lives in the manager, the caller does not."""
    run(places, "restart", "--no-block", places.unit, limit_seconds=30)


def start_rollback_without_waiting(places: Places) -> None:
    """Start the one-shot from inside the agent's unit, which it stops."""
    run(places, "start", "--no-block", places.rollback_unit, limit_seconds=30)


def start_rollback(places: Places) -> None:
    """Start the one-shot and wait for its end."""
    run(places, "start", places.rollback_unit, check=False, limit_seconds=1800)


def has_unit(places: Places) -> bool:
    """Tell whether the agent's unit is installed."""
    if not is_running() or not os.access(PROGRAM, os.X_OK):
        return False
    shown = run(places, "show", "--property=LoadState", "--value", places.unit, check=False, limit_seconds=30)
    return shown.status == 0 and shown.text.strip() == "loaded"


def act(places: Places, verb: str) -> None:
    """Start or stop the agent's unit; raise AgentctlError with where to look."""
    try:
        run(places, verb, places.unit)
    except CommandFailed as error:
        raise AgentctlError(
            f"systemctl {verb} {places.unit}: {error.message}", "'agentctl why' and 'agentctl logs' tell what happened"
        ) from error
