"""Find out that we were called from inside an agent, where the agent's own tools took its variables away.

A shell tool often starts its commands with next to no environment. The variables of the contract are still those of
the process that the runner started, above us. Refuses to look past a process of another user: what an agent says of
itself must not lead root anywhere.
"""

from __future__ import annotations

import os

from . import process

TELLING = ("AGENT_NAME", "AGENTCTL_SCOPE", "AGENTCTL_ROOT")  # one of them given: the caller says what is meant
RECALLED = (*TELLING, "AGENT_API_URL", "AGENT_TOKEN_FILE", "AGENT_LAUNCH_ID", "NOTIFY_SOCKET")


def recall(environ) -> None:
    """Put the variables of the agent that we were called from into `environ`, where nothing in it says who is meant."""
    if not any(name in environ for name in TELLING):
        environ.update(find(os.getppid(), os.geteuid()))


def find(pid: int, uid: int) -> dict[str, str]:
    """Return the variables of the nearest process from `pid` upwards that is an agent's; none past another user's."""
    while pid > 1 and process.user(pid) == uid:
        variables = process.variables(pid)
        if "AGENT_NAME" in variables:  # an empty one: whoever set it wants nothing found (the gate's programs)
            return {name: variables[name] for name in RECALLED if name in variables} if variables["AGENT_NAME"] else {}
        pid = process.parent(pid)
    return {}
