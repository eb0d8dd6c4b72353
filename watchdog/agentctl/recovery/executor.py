"""One attempt to recover: decided, written down as an intent, carried out step by step, each safe to repeat.

The intent is on disk before anything moves and closed after everything stands; a kill anywhere in between is
continued by the next run, and the runner launches nothing until then.
"""

from __future__ import annotations

import os
import time

from ..config.context import boot_id
from ..core import fast_json
from ..core.errors import AgentctlError
from ..generations import slots
from ..generations.agent_context import AgentContext
from ..host import command, disk_space, procfs
from ..host.journald import Journal
from ..ledger import incidents, writers
from ..ledger.database import Ledger
from ..ledger.models import GOOD_STAYS
from ..state import agent_state
from ..state.snapshots import manifest, patterns
from . import brief, evidence
from .execution import Execution, undo_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE_PATIENCE_SECONDS = 600.0  # Docker Engine may be updated at this moment; the unit has twice that


def carry_out(attempt: Execution, journal: Journal) -> None:
    """Do what was decided, top to bottom; every line here is a step that may be killed and repeated."""
    attempt.step("stop", lambda: stop(attempt))
    attempt.step("evidence", lambda: keep_evidence(attempt))
    if attempt.rung == "restart":
        attempt.step("task", lambda: agent_state.repair_before_restart(attempt, journal.warning))
        with attempt.ledger.transaction():
            attempt.record_ended()
        return
    if attempt.context.is_contained:
        attempt.step("image", lambda: bring_image_back(attempt, journal.warning))
    diffstat = brief.Diffstat(attempt)
    attempt.is_short = _is_short_of_room(attempt)
    attempt.step("snapshot", lambda: agent_state.keep(attempt, journal.warning))
    attempt.step("make ready", lambda: make_ready(attempt))
    how = attempt.step("switch", lambda: switch(attempt))
    attempt.step("carry .git", lambda: carry(attempt, [".git"]))
    if attempt.ignored_inquiry is None or how.startswith(slots.MOVED):
        ask_again(attempt)  # it goes on where it was cut off: now tree and `.git` are where they stay
    attempt.step("repository", lambda: put_repository(attempt))
    attempt.step("environment", lambda: build_environment(attempt))
    attempt.step("state", lambda: agent_state.restore(attempt))
    attempt.step("brief", lambda: brief.leave(attempt, diffstat.text()))
    attempt.step("carry ignored", lambda: carry_ignored(attempt))
    finish(attempt)
    journal.info(f"agentctl: incident {attempt.incident}: the tree is generation {attempt.target.number} again")


def stop(attempt: Execution) -> str:
    """Prove that no process of any launch is left (the lock has proved that no runner is)."""
    if attempt.context.is_contained:
        from ..runtime.container.compose_project import ComposeProject

        ComposeProject(attempt.context, patience_seconds=ENGINE_PATIENCE_SECONDS).prove_stopped()
    left = procfs.end_all(lambda: _of_last_launch(attempt))
    if left:
        raise AgentctlError(
            f"cannot switch the tree: processes of the agent do not end: {left}",
            "they may be stuck in the kernel; look at them with ps",
        )
    return ""


def _of_last_launch(attempt: Execution) -> list[int]:
    """Processes that the last launch started, also those that left its cgroup."""
    last = attempt.ledger.last_launch()
    return procfs.with_variable("AGENT_LAUNCH_ID", last.id) if last else []


def keep_evidence(attempt: Execution) -> str:
    """Gather what is known of the failure; return the facts later steps need."""
    return fast_json.dumps(evidence.gather(attempt))


def bring_image_back(attempt: Execution, say: Callable[[str], object]) -> str:
    """Have the target's image before anything moves: one that cannot be had leaves everything as it is."""
    from ..runtime.container import images
    from ..runtime.container.compose_project import ComposeProject

    place = ComposeProject(attempt.context, patience_seconds=ENGINE_PATIENCE_SECONDS)
    image = images.ensure(place, attempt.ledger, attempt.target, is_recovery=True, say=say)
    return fast_json.dumps({"image": image})


def ask_again(attempt: Execution) -> None:
    """Ask of the tree in quarantine; of one that was moved for the first time: its entries left while git looked."""
    if attempt.ignored_inquiry is not None:
        attempt.ignored_inquiry.kill()
    attempt.ignored_inquiry = slots.ask_ignored(attempt.context.staging, f"{attempt.quarantine}/tree")


def make_ready(attempt: Execution) -> str:
    """Have the tree that goes in, complete and durable."""
    context, target = attempt.context, attempt.target
    if attempt.rung == "undo":
        fresh, index = _undo_tree(attempt), ""
    else:
        if context.slots.standby_note().get("generation") != target.number:
            context.slots.prepare(
                context.vault, target.number, target.vault_commit, context.vault.own_commit(target), []
            )
        fresh, index = context.slots.standby, context.slots.standby_index
    return fast_json.dumps({"fresh": fresh, "inode": os.stat(fresh).st_ino, "index": index})


