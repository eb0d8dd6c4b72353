"""The click side: a group whose verbs are imported when called, and global options in any place.

`--name` and `--json` are understood before and after the verb. click's own errors become ours, so
that one door speaks. Refuses to import a verb for the sake of help.
"""

from __future__ import annotations

import difflib
import importlib

import click

from ..core.errors import AgentctlError, UsageError
from .invocation import Invocation
from .verbs import BY_NAME, TABLE


class LazyGroup(click.Group):
    """A group that knows its verbs by the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs as the table has them."""
        return [verb.name for verb in TABLE]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one verb."""
        verb = BY_NAME.get(name)
        if verb is None:
            return None
        command = getattr(importlib.import_module(verb.module), verb.object)
        return with_global_options(command)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """Find the verb; name the nearest one where there is none."""
        if args and args[0] not in BY_NAME and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], BY_NAME, 1)
            hint = f"did you mean 'agentctl {near[0]}'?" if near else "agentctl --help lists the verbs"
            raise UsageError(f"there is no verb '{args[0]}'", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs under their headings, from the table alone."""
        for section in dict.fromkeys(verb.section for verb in TABLE):
            with formatter.section(section):
                rows = [(verb.name, verb.help) for verb in TABLE if verb.section == section]
                formatter.write_dl(rows, col_max=16)


def run(words: list[str]) -> int:
    """Run a verb by click; return the exit status."""
    try:
        answer = root.main(words or ["--help"], "agentctl", standalone_mode=False, obj=Invocation())
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        raise _as_ours(error) from None
    except click.ClickException as error:
        raise AgentctlError(error.format_message()) from None
    return answer if isinstance(answer, int) and not isinstance(answer, bool) else 0


def with_global_options(command: click.Command) -> click.Command:
    """Let a verb, and what is below it, take `--name` and `--json`, unless it has its own."""
    taken = {text for param in command.params for text in param.opts}
    for option in _global_options():
        if option.opts[0] not in taken:
            command.params.append(option)
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        with_global_options(below)
    return command


def _global_options() -> list[click.Option]:
    name = click.Option(
        ["--name"],
        metavar="NAME",
        expose_value=False,
        callback=_keep_name,
        help="Which agent (default: $AGENT_NAME, or 'agent').",
    )
    as_json = click.Option(["--json"], is_flag=True, expose_value=False, callback=_keep_json, help="Print JSON.")
    return [name, as_json]


def _keep_name(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj.name = value


def _keep_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.obj.as_json = True


def _as_ours(error: click.UsageError) -> UsageError:
    path = error.ctx.command_path if error.ctx else "agentctl"
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help text
        names = ", ".join(error.ctx.command.list_commands(error.ctx))
        return UsageError(f"{path}: what of it? ({names})", f"{path} --help")
    return UsageError(error.format_message(), f"{path} --help shows what it takes")


@click.command("agentctl", cls=LazyGroup, epilog="agentctl VERB --help tells more about a verb.")
def root() -> None:
    """Keep a self-modifying agent alive: silence means rollback, survival needs proof."""


root.params.extend(_global_options())
