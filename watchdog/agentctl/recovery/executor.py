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
from ..ledger import incidents, models, writers
from ..ledger.database import Ledger
from ..state import agent_state
from ..state.snapshots import manifest, patterns
from . import brief, evidence

ENGINE_PATIENCE_SECONDS = 600.0  # Docker Engine may be updated at this moment; the unit has twice that


class Attempt:
    """An attempt on record: its incident, its rung, its target generation."""

    def __init__(self, context: AgentContext, ledger: Ledger, row: dict) -> None:
        self.context, self.ledger = context, ledger
        self.incident, self.number = row["incident"], row["number"]
        self.rung, self.reason = row["rung"], row["reason"]
        self.target = ledger.generation(row["target"])
        self._ended: tuple[str, float, str] | None = None  # the last step, until the next write records its end
        self._with_end: list = []
        self.ignored_inquiry: command.Running | None = None
        self.is_short = False  # of room on the disk
        self.move = incidents.count_moves(ledger, self.incident, self.number)
        self.rescue_branch = incidents.rescue_branch(self.incident, self.move)
        self.quarantine = context.slots.quarantine_path(self.incident, self.move)

    @classmethod
    def unfinished(cls, context: AgentContext, ledger: Ledger) -> Attempt | None:
        """Return the attempt whose intent is still open, if any."""
        row = ledger.open_attempt()
        return cls(context, ledger, row) if row else None

    @classmethod
    def decide(
        cls, context: AgentContext, ledger: Ledger, world: models.PolicyInput, decision: models.Decision
    ) -> Attempt:
        """Write the decision down: incident, intent and verdict in one transaction."""
        now = time.time()
        request, last = world.request, world.launch
        trigger = f"request:{request['verb']}" if request else (last["trigger"] or last["end"])
        if trigger == f"request:{models.OFFLINE}":
            trigger = models.OFFLINE
        with ledger.transaction():
            if request is not None:
                _close_superseded(ledger)
                ledger.set_meta("halted", None)
            incident_id = incidents.open_for(ledger, last, trigger=trigger, reason=decision.reason)
            number = len(ledger.all("SELECT 1 FROM attempts WHERE incident=?", incident_id)) + 1
            is_open = decision.action != models.RESTART
            target = decision.target if decision.target is not None else undo_source(ledger)["generation_from"]
            writers.add_attempt(
                ledger,
                incident_id,
                number,
                at=now,
                target=target,
                rung="undo" if decision.action == models.UNDO else decision.rung,
                reason=decision.reason,
                is_open=is_open,
            )
            if is_open and incidents.count_moves(ledger, incident_id, number) == 1 and last is not None:
                writers.set_origin(
                    ledger,
                    incident_id,
                    generation_from=last["generation"],
                    trigger=trigger,
                    launch=last["id"],
                    reason=decision.reason,
                )
            told = f"{decision.action}: {decision.rung}" if decision.rung else decision.action
            writers.set_decision(ledger, incident_id, told, target)
            if decision.condemn is not None:
                writers.condemn(ledger, decision.condemn, at=now, reason=decision.reason)
            if request is not None:
                writers.answer_request(ledger, request["number"], incident_id)
            if decision.action == models.UNDO:
                ledger.set_meta(f"undo {incident_id}", undo_source(ledger)["id"])
            if world.failure not in ("", "unknown"):
                ledger.set_meta("answered", world.failure)
        return cls(
            context, ledger, ledger.one("SELECT * FROM attempts WHERE incident=? AND number=?", incident_id, number)
        )

    # -- steps ----------------------------------------------------------------------------------------------

    def step(self, name: str, do) -> str:
        """Do a step unless it is on record as done; return its detail. Its end and the next start share one write."""
        row = self.ledger.one(
            "SELECT * FROM steps WHERE incident=? AND attempt=? AND name=?", self.incident, self.number, name
        )
        if row is not None and row["ended_at"] is not None:
            return row["detail"]
        with self.ledger.transaction():
            self.record_ended()
            if row is None:
                writers.begin_step(self.ledger, self.incident, self.number, name, at=time.time())
        detail = do() or ""
        self._ended = (name, time.time(), detail)
        return detail

    def record_ended(self) -> None:
        """Write down the end of the last step, and what it wants written with it."""
        if self._ended is None:
            return
        name, at, detail = self._ended
        writers.end_step(self.ledger, self.incident, self.number, name, at=at, detail=detail)
        for write in self._with_end:
            write()
        self._ended, self._with_end = None, []

    def write_with_end(self, write) -> None:
        """Have `write()` done in the transaction that records the end of the step under way."""
        self._with_end.append(write)

    def detail(self, name: str) -> dict:
        """Return what an earlier step of this attempt wrote down."""
        row = self.ledger.one(
            "SELECT detail FROM steps WHERE incident=? AND attempt=? AND name=?", self.incident, self.number, name
        )
        facts = fast_json.loads(row["detail"]) if row and row["detail"] else None
        return facts if isinstance(facts, dict) else {}


