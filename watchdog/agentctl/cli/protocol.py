"""`agentctl protocol`: how an agent changes itself. Needs no agent."""

from __future__ import annotations

import click

from .. import wording as format
from ..workflow import protocol as document


@click.command()
@click.pass_context
def protocol(ctx):
    """Print the protocol that an agent follows to change itself (also in SELF_MODIFICATION.md)."""
    if ctx.obj.as_json:
        click.echo(format.to_json({"file": document.FILE_NAME, "text": document.TEXT}))
    else:
        click.echo(document.TEXT, nl=False)
