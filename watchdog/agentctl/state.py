"""The agent's state on the rescue path: `restore` patterns go back, history and task are mended, nothing is lost.

What is replaced is kept in the incident's folder.
"""

from __future__ import annotations

from . import lean_json as json
import os
import time

from . import durable, history, history_mend, snapshots, task
from .station import Station


def restore(attempt) -> str:
    """Put the state back that belongs to the target generation; safe to repeat."""
    station = attempt.station
    snapshot = _snapshot_to_restore(attempt)
    replaced = f"{station.incident_dir(attempt.incident)}/replaced-{attempt.number}"
    facts: dict[str, object] = {"snapshot": snapshot, "replaced": replaced}
    os.makedirs(station.state_dir, exist_ok=True)
    if snapshot:
        settings = station.config.state
        report = snapshots.restore(station.places.snapshots_dir, snapshot, station.state_dir, settings.restore,
                                   replaced, extra=settings.extra, keep=settings.keep)
        facts.update(restored=report.restored[:50], removed=report.removed[:50])
    facts["history"] = mend_history(station, replaced)
    facts["task"] = mend_task(station, attempt.reason)
    if attempt.rung == "golden without the task":
        facts["task"] = _set_task_aside(station, replaced)
    return json.dumps(facts)


def _snapshot_to_restore(attempt) -> str:
    if attempt.rung != "undo":
        return attempt.target["snapshot"]
    source = attempt.ledger.meta(f"undo {attempt.incident}")
    row = attempt.ledger.one("SELECT detail FROM steps WHERE incident=? AND name='snapshot' ORDER BY attempt LIMIT 1",
                             source)
    return row["detail"] if row else ""


def mend_history(station: Station, kept_dir: str) -> str:
    """Make the history whole from the newest good copy; a history that parses is left alone."""
    path, root = station.history_path, station.places.snapshots_dir
    if os.path.lexists(path) and history.is_whole(path):
        return "whole"
    copies = [f"{root}/{i}/tree/history.jsonl" for i in reversed(snapshots.list_ids(root)[-20:])]
    copies = [c for c in copies if os.path.exists(c)]
    if not copies and not os.path.lexists(path):
        return "none"
    os.makedirs(kept_dir, mode=0o700, exist_ok=True)
    history_mend.mend(path, copies, keep_damaged_as=f"{kept_dir}/history.jsonl.damaged")
    _give_to_agent(station, path)
    return "mended"


def mend_task(station: Station, why: str) -> str:
    """Rebuild `current_task.md` from the history where it is missing or damaged though there is something to resume."""
    path = station.task_path
    present = durable.read(path)
    if present is not None and task.is_task(present):
        return "whole"
    messages = history.tail(station.history_path, 20)
    root = station.places.snapshots_dir
    last = snapshots.newest_copy(root, list(reversed(snapshots.list_ids(root))), "current_task.md")
    if not messages and last is None and present is None:
        return "none"
    if present is not None:
        _keep_beside(path, present)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    version = last[1] if last is not None and task.is_task(last[1]) else None
    durable.write(path, task.rebuild(version, messages, why, at).encode(), 0o644, station.owner)
    return "rebuilt"


def _keep_beside(path: str, data: bytes) -> None:
    number = 1
    while os.path.lexists(f"{path}.damaged-{number}"):
        number += 1
    durable.write(f"{path}.damaged-{number}", data, 0o600)


def _set_task_aside(station: Station, kept_dir: str) -> str:
    """The last rung runs without the resumed task: perhaps it is what breaks the agent."""
    if os.path.exists(station.task_path):
        os.makedirs(kept_dir, mode=0o700, exist_ok=True)
        data = durable.read(station.task_path) or b""
        durable.write(f"{kept_dir}/current_task.md", data, 0o600)
        os.unlink(station.task_path)
    return f"set aside in {kept_dir}"


def _give_to_agent(station: Station, path: str) -> None:
    if station.owner and os.path.exists(path):
        os.chown(path, *station.owner, follow_symlinks=False)
