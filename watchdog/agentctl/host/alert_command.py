"""Tell a human: run the configured alert command with the story on its standard input."""

from __future__ import annotations

import os
import sys

from ..core import durable
from ..core.errors import CommandFailed
from ..core.paths import ENTRY_PATH
from . import command

LIMIT_SECONDS = 60.0
STORY_SECONDS = 20.0


def send(context, what: str) -> None:
    """Run `[rollback] alert` as the agent's user never, as ours always; a broken one is only reported."""
    argv = context.config.rollback.alert
    if not argv:
        return
    name = context.paths.name
    text = f"agentctl: agent '{name}' is {what}\n\n{report_of(name)}'agentctl --name {name} why' tells it again.\n"
    try:
        command.run(
            ["/usr/bin/env", "--", *argv],
            env={**os.environ, "AGENTCTL_EVENT": what},
            stdin=text.encode(),
            limit_seconds=LIMIT_SECONDS,
        )
    except CommandFailed as error:
        print(f"agentctl: the alert command failed: {error.message}", flush=True)


def send_once(context, mark: str, what: str) -> None:
    """Send it unless it was the last one sent in this boot; `mark` is a file of the runtime folder that remembers."""
    told = f"{context.paths.runtime_dir}/{mark}"
    if durable.read(told) == what.encode():
        return
    os.makedirs(context.paths.runtime_dir, mode=0o755, exist_ok=True)
    durable.write(told, what.encode(), 0o600)
    send(context, what)


def report_of(name: str) -> str:
    """Return the newest incident's story, '' where it cannot be told: the alert goes out all the same."""
    try:
        argv = [sys.executable, "-I", ENTRY_PATH, "story", name]
        return command.run(argv, env=dict(os.environ), limit_seconds=STORY_SECONDS).text + "\n"
    except CommandFailed:
        return ""
