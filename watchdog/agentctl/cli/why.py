"""`agentctl why [INCIDENT]`: one incident with its evidence; `story` finds the words. Reads only."""

from __future__ import annotations

import json
import os
import time

import click

from .. import wording as format
from ..errors import AgentctlError
from ..launching import incident as incidents
from . import story, story_text
from .story_known import Known


@click.command()
@click.argument("incident", default="")
@click.pass_context
def why(ctx: click.Context, incident: str) -> None:
    """Tell what happened in INCIDENT (default: the newest), what was decided, what it cost.

    The beginning of an id is enough.
    """
    station = ctx.obj.station(lenient=True)
    with station.ledger(read_only=True) as ledger:
        row = choose(ledger, incident)
        if row is None:
            _nothing(ctx.obj)
            return
        known = gather(station, ledger, row)
    if ctx.obj.as_json:
        sentences = [text for part in story.tell(known) for text in part.sentences]
        click.echo(format.to_json({**known.public, "story": sentences}))
        return
    click.echo("\n".join(story_text.render(known, time.time())))


def choose(ledger, wanted: str) -> dict | None:
    """Return the incident that is meant, None if there is none; raise AgentctlError if unknown."""
    rows = ledger.all("SELECT * FROM incidents ORDER BY at DESC, rowid DESC")
    if not wanted:
        return rows[0] if rows else None
    found = [row for row in rows if row["id"].startswith(wanted)]
    exact = [row for row in found if row["id"] == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    ids = ", ".join(row["id"] for row in (found or rows)[:10]) or "none"
    what = f"'{wanted}' means {len(found)} incidents" if found else f"there is no incident '{wanted}'"
    raise AgentctlError(what, f"{'they are' if found else 'known are'}: {ids}")


def gather(station, ledger, row: dict) -> Known:
    """Read what belongs to an incident: what its steps noted, where its trees are."""
    public = incidents.as_public(ledger, row)
    launch = ledger.one("SELECT * FROM launches WHERE id=?", row["launch"])
    details = {
        (step["attempt"], step["name"]): _json(step["detail"])
        for step in ledger.all("SELECT * FROM steps WHERE incident=?", row["id"])
    }
    trees = {}
    for attempt in public["attempts"]:
        move = incidents.count_moves(ledger, row["id"], attempt["number"])
        tree = f"{station.slots.quarantine_path(row['id'], move)}/tree"
        if attempt["rung"] != "restart" and os.path.isdir(tree):
            trees[attempt["number"]] = tree
    generation = ledger.generation(row["generation_from"])
    return Known(public, launch, generation, details, trees, station.config.agent.branch)


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
