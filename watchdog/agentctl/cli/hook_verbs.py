"""`agentctl hook`: what an agent's own hook says, passed on to its runner as a sign of life."""

from __future__ import annotations

import json
import os
import sys

import click

from ..runner import heartbeat


@click.command()
@click.argument("event", required=False)
def hook(event):
    """Pass on what an agent's hook says, JSON as EVENT or on standard input: it is alive, busy, idle."""
    send([event] if event else [])


# -- hook event ------------------------------------------------------------------------------------
# What an agent's own hook says, passed on to its runner as a sign of life.
# Runs at every step of the agent, so it goes without click. It never fails and prints nothing: a hook that does
# either gets in the agent's way.


MOST_BYTES = 1 << 20  # a tool's whole answer may be in it; what is longer is still a sign of life


def send(words: list[str]) -> int:
    """Read one event from the last argument or standard input, tell the runner; return 0."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    document = _event(words)
    if address:
        from ..host.sd_notify import Notifier

        Notifier(address).send(**heartbeat.fields_of(*heartbeat.read_event(document)))
    return 0


def _event(words: list[str]) -> object:
    try:
        return json.loads(words[-1] if words else _standard_input())
    except ValueError:
        return None


def _standard_input() -> bytes:
    """Read descriptor 0 itself: Claude Code passes a socket, which /dev/stdin cannot be opened for."""
    if sys.stdin is None or os.isatty(0):
        return b""
    parts, left = [], MOST_BYTES
    while left > 0:
        try:
            part = os.read(0, min(left, 65536))
        except OSError:
            break
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
