"""The runner as seen from outside: its socket, and whether we were called from inside an agent."""

from __future__ import annotations

import errno
import json
import os
import socket
import time

from ..core.errors import AgentctlError
from ..host import procfs

LIMIT_SECONDS = 10.0
AGAIN_SECONDS = 0.02


class NoAnswer(AgentctlError):
    """Nobody answers at the runner's socket, or no more: it is not running, or ends at this moment."""


def socket_inside(name: str) -> str:
    """Return the runner's socket as the agent called `name` knows it from its own variables, '' elsewhere."""
    url = os.environ.get("AGENT_API_URL", "")
    if os.environ.get("AGENT_NAME") == name and url.startswith("http+unix://"):
        return url.removeprefix("http+unix://").replace("%2F", "/")
    return ""


def ask(path: str, method: str, route: str, body: dict | None = None, limit_seconds: float = LIMIT_SECONDS) -> dict:
    """Send one request; raise AgentctlError if nobody answers or the answer is a refusal."""
    payload = json.dumps(body or {}).encode()
    request = f"{method} {route} HTTP/1.1\r\nHost: agentctl\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
    try:
        with connect(path, limit_seconds) as connection:
            connection.sendall(request + payload)
            data = bytearray()
            while chunk := connection.recv(65536):
                data += chunk
        head, end, answer = bytes(data).partition(b"\r\n\r\n")
        if not end:  # it ended between the question and its answer
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    except OSError as error:
        raise NoAnswer(
            f"the agent's runner does not answer at {path}: {error.strerror or error}",
            "it is not running; agentctl status, agentctl start",
        ) from error
    found = json.loads(answer or b"{}")
    if b" 20" not in head[:13]:
        raise AgentctlError(found.get("message", "refused"), found.get("hint", ""))
    return found


def connect(path: str, limit_seconds: float = LIMIT_SECONDS) -> socket.socket:
    """Connect to a unix socket, also through a crowd at its door; raise OSError if that takes too long.

    With a time limit Python's connect does not wait where the queue is full: it fails with EAGAIN (unix(7)).
    """
    deadline = time.monotonic() + limit_seconds
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(limit_seconds)
    while True:
        try:
            connection.connect(path)
            return connection
        except BlockingIOError:
            if time.monotonic() > deadline:
                connection.close()
                raise
            time.sleep(AGAIN_SECONDS)
        except BaseException:
            connection.close()
            raise


def has_new_launch(path: str, old_launch: str) -> bool:
    """Tell whether another launch than `old_launch` runs and is ready."""
    try:
        health = ask(path, "GET", "/health")
    except AgentctlError:
        return False
    return health.get("launch_id") != old_launch and health.get("phase") != "starting"


# -- inside ----------------------------------------------------------------------------------------
# Find out that we were called from inside an agent, where the agent's own tools took its variables away.
# A shell tool often starts its commands with next to no environment. The variables of the contract are still those of
# the process that the runner started, above us. Refuses to look past a process of another user: what an agent says of
# itself must not lead root anywhere.


TELLING = ("AGENT_NAME", "AGENTCTL_SCOPE", "AGENTCTL_ROOT")  # one of them given: the caller says what is meant
RECALLED = (*TELLING, "AGENT_API_URL", "AGENT_TOKEN_FILE", "AGENT_LAUNCH_ID", "NOTIFY_SOCKET")


def recall(environ) -> None:
    """Put the variables of the agent that we were called from into `environ`, where nothing in it says who is meant."""
    if not any(name in environ for name in TELLING):
        environ.update(find(os.getppid(), os.geteuid()))


def find(pid: int, uid: int) -> dict[str, str]:
    """Return the variables of the nearest process from `pid` upwards that is an agent's; none past another user's."""
    while pid > 1 and procfs.user(pid) == uid:
        variables = procfs.variables(pid)
        if "AGENT_NAME" in variables:  # an empty one: whoever set it wants nothing found (the gate's programs)
            return {name: variables[name] for name in RECALLED if name in variables} if variables["AGENT_NAME"] else {}
        pid = procfs.parent(pid)
    return {}
