"""`agentctl generations`, `diff` and `prune`: what there is, what became of it, what may go."""

from __future__ import annotations

import os
import sys
import time

import click

from ..core import text
from ..core import text as texts
from ..core.errors import AgentctlError, UsageError
from ..generations.git import Git
from ..ledger import clock
from ..ledger.database import Ledger
from ..ledger.models import Generation
from ..retention import prune as pruning
from ..retention.archive import bring_back as write_back
from ..retention.retention_rules import KINDS, as_size
from .status_document import status_of


@click.command()
@click.pass_context
def generations(ctx: click.Context) -> None:
    """List the generations, newest first."""
    with ctx.obj.context(lenient=True).ledger(read_only=True) as ledger:
        rows, last = ledger.generations(), ledger.last_launch()
    if ctx.obj.as_json:
        click.echo(text.to_json([as_public(row) for row in rows]))
        return
    running = last.generation if last and not last.end else None
    for line in as_table(rows, running, time.time()):
        click.echo(line)


def as_public(row: Generation) -> dict:
    """Return a generation as `generations --json` shows it."""
    return {
        "number": row.number,
        "commit": row.commit_id,
        "tree": row.tree,
        "status": status_of(row),
        "created_at": row.created_at,
        "blessed_at": row.blessed_at,
        "condemned_at": row.condemned_at,
        "reason": row.reason,
        "snapshot": row.snapshot or None,
        "branch": row.branch,
        "source": row.source,
        "tries_left": row.tries_left,
        "pruned": row.is_pruned,
        "image": row.image or None,
    }


def as_table(rows: list[Generation], running: int | None, now: float) -> list[str]:
    """Return the table for people; `*` marks what runs."""
    cells = [
        [
            f"{row.number}{'*' if row.number == running else ''}",
            status_of(row) + (", pruned" if row.is_pruned else ""),
            row.commit_id[:10],
            text.cut(row.branch, 16),
            text.ago(row.created_at, now),
            row.reason,
        ]
        for row in reversed(rows)
    ]
    headers = ["", "status", "commit", "branch", "made", "reason"]
    return text.table(headers, cells) if rows else ["no generation yet"]


@click.command()
@click.argument("a", type=int)
@click.argument("b", type=int)
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
@click.pass_context
def diff(ctx: click.Context, a: int, b: int, stat: bool) -> None:
    """Show what changed from generation A to generation B."""
    context = ctx.obj.context(lenient=True)
    with context.ledger(read_only=True) as ledger:
        commits = [_commit_of(ledger, number) for number in (a, b)]
    git = context.vault.git
    summary = _diff(git, commits, f"--stat={text.WIDTH}")
    patch = b"" if stat else _diff(git, commits, "--patch")
    if ctx.obj.as_json:
        texts = {"stat": _text(summary), "diff": None if stat else _text(patch)}
        click.echo(text.to_json({"from": a, "to": b, **texts}))
        return
    _show(summary if stat else patch or summary)


def _commit_of(ledger: Ledger, number: int) -> str:
    row = ledger.generation(number)
    if row is None:
        known = ", ".join(str(g.number) for g in ledger.generations()[-10:])
        raise AgentctlError(f"there is no generation {number}", f"the newest are {known}; agentctl generations")
    if row.is_pruned:
        raise AgentctlError(f"generation {number} was pruned: the vault holds its tree no more")
    return row.vault_commit


def _diff(git: Git, commits: list[str], how: str) -> bytes:
    return git.run("diff", "--no-ext-diff", "--no-textconv", "--no-color", how, *commits).stdout


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _show(data: bytes) -> None:
    """Page on a terminal, and only clean text; elsewhere the bytes as they are, to be applied."""
    if not data:
        click.echo("no difference", err=True)
    elif sys.stdout.isatty():
        click.echo_via_pager(text.clean(_text(data)))
    else:
        click.get_binary_stream("stdout").write(data)


# -- prune -----------------------------------------------------------------------------------------
# `agentctl prune`: what of the past is over its budget, what freeing it would bring, and with `--yes` doing it.


@click.command()
@click.option("--yes", is_flag=True, help="Do it.")
@click.option("--bring-back", metavar="ID", help="Write an archived tree into the folder --to.")
@click.option("--to", "target", type=click.Path(), help="A folder that is not there yet.")
@click.option("--forget", metavar="ID", help="Delete an archive, which may be the last copy.")
@click.option("--clock-is-right", is_flag=True, help="Believe the clock, though it has leapt.")
@click.pass_context
def prune(ctx, yes, bring_back, target, forget, clock_is_right):
    """Show what is over the budgets of [retention], with sizes and reasons; --yes frees it.

    Golden, the last known good, what runs, what is on trial or needed by an open incident or an undo, and the newest
    of each kind stay. What a quarantined tree holds and nothing else does goes into the vault first.
    """
    context = ctx.obj.context()
    if bool(bring_back) != bool(target):
        raise UsageError("--bring-back ID and --to FOLDER go together")
    if bring_back:
        _bring_back(ctx, context, bring_back, target)
        return
    if clock_is_right and not yes:
        raise UsageError("--clock-is-right goes with --yes")
    os.nice(10)
    leapt = ""
    with context.ledger() as ledger:
        if forget:
            name = pruning.forget(context, ledger, forget)
            _tell(ctx, {"forgotten": name}, f"{name} is forgotten; the next prune frees its space")
            return
        if not yes:
            leapt = clock.ask(ledger)
            plan = pruning.make_plan(context, ledger, time.time())
        else:
            with pruning.alone(context):
                pruning.refuse_in_the_way(context, ledger)
                if clock_is_right:
                    clock.trust(ledger)
                pruning.refuse_leapt_clock(ledger)
                plan = pruning.make_plan(context, ledger, time.time())
                pruning.carry_out(context, ledger, plan, lambda text: click.echo(texts.one_line(text), err=True))
    known = {**plan_as_public(plan, yes, pruning.archives(context)), "clock": leapt}
    _tell(ctx, known, "\n".join(as_text(known)))


