"""The agent's state on the rescue path: `restore` patterns go back, history and task are mended, nothing is lost.

What is replaced is kept in the incident's folder.
"""

from __future__ import annotations

import os
import time

from .. import durable, snapshots
from .. import lean_json as json
from ..conversation import history, history_copy, history_mend, task
from ..station import Lock, Station

READ_WHOLE_BYTES = 512 * 1024  # a few milliseconds
SEAM_BYTES = 64 * 1024
COMPARED_BYTES = 64 * 1024 * 1024  # with the newest copy, to the byte: some 30 ms; of a longer one only the seam
SNAPSHOT_WAIT_SECONDS = 120.0  # for one that a person or the blessing takes at this moment
UNSAVED_SECONDS = 1.0  # an agent that saves after every message is never this far behind


def take_snapshot(station: Station) -> str:
    """Snapshot the state folder; return the snapshot's id."""
    with Lock(f"{station.places.data_dir}/snapshots.lock", "a snapshot").take(wait_seconds=SNAPSHOT_WAIT_SECONDS):
        ids = [i for i in snapshots.list_ids(station.places.snapshots_dir) if i.isdigit()]
        snapshot = f"{(int(ids[-1]) if ids else 0) + 1:06d}"
        snapshots.take(
            station.state_dir,
            station.places.snapshots_dir,
            snapshot,
            previous=ids[-1] if ids else None,
            extra=station.extra_state,
            keep_patterns=station.config.state.keep,
        )
    return snapshot


def restore(attempt) -> str:
    """Put the state back that belongs to the target generation; safe to repeat."""
    station = attempt.station
    snapshot = _snapshot_to_restore(attempt)
    replaced = f"{station.incident_dir(attempt.incident)}/replaced-{attempt.number}"
    facts: dict[str, object] = {"snapshot": snapshot, "replaced": replaced}
    if not snapshot:
        os.makedirs(station.state_dir, exist_ok=True)
    else:
        settings = station.config.state
        report = snapshots.restore(
            station.places.snapshots_dir,
            snapshot,
            station.state_dir,
            settings.restore,
            replaced,
            extra=station.extra_state,
            keep=settings.keep,
        )
        facts.update(restored=report.restored[:50], removed=report.removed[:50])
    own = attempt.ledger.one(
        "SELECT detail FROM steps WHERE incident=? AND attempt=? AND name='snapshot'", attempt.incident, attempt.number
    )
    facts["history"] = mend_history(station, replaced, not_from=own["detail"] if own else "")
    facts["task"] = mend_task(station, attempt.reason)
    if attempt.rung == "golden without the task":
        facts["task"] = _set_task_aside(station, replaced)
    return json.dumps(facts)


def _snapshot_to_restore(attempt) -> str:
    if attempt.rung != "undo":
        return attempt.target["snapshot"]
    source = attempt.ledger.meta(f"undo {attempt.incident}")
    row = attempt.ledger.one(
        "SELECT detail FROM steps WHERE incident=? AND name='snapshot' ORDER BY attempt LIMIT 1", source
    )
    return row["detail"] if row else ""


def mend_history(station: Station, kept_dir: str, not_from: str = "") -> str:
    """Make the history whole from the newest copies; one that has only grown since the last copy is left alone.

    `not_from` names a snapshot that was taken of the state that is being mended.
    """
    path, root = station.history_path, station.places.snapshots_dir
    ids = [i for i in snapshots.list_ids(root)[-20:] if i != not_from]
    copies = [c for i in reversed(ids) if os.path.exists(c := f"{root}/{i}/tree/history.jsonl")]
    has_grown = _has_only_grown(path, copies)
    stored = history_copy.HistoryCopy(station.places.store_path, station.places.name)
    try:
        found = stored.judge(path)
        if has_grown and found == history_copy.WHOLE:
            return "whole"
        if has_grown and found == history_copy.SHORT:
            return _append_missing(station, stored)
        if not copies and found == history_copy.WHOLE and not os.path.lexists(path):
            return "none"
        return _mend_from(station, copies, stored, kept_dir)
    finally:
        stored.close()


def complete_history(station: Station, kept_dir: str) -> str:
    """Before a launch: give the agent's file what the watchdog's store has and the file has not."""
    path = station.history_path
    stored = history_copy.HistoryCopy(station.places.store_path, station.places.name)
    try:
        found = stored.judge(path)
        if found == history_copy.WHOLE:
            return "whole"
        if found == history_copy.SHORT:
            return _append_missing(station, stored)
        root = station.places.snapshots_dir
        copies = [c for i in reversed(snapshots.list_ids(root)[-3:])
                  if os.path.exists(c := f"{root}/{i}/tree/history.jsonl")]  # fmt: skip
        return _mend_from(station, copies, stored, kept_dir)
    finally:
        stored.close()


