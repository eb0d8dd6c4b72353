"""The state as it is before a launch or a recovery: brought back where it was lost, kept as a snapshot.

A folder that was deleted or emptied while the agent ran comes back from the newest snapshot that has it. What is there
stays; only what is missing is brought back. A history never gets shorter.
"""

from __future__ import annotations

import os

from .. import snapshots
from ..errors import AgentctlError, is_full_disk
from ..records.ledger import Ledger
from ..station import Station, new_id
from . import state

LOOKED_AT = 20  # snapshots, the newest first: one that was taken after the loss is as empty
EXACT_UP_TO = 1000  # paths; beyond that a folder that is there counts as whole


GONE = "the state folder was deleted while the agent ran"
EMPTIED = "the state folder was emptied while the agent ran"
SHORTER = "the history got shorter than it was"


def keep_before_launch(station: Station, ledger: Ledger, say) -> str:
    """Return a fresh snapshot, '' where there is no room: an agent without one is better than one that does not run."""
    brought = bring_back(station, f"{station.places.incidents_dir}/state-{new_id()}")
    if brought:
        say(f"agentctl: {brought}")
        with ledger.transaction():
            _note(ledger, brought, ledger.open_incident())
    try:
        return state.take_snapshot(station)
    except AgentctlError as error:
        if not is_full_disk(error):
            raise
        say(f"agentctl: launching without a snapshot: {error.message}")
        ledger.event("left-out", f"the snapshot before a launch: {error.message}")
        return ""


def _note(ledger: Ledger, brought: str, incident: dict | None) -> None:
    ledger.event("state-restored", brought)
    if incident is not None:
        ledger.add_evidence(incident["id"], state_lost=brought)


def mend_before_restart(attempt, say) -> str:
    """Bring back what is lost and mend the task: all that a plain restart does to the state."""
    _bring_back_in(attempt, say)
    return state.mend_task(attempt.station, attempt.reason)


def _bring_back_in(attempt, say) -> None:
    brought = bring_back(attempt.station, f"{attempt.station.incident_dir(attempt.incident)}/state-{attempt.number}")
    if brought:
        say(f"agentctl: {brought}")
        attempt.write_with_end(lambda: _note(attempt.ledger, brought, {"id": attempt.incident}))


def keep(attempt, say) -> str:
    """Snapshot the state that a rollback finds; without room it is left out: what gets replaced is kept in any case."""
    _bring_back_in(attempt, say)
    try:
        if not attempt.is_short:
            return state.take_snapshot(attempt.station)
    except (AgentctlError, OSError) as error:
        if not is_full_disk(error):
            raise
    left_out = [*attempt.ledger.evidence(attempt.incident).get("left_out", []), "the snapshot of the state as it was"]
    attempt.write_with_end(
        lambda: attempt.ledger.add_evidence(attempt.incident, left_out=list(dict.fromkeys(left_out)))
    )
    return ""


def bring_back(station: Station, kept_dir: str) -> str:
    """Bring back what is lost; return what was done in words, '' where nothing is lost."""
    root = station.places.snapshots_dir
    _make_way(station.state_dir)
    source, why = find_loss(station.state_dir, root)
    if not source:
        return ""
    settings = station.config.state
    report = snapshots.restore(root, source, station.state_dir, ["**"], kept_dir, keep=_present(station.state_dir))
    outside = (
        snapshots.restore(root, source, station.state_dir, [], kept_dir, extra=settings.extra)
        if settings.extra and why == GONE
        else None
    )
    state.mend_history(station, kept_dir)
    state.mend_task(station, why)
    brought = len(report.restored) + (len(outside.restored) if outside else 0)
    return f"{why}: {brought} entries came back from snapshot {source}"


def _make_way(state_dir: str) -> None:
    """Move aside what stands in the folder's place and is none; not a link: what it leads to may come back."""
    if os.path.lexists(state_dir) and not os.path.isdir(state_dir) and not os.path.islink(state_dir):
        state.make_way(state_dir)


def find_loss(state_dir: str, root: str) -> tuple[str, str]:
    """Return the snapshot that has what is lost, and what is; two '' where nothing is, after a few system calls."""
    ids = snapshots.list_ids(root)[-LOOKED_AT:]
    there = _size(f"{state_dir}/history.jsonl")
    has_any = _has_entries(state_dir)
    for snapshot in reversed(ids):
        saved = _size(f"{root}/{snapshot}/tree/history.jsonl")
        if has_any and saved >= 0:
            return (snapshot, SHORTER) if saved > max(there, 0) else ("", "")
        if not has_any and (saved >= 0 or _has_entries(f"{root}/{snapshot}/tree")):
            return snapshot, EMPTIED if os.path.isdir(state_dir) else GONE
    return "", ""


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _size(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return -1


def _present(folder: str) -> list[str]:
    """Name everything that is there as patterns for what a restore leaves alone."""
    paths: list[str] = []
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(f"{top}/{name}")]
        paths += [f"{top}/{name}"[len(folder) :] for name in (*files, *links)]
        if len(paths) > EXACT_UP_TO:
            paths = [f"/{name}" for name in os.listdir(folder)]
            break
    return [_literally(path) for path in paths]


def _literally(path: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in path)
