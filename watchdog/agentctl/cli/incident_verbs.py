"""`agentctl incidents` and `why`: what went wrong, with its evidence, and how it ended. Reads only."""

from __future__ import annotations

import json
import os
import time

import click

from ..core import text
from ..core.errors import AgentctlError
from ..host import procfs
from ..ledger import incidents as incident_rows
from ..ledger.database import Ledger
from ..ledger.models import Incident
from ..runtime import status_file
from . import incident_report
from .incident_report import Known


@click.command()
@click.option("-n", "count", type=click.IntRange(1), help="Only the newest N.")
@click.pass_context
def incidents(ctx: click.Context, count: int | None) -> None:
    """List the incidents, newest first."""
    with ctx.obj.context(lenient=True).ledger(read_only=True) as ledger:
        rows = ledger.incidents(count or -1)
        if ctx.obj.as_json:
            click.echo(text.to_json([incident_rows.as_public(ledger, row) for row in rows]))
            return
    for line in as_table(rows, time.time()):
        click.echo(line)


def as_table(rows: list[Incident], now: float) -> list[str]:
    """Return the table for people; the reason stands below each incident."""
    if not rows:
        return ["no incident yet"]
    cells = [
        [
            row.id,
            text.ago(row.at, now),
            row.trigger,
            move(row.generation_from, row.generation_to),
            outcome(row),
        ]
        for row in rows
    ]
    header, *lines = text.table(["incident", "when", "trigger", "moved", "outcome"], cells)
    reasons = [text.cut(f"  {text.one_line(row.reason)}", text.WIDTH) for row in rows]
    return [header, *(text for pair in zip(lines, reasons, strict=True) for text in pair)]


def move(source: int | None, target: int | None) -> str:
    """Return `6 -> 5`, or what of it is known."""
    if target is None or source == target:
        return "" if source is None else str(source)
    return f"{'?' if source is None else source} -> {target}"


def outcome(row: Incident) -> str:
    """Return how it ended, with its seconds where it was recovered from."""
    if row.outcome == "recovered" and row.ended_at:
        return f"recovered {text.duration(row.ended_at - row.at)}"
    return row.outcome or "open"


# -- why -------------------------------------------------------------------------------------------
# `agentctl why [INCIDENT]`: one incident with its evidence; `incident_report` finds the words. Reads only.


@click.command()
@click.argument("incident", default="")
@click.pass_context
def why(ctx: click.Context, incident: str) -> None:
    """Tell what happened in INCIDENT (default: the newest), what was decided, what it cost.

    The beginning of an id is enough.
    """
    context = ctx.obj.context(lenient=True)
    awaited = "" if incident or ctx.obj.as_json else tell_awaited(context.paths.live_status_path)
    if awaited:
        click.echo(f"{awaited}\n")
    with context.ledger(read_only=True) as ledger:
        row = choose(ledger, incident)
        if row is None:
            _nothing(ctx.obj)
            return
        known = gather(context, ledger, row)
    if ctx.obj.as_json:
        sentences = [text for part in incident_report.tell(known) for text in part.sentences]
        click.echo(text.to_json({**known.public, "story": sentences}))
        return
    click.echo("\n".join(incident_report.render(known, time.time())))


def tell_awaited(path: str) -> str:
    """Say what a launch that is not ready waits for, by the runner's live status; '' where that is no news."""
    live = status_file.read(path)
    what, helps = live.get("waits_for"), live.get("helps")
    if not what or not procfs.is_alive(live.get("runner_pid") or 0):
        return ""
    since = text.duration(time.time() - live.get("started_at", 0.0))
    lines = text.wrap(f"Generation {live.get('generation')} is not ready after {since}: it waits for {what}.")
    return "\n".join([*lines, *text.wrap(f"If that never comes: {helps}")])


def choose(ledger: Ledger, wanted: str) -> Incident | None:
    """Return the incident that is meant, None if there is none; raise AgentctlError if unknown."""
    rows = ledger.incidents()
    if not wanted:
        return rows[0] if rows else None
    found = [row for row in rows if row.id.startswith(wanted)]
    exact = [row for row in found if row.id == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    ids = ", ".join(row.id for row in (found or rows)[:10]) or "none"
    what = f"'{wanted}' means {len(found)} incidents" if found else f"there is no incident '{wanted}'"
    raise AgentctlError(what, f"{'they are' if found else 'known are'}: {ids}")


def gather(context, ledger: Ledger, row: Incident) -> Known:
    """Read what belongs to an incident: what its steps noted, where its trees are."""
    public = incident_rows.as_public(ledger, row)
    launch = ledger.launch(row.launch)
    details = {(step.attempt, step.name): _json(step.detail) for step in ledger.steps(row.id)}
    trees = {}
    for attempt in public["attempts"]:
        move = incident_rows.count_moves(ledger, row.id, attempt["number"])
        tree = f"{context.slots.quarantine_path(row.id, move)}/tree"
        if attempt["rung"] != "restart" and os.path.isdir(tree):
            trees[attempt["number"]] = tree
    generation = ledger.generation(row.generation_from)
    return Known(public, launch, generation, details, trees, context.config.agent.branch)


def _json(text: str) -> dict:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _nothing(obj) -> None:
    if obj.as_json:
        click.echo("null")
    else:
        click.echo(f"nothing has happened to '{obj.name}' yet: there is no incident")
