"""The environment that belongs to the code (`.venv`, `node_modules`): rebuild it where no copy came with the tree."""

from __future__ import annotations

import os

from ..core import durable, fast_json
from ..core.errors import CommandFailed
from ..host import command
from ..host.command import DEFAULT_PATH
from .slots import carry_over

BUILD_LIMIT_SECONDS = 900.0


def rebuild_if_needed(attempt) -> str:
    """Run `[environment] build` as the agent's user if a declared folder is missing or its lock file is another one.

    A build that fails is reported and does not stop the rollback: the old environment is taken along then, and the
    next rung is there if it does not fit.
    """
    settings, code_dir = attempt.context.config.environment, attempt.context.code_dir
    came_along = [p for p in settings.paths if os.path.lexists(f"{code_dir}/{p}")]
    old = f"{attempt.quarantine}/tree"
    same_locks = all(_content(f"{code_dir}/{n}") == _content(f"{old}/{n}") for n in settings.lockfiles)
    missing = [p for p in settings.paths if p not in came_along and os.path.lexists(f"{old}/{p}")]
    moved = _move(attempt, missing) if same_locks or not settings.build else []
    missing = [p for p in missing if not os.path.lexists(f"{code_dir}/{p}")]
    if not missing:
        return fast_json.dumps({"came_along": came_along, "moved": moved})
    env = {"PATH": DEFAULT_PATH, "HOME": attempt.context.user.home if attempt.context.user else os.path.expanduser("~")}
    try:
        command.run(
            ["/usr/bin/env", "--", *settings.build],
            env=env,
            cwd=code_dir,
            user=attempt.context.user,
            limit_seconds=BUILD_LIMIT_SECONDS,
        )
        durable.sync_filesystem(code_dir)  # the step is on record as done next, and no builder syncs what it writes
    except CommandFailed as error:
        moved = _move(attempt, [p for p in missing if not os.path.lexists(f"{code_dir}/{p}")])
        return fast_json.dumps({"build": "failed", "why": error.message[:1000], "moved": moved})
    return fast_json.dumps({"build": "done"})


def _content(path: str) -> bytes | None:
    """Read a lock file; whatever else the agent has put there is none."""
    try:
        return durable.read(path)
    except OSError:
        return None


def _move(attempt, names: list[str]) -> list[str]:
    """Take the condemned tree's environment along: one that may not fit is better than none."""
    old, code_dir = f"{attempt.quarantine}/tree", attempt.context.code_dir
    blocked = command.call_as(attempt.context.user, carry_over, old, code_dir, names).splitlines()
    return [n for n in names if n not in blocked]
