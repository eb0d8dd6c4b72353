"""`agentctl watchdog`: serve the API, the history and the page, and watch, in the foreground."""

from __future__ import annotations

import click


@click.command()
@click.pass_context
def watchdog(ctx):
    """Run the agent's watchdog in the foreground; its unit does the same."""
    from .. import server
    from .context import check_name

    ctx.exit(server.main(check_name(ctx.obj.name)))
