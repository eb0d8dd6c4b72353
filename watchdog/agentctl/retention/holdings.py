"""What is kept of an agent's past: quarantine, snapshots, evidence, generations; who needs it, what it takes.

Looks only. What cannot be read is not there.
"""

from __future__ import annotations

import contextlib
import os

from ..core import durable, fast_json
from ..core.errors import AgentctlError
from ..generations.agent_context import AgentContext
from ..generations.move_entries import Folder
from ..ledger.database import Ledger
from ..ledger.models import Generation, Incident
from ..recovery.execution import undo_source
from ..state.snapshots import snapshot
from .retention_rules import Budget, Item, PruneChoice, Sizes, choose_pruned, guard_generations, guard_snapshots

LATE_SECONDS = 2 * 86400.0
SIZES_NAME = "sizes.json"  # as measured by the last prune, for `status`


class Needs:
    """What something that is under way, or may be asked for, needs: id -> why, by kind."""

    def __init__(self) -> None:
        self.generations: dict[int, str] = {}
        self.snapshots: dict[str, str] = {}
        self.incidents: dict[str, str] = {}
        self.launches: dict[str, str] = {}


def find_needs(context: AgentContext, ledger: Ledger) -> Needs:
    """Ask the ledger what runs, what is open and what an undo would take."""
    needs = Needs()
    opened, newest = ledger.open_incident(), ledger.last_incident()
    if newest is not None:
        needs.incidents[newest.id] = "the newest incident"
    if opened is not None:
        _need_incident(needs, ledger, opened, "the open incident")
    with contextlib.suppress(AgentctlError):  # there is none
        _need_incident(needs, ledger, undo_source(ledger), "the rollback that can be undone")
    stands = context.slots.standby_note().get("generation")
    if stands is not None:
        needs.generations[stands] = "the standby"
    note = fast_json.loads(ledger.meta("switched") or "{}")
    if note:
        needs.generations[note["generation"]], needs.snapshots[note["snapshot"]] = ("just put in place",) * 2
    last = ledger.last_launch()
    if last is not None:
        why = "the last launch" if last.end else "it runs"
        needs.generations[last.generation], needs.snapshots[last.snapshot] = why, why
        needs.launches[last.id] = why
    return needs


def _need_incident(needs: Needs, ledger: Ledger, incident: Incident, why: str) -> None:
    needs.incidents[incident.id] = why
    needs.launches[incident.launch] = why
    targets = [attempt.target for attempt in ledger.attempts(incident.id)]
    for number in (incident.generation_from, incident.generation_to, *targets):
        if number is not None:
            needs.generations[number] = why
    for step in ledger.steps(incident.id):
        if step.name == "snapshot":
            needs.snapshots[step.detail] = why


def pin_slots(context: AgentContext) -> None:
    """Reach the slots by their descriptor from here on: who may rename what is above them leads us nowhere else.

    Raise AgentctlError if what is there is not a folder of ours.
    """
    path = context.slots.folder
    try:
        folder = Folder.open(os.path.dirname(path)).enter(os.path.basename(path))
    except OSError as error:
        raise AgentctlError(f"cannot open the slots {path}: {error.strerror}") from error
    facts = os.fstat(folder.fd)
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise AgentctlError(
            f"the slots {path} are not ours: somebody else may write there",
            "nothing was pruned; look who made it, and move it away",
        )
    context.slots.folder = f"/proc/{os.getpid()}/fd/{folder.fd}"


