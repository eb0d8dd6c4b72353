"""`agentctl change ...` and `confirm`: from an idea to a candidate. The same verbs for the agent and for a person."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from ..changes import checks, rules, trial
from ..changes import promote as promotions
from ..changes.service import Changes, prepare_folder
from ..core import text
from ..core.errors import AgentctlError, UsageError
from .agent_verbs import supervisor_pid
from .change_text import (
    ShownChange,
    abandoned,
    as_table,
    held,
    material,
    obstacles,
    part_lines,
    progress,
    promoted,
    reviewed,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from ..ledger.models import ChangeRecord

    FC = TypeVar("FC", bound=Callable[..., object])

NAME = click.argument("change", metavar="[NAME]", default="")


@click.group("change")
def group() -> None:
    """Change the agent's source the safe way; `agentctl protocol` tells how."""


def opened(ctx: click.Context) -> Changes:
    """Return the agent's changes."""
    return Changes(ctx.obj.context())


def find(changes: Changes, name: str) -> ChangeRecord:
    """Return the change that is meant: by name, by where the caller stands, or the only open one."""
    try:
        folder = os.getcwd()
    except OSError:
        folder = ""
    return changes.find(name, folder)


def say(ctx: click.Context, document: Mapping[str, object], lines: list[str]) -> None:
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
    say(ctx, row, started(row, changes.typist))


@group.command("list")
@click.option("--all", "is_all", is_flag=True, help="Those that are done, too.")
@click.pass_context
def list_(ctx, is_all):
    """List the changes and where they stand."""
    changes = opened(ctx)
    if changes.is_direct:
        prepare_folder(changes.context)
    rows = [
        ShownChange.of(row.to_dict() | next_of(changes, row))
        for row in changes.list_all()
        if is_all or row.is_open or row.state in ("on probation", "unconfirmed")
    ]
    if ctx.obj.as_json:
        click.echo(text.to_json([row.to_dict() for row in rows]))
        return
    click.echo("\n".join(as_table(rows, time.time(), is_all)))


def next_of(changes: Changes, row: rules.Listed) -> dict[str, str]:
    """Say what comes next for an open change; a repository that cannot be read says so itself."""
    if not row.is_open:
        return {}
    try:
        lack = changes.next_verb(changes.find(row.name))
    except AgentctlError as error:
        return {"next": error.message, "next_command": error.hint}
    return {"next": f"{lack.verb}: {lack.why}", "next_command": lack.command}


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
    changes = opened(ctx)
    if staged:
        found = checks.check_staged(changes, _part_teller(ctx, is_hook=True))
        _tell_check(ctx, found, [], is_hook=True)
    else:
        found = checks.run(changes, find(changes, change), _part_teller(ctx))
        following = changes.typist.ctl(f"change try {found['name']}")
        _tell_check(ctx, found, [*obstacles(found["obstacles"]), f"next: {following}"])
    ctx.exit(0 if found["ok"] else 1)


def _part_teller(ctx: click.Context, *, is_hook: bool = False) -> Callable[[checks.CheckPart], None]:
    def tell(part: checks.CheckPart) -> None:
        if not ctx.obj.as_json:
            click.echo("\n".join(part_lines(part.facts())), err=is_hook)

    return tell


def _tell_check(ctx: click.Context, found: dict[str, Any], following: list[str], *, is_hook: bool = False) -> None:
    if ctx.obj.as_json:
        click.echo(text.to_json(found))
    elif found["ok"]:
        click.echo("\n".join(["passed", *following]), err=is_hook)
    else:
        _refuse_check(found)


@group.command("try")
@NAME
@click.option("--for", "duration", default="", metavar="TIME", help="How long to watch it beat (change.try_for).")
@click.pass_context
def try_(ctx, change, duration):
    """Run the candidate for real, apart from the running agent and with a copy of its state."""
    changes = opened(ctx)
    found = _hold_trial(ctx, changes, find(changes, change), duration)
    if ctx.obj.as_json:
        click.echo(text.to_json(found))
    elif found["ok"]:
        click.echo("\n".join(held(found, changes.review_mode, changes.typist)))
    else:
        _refuse_trial(found)
    ctx.exit(0 if found["ok"] else 1)


