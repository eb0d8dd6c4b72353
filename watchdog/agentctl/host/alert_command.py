"""Tell a human: run the configured alert command with the story on its standard input."""

from __future__ import annotations

import os
import sys

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


def report_of(name: str) -> str:
    """Return the newest incident's story, '' where it cannot be told: the alert goes out all the same."""
    try:
        argv = [sys.executable, "-I", ENTRY_PATH, "story", name]
        return command.run(argv, env=dict(os.environ), limit_seconds=STORY_SECONDS).text + "\n"
    except CommandFailed:
        return ""