class Holdings:
    """All that is kept at one moment, by kind."""

    def __init__(self, context: AgentContext, ledger: Ledger) -> None:
        self.context, self.needs = context, find_needs(context, ledger)
        self.rows = ledger.generations()
        made = reversed(ledger.launches_but("", -1))
        self._launches = {row.id: place for place, row in enumerate(made, 1)}
        self._incidents = {
            row.id: (self._launches.get(row.launch, 0), 1, place)
            for place, row in enumerate(reversed(ledger.incidents()), 1)
        }
        self.paths: dict[str, dict[str, str]] = {
            "quarantine": _below(f"{context.slots.folder}/quarantine"),
            "snapshots": {i: f"{context.paths.snapshots_dir}/{i}"
                          for i in snapshot.list_ids(context.paths.snapshots_dir)},
            "evidence": {**_below(f"{context.paths.incidents_dir}/launches", "launches/"),
                         **_below(context.paths.incidents_dir, but=("launches",))},
        }  # fmt: skip

    def choose(self, now: float, sizes: dict[str, Sizes]) -> dict[str, PruneChoice]:
        """Choose what is over its budget; what has no size yet counts as nothing."""
        settings = self.context.config.retention
        choices = {}
        for kind in ("quarantine", "evidence", "generations", "snapshots"):  # generations first: they own snapshots
            pruned = {int(item.id) for item, _, _ in choices["generations"].pruned} if kind == "snapshots" else set()
            choices[kind] = choose_pruned(self.items(kind, pruned), Budget.of(kind, settings), now, sizes.get(kind))
        return choices

    def items(self, kind: str, pruned: set[int] = frozenset()) -> list[Item]:
        """List one kind with what guards each; `pruned` are generations that are about to go."""
        if kind == "generations":
            guards = guard_generations(self.held, self.needs.generations, self.context.config.retention.newest)
            return [Item(str(r.number), r.created_at, guards.get(r.number, ""), (r.number,)) for r in self.held]
        guards = {
            "quarantine": self._guard_tree,
            "evidence": self._guard_evidence,
            "snapshots": guard_snapshots(self.rows, self.needs.snapshots, pruned).get,
        }[kind]
        found = ((name, _made_at(path)) for name, path in self.paths[kind].items())
        return [Item(i, at, guards(i) or "", self._place(kind, i)) for i, at in found if at is not None]

    def _place(self, kind: str, name: str) -> tuple[int, ...]:
        """Return where a thing stands among its kind: evidence of a launch before that of the incident it led to.

        What the ledger does not know, of one that was lost, is older than all that it knows.
        """
        if kind == "snapshots":
            return (int(name),) if name.isdigit() else (0,)
        launch = name.removeprefix("launches/")
        if launch != name:
            return self._launches.get(launch, 0), 0
        incident = next((i for i in (name, name.rpartition("-")[0]) if i in self._incidents), "")
        return self._incidents.get(incident, (0, 0, 0))

    @property
    def held(self) -> list[Generation]:
        """The generations that the vault holds."""
        return [row for row in self.rows if row.vault_commit]

    def _guard_tree(self, name: str) -> str:
        return next(
            (
                why
                for incident, why in self.needs.incidents.items()
                if name == incident or name.startswith(f"{incident}-")
            ),
            "",
        )

    def _guard_evidence(self, name: str) -> str:
        return self.needs.launches.get(name.removeprefix("launches/"), "") or self.needs.incidents.get(name, "")


def over_budget(context: AgentContext, ledger: Ledger, now: float) -> dict[str, str]:
    """Say what is over its budget, by kind; from what was measured last, and some days late: a prune may be due."""
    choices = Holdings(context, ledger).choose(now - LATE_SECONDS, remembered_sizes(context))
    told = {kind: f"{len(choice.pruned)} over the budget" for kind, choice in choices.items() if choice.pruned}
    return {kind: choice.excess for kind, choice in choices.items() if choice.excess} | told


def measure(paths: dict[str, str]) -> Sizes:
    """Measure folders; what several hold by hard links is free only when all of them are gone."""
    parts: dict[frozenset, int] = {}
    shared: dict[tuple, list] = {}  # inode -> [links not seen yet, bytes, who holds it]
    for id, path in paths.items():
        key = frozenset((id,))
        for inode, links, size in _files(path):
            if links == 1:
                parts[key] = parts.get(key, 0) + size
                continue
            known = shared.setdefault(inode, [links, size, key])
            known[0] -= 1
            if id not in known[2]:
                known[2] |= key
    for unseen, size, holders in shared.values():
        if unseen <= 0:  # else something outside holds it too, and nothing is free
            parts[holders] = parts.get(holders, 0) + size
    return Sizes(parts.items())


def remember_sizes(context: AgentContext, sizes: dict[str, Sizes]) -> None:
    """Keep what was measured, for whoever has no time to measure."""
    kept = {kind: [[sorted(ids), size] for ids, size in found.parts] for kind, found in sizes.items()}
    durable.write(f"{context.paths.data_dir}/{SIZES_NAME}", fast_json.dumps(kept).encode(), 0o600)


def remembered_sizes(context: AgentContext) -> dict[str, Sizes]:
    """Return what was measured last; a size that nobody has measured is not in it."""
    try:
        kept = fast_json.loads(durable.read(f"{context.paths.data_dir}/{SIZES_NAME}") or b"{}")
        return {kind: Sizes((ids, size) for ids, size in parts) for kind, parts in kept.items()}
    except (ValueError, TypeError, AttributeError, OSError):
        return {}


def _below(folder: str, prefix: str = "", but: tuple[str, ...] = ()) -> dict[str, str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return {}
    return {prefix + name: f"{folder}/{name}" for name in names if name not in but and not name.startswith(".")}


def _made_at(path: str) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def _files(path: str):
    """Yield (inode, links, bytes on disk) of everything below."""
    for top, folders, files in os.walk(path):
        for name in (*folders, *files):
            try:
                s = os.lstat(f"{top}/{name}")
            except OSError:
                continue
            is_folder = s.st_mode & 0o170000 == 0o040000
            yield (s.st_dev, s.st_ino), 1 if is_folder else s.st_nlink, s.st_blocks * 512
