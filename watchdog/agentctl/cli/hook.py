"""`agentctl hook`: what an agent's own hooks say, passed on as a sign of life."""

from __future__ import annotations

import click

from .hook_event import send


@click.command()
@click.argument("event", required=False)
def hook(event):
    """Pass on what an agent's hook says, JSON as EVENT or on standard input: it is alive, busy, idle."""
    send([event] if event else [])