def carry_out(attempt: Attempt, journal: Journal) -> None:
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
    journal.info(f"agentctl: incident {attempt.incident}: the tree is generation {attempt.target['number']} again")


def stop(attempt: Attempt) -> str:
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


def _of_last_launch(attempt: Attempt) -> list[int]:
    """Processes that the last launch started, also those that left its cgroup."""
    last = attempt.ledger.last_launch()
    return procfs.with_variable("AGENT_LAUNCH_ID", last["id"]) if last else []


def keep_evidence(attempt: Attempt) -> str:
    """Gather what is known of the failure; return the facts later steps need."""
    return fast_json.dumps(evidence.gather(attempt))


def bring_image_back(attempt: Attempt, say) -> str:
    """Have the target's image before anything moves: one that cannot be had leaves everything as it is."""
    from ..runtime.container import images
    from ..runtime.container.compose_project import ComposeProject

    place = ComposeProject(attempt.context, patience_seconds=ENGINE_PATIENCE_SECONDS)
    image = images.ensure(place, attempt.ledger, attempt.target, is_recovery=True, say=say)
    return fast_json.dumps({"image": image})


def ask_again(attempt: Attempt) -> None:
    """Ask of the tree in quarantine; of one that was moved for the first time: its entries left while git looked."""
    if attempt.ignored_inquiry is not None:
        attempt.ignored_inquiry.kill()
    attempt.ignored_inquiry = slots.ask_ignored(attempt.context.staging, f"{attempt.quarantine}/tree")


def make_ready(attempt: Attempt) -> str:
    """Have the tree that goes in, complete and durable."""
    context, target = attempt.context, attempt.target
    if attempt.rung == "undo":
        fresh, index = _undo_tree(attempt), ""
    else:
        if context.slots.standby_note().get("generation") != target["number"]:
            context.slots.prepare(
                context.vault, target["number"], target["vault_commit"], context.vault.own_commit(target), []
            )
        fresh, index = context.slots.standby, context.slots.standby_index
    return fast_json.dumps({"fresh": fresh, "inode": os.stat(fresh).st_ino, "index": index})


def switch(attempt: Attempt) -> str:
    """Exchange the trees; the old one goes to quarantine whole."""
    ready = attempt.detail("make ready")
    return attempt.context.slots.switch(ready["fresh"], ready["inode"], attempt.quarantine)


def carry(attempt: Attempt, names: list[str]) -> str:
    """Move entries from the old tree into the good one, as the agent's user."""
    old, new = f"{attempt.quarantine}/tree", attempt.context.code_dir
    blocked = command.call_as(attempt.context.user, slots.carry_over, old, new, names)
    return fast_json.dumps({"moved": len(names), "stayed in quarantine": blocked.splitlines()})


def carry_ignored(attempt: Attempt) -> str:
    """Move what git ignores, in both trees, into the good one."""
    context, old = attempt.context, f"{attempt.quarantine}/tree"
    environment = context.config.environment.paths
    names = slots.choose_carried(context.staging, context.repository, old, attempt.ignored_inquiry, environment)
    return carry(attempt, names)


