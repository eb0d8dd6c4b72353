"""`agentctl change ...` and `confirm`: from an idea to a candidate. The same verbs for the agent and for a person."""

from __future__ import annotations

import os
import sys
import time

import click

from ..core import text
from ..core.errors import AgentctlError, UsageError

NAME = click.argument("change", metavar="[NAME]", default="")


@click.group("change")
def group() -> None:
    """Change the agent's source the safe way; `agentctl protocol` tells how."""


def opened(ctx):
    """Return the agent's changes."""
    from ..changes.service import Changes

    return Changes(ctx.obj.context())


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
        click.echo(text.to_json(document))
    else:
        click.echo("\n".join(text.clean(line) for line in lines))


@group.command()
@click.argument("change", metavar="NAME")
@click.option("--from", "source", default="", metavar="BRANCH", help="Where to depart from (default: agent.branch).")
@click.option("--about", default="", help="What is being attempted, in one sentence.")
@click.pass_context
def start(ctx, change, source, about):
    """Begin the change NAME (feature/... or hotfix/...): a branch in a worktree of its own."""
    changes = opened(ctx)
    row = changes.start(change, source, about)
    say(ctx, row, started(row))


@group.command("list")
@click.option("--all", "is_all", is_flag=True, help="Those that are done, too.")
@click.pass_context
def list_(ctx, is_all):
    """List the changes and where they stand."""
    from ..changes.service import prepare_folder

    changes = opened(ctx)
    if changes.is_direct:
        prepare_folder(changes.context)
    rows = [
        row
        for row in changes.ask("list")["changes"]
        if is_all or row["is_open"] or row["state"] in ("on probation", "unconfirmed")
    ]
    for row in rows:
        if row["is_open"]:
            row["next"] = next_in_words(changes, row["name"])
    if ctx.obj.as_json:
        click.echo(text.to_json(rows))
        return
    click.echo("\n".join(as_table(rows, time.time(), is_all)))


@group.command()
@NAME
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
@click.pass_context
def diff(ctx, change, stat):
    """Show what a change changes against where it departed."""
    changes = opened(ctx)
    row = find(changes, change)
    summary = changes.diff(row, f"--stat={text.WIDTH}")
    patch = "" if stat else changes.diff(row, "--patch")
    if ctx.obj.as_json:
        click.echo(text.to_json({"name": row.name, "stat": summary, "diff": None if stat else patch}))
    elif not summary:
        click.echo("no difference", err=True)
    elif sys.stdout.isatty():
        click.echo_via_pager(text.clean(summary if stat else patch))
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
    say(ctx, row, abandoned(row))


@group.command()
@NAME
@click.option("--staged", is_flag=True, help="What is about to be committed here: syntax and lint (for the hook).")
@click.pass_context
def check(ctx, change, staged):
    """Run the gate on what is committed: syntax, linter, tests."""
    from ..changes import checks

    changes = opened(ctx)

    def tell(part) -> None:
        if not ctx.obj.as_json:
            click.echo("\n".join(part_lines(part.facts())), err=staged)

    found = checks.check_staged(changes, tell) if staged else checks.run(changes, find(changes, change), tell)
    if ctx.obj.as_json:
        click.echo(text.to_json(found))
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
    from ..changes import trial

    changes = opened(ctx)

    def tell(facts: dict) -> None:
        if not ctx.obj.as_json:
            click.echo(progress(facts))

    found = trial.run(changes, find(changes, change), _seconds(duration), tell)
    if ctx.obj.as_json:
        click.echo(text.to_json(found))
    elif found["ok"]:
        click.echo("\n".join(held(found, changes.review_mode)))
    else:
        click.echo("\n".join(f"  | {text.clean(line)}" for line in found["lines"]))
        raise AgentctlError(f"the trial of '{found['name']}' failed: {found['why']}", f"all it printed: {found['log']}")
    ctx.exit(0 if found["ok"] else 1)


def _seconds(duration: str) -> float | None:
    from ..core.text import parse_duration

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
    from ..changes import promote

    changes = opened(ctx)
    row = find(changes, change)
    if reject and not note:
        raise UsageError("a rejection needs a reason", "agentctl change review NAME --reject --note 'why'")
    if not note:
        seen = promote.review_material(changes, row)
        say(ctx, {**seen, "recorded": False}, material(seen))
        return
    row = promote.review(changes, row, note, is_rejected=reject)
    say(ctx, {**row["reviewed"], "name": row["name"], "recorded": True}, reviewed(row, changes.review_mode))


@group.command()
@NAME
@click.option("--note", default="", help="For the record.")
@click.pass_context
def approve(ctx, change, note):
    """Approve exactly what the branch holds now; refused to the agent itself."""
    from ..changes import promote

    changes = opened(ctx)
    row = promote.approve(changes, find(changes, change), note)
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
    from ..changes import promote
    from .agent_verbs import supervisor_pid

    changes = opened(ctx)
    row = promote.run(
        changes,
        find(changes, change),
        force=force,
        confirm_seconds=_seconds(confirm),
        on_failure=on_failure,
        supervisor=supervisor_pid(changes.context),
    )
    if wait and row["outcome"] != "requested":
        row = {**promote.wait_for_verdict(changes, row["name"]), "outcome": "blessed"}
    say(ctx, row, promoted(row))


# -- change text -----------------------------------------------------------------------------------
# Words for people about changes. Pure but for asking what comes next.


def next_in_words(changes, name: str) -> str:
    """Say what comes next for an open change; a repository that cannot be read says so itself."""
    try:
        lack = changes.next_verb(changes.find(name))
    except AgentctlError as error:
        return error.message
    return f"{lack.verb}: {lack.why}"