def switch(attempt: Execution) -> str:
    """Exchange the trees; the old one goes to quarantine whole."""
    ready = attempt.detail("make ready")
    return attempt.context.slots.switch(ready["fresh"], ready["inode"], attempt.quarantine)


def carry(attempt: Execution, names: list[str]) -> str:
    """Move entries from the old tree into the good one, as the agent's user."""
    old, new = f"{attempt.quarantine}/tree", attempt.context.code_dir
    blocked = command.call_as(attempt.context.user, slots.carry_over, old, new, names)
    return fast_json.dumps({"moved": len(names), "stayed in quarantine": blocked.splitlines()})


def carry_ignored(attempt: Execution) -> str:
    """Move what git ignores, in both trees, into the good one."""
    context, old = attempt.context, f"{attempt.quarantine}/tree"
    environment = context.config.environment.paths
    names = slots.choose_carried(context.staging, context.repository, old, attempt.ignored_inquiry, environment)
    return carry(attempt, names)


def put_repository(attempt: Execution) -> str:
    """Put the branch, HEAD and index on the target; remake a repository that will not take it."""
    from ..generations.repair_repo import put_on_target

    return put_on_target(attempt)


def build_environment(attempt: Execution) -> str:
    """Rebuild the declared environment where the target's lock file is another one and no copy came with it."""
    from ..generations.build_env import rebuild_if_needed

    return rebuild_if_needed(attempt)


def finish(attempt: Execution) -> None:
    """Close the intent and tell the runner what it finds, in one transaction."""
    context, ledger = attempt.context, attempt.ledger
    note = {
        "generation": attempt.target.number,
        "boot_id": boot_id(),
        "at": time.time(),
        "inode": os.stat(context.code_dir).st_ino,
        "snapshot": "" if attempt.rung == GOOD_STAYS else attempt.target.snapshot,  # '': the state as it is now
    }
    with ledger.transaction():
        attempt.record_ended()
        if attempt.rung == "undo":
            writers.bring_back(ledger, attempt.target.number, tries_left=context.config.probation.tries)
            incidents.lift_bounds(ledger)  # a person wants it launched, held or not
        else:
            ledger.set_meta("switched", fast_json.dumps(note))
        writers.close_attempt(ledger, attempt.incident, attempt.number)
        ledger.event("switched", f"incident {attempt.incident}: {attempt.rung} -> {attempt.target.number}")


def why_no_undo(context: AgentContext, ledger: Ledger) -> str:
    """Say why an undo cannot be carried out, '' if it can: a request that fails half-way would keep the agent down."""
    try:
        source = undo_source(ledger)
    except AgentctlError as error:
        return error.message
    tree = f"{context.slots.quarantine_path(source.id, 1)}/tree"
    return "" if os.path.isdir(tree) else f"cannot undo incident {source.id}: its quarantined tree {tree} is gone"


def _undo_tree(attempt: Execution) -> str:
    source = attempt.ledger.meta(f"undo {attempt.incident}") or ""
    tree = f"{attempt.context.slots.quarantine_path(source, 1)}/tree"
    if not os.path.isdir(tree):
        raise AgentctlError(f"cannot undo incident {source}: its quarantined tree {tree} is gone")
    return tree


def _is_short_of_room(attempt: Execution) -> bool:
    """Tell whether what this attempt will certainly write uses up what is free; adds up only where it is little."""
    context = attempt.context
    if min(disk_space.free_bytes(folder) for folder in disk_space.folders(context)) > disk_space.PLENTY_BYTES:
        return False
    data = disk_space.NEEDED_BYTES + _restored_bytes(context, attempt.target.snapshot if attempt.has_target else "")
    code = disk_space.NEEDED_BYTES + _tree_bytes(attempt)
    if disk_space.device_of(context.paths.data_dir) == disk_space.device_of(context.slots.folder):
        data = code = data + code
    return disk_space.free_bytes(context.paths.data_dir) < data or disk_space.free_bytes(context.slots.folder) < code


def _restored_bytes(context: AgentContext, snapshot: str) -> int:
    """Add up what of the state goes back: it is written beside before anything is replaced."""
    if not snapshot:
        return 0
    try:
        listed = manifest.load(f"{context.paths.snapshots_dir}/{snapshot}")
    except AgentctlError:
        return 0
    meant = patterns.Patterns(context.config.state.restore)
    return sum(entry.size for entry in listed.entries if entry.has_copy and meant.matches(entry.path))


def _tree_bytes(attempt: Execution) -> int:
    """Add up the target's tree where it is not laid out yet."""
    context = attempt.context
    if attempt.rung in ("undo", "restart") or not attempt.has_target:
        return 0
    target = attempt.target
    if context.slots.standby_note().get("generation") == target.number:
        return 0
    listed = context.vault.git.run("ls-tree", "-r", "-l", "-z", target.vault_commit, check=False).text
    sizes = [words[3] for line in listed.split("\0") if len(words := line.split(None, 4)) > 3]
    return sum(int(size) + 4096 for size in sizes if size.isdigit())