def put_repository(attempt: Attempt) -> str:
    """Put the branch, HEAD and index on the target; remake a repository that will not take it."""
    from ..generations.repair_repo import put_on_target

    return put_on_target(attempt)


def build_environment(attempt: Attempt) -> str:
    """Rebuild the declared environment where the target's lock file is another one and no copy came with it."""
    from ..generations.build_env import rebuild_if_needed

    return rebuild_if_needed(attempt)


def finish(attempt: Attempt) -> None:
    """Close the intent and tell the runner what it finds, in one transaction."""
    context, ledger = attempt.context, attempt.ledger
    note = {
        "generation": attempt.target["number"],
        "boot_id": boot_id(),
        "at": time.time(),
        "inode": os.stat(context.code_dir).st_ino,
        "snapshot": attempt.target["snapshot"],
    }
    with ledger.transaction():
        attempt.record_ended()
        if attempt.rung == "undo":
            writers.bring_back(ledger, attempt.target["number"], tries_left=context.config.probation.tries)
        else:
            ledger.set_meta("switched", fast_json.dumps(note))
        writers.close_attempt(ledger, attempt.incident, attempt.number)
        ledger.event("switched", f"incident {attempt.incident}: {attempt.rung} -> {attempt.target['number']}")


def undo_source(ledger: Ledger) -> dict:
    """Find the incident whose rollback `undo` takes back: the newest that moved code. Raise AgentctlError if none."""
    row = ledger.one(
        "SELECT i.*, a.rung FROM incidents i JOIN attempts a ON a.incident = i.id "
        "WHERE a.rung NOT IN ('restart', 'halted', 'asked') AND a.is_open=0 "
        "AND i.generation_from IS NOT NULL ORDER BY a.at DESC LIMIT 1"
    )
    if row is None or row["rung"] == "undo":
        raise AgentctlError(
            "there is no rollback to undo" if row is None else "the last rollback is undone already",
            "'agentctl incidents' lists what happened",
        )
    return row


def why_no_undo(context: AgentContext, ledger: Ledger) -> str:
    """Say why an undo cannot be carried out, '' if it can: a request that fails half-way would keep the agent down."""
    try:
        source = undo_source(ledger)
    except AgentctlError as error:
        return error.message
    tree = f"{context.slots.quarantine_path(source['id'], 1)}/tree"
    return "" if os.path.isdir(tree) else f"cannot undo incident {source['id']}: its quarantined tree {tree} is gone"


def _undo_tree(attempt: Attempt) -> str:
    source = attempt.ledger.meta(f"undo {attempt.incident}")
    tree = f"{attempt.context.slots.quarantine_path(source, 1)}/tree"
    if not os.path.isdir(tree):
        raise AgentctlError(f"cannot undo incident {source}: its quarantined tree {tree} is gone")
    return tree


def _close_superseded(ledger: Ledger) -> None:
    """A human's request ends what was still waiting for a heartbeat."""
    current = ledger.open_incident()
    if current is not None:
        writers.end_incident(ledger, current["id"], "nothing-to-do", at=time.time())


def _is_short_of_room(attempt) -> bool:
    """Tell whether what this attempt will certainly write uses up what is free; adds up only where it is little."""
    context = attempt.context
    if min(disk_space.free_bytes(folder) for folder in disk_space.folders(context)) > disk_space.PLENTY_BYTES:
        return False
    data = disk_space.NEEDED_BYTES + _restored_bytes(context, attempt.target["snapshot"] if attempt.target else "")
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


def _tree_bytes(attempt) -> int:
    """Add up the target's tree where it is not laid out yet."""
    target, context = attempt.target, attempt.context
    if (
        target is None
        or attempt.rung in ("undo", "restart")
        or context.slots.standby_note().get("generation") == target["number"]
    ):
        return 0
    listed = context.vault.git.run("ls-tree", "-r", "-l", target["vault_commit"], check=False).text
    sizes = [words[3] for line in listed.splitlines() if len(words := line.split(None, 4)) > 3]
    return sum(int(size) + 4096 for size in sizes if size.isdigit())
