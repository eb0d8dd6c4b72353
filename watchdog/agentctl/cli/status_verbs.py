"""`agentctl status`: is it well, what runs, since when, what happens next.

The door only; `status_facts` reads, `status_document` composes, `status_text` renders.
"""

from __future__ import annotations

import click

from .status_quick import show_status


@click.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Say whether the agent is well, what runs, since when, and what happens next.

    Exit status 0: well, that is, steady or on probation, alive, and its heartbeat is fresh. 3: not.
    """
    ctx.exit(show_status(ctx.obj.name, ctx.obj.as_json))
