"""`agentctl install` and `uninstall`: the units of an agent."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--user", "as_user", is_flag=True, help="Units of the user manager (the default unless root).")
@click.option("--no-watchdog", is_flag=True, help="Without the watchdog's unit: systemd alone watches.")
@click.option("--no-enable", is_flag=True, help="Do not start the agent at boot.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def install(ctx, as_user, no_watchdog, no_enable, as_json):
    """Write the units and drop-ins from agent.toml; run it again after changing settings."""
    import os

    from ..adoption import install as installer
    from ..errors import UsageError
    from ..machine import systemd

    if as_user and os.geteuid() == 0:
        raise UsageError(
            "--user as root would install for root's own manager", "run it as the person who owns the agent"
        )
    station = ctx.obj.station()
    written = installer.install(station, enable=not no_enable, has_watchdog=not no_watchdog)
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"written": written, "running_systemd": systemd.is_running()}))
        return
    for path in written:
        click.echo(f"wrote {path}")
    manager = "systemctl --user" if station.places.scope == "user" else "systemctl"
    click.echo(
        f"next: {manager} start {station.places.name}"
        if systemd.is_running()
        else "systemd does not run here; 'agentctl supervise' runs the agent without it"
    )
    if station.places.scope == "user":
        click.echo("so that it also runs while you are logged out: loginctl enable-linger")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def uninstall(ctx, as_json):
    """Stop the agent and remove its units; nothing of the agent's is removed."""
    from ..adoption import install as installer

    removed = installer.uninstall(ctx.obj.station())
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"removed": removed}))
        return
    for path in removed:
        click.echo(f"removed {path}")
