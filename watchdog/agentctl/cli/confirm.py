"""`agentctl confirm`: the promoted version is to stay."""

from __future__ import annotations

import click

from .. import wording as format


@click.command()
@click.pass_context
def confirm(ctx):
    """Lift the deadline of `change promote --confirm-within`: what runs now is to stay."""
    from ..workflow.changes import Changes

    done = Changes(ctx.obj.station()).ask("confirm")
    if ctx.obj.as_json:
        click.echo(format.to_json(done))
    else:
        click.echo(f"generation {done['generation']} is confirmed; it is good when its probation is over")
