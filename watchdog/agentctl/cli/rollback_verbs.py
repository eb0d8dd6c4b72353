"""`agentctl rollback`, `bless`, `condemn`, `pin`, `unpin`, `pause`, `resume`: what a human decides."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from ..core.errors import AgentctlError, UsageError
from ..core.record import Record
from ..ledger import incidents, writers
from ..ledger.database import Ledger
from ..ledger.models import BY_HAND, NO_MOVES, Generation

if TYPE_CHECKING:
    from ..generations.agent_context import AgentContext
    from ..recovery.requests import RollbackPlan

RECOVERY_WAIT_SECONDS = 120.0
SETTLED_SECONDS = 10.0  # what goes into its trial again has to beat for that long before we say that it holds
LOOK_SECONDS = 0.1


@click.command()
@click.argument("target", default="")
@click.option("--dry-run", is_flag=True, help="Print the plan and the losses, do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; wanted where there is no terminal.")
@click.option("--force", is_flag=True, help="With undo: even into a generation that is condemned.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def rollback(ctx, target, dry_run, yes, force, reason, as_json):
    """Go back to a good generation (default: the last good one that does not run); `undo` returns to before.

    Exit status 1 if it did not hold: something else was put in place meanwhile, or the agent is halted.
    """
    as_json = as_json or ctx.obj.as_json
    verb = "undo" if target == "undo" else "rollback"
    if force and verb != "undo":
        raise UsageError("--force is for undo", f"agentctl bless {target or 'N'} makes a generation good")
    is_asking = not (yes or dry_run)
    if is_asking and (as_json or not sys.stdin.isatty()):
        why = "--json leaves no room for a question" if as_json else "there is no terminal"
        words = f"agentctl rollback {target + ' ' if target else ''}"
        raise UsageError(
            f"cannot ask whether to go on with the {verb}: {why}",
            f"{words}--yes does it; {words}--dry-run shows what it would do",
        )
    context = ctx.obj.context()
    with context.ledger() as ledger:
        number = "" if verb == "undo" else _check_target(ledger, target)
        plan = _plan(context, ledger, verb, number)
        if dry_run:
            click.echo(json.dumps(plan.document) if as_json else plan.in_words)
            return
        if verb == "undo":
            _check_undo(ledger, plan, is_forced=force)
        if is_asking:
            click.echo(plan.in_words)
            click.confirm("Go on?", abort=True)
        _carry_out(ctx, context, ledger, verb, number, reason, as_json)


class ManualPlan(Record):
    """What a rollback or an undo would do: from where to where, as JSON shows it, and in words."""

    source: int | None
    target: int | None
    document: dict[str, object]
    in_words: str


def _plan(context: AgentContext, ledger: Ledger, verb: str, number: str) -> ManualPlan:
    from ..recovery import requests
    from ..recovery.execution import undo_source

    if verb == "undo":
        undone = undo_source(ledger)
        source, target = undone.generation_to, undone.generation_from
        told = f"would undo incident {undone.id}: generation {source} -> {target}, "
        told += "its tree and state as they were; it is on trial again"
        shown: dict[str, object] = {"undo": undone.id, "to": target, "from": source}
        return ManualPlan(source=source, target=target, document=shown, in_words=told)
    plan = requests.plan(context, ledger, number)
    return ManualPlan(source=plan.source, target=plan.to, document=plan.to_json(), in_words=_describe(plan))


def _check_undo(ledger: Ledger, plan: ManualPlan, *, is_forced: bool) -> None:
    """Refuse to go into what was found to be bad, unless that is what is wanted."""
    row = ledger.generation(plan.target)
    if row is None or row.status != "condemned" or is_forced:
        return
    raise AgentctlError(
        f"cannot undo: that goes from generation {plan.source} to generation {plan.target}, which is condemned: "
        f"{row.reason}",
        f"agentctl rollback undo --force tries it again; agentctl bless {plan.target} if it is good after all",
    )


def _carry_out(ctx, context, ledger: Ledger, verb: str, number: str, reason: str, as_json: bool) -> None:
    from ..recovery import requests
    from .agent_verbs import supervisor_pid

    asked = requests.submit(ledger, verb, number, reason)
    supervisor = supervisor_pid(context)
    requests.trigger(context, supervisor)
    incident = requests.wait_until_taken(ledger, asked, lambda: requests.trigger(context, supervisor_pid(context)))
    if incident == "nothing-to-do":
        raise AgentctlError(f"nothing was done: {_why_nothing(context, ledger, verb)}", "agentctl generations")
    requests.wait_until_switched(ledger, incident)
    from ..runtime import systemd

    runs = bool(supervisor) or systemd.has_unit(context.paths)
    outcome = requests.wait_until_over(ledger, incident, RECOVERY_WAIT_SECONDS) if runs else ""
    found = Standing.of_incident(ledger, incident)
    why = find_why_not(ledger, incident, outcome, context.config.probation.duration if runs else 0.0)
    way = f"generation {'?' if found.source is None else found.source} -> {found.target}"
    if as_json:
        told = {"incident": incident, "outcome": outcome or None, "from": found.source, "to": found.target}
        click.echo(json.dumps({**told, "held": not why if outcome else None, "why": why}))
        ctx.exit(1 if why else 0)
    if why:
        raise AgentctlError(f"incident {incident}: {way} did not hold: {why}", f"agentctl why {incident}")
    if outcome:
        as_it_was = "" if found.running == found.target else f", as it was: it runs as generation {found.running}"
        click.echo(f"incident {incident}: {outcome}: {way}{as_it_was}")
    else:
        click.echo(f"incident {incident}: the tree is switched: {way}; the agent's first heartbeat is still to come")


class Standing(Record):
    """Where an incident that somebody asked for led, and what became of that."""

    source: int | None
    target: int | None  # what was asked for; a tree that had more than its commit runs under a number of its own
    running: int | None
    moved_on: int | None = None  # what was put in place after it
    reason: str = ""

    @classmethod
    def of_incident(cls, ledger: Ledger, incident: str) -> Standing:
        """Read it from the ledger: the last attempt of the incident that was asked for, and what moved code since."""
        found = ledger.incident(incident)
        if found is None:
            raise AgentctlError(f"incident {incident} is not on record", "agentctl incidents")
        attempts = [attempt for attempt in ledger.attempts(incident) if attempt.rung not in NO_MOVES]
        asked = [n for n, attempt in enumerate(attempts) if attempt.rung in BY_HAND]
        target = attempts[asked[-1]].target if asked else found.generation_to
        known = cls(source=found.generation_from, target=target, running=found.generation_to)
        later = attempts[asked[-1] + 1 :] if asked else []
        if later:
            return known.replace(moved_on=later[-1].target, reason=later[-1].reason)
        newest = ledger.last_incident()
        if newest is None or newest.id == incident or not newest.decision.startswith(("rollback", "undo")):
            return known
        return known.replace(moved_on=newest.generation_to, reason=newest.reason)


def find_why_not(ledger: Ledger, incident: str, outcome: str, trial_seconds: float) -> str:
    """Say why what was asked for does not hold, '' if it does; what is on trial is watched for a little while."""
    deadline = time.monotonic() + RECOVERY_WAIT_SECONDS
    settled = min(SETTLED_SECONDS, trial_seconds)
    while True:
        halted, now = ledger.meta("halted"), Standing.of_incident(ledger, incident)
        if halted or outcome == "halted":
            return f"the agent is halted: {halted or outcome}"
        if now.moved_on is not None:
            return f"it was rolled back to generation {now.moved_on}: {now.reason}"
        if outcome == "" or _is_settled(ledger, now.running, settled) or time.monotonic() > deadline:
            return "" if outcome in ("", "recovered") else f"its incident is {outcome}"
        time.sleep(LOOK_SECONDS)


def _is_settled(ledger: Ledger, running: int | None, seconds: float) -> bool:
    """Tell whether the launch that runs now is the one that was wanted, and good or alive for long enough."""
    row, last = ledger.generation(running), ledger.last_launch()
    if row is None or last is None or row.status == "good":
        return True
    if last.generation != running or last.end or last.first_beat_at is None:
        return False
    return time.time() - last.first_beat_at >= seconds


def _why_nothing(context: AgentContext, ledger: Ledger, verb: str) -> str:
    from ..recovery import executor

    if verb == "undo":
        return executor.why_no_undo(context, ledger) or "the undo was overtaken"
    return "there is no other good generation"


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
            incidents.lift_bounds(ledger)
            if halted and last is not None:
                writers.excuse_launch(ledger, last.id, last.generation)
            ledger.event("resume", halted or "")
    was = "halted" if halted else "paused" if paused and float(paused) > time.time() else ""
    click.echo(f"resumed; it was {was}" if was else "it was neither paused nor halted")
