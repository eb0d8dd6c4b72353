"""`agentctl init`: adopt a repository."""

from __future__ import annotations

import json
import os

import click

from ..errors import UsageError


@click.command()
@click.argument("path", default=".", type=click.Path())
@click.argument("command", nargs=-1)
@click.option("--branch", default="", help="The branch that is to be kept stable (default: the current one).")
@click.option("--user", default="", help="Who the agent runs as (root only; default: who owns PATH).")
@click.option("--state-dir", default="", help="The agent's state folder.")
@click.option("--preset", default="", help="Settings for an agent that is known: 'agentctl presets' lists them.")
@click.option(
    "--runtime",
    type=click.Choice(["systemd", "compose"]),
    default="systemd",
    help="What it runs in: systemd (or 'agentctl supervise'), or a container made by Compose.",
)
@click.option("--image", default="", help="compose: an image that is there already (default: built from PATH).")
@click.option("--engine", default="", help="compose: the address of Docker Engine.")
@click.option("--compose-file", default="", help="compose: your own compose file (default: one is written).")
@click.option("--no-hooks", is_flag=True, help="Write no pre-commit hook and no SELF_MODIFICATION.md into it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def init(ctx, path, command, branch, user, state_dir, preset, runtime, image, engine, compose_file, no_hooks, as_json):
    """Adopt the git repository PATH; COMMAND... starts the agent in it."""
    from .. import station
    from ..adoption import adopt
    from ..configuration import preset as presets
    from ..workflow.changes import prepare_folder

    places = station.find_places(ctx.obj.name)
    known = presets.find(preset, os.path.dirname(places.config_dir)) if preset else None
    settings = _lint(os.path.abspath(path)) | _compose(runtime, image, engine, compose_file)
    adopted = adopt.adopt(
        places,
        os.path.abspath(path),
        list(command),
        branch=branch,
        user=user,
        state_dir=state_dir,
        preset=known,
        settings=settings,
        image=image,
    )
    lines = adopt.note(adopted)
    if adopted.config.change.lint == []:
        lines.append('no linter: ruff is not here; agentctl config set change.lint \'["TOOL", "{files}"]\'')
    prepare_folder(adopted)  # the agent's user may not make it beside its code
    lines += [] if no_hooks else _install_hooks(adopted)
    if known is not None and known.set_up:
        lines += known.set_up.strip().splitlines()
    if as_json or ctx.obj.as_json:
        click.echo(
            json.dumps(
                {
                    "name": places.name,
                    "code": adopted.code_dir,
                    "config": places.config_path,
                    "state": adopted.state_dir,
                    "branch": adopted.config.agent.branch,
                    "notes": lines[1:],
                }
            )
        )
        return
    for line in lines:
        click.echo(line)
    click.echo(f"next: 'agentctl install' and 'systemctl start {places.name}'; without systemd: 'agentctl supervise'")


def _lint(path: str) -> dict:
    """Where ruff is not at hand it is not made a condition of every change."""
    import shutil

    has_ruff = shutil.which("ruff") or os.path.exists(f"{path}/.venv/bin/ruff")
    return {} if has_ruff else {"change": {"lint": []}}


def _compose(runtime: str, image: str, engine: str, compose_file: str) -> dict:
    """Return what is asked for about containers as settings."""
    if runtime != "compose":
        if image or engine or compose_file:
            raise UsageError("--image, --engine and --compose-file are for --runtime compose")
        return {}
    given = {"engine": engine, "file": os.path.abspath(compose_file) if compose_file else ""}
    return {"agent": {"runtime": runtime}, "compose": {name: value for name, value in given.items() if value}}


def _install_hooks(station) -> list[str]:
    """Leave the hook and the protocol in the repository, as the agent's user."""
    from ..workflow import hooks
    from ..workflow.changes import Changes

    variables = {"AGENTCTL_SCOPE": station.places.scope}
    if station.places.root:
        variables["AGENTCTL_ROOT"] = station.places.root
    said = Changes(station).as_agent(
        hooks.install, station.code_dir, station.places.name, station.places.config_path, _own_path(), variables
    )
    return said.splitlines()


def _own_path() -> str:
    """Find the command that a hook can call."""
    import shutil
    import sys

    beside = os.path.join(os.path.dirname(sys.executable), "agentctl")
    return beside if os.access(beside, os.X_OK) else shutil.which("agentctl") or beside
