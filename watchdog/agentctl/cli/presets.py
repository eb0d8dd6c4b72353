"""`agentctl presets`: what is known of the agents people run, to start one with `init --preset NAME`."""

from __future__ import annotations

import os

import click

from ..wording import to_json


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def presets(ctx, as_json):
    """List the presets, with the version each was verified with; your own are in the config folder's presets/."""
    if ctx.invoked_subcommand is not None:
        return
    from ..configuration import preset

    folder = config_folder()
    found = [preset.find(name, folder) for name in preset.names(folder)]
    if as_json or ctx.obj.as_json:
        click.echo(to_json([_facts(one) for one in found]))
        return
    for one in found:
        click.echo(f"{one.name:<16} {one.verified or '-':<18} {one.about}")
    click.echo("next: 'agentctl presets show NAME', 'agentctl init --preset NAME PATH'")


@presets.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx, name, as_json):
    """Print one preset: its file, which is also the form of one of your own."""
    from ..configuration import preset

    found = preset.find(name, config_folder())
    if as_json or ctx.obj.as_json:
        click.echo(to_json(_facts(found)))
        return
    with open(found.path, encoding="utf-8") as file:
        click.echo(file.read(), nl=False)


def config_folder() -> str:
    """Return the folder of agentctl's own configuration, above those of the agents."""
    from ..station import find_places

    return os.path.dirname(find_places("agent").config_dir)


def _facts(one) -> dict:
    return {
        "name": one.name,
        "about": one.about,
        "verified": one.verified,
        "level": one.level,
        "comes_back": one.comes_back,
        "does_not_come_back": one.does_not_come_back,
        "set_up": one.set_up,
        "settings": one.settings,
        "path": one.path,
    }
