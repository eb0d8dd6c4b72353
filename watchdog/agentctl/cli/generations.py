"""`agentctl generations` and `diff A B`: what there is, what became of it. Changes nothing."""

from __future__ import annotations

import sys
import time

import click

from .. import wording as format
from ..decisions.policy import is_pruned
from ..errors import AgentctlError
from ..repo.git import Git
from .status_document import status_of


@click.command()
@click.pass_context
def generations(ctx: click.Context) -> None:
    """List the generations, newest first."""
    with ctx.obj.station(lenient=True).ledger(read_only=True) as ledger:
        rows, last = ledger.generations(), ledger.last_launch()
    if ctx.obj.as_json:
        click.echo(format.to_json([as_public(row) for row in rows]))
        return
    running = last["generation"] if last and not last["end"] else None
    for line in as_table(rows, running, time.time()):
        click.echo(line)


def as_public(row: dict) -> dict:
    """Return a generation as `generations --json` shows it."""
    return {
        "number": row["number"],
        "commit": row["commit_id"],
        "tree": row["tree"],
        "status": status_of(row),
        "created_at": row["created_at"],
        "blessed_at": row["blessed_at"],
        "condemned_at": row["condemned_at"],
        "reason": row["reason"],
        "snapshot": row["snapshot"] or None,
        "branch": row["branch"],
        "source": row["source"],
        "tries_left": row["tries_left"],
        "pruned": is_pruned(row),
        "image": row.get("image") or None,
    }


def as_table(rows: list[dict], running: int | None, now: float) -> list[str]:
    """Return the table for people; `*` marks what runs."""
    cells = [
        [
            f"{row['number']}{'*' if row['number'] == running else ''}",
            status_of(row) + (", pruned" if is_pruned(row) else ""),
            row["commit_id"][:10],
            format.cut(row["branch"], 16),
            format.ago(row["created_at"], now),
            row["reason"],
        ]
        for row in reversed(rows)
    ]
    headers = ["", "status", "commit", "branch", "made", "reason"]
    return format.table(headers, cells) if rows else ["no generation yet"]


@click.command()
@click.argument("a", type=int)
@click.argument("b", type=int)
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
@click.pass_context
def diff(ctx: click.Context, a: int, b: int, stat: bool) -> None:
    """Show what changed from generation A to generation B."""
    station = ctx.obj.station(lenient=True)
    with station.ledger(read_only=True) as ledger:
        commits = [_commit_of(ledger, number) for number in (a, b)]
    git = station.vault.git
    summary = _diff(git, commits, f"--stat={format.WIDTH}")
    patch = b"" if stat else _diff(git, commits, "--patch")
    if ctx.obj.as_json:
        texts = {"stat": _text(summary), "diff": None if stat else _text(patch)}
        click.echo(format.to_json({"from": a, "to": b, **texts}))
        return
    _show(summary if stat else patch or summary)


def _commit_of(ledger, number: int) -> str:
    row = ledger.generation(number)
    if row is None:
        known = ", ".join(str(g["number"]) for g in ledger.generations()[-10:])
        raise AgentctlError(f"there is no generation {number}", f"the newest are {known}; agentctl generations")
    if is_pruned(row):
        raise AgentctlError(f"generation {number} was pruned: the vault holds its tree no more")
    return row["vault_commit"]


def _diff(git: Git, commits: list[str], how: str) -> bytes:
    return git.run("diff", "--no-ext-diff", "--no-textconv", "--no-color", how, *commits).stdout


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _show(data: bytes) -> None:
    """Page on a terminal, and only clean text; elsewhere the bytes as they are, to be applied."""
    if not data:
        click.echo("no difference", err=True)
    elif sys.stdout.isatty():
        click.echo_via_pager(format.clean(_text(data)))
    else:
        click.get_binary_stream("stdout").write(data)
