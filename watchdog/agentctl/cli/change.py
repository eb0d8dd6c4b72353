"""`agentctl change ...`: from an idea to a candidate. The same verbs for the agent and for a person."""

from __future__ import annotations

import os
import sys
import time

import click

from .. import wording as format
from ..errors import AgentctlError, UsageError
from . import change_text

NAME = click.argument("change", metavar="[NAME]", default="")


@click.group("change")
def group() -> None:
    """Change the agent's source the safe way; `agentctl protocol` tells how."""


def opened(ctx):
    """Return the agent's changes."""
    from ..workflow.changes import Changes

    return Changes(ctx.obj.station())


def find(changes, name: str) -> dict:
    """Return the change that is meant: by name, by where the caller stands, or the only open one."""
    try:
        folder = os.getcwd()
    except OSError:
        folder = ""
    return changes.find(name, folder)


def say(ctx, document: dict, lines: list[str]) -> None:
    """Print what came of it, in the form that was asked for."""
    if ctx.obj.as_json:
        click.echo(format.to_json(document))
    else:
        click.echo("\n".join(format.clean(line) for line in lines))


@group.command()
@click.argument("change", metavar="NAME")
@click.option("--from", "source", default="", metavar="BRANCH", help="Where to depart from (default: agent.branch).")
@click.option("--about", default="", help="What is being attempted, in one sentence.")
@click.pass_context
def start(ctx, change, source, about):
    """Begin the change NAME (feature/... or hotfix/...): a branch in a worktree of its own."""
    changes = opened(ctx)
    row = changes.start(change, source, about)
    say(ctx, row, change_text.started(row))


@group.command("list")
@click.option("--all", "is_all", is_flag=True, help="Those that are done, too.")
@click.pass_context
def list_(ctx, is_all):
    """List the changes and where they stand."""
    from ..workflow.changes import prepare_folder

    changes = opened(ctx)
    if changes.is_direct:
        prepare_folder(changes.station)
    rows = [
        row
        for row in changes.ask("list")["changes"]
        if is_all or row["is_open"] or row["state"] in ("on probation", "unconfirmed")
    ]
    for row in rows:
        if row["is_open"]:
            row["next"] = change_text.next_in_words(changes, row["name"])
    if ctx.obj.as_json:
        click.echo(format.to_json(rows))
        return
    click.echo("\n".join(change_text.as_table(rows, time.time(), is_all)))


@group.command()
@NAME
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
@click.pass_context
def diff(ctx, change, stat):
    """Show what a change changes against where it departed."""
    changes = opened(ctx)
    row = find(changes, change)
    summary = changes.diff(row, f"--stat={format.WIDTH}")
    patch = "" if stat else changes.diff(row, "--patch")
    if ctx.obj.as_json:
        click.echo(format.to_json({"name": row["name"], "stat": summary, "diff": None if stat else patch}))
    elif not summary:
        click.echo("no difference", err=True)
    elif sys.stdout.isatty():
        click.echo_via_pager(format.clean(summary if stat else patch))
    else:
        click.echo(summary if stat else patch, nl=False)


@group.command()
@NAME
@click.option("--reason", default="", help="Why, for whoever tries it again.")
@click.pass_context
def abandon(ctx, change, reason):
    """Give a change up; its branch and the reason are kept."""
    changes = opened(ctx)
    row = changes.abandon(find(changes, change), reason)
    say(ctx, row, change_text.abandoned(row))


@group.command()
@NAME
@click.option("--staged", is_flag=True, help="What is about to be committed here: syntax and lint (for the hook).")
@click.pass_context
def check(ctx, change, staged):
    """Run the gate on what is committed: syntax, linter, tests."""
    from ..workflow import check as gate

    changes = opened(ctx)

    def tell(part) -> None:
        if not ctx.obj.as_json:
            click.echo("\n".join(change_text.part(part.facts())), err=staged)

    found = gate.check_staged(changes, tell) if staged else gate.run(changes, find(changes, change), tell)
    if ctx.obj.as_json:
        click.echo(format.to_json(found))
    elif found["ok"]:
        click.echo("passed" if staged else f"passed\nnext: agentctl change try {found['name']}", err=staged)
    else:
        bad = next(part for part in found["parts"] if not part["ok"])
        raise AgentctlError(f"the check failed at {bad['name']}", bad["hint"] or "correct it, commit, check again")
    ctx.exit(0 if found["ok"] else 1)


