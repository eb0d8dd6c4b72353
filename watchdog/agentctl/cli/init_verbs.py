"""`agentctl init`, `install`, `uninstall`, `presets`, `protocol`: make a repository an agent."""

from __future__ import annotations

import json
import os

import click

from ..changes import agent_files
from ..core import text
from ..core.errors import UsageError
from ..core.text import to_json
from ..runner.heartbeat import tell_watched


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
    from ..changes import adopt
    from ..changes.service import prepare_folder
    from ..config import context as contexts
    from ..config import preset as presets

    paths = contexts.find_paths(ctx.obj.name)
    known = presets.find(preset, os.path.dirname(paths.config_dir)) if preset else None
    settings = _lint(os.path.abspath(path)) | _compose(runtime, image, engine, compose_file)
    adopted = adopt.adopt(
        paths,
        os.path.abspath(path),
        list(command),
        branch=branch,
        user=user,
        state_dir=state_dir,
        preset=known,
        settings=settings,
        image=image,
    )
    lines = [*adopt.note(adopted), tell_watched(adopted.config.heartbeat.from_)]
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
                    "name": paths.name,
                    "code": adopted.code_dir,
                    "config": paths.config_path,
                    "state": adopted.state_dir,
                    "branch": adopted.config.agent.branch,
                    "notes": lines[1:],
                }
            )
        )
        return
    for line in lines:
        click.echo(line)
    click.echo(f"next: 'agentctl install' and 'systemctl start {paths.name}'; without systemd: 'agentctl supervise'")


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


def _install_hooks(context) -> list[str]:
    """Leave the hook and the protocol in the repository, as the agent's user."""
    from ..changes.service import Changes

    variables = {"AGENTCTL_SCOPE": context.paths.scope}
    if context.paths.root:
        variables["AGENTCTL_ROOT"] = context.paths.root
    said = Changes(context).as_agent(
        agent_files.install, context.code_dir, context.paths.name, context.paths.config_path, _own_path(), variables
    )
    return said.splitlines()


def _own_path() -> str:
    """Find the command that a hook can call."""
    import shutil
    import sys

    beside = os.path.join(os.path.dirname(sys.executable), "agentctl")
    return beside if os.access(beside, os.X_OK) else shutil.which("agentctl") or beside


# -- install ---------------------------------------------------------------------------------------
# `agentctl install` and `uninstall`: the units of an agent.


@click.command()
@click.option("--user", "as_user", is_flag=True, help="Units of the user manager (the default unless root).")
@click.option("--no-watchdog", is_flag=True, help="Without the watchdog's unit: systemd alone watches.")
@click.option("--no-enable", is_flag=True, help="Do not start the agent at boot.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def install(ctx, as_user, no_watchdog, no_enable, as_json):
    """Write the units and drop-ins from agent.toml; run it again after changing settings."""
    import os

    from ..runtime import systemd

    if as_user and os.geteuid() == 0:
        raise UsageError(
            "--user as root would install for root's own manager", "run it as the person who owns the agent"
        )
    context = ctx.obj.context()
    written = systemd.install(context, enable=not no_enable, has_watchdog=not no_watchdog)
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"written": written, "running_systemd": systemd.is_running()}))
        return
    for path in written:
        click.echo(f"wrote {path}")
    manager = "systemctl --user" if context.paths.scope == "user" else "systemctl"
    click.echo(
        f"next: {manager} start {context.paths.name}"
        if systemd.is_running()
        else "systemd does not run here; 'agentctl supervise' runs the agent without it"
    )
    if context.paths.scope == "user":
        click.echo("so that it also runs while you are logged out: loginctl enable-linger")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def uninstall(ctx, as_json):
    """Stop the agent and remove its units; nothing of the agent's is removed."""
    from ..runtime import systemd

    removed = systemd.uninstall(ctx.obj.context())
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"removed": removed}))
        return
    for path in removed:
        click.echo(f"removed {path}")


# -- presets ---------------------------------------------------------------------------------------
# `agentctl presets`: what is known of the agents people run, to start one with `init --preset NAME`.


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def presets(ctx, as_json):
    """List the presets, with the version each was verified with; your own are in the config folder's presets/."""
    if ctx.invoked_subcommand is not None:
        return
    from ..config import preset

    folder = config_folder()
    found = [preset.find(name, folder) for name in preset.names(folder)]
    if as_json or ctx.obj.as_json:
        click.echo(to_json([_facts(one) for one in found]))
        return
    for one in found:
        click.echo(f"{one.name:<16} {one.verified or '-':<18} {one.about}")
    click.echo("next: 'agentctl presets show NAME', 'agentctl init --preset NAME PATH'")


@presets.command()
@click.argument("wanted", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx, wanted, as_json):
    """Print one preset: its file, which is also the form of one of your own."""
    from ..config import preset

    found = preset.find(wanted, config_folder())
    if as_json or ctx.obj.as_json:
        click.echo(to_json(_facts(found)))
        return
    with open(found.path, encoding="utf-8") as file:
        click.echo(file.read(), nl=False)


def config_folder() -> str:
    """Return the folder of agentctl's own configuration, above those of the agents."""
    from ..config.context import find_paths

    return os.path.dirname(find_paths("agent").config_dir)


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


# -- protocol --------------------------------------------------------------------------------------
# `agentctl protocol`: how an agent changes itself. Needs no agent.


@click.command()
@click.pass_context
def protocol(ctx):
    """Print the protocol that an agent follows to change itself (also in SELF_MODIFICATION.md)."""
    if ctx.obj.as_json:
        click.echo(text.to_json({"file": agent_files.FILE_NAME, "text": agent_files.TEXT}))
    else:
        click.echo(agent_files.TEXT, nl=False)
