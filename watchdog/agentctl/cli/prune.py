"""`agentctl prune`: what of the past is over its budget, what freeing it would bring, and with `--yes` doing it."""

from __future__ import annotations

import os
import time

import click

from .. import wording as format
from ..decisions.retention import KINDS, as_size
from ..errors import AgentctlError, UsageError
from ..pruning import prune as pruning
from ..pruning.archive import bring_back as write_back


@click.command()
@click.option("--yes", is_flag=True, help="Do it.")
@click.option("--bring-back", metavar="ID", help="Write an archived tree into the folder --to.")
@click.option("--to", "target", type=click.Path(), help="A folder that is not there yet.")
@click.option("--forget", metavar="ID", help="Delete an archive, which may be the last copy.")
@click.pass_context
def prune(ctx, yes, bring_back, target, forget):
    """Show what is over the budgets of [retention], with sizes and reasons; --yes frees it.

    Golden, the last known good, what runs, what is on trial or needed by an open incident or an undo, and the newest
    of each kind stay. What a quarantined tree holds and nothing else does goes into the vault first.
    """
    station = ctx.obj.station()
    if bool(bring_back) != bool(target):
        raise UsageError("--bring-back ID and --to FOLDER go together")
    if bring_back:
        _bring_back(ctx, station, bring_back, target)
        return
    os.nice(10)
    with station.ledger() as ledger:
        if forget:
            name = pruning.forget(station, ledger, forget)
            _tell(ctx, {"forgotten": name}, f"{name} is forgotten; the next prune frees its space")
            return
        if not yes:
            plan = pruning.make_plan(station, ledger, time.time())
        else:
            with pruning.alone(station):
                pruning.refuse_in_the_way(station, ledger)
                plan = pruning.make_plan(station, ledger, time.time())
                pruning.carry_out(station, ledger, plan, lambda text: click.echo(format.one_line(text), err=True))
    known = as_public(plan, yes, pruning.archives(station))
    _tell(ctx, known, "\n".join(as_text(known)))


def _bring_back(ctx, station, name: str, target: str) -> None:
    ref = pruning.find_archive(station, name)
    try:
        count = write_back(station.vault, ref, os.path.abspath(target))
    except FileExistsError:
        raise AgentctlError(f"{target} is there already", "name a folder that is not") from None
    _tell(ctx, {"to": target, "entries": count}, f"{count} entries of {name} are in {target}")


def _tell(ctx, document: dict, text: str) -> None:
    click.echo(format.to_json(document) if ctx.obj.as_json else text)


def as_public(plan, is_done: bool, archives: list[str]) -> dict:
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
    for stay in known["stays"]:
        lines += format.wrap(f"{stay['kind']} {stay['id']}: {stay['reason']}", "stays        ")
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
        lines += format.wrap(told, "  ", "      ")
    if kind["excess"]:
        lines += format.wrap(kind["excess"], "  still over its budget: ", "  ")
    return lines