@group.command("try")
@NAME
@click.option("--for", "duration", default="", metavar="TIME", help="How long to watch it beat (change.try_for).")
@click.pass_context
def try_(ctx, change, duration):
    """Run the candidate for real, apart from the running agent and with a copy of its state."""
    from ..workflow import trying

    changes = opened(ctx)

    def tell(facts: dict) -> None:
        if not ctx.obj.as_json:
            click.echo(change_text.progress(facts))

    found = trying.run(changes, find(changes, change), _seconds(duration), tell)
    if ctx.obj.as_json:
        click.echo(format.to_json(found))
    elif found["ok"]:
        click.echo("\n".join(change_text.held(found, changes.review_mode)))
    else:
        click.echo("\n".join(f"  | {format.clean(line)}" for line in found["lines"]))
        raise AgentctlError(f"the trial of '{found['name']}' failed: {found['why']}", f"all it printed: {found['log']}")
    ctx.exit(0 if found["ok"] else 1)


def _seconds(duration: str) -> float | None:
    from ..durations import parse_duration

    try:
        return parse_duration(duration) if duration else None
    except ValueError as error:
        raise UsageError(f"'{duration}' is no time: {error}", "write it as 30s, 10m or 1h") from None


@group.command()
@NAME
@click.option("--note", default="", help="What you looked at and what you think; records the review.")
@click.option("--reject", is_flag=True, help="It must not be promoted as it is (with --note).")
@click.pass_context
def review(ctx, change, note, reject):
    """Show the difference, what check and trial said, the checklist; with --note, record the review."""
    from ..workflow import promoting

    changes = opened(ctx)
    row = find(changes, change)
    if reject and not note:
        raise UsageError("a rejection needs a reason", "agentctl change review NAME --reject --note 'why'")
    if not note:
        seen = promoting.review_material(changes, row)
        say(ctx, {**seen, "recorded": False}, change_text.material(seen))
        return
    row = promoting.review(changes, row, note, is_rejected=reject)
    say(ctx, {**row["reviewed"], "name": row["name"], "recorded": True}, change_text.reviewed(row, changes.review_mode))


@group.command()
@NAME
@click.option("--note", default="", help="For the record.")
@click.pass_context
def approve(ctx, change, note):
    """Approve exactly what the branch holds now; refused to the agent itself."""
    from ..workflow import promoting

    changes = opened(ctx)
    row = promoting.approve(changes, find(changes, change), note)
    record = row["approved"]
    say(
        ctx,
        {**record, "name": row["name"]},
        [f"{record['commit'][:12]} approved by {record['by']}", f"next: agentctl change promote {row['name']}"],
    )


@group.command()
@NAME
@click.option("--force", is_flag=True, help="Even if this very tree was condemned before; it is put on record.")
@click.option(
    "--confirm-within", "confirm", default="", metavar="TIME", help="Roll back unless `agentctl confirm` comes in time."
)
@click.option(
    "--on-failure",
    type=click.Choice(["rollback", "freeze", "page"]),
    default="rollback",
    help="What follows if it does not hold.",
)
@click.option("--wait", is_flag=True, help="Wait until it is blessed or rolled back.")
@click.pass_context
def promote(ctx, change, force, confirm, on_failure, wait):
    """Merge into the agent's branch, put the new version in place, begin its probation."""
    from ..workflow import promoting
    from .control import supervisor_pid

    changes = opened(ctx)
    row = promoting.run(
        changes,
        find(changes, change),
        force=force,
        confirm_seconds=_seconds(confirm),
        on_failure=on_failure,
        supervisor=supervisor_pid(changes.station),
    )
    if wait and row["outcome"] != "requested":
        row = {**promoting.wait_for_verdict(changes, row["name"]), "outcome": "blessed"}
    say(ctx, row, change_text.promoted(row))