def started(row: dict) -> list[str]:
    """Tell what was begun and what comes next."""
    what = "taken up: the branch was there" if row["branch_was_there"] else "started"
    lines = [f"change {row['name']} {what}", f"  worktree  {row['worktree']}",
             f"  departs   from {row['base'][:12]} (tag before/{row['name']})",
             f"  snapshot  {row['snapshot'] or 'none'}"]  # fmt: skip
    if row["task"]:
        lines.append(f"  task      not noted there: {row['task']}")
    return [
        *lines,
        "next: edit and commit in the worktree (the running tree stays as it is), then",
        f"      agentctl change check {row['name']}",
    ]


def as_table(rows: list[dict], now: float, is_all: bool) -> list[str]:
    """Return the table for people; what comes next, or why it ended, stands below each."""
    if not rows:
        return ["no open change; agentctl change start feature/NAME begins one" if not is_all else "no change yet"]
    cells = [[row["name"], row["state"], f"generation {row['generation']}" if row["generation"] else "",
              text.ago(row["started_at"], now), row["about"]] for row in rows]  # fmt: skip
    header, *lines = text.table(["change", "state", "as", "started", "about"], cells)
    below = [text.cut(f"  {text.one_line(_note(row))}", text.WIDTH) for row in rows]
    return [header, *(text for pair in zip(lines, below, strict=True) for text in pair if text.strip())]


def _note(row: dict) -> str:
    parts = [row["reason"], f"next: {row['next']}" if row.get("next") else ""]
    return "; ".join(part for part in parts if part)


def abandoned(row: dict) -> list[str]:
    """Tell what stays."""
    lines = [f"change {row['name']} abandoned; the branch stays"]
    if row["worktree_stays"]:
        lines.append(f"its worktree stays too: {row['worktree_stays']}")
    return lines


def part_lines(facts: dict) -> list[str]:
    """Tell how one part of the gate went."""
    took = f" ({text.duration(facts['seconds'])})" if facts["seconds"] >= 0.1 else ""
    lines = text.clean(facts["said"]).splitlines() or [""]
    if facts["ok"]:
        return [text.cut(f"  ok      {facts['name']}{took}: {lines[-1]}", text.WIDTH)]
    return [f"  FAILED  {facts['name']}{took}:", *(f"          {line}" for line in lines)]


def progress(facts: dict) -> str:
    """Tell what the candidate does."""
    if "lacks" in facts:
        return f"  not closed off from the running agent, only led elsewhere: {text.clean(facts['lacks'])}"
    if "ready" in facts:
        return f"  ready after {text.duration(facts['ready'] or 0)}"
    return f"  {text.duration(facts['seconds'] or 0)}: {facts['beats']} heartbeats"


def held(found: dict, review: str) -> list[str]:
    """Tell of a trial that was held to its end."""
    following = "promote" if review == "none" else "review"
    return [
        f"it held for {text.duration(found['seconds'])}, {found['beats']} heartbeats",
        f"all it printed: {found['log']}",
        f"next: agentctl change {following} {found['name']}",
    ]


def material(seen: dict) -> list[str]:
    """Lay out what a reviewer has to see."""
    checked, tried = seen["check"], seen["try"]
    lines = [f"change {seen['name']} at {seen['commit'][:12]}" + (f": {seen['about']}" if seen["about"] else ""), ""]
    lines += seen["diff"].rstrip("\n").split("\n") + ["", *seen["stat"].rstrip("\n").split("\n"), ""]
    lines += [f"check: {part['name']}: {text.one_line(part['said'])[:60]}" for part in checked.get("parts", [])]
    lines += [f"try:   held for {text.duration(tried.get('seconds', 0))}, {tried.get('beats', 0)} heartbeats", ""]
    lines += [f"       not closed off from the running agent: {tried['lacks']}", ""] if tried.get("lacks") else []
    lines += [f"[ ] {question}" for question in seen["checklist"]]
    return [
        *lines,
        "",
        f"next: agentctl change review {seen['name']} --note 'what you looked at, what you think'",
        "      (--reject if it must not be promoted)",
    ]


def reviewed(row: dict, mode: str) -> list[str]:
    """Tell that a review is on record."""
    record = row["reviewed"]
    if not record["ok"]:
        return [f"rejected by {record['by']}: {record['note']}", f"next: mend it in {row['worktree']}"]
    who, verb = ("somebody who is not the agent: ", "approve") if mode == "human" else ("", "promote")
    return [f"reviewed by {record['by']}", f"next: {who}agentctl change {verb} {row['name']}"]


def promoted(row: dict) -> list[str]:
    """Tell how far it is."""
    number = row["generation"]
    if row["outcome"] == "requested":
        return [f"change {row['name']} will be put in place as generation {number}; this agent is restarted for it"]
    if row["outcome"] == "blessed":
        return [f"change {row['name']} is blessed: generation {number} is the last known good now"]
    lines = [f"change {row['name']} is in place as generation {number} (tag v{number}), on probation"]
    wish = row["promotion"]
    if wish.get("confirm_seconds"):
        within = text.duration(wish["confirm_seconds"])
        lines.append(f"it is rolled back unless 'agentctl confirm' comes within {within}")
    return [*lines, "next: agentctl status; agentctl change list"]


# -- confirm ---------------------------------------------------------------------------------------
# `agentctl confirm`: the promoted version is to stay.


@click.command()
@click.pass_context
def confirm(ctx):
    """Lift the deadline of `change promote --confirm-within`: what runs now is to stay."""
    from ..changes.service import Changes

    done = Changes(ctx.obj.context()).ask("confirm")
    if ctx.obj.as_json:
        click.echo(text.to_json(done))
    else:
        click.echo(f"generation {done['generation']} is confirmed; it is good when its probation is over")
