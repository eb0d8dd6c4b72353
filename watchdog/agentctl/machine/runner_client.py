"""Ask the runner through its socket: restart, health. One request, one answer."""

from __future__ import annotations

import json
import os
import socket
import time

from ..errors import AgentctlError

LIMIT_SECONDS = 10.0
AGAIN_SECONDS = 0.02


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
    except OSError as error:
        raise AgentctlError(
            f"the agent's runner does not answer at {path}: {error.strerror or error}",
            "it is not running; agentctl status, agentctl start",
        ) from error
    head, _, answer = bytes(data).partition(b"\r\n\r\n")
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