def _bring_back(ctx, context, name: str, target: str) -> None:
    ref = pruning.find_archive(context, name)
    try:
        count = write_back(context.vault, ref, os.path.abspath(target))
    except FileExistsError:
        raise AgentctlError(f"{target} is there already", "name a folder that is not") from None
    _tell(ctx, {"to": target, "entries": count}, f"{count} entries of {name} are in {target}")


def _tell(ctx, document: dict, text: str) -> None:
    click.echo(texts.to_json(document) if ctx.obj.as_json else text)


def plan_as_public(plan, is_done: bool, archives: list[str]) -> dict:
    """Return a plan, or what became of it, as `prune --json` shows it."""
    total, reached = plan.vault_bytes
    return {
        "done": is_done,
        "freed_bytes": plan.freed_bytes,
        "kinds": [_kind(plan, kind, is_done) for kind in KINDS],
        "stays": [{"kind": kind, "id": name, "reason": why} for kind, name, why in plan.stays],
        "vault": {"bytes": total, "unreachable_bytes": total - reached},
        "archives": archives,
    }


def _kind(plan, kind: str, is_done: bool) -> dict:
    choice = plan.choices[kind]
    stays = {name for of, name, _ in plan.stays if of == kind}
    chosen = [row for row in choice.pruned if row[0].id not in stays]
    if is_done:
        chosen = [row for row in chosen if (kind, row[0].id) in plan.done]
    guards: dict[str, int] = {}
    for item in plan.held.items(kind):
        if item.guard:
            guards[item.guard] = guards.get(item.guard, 0) + 1
    return {
        "kind": kind,
        "count": len(plan.held.items(kind)) if kind == "generations" else len(plan.held.paths[kind]),
        "bytes": choice.total_bytes,
        "freed_bytes": sum(size for _, _, size in chosen),
        "excess": choice.excess,
        "guarded": guards,
        "pruned": [
            {"id": item.id, "made_at": item.at, "reason": why, "bytes": size, **_archived(plan, kind, item.id)}
            for item, why, size in chosen
        ],
    }


def _archived(plan, kind: str, name: str) -> dict:
    found = plan.surveys.get((kind, name))
    if found is None:
        return {}
    return {"archived_files": len(found.missing), "archived_bytes": found.new_bytes, "left_out": found.rebuilt}


def as_text(known: dict) -> list[str]:
    """Return the same for people."""
    size = as_size(known["freed_bytes"])
    count = sum(len(kind["pruned"]) for kind in known["kinds"])
    if known["done"]:
        lines = [f"pruned {count} things, {size} freed" if count else "nothing was pruned"]
    elif count:
        lines = [f"would prune {count} things and free {size}; 'agentctl prune --yes' does it"]
    else:
        lines = ["nothing is over its budget"]
    for kind in known["kinds"]:
        lines += _kind_text(kind)
    vault = known["vault"]
    lines.append(
        f"vault        {as_size(vault['bytes'])}, {as_size(vault['unreachable_bytes'])} of it "
        f"{'are' if known['done'] else 'would be'} reached by nothing that is kept"
    )
    if known["archives"]:
        lines.append(
            f"archives     {len(known['archives'])} in the vault, no budget takes them (--bring-back, --forget)"
        )
    if known["clock"]:
        refused = f"has leapt, so --yes is refused: {known['clock']}; --yes --clock-is-right believes it"
        lines += texts.wrap(refused, "clock        ")
    for stay in known["stays"]:
        lines += texts.wrap(f"{stay['kind']} {stay['id']}: {stay['reason']}", "stays        ")
    return lines


def _kind_text(kind: dict) -> list[str]:
    measured = f", {as_size(kind['bytes'])}" if kind["bytes"] else ""
    lines = [f"{kind['kind']:<12} {len(kind['pruned'])} of {kind['count']}{measured}"]
    for row in kind["pruned"]:
        freed = f"  {as_size(row['bytes'])}" if row["bytes"] else ""
        told = f"{row['id']}{freed}  {row['reason']}"
        if row.get("archived_files"):
            told += f"; {row['archived_files']} files ({as_size(row['archived_bytes'])}) exist only there: to the vault"
        if row.get("left_out"):
            told += f"; left out, can be rebuilt: {', '.join(sorted(row['left_out'])[:5])}"
        lines += texts.wrap(told, "  ", "      ")
    if kind["excess"]:
        lines += texts.wrap(kind["excess"], "  still over its budget: ", "  ")
    return lines
