"""`agentctl supervise`: run the agent in the foreground, without systemd."""

from __future__ import annotations

import sys

import click


@click.command()
@click.pass_context
def supervise(ctx):
    """Run and keep the agent alive in the foreground (runtime `direct`)."""
    from ..running import supervise as supervisor

    station = ctx.obj.station()
    sys.exit(supervisor.Supervisor(station, ctx.obj.name, lambda text: click.echo(text, err=True)).run())
