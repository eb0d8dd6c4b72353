"""Tell a human: run the configured alert command with the story on its standard input."""

from __future__ import annotations

import os

from ..errors import CommandFailed
from . import command

LIMIT_SECONDS = 60.0


def send(station, what: str) -> None:
    """Run `[rollback] alert` as the agent's user never, as ours always; a broken one is only reported."""
    argv = station.config.rollback.alert
    if not argv:
        return
    story = f"agentctl: agent '{station.places.name}' is {what}. 'agentctl why' tells the story.\n"
    try:
        command.run(["/usr/bin/env", "--", *argv], env={**os.environ, "AGENTCTL_EVENT": what},
                    stdin=story.encode(), limit_seconds=LIMIT_SECONDS)
    except CommandFailed as error:
        print(f"agentctl: the alert command failed: {error.message}", flush=True)