def take_given_task(station: Station) -> None:
    """Put the task in place that was given with a restart; the one it replaces stays beside it."""
    given = durable.read(station.places.given_task_path)
    if given is None:
        return
    present = _read_task(station.task_path)
    if present not in (None, given):
        _keep_beside(station.task_path, present, "replaced")
    durable.write(station.task_path, given, 0o644, station.owner)
    os.unlink(station.places.given_task_path)


def _append_missing(station: Station, stored: history_copy.HistoryCopy) -> str:
    missing = stored.missing(station.history_path)
    if not missing:
        return "whole"
    history.append_lines(station.history_path, missing)
    _give_to_agent(station, station.history_path)
    return "completed"


def _mend_from(station: Station, copies: list[str], stored: history_copy.HistoryCopy, kept_dir: str) -> str:
    """Make the file the union of itself, the snapshots' copies and the watchdog's."""
    path = station.history_path
    os.makedirs(kept_dir, mode=0o700, exist_ok=True)
    os.makedirs(station.state_dir, exist_ok=True)
    exported = f"{kept_dir}/stored.jsonl"
    try:
        more = [exported] if stored.judge(path) != history_copy.WHOLE and stored.export(exported) else []
        history_mend.mend(path, [*more, *copies], keep_damaged_as=f"{kept_dir}/history.jsonl.damaged")
    finally:
        if os.path.exists(exported):
            os.unlink(exported)
    _give_to_agent(station, path)
    return "mended"


def _has_only_grown(path: str, copies: list[str]) -> bool:
    """Tell whether the history continues its newest copy and what came after is whole.

    Only the seam and what is new are read: a million old messages would cost seconds in the middle of a recovery.
    """
    if not os.path.isfile(path):
        return False
    if not copies or os.path.getsize(path) <= READ_WHOLE_BYTES:
        is_shorter = bool(copies) and os.path.getsize(path) < os.path.getsize(copies[0])
        return not is_shorter and history.is_whole(path)
    size = os.path.getsize(copies[0])
    if os.path.getsize(path) < size or not _has_same_beginning(path, copies[0], size):
        return False
    return history.scan(path, size).is_whole


def _has_same_beginning(path: str, copy: str, size: int) -> bool:
    """Tell whether the first `size` bytes are those of the copy: damage may be anywhere in them."""
    if size > COMPARED_BYTES:
        return _bytes_before(path, size) == _bytes_before(copy, size)
    with open(path, "rb", buffering=0) as one, open(copy, "rb", buffering=0) as other:
        for at in range(0, size, 1 << 20):
            length = min(1 << 20, size - at)
            if one.read(length) != other.read(length):
                return False
    return True


def _bytes_before(path: str, end: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, end - SEAM_BYTES))
        return file.read(min(end, SEAM_BYTES))


def mend_task(station: Station, why: str) -> str:
    """Rebuild `current_task.md` from the history where it is missing or damaged though there is something to resume."""
    path = station.task_path
    present = _read_task(path)
    is_whole = present is not None and task.is_task(present)
    if is_whole and not _is_behind(station):
        return "whole"
    messages = history.tail(station.history_path, 20)
    version = _last_task(station.places.snapshots_dir)
    if not messages and version is None and present is None:
        return "none"
    if is_whole:
        version = present
    elif present is not None:
        _keep_beside(path, present)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    from ..conversation import task_rebuild  # only where one is damaged or behind

    durable.write(path, task_rebuild.rebuild(version, messages, why, at).encode(), 0o644, station.owner)
    return "rebuilt"


def pending_actions(station: Station) -> list[str]:
    """Return what is unfinished in the agent's task, nothing where there is none that can be read."""
    data = durable.read(station.task_path)
    if data is None or not task.is_task(data):
        return []
    return [text for done, text in task.parse_bytes(data).pending if not done]


def _read_task(path: str) -> bytes | None:
    """Read the task; what stands there without being a file is moved aside and counts as damaged."""
    if not os.path.lexists(path) or os.path.isfile(path):
        return durable.read(path)
    make_way(path)
    return b""


def make_way(path: str) -> None:
    """Move what stands at a path, and should not, aside under a name beside it."""
    os.rename(path, f"{path}.damaged-{os.urandom(3).hex()}")


def _is_behind(station: Station) -> bool:
    """Tell whether the conversation went on after the task was saved last: the agent died without saving."""
    try:
        saved_at = os.stat(station.task_path).st_mtime
        return os.stat(station.history_path).st_mtime - saved_at > UNSAVED_SECONDS
    except OSError:
        return False


def _last_task(root: str) -> bytes | None:
    """Find the newest task that is one: a snapshot that was taken after the damage has the damaged file."""
    for snapshot in reversed(snapshots.list_ids(root)):
        data = snapshots.read_file(root, snapshot, "current_task.md")
        if data is not None and task.is_task(data):
            return data
    return None


def _keep_beside(path: str, data: bytes, why: str = "damaged") -> None:
    number = 1
    while os.path.lexists(f"{path}.{why}-{number}"):
        number += 1
    durable.write(f"{path}.{why}-{number}", data, 0o600)


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