def _hold_trial(ctx: click.Context, changes: Changes, row: ChangeRecord, duration: str) -> dict[str, Any]:
    """Hold a trial and show how it goes: on a terminal in one line that changes, where Ctrl-C is asked about once."""
    shown = _TrialLine(is_quiet=ctx.obj.as_json)
    ask = shown.interrupted if sys.stdin.isatty() and sys.stderr.isatty() else None
    try:
        return trial.run(changes, row, _seconds(duration), shown.tell, ask)
    finally:
        shown.end()


def _seconds(duration: str) -> float | None:
    try:
        return text.parse_duration(duration) if duration else None
    except ValueError as error:
        raise UsageError(f"'{duration}' is no time: {error}", "write it as 30s, 10m or 1h") from None


class _TrialLine:
    """How a trial goes: on a terminal one line that changes, elsewhere a line for each thing that happens."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.is_quiet, self.is_live = is_quiet, sys.stdout.isatty() and not is_quiet
        self.began, self.is_open, self.warning = time.monotonic(), False, ""
        if self.is_live:
            self._show("starting")

    def tell(self, facts: dict[str, Any]) -> None:
        """Show what the candidate does."""
        if self.is_quiet:
            return
        if "lacks" in facts or not self.is_live:
            self.end()
            click.echo(progress(facts))
        else:
            self._show(progress(facts).strip())

    def interrupted(self, *, is_last: bool) -> None:
        """Say what a second Ctrl-C does, or that this was the second."""
        self.warning = "ending the trial" if is_last else "Ctrl-C again ends the trial"
        if self.is_live:
            self._show(f"{text.duration(time.monotonic() - self.began)} so far")
        else:
            click.echo(self.warning, err=True)

    def _show(self, told: str) -> None:
        line = "  " + (f"{told} ({self.warning})" if self.warning else told)
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r{text.cut(line, width)}\x1b[K")
        sys.stdout.flush()
        self.is_open = True

    def end(self) -> None:
        """Let what is there stand, and begin a new line."""
        if self.is_open:
            click.echo()
        self.is_open = False


def _refuse_check(found: dict[str, Any]) -> None:
    """Raise AgentctlError with what the gate found."""
    bad = next(part for part in found["parts"] if not part["ok"])
    raise AgentctlError(f"the check failed at {bad['name']}", bad["hint"] or "correct it, commit, check again")


def _refuse_trial(found: dict[str, Any]) -> None:
    """Show the candidate's last lines and raise AgentctlError with why it did not hold."""
    click.echo("\n".join(f"  | {text.clean(line)}" for line in found["lines"]))
    raise AgentctlError(f"the trial of '{found['name']}' failed: {found['why']}", f"all it printed: {found['log']}")


@group.command()
@NAME
@click.option("--note", default="", help="What you looked at and what you think; records the review.")
@click.option("--reject", is_flag=True, help="It must not be promoted as it is (with --note).")
@click.pass_context
def review(ctx, change, note, reject):
    """Show the difference, what check and trial said, the checklist; with --note, record the review."""
    changes = opened(ctx)
    row = find(changes, change)
    if reject and not note:
        raise UsageError("a rejection needs a reason", "agentctl change review NAME --reject --note 'why'")
    if not note:
        seen = promotions.review_material(changes, row)
        say(ctx, {**seen, "recorded": False}, material(seen, changes.typist))
        return
    kept = promotions.review(changes, row, note, is_rejected=reject)
    say(
        ctx,
        {**kept["reviewed"], "name": row.name, "recorded": True},
        reviewed(kept, changes.review_mode, changes.typist),
    )


@group.command()
@NAME
@click.option("--note", default="", help="For the record.")
@click.pass_context
def approve(ctx, change, note):
    """Approve exactly what the branch holds now; refused to the agent itself."""
    changes = opened(ctx)
    row = promotions.approve(changes, find(changes, change), note)
    record, name = row["approved"], row["name"]
    following = changes.typist.ctl(f"change promote {name}")
    say(
        ctx,
        {**record, "name": name},
        [f"{record['commit'][:12]} approved by {record['by']}", f"next: {following}"],
    )


