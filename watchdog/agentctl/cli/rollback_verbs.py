"""`agentctl rollback`, `bless`, `condemn`, `pin`, `unpin`, `pause`, `resume`: what a human decides."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from ..core.errors import AgentctlError, UsageError
from ..ledger import writers
from ..ledger.database import Ledger
from ..ledger.models import Generation

if TYPE_CHECKING:
    from ..generations.agent_context import AgentContext
    from ..recovery.requests import RollbackPlan

RECOVERY_WAIT_SECONDS = 120.0


@click.command()
@click.argument("target", default="")
@click.option("--dry-run", is_flag=True, help="Print the plan and the losses, do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def rollback(ctx, target, dry_run, yes, reason, as_json):
    """Go back to a good generation (default: the last good one that does not run); `undo` returns to before."""
    context = ctx.obj.context()
    as_json = as_json or ctx.obj.as_json
    with context.ledger() as ledger:
        verb = "undo" if target == "undo" else "rollback"
        number = "" if verb == "undo" else _check_target(ledger, target)
        shown, in_words = _plan(context, ledger, verb, number)
        if dry_run:
            click.echo(json.dumps(shown) if as_json else in_words)
            return
        if not (yes or as_json) and sys.stdin.isatty():
            click.echo(in_words)
            click.confirm("Go on?", abort=True)
        _carry_out(ctx, context, ledger, verb, number, reason, as_json)


def _plan(context: AgentContext, ledger: Ledger, verb: str, number: str) -> tuple[dict[str, object], str]:
    """Return what would be done, as JSON shows it and in words."""
    from ..recovery import requests
    from ..recovery.execution import undo_source

    if verb == "undo":
        undone = undo_source(ledger)
        told = f"would undo incident {undone.id}: generation {undone.generation_to} -> {undone.generation_from}, "
        told += "its tree and state as they were; it is on trial again"
        return {"undo": undone.id, "to": undone.generation_from, "from": undone.generation_to}, told
    plan = requests.plan(context, ledger, number)
    return plan.to_json(), _describe(plan)


def _carry_out(ctx, context, ledger: Ledger, verb: str, number: str, reason: str, as_json: bool) -> None:
    from ..recovery import requests
    from .agent_verbs import supervisor_pid

    asked = requests.submit(ledger, verb, number, reason)
    supervisor = supervisor_pid(context)
    requests.trigger(context, supervisor)
    incident = requests.wait_until_taken(ledger, asked, lambda: requests.trigger(context, supervisor_pid(context)))
    if incident == "nothing-to-do":
        raise AgentctlError("nothing was done: there is no other good generation", "agentctl generations")
    requests.wait_until_switched(ledger, incident)
    from ..runtime import systemd

    runs = bool(supervisor) or systemd.has_unit(context.paths)
    outcome = requests.wait_until_over(ledger, incident, RECOVERY_WAIT_SECONDS) if runs else ""
    if as_json:
        click.echo(json.dumps({"incident": incident, "outcome": outcome or None}))
    elif outcome:
        click.echo(f"incident {incident}: {outcome}")
    else:
        click.echo(f"incident {incident}: the tree is switched; the agent's first heartbeat is still to come")
    if outcome not in ("recovered", ""):
        ctx.exit(1)


def _check_target(ledger: Ledger, target: str) -> str:
    if not target:
        return ""
    if not target.isdigit():
        raise UsageError(f"'{target}' is no generation", "a number of 'agentctl generations', or undo")
    row = ledger.generation(int(target))
    if row is None:
        raise AgentctlError(f"there is no generation {target}", "agentctl generations")
    if row.status != "good":
        good = [str(g.number) for g in ledger.generations() if g.status == "good"]
        raise AgentctlError(
            f"cannot roll back to generation {target}: it is {row.status}, not good",
            f"good are: {', '.join(good)}; 'agentctl bless {target}' if it is good after all",
        )
    if row.is_pruned:
        raise AgentctlError(f"cannot roll back to generation {target}: it was pruned", "agentctl generations")
    return target


def _describe(plan: RollbackPlan) -> str:
    lines = [
        f"would go from generation {plan.source} to {plan.to} (commit {plan.commit[:12]}):",
        f"  {plan.branch} moves from {plan.head[:12] or '?'} to {plan.commit[:12]}",
        (
            f"  state: {', '.join(plan.restores) or 'nothing'} back to snapshot {plan.snapshot}; "
            f"{', '.join(plan.keeps)} stays"
        ),
        "  standby is ready" if plan.standby_ready else "  the tree has to be laid out first",
    ]
    lines.append("what leaves the running tree (kept on rescue/... and in quarantine):")
    lines += [f"  commit {c}" for c in plan.commits_undone] or ["  no commits"]
    lines += [f"  uncommitted {n}" for n in plan.uncommitted[:20]]
    return "\n".join(lines)


def _judge(ctx, number: int, status: str, reason: str):
    context = ctx.obj.context()
    with context.ledger() as ledger:
        row = ledger.generation(number)
        if row is None:
            raise AgentctlError(f"there is no generation {number}", "agentctl generations")
        if status == "good":
            from ..runner import jobs

            jobs.make_good(context, ledger, number, reason or "blessed by hand")
            ledger.set_meta("halted", None)
        else:
            _condemn(context, ledger, row, reason or "condemned by hand")
    click.echo(f"generation {number} is {status}")


def _condemn(context, ledger: Ledger, row: Generation, reason: str) -> None:
    others = [g for g in ledger.generations() if g.status == "good" and g.number != row.number and not g.is_pruned]
    if row.is_golden:
        raise AgentctlError(f"generation {row.number} is golden", "agentctl unpin first")
    if row.status == "good" and not others:
        raise AgentctlError(
            f"generation {row.number} is the only good one; nothing would be left to go back to",
            "bless another one first",
        )
    if not row.is_pruned:
        context.vault.update({f"refs/agentctl/condemned/{row.number}": row.vault_commit})
    with ledger.transaction():
        writers.condemn(ledger, row.number, at=time.time(), reason=reason)
        ledger.event("condemn", f"generation {row.number}: {reason}")


@click.command()
@click.argument("number", type=int)
@click.option("--reason", default="")
@click.pass_context
def bless(ctx, number, reason):
    """Call a generation good by hand; lifts a condemnation and a halt."""
    _judge(ctx, number, "good", reason)


@click.command()
@click.argument("number", type=int)
@click.option("--reason", default="")
@click.pass_context
def condemn(ctx, number, reason):
    """Call a generation bad by hand; its tree is not launched again."""
    _judge(ctx, number, "condemned", reason)


@click.command()
@click.argument("number", type=int)
@click.pass_context
def pin(ctx, number):
    """Make a good generation golden: automation never goes below it and never prunes it."""
    context = ctx.obj.context()
    with context.ledger() as ledger:
        _check_target(ledger, str(number))
        context.vault.update({"refs/agentctl/golden": ledger.generation(number).vault_commit})
        with ledger.transaction():
            writers.set_golden(ledger, number)
            ledger.event("pin", f"generation {number} is golden")
    click.echo(f"generation {number} is golden")


@click.command()
@click.pass_context
def unpin(ctx):
    """No generation is golden any more."""
    context = ctx.obj.context()
    with context.ledger() as ledger:
        if "refs/agentctl/golden" in context.vault.refs("refs/agentctl/golden"):
            context.vault.update({"refs/agentctl/golden": None})
        with ledger.transaction():
            writers.set_golden(ledger, None)
            ledger.event("unpin", "no generation is golden")
    click.echo("no generation is golden")


@click.command()
@click.option("--for", "duration", default="", help="How long (default: until resume).")
@click.pass_context
def pause(ctx, duration):
    """Watch but do not act, for maintenance; it has an end."""
    from ..core.text import parse_duration

    try:
        seconds = parse_duration(duration) if duration else 365 * 86400.0
    except ValueError as error:
        raise UsageError(f"--for {duration}: {error}", "write it as 30m, 1h or 2d") from None
    with ctx.obj.context().ledger() as ledger, ledger.transaction():
        ledger.set_meta("paused_until", str(time.time() + seconds))
        ledger.event("pause", duration or "until resume")
    click.echo(f"paused {'for ' + duration if duration else 'until agentctl resume'}")


@click.command()
@click.pass_context
def resume(ctx):
    """End a pause or a halt; start a halted agent with 'agentctl start' after it."""
    with ctx.obj.context().ledger() as ledger:
        halted, paused = ledger.meta("halted"), ledger.meta("paused_until")
        last = ledger.last_launch()
        with ledger.transaction():
            ledger.set_meta("halted", None)
            ledger.set_meta("paused_until", None)
            ledger.set_meta("limits_reset_at", str(time.time()))
            if halted and last is not None:
                writers.excuse_launch(ledger, last.id, last.generation)
            ledger.event("resume", halted or "")
    was = "halted" if halted else "paused" if paused and float(paused) > time.time() else ""
    click.echo(f"resumed; it was {was}" if was else "it was neither paused nor halted")
