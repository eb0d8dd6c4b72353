"""`agentctl incidents`: what went wrong and how it ended, newest first. Reads only."""

from __future__ import annotations

import time

import click

from .. import wording as format
from ..launching import incident


@click.command()
@click.option("-n", "count", type=click.IntRange(1), help="Only the newest N.")
@click.pass_context
def incidents(ctx: click.Context, count: int | None) -> None:
    """List the incidents, newest first."""
    with ctx.obj.station(lenient=True).ledger(read_only=True) as ledger:
        rows = ledger.all("SELECT * FROM incidents ORDER BY at DESC, rowid DESC LIMIT ?", count or -1)
        if ctx.obj.as_json:
            click.echo(format.to_json([incident.as_public(ledger, row) for row in rows]))
            return
    for line in as_table(rows, time.time()):
        click.echo(line)


def as_table(rows: list[dict], now: float) -> list[str]:
    """Return the table for people; the reason stands below each incident."""
    if not rows:
        return ["no incident yet"]
    cells = [
        [
            row["id"],
            format.ago(row["at"], now),
            row["trigger"],
            move(row["generation_from"], row["generation_to"]),
            outcome(row),
        ]
        for row in rows
    ]
    header, *lines = format.table(["incident", "when", "trigger", "moved", "outcome"], cells)
    reasons = [format.cut(f"  {format.one_line(row['reason'])}", format.WIDTH) for row in rows]
    return [header, *(text for pair in zip(lines, reasons, strict=True) for text in pair)]


def move(source: int | None, target: int | None) -> str:
    """Return `6 -> 5`, or what of it is known."""
    if target is None or source == target:
        return "" if source is None else str(source)
    return f"{'?' if source is None else source} -> {target}"


def outcome(row: dict) -> str:
    """Return how it ended, with its seconds where it was recovered from."""
    if row["outcome"] == "recovered" and row["ended_at"]:
        return f"recovered {format.duration(row['ended_at'] - row['at'])}"
    return row["outcome"] or "open"
