"""The verbs of `agentctl config`: show, check, sample, set.

Only words and printing: what is right or wrong is decided in `agentctl.config.toml_file`, and a mistake is
raised to the door that turns errors into exit codes. Refuses to write anything but one setting.
"""

from __future__ import annotations

import json

import click

from agentctl.config import reference, schema, toml_edit, toml_file
from agentctl.core.errors import ConfigError

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("config")
def group() -> None:
    """Show, check and change agent.toml."""


@group.command()
@JSON
@click.pass_obj
def show(obj, as_json: bool) -> None:
    """Print every setting as it counts now; a default is marked."""
    config = toml_file.load(obj.config_path)
    document = toml_edit.to_dict(config)
    defaults = [setting.key for setting in schema.TABLE if setting.key not in config.given]
    if as_json or obj.as_json:
        _print_json(document | {"defaults": defaults})
        return
    for section, content in document.items():
        click.echo(f"[{section}]")
        for name, value in content.items():
            mark = "  # default" if f"{section}.{name}" in defaults else ""
            click.echo(f"{name} = {toml_edit.toml(value)}{mark}")
        click.echo()


@group.command()
@JSON
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Name every mistake in the file, or say that there is none."""
    path = ctx.obj.config_path
    if not (as_json or ctx.obj.as_json):
        toml_file.load(path)
        click.echo(f"{path}: no mistakes")
        return
    mistakes = _mistakes(path)
    _print_json({"path": path, "ok": not mistakes, "mistakes": mistakes})
    ctx.exit(1 if mistakes else 0)


@group.command()
@JSON
@click.pass_obj
def sample(obj, as_json: bool) -> None:
    """Print a complete agent.toml, every setting explained."""
    if as_json or (obj is not None and obj.as_json):
        _print_json([_described(setting) for setting in schema.TABLE])
        return
    click.echo(reference.sample(), nl=False)


@group.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value")
@JSON
@click.pass_obj
def set_(obj, key: str, value: str, as_json: bool) -> None:
    """Set KEY (such as heartbeat.timeout) to VALUE in the file and say what is left to be done."""
    change = toml_edit.set_value(obj.config_path, key, value)
    if as_json or obj.as_json:
        _print_json(vars(change))
        return
    old = "its default" if change.old is None else toml_edit.toml(change.old)
    click.echo(f"{change.key}: {old} -> {toml_edit.toml(change.new)}; {change.advice}")
    if change.kept_path:
        click.echo(f"more than one line was replaced; the old file is {change.kept_path}")


def _mistakes(path: str) -> list[dict[str, object]]:
    try:
        toml_file.load(path)
    except ConfigError as error:
        return [vars(mistake) for mistake in error.mistakes]
    return []


def _described(setting: schema.Setting) -> dict[str, object]:
    described = {name: vars(setting)[name] for name in ("key", "default", "sentence", "applies")}
    kind = {"type": setting.kind.noun, "allowed": setting.kind.allowed}
    return described | kind | {"required": setting.is_required}


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
