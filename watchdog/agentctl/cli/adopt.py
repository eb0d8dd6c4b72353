"""`agentctl init`: adopt a repository."""

from __future__ import annotations

import json
import os

import click


@click.command()
@click.argument("path", default=".", type=click.Path())
@click.argument("command", nargs=-1)
@click.option("--branch", default="", help="The branch that is to be kept stable (default: the current one).")
@click.option("--user", default="", help="Who the agent runs as (root only; default: who owns PATH).")
@click.option("--state-dir", default="", help="The agent's state folder.")
@click.option("--preset", default="", help="Settings for an agent that is known: 'agentctl presets' lists them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def init(ctx, path, command, branch, user, state_dir, preset, as_json):
    """Adopt the git repository PATH; COMMAND... starts the agent in it."""
    from .. import adopt, station
    from .. import preset as presets

    places = station.find_places(ctx.obj.name)
    known = presets.find(preset, os.path.dirname(places.config_dir)) if preset else None
    adopted = adopt.adopt(places, os.path.abspath(path), list(command), branch=branch, user=user,
                          state_dir=state_dir, preset=known)
    lines = adopt.note(adopted)
    if known is not None and known.set_up:
        lines += known.set_up.strip().splitlines()
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"name": places.name, "code": adopted.code_dir, "config": places.config_path,
                               "state": adopted.state_dir, "branch": adopted.config.agent.branch, "notes": lines[1:]}))
        return
    for line in lines:
        click.echo(line)
    click.echo("next: 'agentctl install' and 'systemctl start "
               f"{places.name}'; without systemd: 'agentctl supervise'")