def promoting(command: FC) -> FC:
    """Give a verb the options of a promotion."""
    options = (
        click.option("--force", is_flag=True, help="Even if this very tree was condemned before; put on record."),
        click.option(
            "--confirm-within",
            "confirm",
            default="",
            metavar="TIME",
            help="Roll back unless `agentctl confirm` comes in time.",
        ),
        click.option(
            "--on-failure",
            type=click.Choice(["rollback", "freeze", "page"]),
            default="rollback",
            help="What follows if it does not hold.",
        ),
        click.option("--wait", is_flag=True, help="Wait until it is blessed or rolled back."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@group.command()
@NAME
@promoting
@click.pass_context
def promote(ctx: click.Context, /, change: str, **wish: Any) -> None:
    """Merge into the agent's branch, put the new version in place, begin its probation."""
    changes = opened(ctx)
    row = _promote(changes, find(changes, change), **wish)
    say(ctx, row, promoted(row, changes.typist))


def _promote(
    changes: Changes, row: ChangeRecord, *, force: bool, confirm: str, on_failure: str, wait: bool
) -> dict[str, Any]:
    done = promotions.run(
        changes,
        row,
        force=force,
        confirm_seconds=_seconds(confirm),
        on_failure=on_failure,
        supervisor=supervisor_pid(changes.context),
    )
    if wait and done["outcome"] != "requested":
        done = {**promotions.wait_for_verdict(changes, row.name), "outcome": "blessed"}
    return done


@group.command()
@NAME
@click.option("--note", default="", help="Your review in words, where one is wanted.")
@click.option("--for", "duration", default="", metavar="TIME", help="How long to watch it beat (change.try_for).")
@promoting
@click.pass_context
def go(ctx: click.Context, /, change: str, note: str, duration: str, **wish: Any) -> None:
    """Do all that is still to do: check, try, review as `change.review` wants it, promote.

    It stops at the first thing that is missing, and says what and the command that helps. To call it is to say that
    you have looked at the difference; --note says what you think. Where a person has to approve, it stops there.
    """
    changes = opened(ctx)
    row, done = find(changes, change), []
    _seconds(wish["confirm"])  # a wrong one is told before the work
    while (lack := changes.next_verb(row, is_forced=wish["force"])).verb != "promote" and not _is_asked_for(row, lack):
        if lack.verb not in ("check", "try", "review") or lack.verb in done or _is_rejected(lack):
            raise AgentctlError(f"change '{row.name}' stops before {lack.verb}: {lack.why}", lack.command)
        if not ctx.obj.as_json:
            click.echo(f"{lack.verb}:")
        _do(ctx, changes, row, lack.verb, note, duration)
        done.append(lack.verb)
        row = changes.find(row.name)
    if not ctx.obj.as_json:
        click.echo("promote:")
    told = _promote(changes, row, **wish)
    say(ctx, {**told, "did": [*done, "promote"]}, promoted(told, changes.typist))


def _do(ctx: click.Context, changes: Changes, row: ChangeRecord, verb: str, note: str, duration: str) -> None:
    """Do one verb of `go`; raise AgentctlError where it finds something."""
    if verb == "check":
        found = checks.run(changes, row, _part_teller(ctx))
        if not found["ok"]:
            _refuse_check(found)
    elif verb == "try":
        found = _hold_trial(ctx, changes, row, duration)
        if not found["ok"]:
            _refuse_trial(found)
    else:
        kept = promotions.review(changes, row, note or "by 'change go', without a note", is_rejected=False)
        if not ctx.obj.as_json:
            click.echo(f"  reviewed by {kept['reviewed']['by']}")
            return
    if verb == "try" and not ctx.obj.as_json:
        click.echo(f"  held for {text.duration(found['seconds'])}, {found['beats']} heartbeats")


def _is_asked_for(row: ChangeRecord, lack: rules.Missing) -> bool:
    """Tell whether its own promotion is under way: the same command again goes on."""
    return lack.verb == "wait" and row.status == "promoting"


def _is_rejected(lack: rules.Missing) -> bool:
    """Tell whether somebody has rejected it: nobody's `go` overrules that."""
    return lack.verb == "review" and lack.why.startswith("the review failed")


# -- confirm ---------------------------------------------------------------------------------------
# `agentctl confirm`: the promoted version is to stay.


@click.command()
@click.pass_context
def confirm(ctx):
    """Lift the deadline of `change promote --confirm-within`: what runs now is to stay."""
    done = Changes(ctx.obj.context()).ask("confirm")
    if ctx.obj.as_json:
        click.echo(text.to_json(done))
    else:
        click.echo(f"generation {done['generation']} is confirmed; it is good when its probation is over")
