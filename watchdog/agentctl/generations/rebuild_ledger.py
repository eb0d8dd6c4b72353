"""A lost or damaged ledger, rebuilt from the vault's refs. The broken file is kept, never overwritten."""

from __future__ import annotations

import os
import time

from ..core import durable, fast_json
from ..core.errors import AgentctlError
from ..ledger import writers
from ..ledger.database import Ledger, LedgerDamaged, LedgerUnavailable
from ..ledger.models import Generation
from ..state.snapshots import snapshot
from .agent_context import AgentContext


def open_or_rebuild(context: AgentContext, say) -> Ledger:
    """Open the ledger; where it is damaged, keep it aside, rebuild it from the vault, and `say` so.

    Raise TooNew where it, or the vault, is of a newer agentctl: neither is changed then.
    """
    context.vault.check_version()
    for _ in range(2):  # one read that failed is no damage; one that fails again is
        ledger, damage = _look(context)
        if ledger is not None:
            return ledger
    if not context.vault.exists:
        raise LedgerDamaged(
            f"{damage}, and there is no vault to rebuild it from",
            f"restore {context.paths.data_dir} from a backup, or adopt the agent again with agentctl init",
        ) from None
    ledger, kept = rebuild(context, damage)
    say(
        f"agentctl: the ledger is damaged ({damage}); rebuilding it from the vault"
        + (f"; the broken one is kept as {kept}" if kept else "")
    )
    return ledger


def _look(context: AgentContext) -> tuple[Ledger | None, str]:
    """Open the ledger if it is whole; else return what is wrong. Raise LedgerUnavailable where nobody can tell."""
    try:
        ledger = context.ledger()
    except LedgerUnavailable:
        raise
    except LedgerDamaged as error:
        return None, error.message
    damage = ledger.check()
    if not damage:
        return ledger, ""
    ledger.close()
    return None, damage


def set_aside(path: str) -> str:
    """Rename a broken ledger and its side files; return the new name, '' if there was none.

    A side file left alone goes too: SQLite would replay a lost ledger's log into the new one.
    """
    there = [suffix for suffix in ("-wal", "-shm", "") if os.path.lexists(path + suffix)]
    if not there:
        return ""
    kept = f"{path}.broken-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"
    for suffix in there:
        os.rename(path + suffix, kept + suffix)
    return kept


def rebuild(context: AgentContext, why: str) -> tuple[Ledger, str]:
    """Make a new ledger that knows what the vault's refs know; return it and the broken one's new name.

    It gets its name when it knows all of it, and only then the broken one is moved: there may be no room for a new one.
    """
    rows = _rows(context)
    if not rows:
        raise AgentctlError(
            "the ledger is lost and the vault knows no generation", "adopt the agent again with agentctl init --force"
        )
    path = context.paths.ledger_path
    partial = f"{path}.rebuilt"
    for leftover in (f"{partial}-wal", f"{partial}-shm"):  # of a kill; it never was a ledger
        if os.path.exists(leftover):
            os.unlink(leftover)
    with Ledger.create(partial) as ledger, ledger.transaction():
        for row in rows:
            writers.add_generation(ledger, **row.to_dict())
        ledger.event("ledger-rebuilt", why)
        ledger.set_meta("rebuilt_at", str(time.time()))
    kept = set_aside(path)
    os.rename(partial, path)
    durable.sync_folder(os.path.dirname(path))
    return Ledger(path), kept


def _rows(context: AgentContext) -> list[Generation]:
    refs = context.vault.refs("refs/agentctl/")
    golden = refs.get("refs/agentctl/golden")
    held = [
        _row(context, int(ref.rpartition("/")[2]), oid, refs).replace(is_golden=int(oid == golden))
        for ref, oid in sorted(refs.items())
        if ref.startswith("refs/agentctl/g/")
    ]
    known = {row.number for row in held}
    pruned = [row.replace(is_golden=0) for row in context.vault.pruned() if row.number not in known]
    root = context.paths.snapshots_dir
    taken = [(os.stat(f"{root}/{i}").st_mtime, i) for i in snapshot.list_ids(root)]
    return [_with_snapshot(row, [*held, *pruned], taken) for row in held] + pruned


def _with_snapshot(row: Generation, rows: list[Generation], taken: list[tuple[float, str]]) -> Generation:
    return row.replace(snapshot=choose_snapshot(row, rows, taken)) if row.status == "good" else row


def choose_snapshot(row: Generation, rows: list[Generation], taken: list[tuple[float, str]]) -> str:
    """Choose the state a generation left behind: the last one taken before another came; '' if there is none.

    `taken` are (instant, id), oldest first. What was taken later may be what a bad generation made of it.
    """
    until = min((r.created_at for r in rows if r.number > row.number), default=float("inf"))
    before = [id for at, id in taken if at < until]
    return before[-1] if before else taken[0][1] if taken else ""


def _row(context: AgentContext, number: int, oid: str, refs: dict[str, str]) -> Generation:
    shown = context.vault.git.run("show", "-s", "--format=%T%n%ct%n%B", oid).text
    tree, created, message = shown.split("\n", 2)
    try:
        facts = fast_json.loads(message.partition("\n\n")[2].strip() or "{}")
    except ValueError:
        facts = {}
    is_good = f"refs/agentctl/good/{number}" in refs
    is_condemned = f"refs/agentctl/condemned/{number}" in refs
    status = "condemned" if is_condemned else "good" if is_good else "candidate"
    return Generation(
        number=number,
        vault_commit=oid,
        tree=tree,
        commit_id=facts.get("commit") or refs.get(f"refs/agentctl/commit/{number}", ""),
        branch=facts.get("branch", ""),
        status=status,
        source=facts.get("source", "rebuilt"),
        created_at=float(facts.get("created_at") or created),
        blessed_at=float(created) if status == "good" else None,
        reason="rebuilt from the vault",
        tries_left=1,
        blessing=number if status == "good" else 0,  # the best that is left of their order
    )
