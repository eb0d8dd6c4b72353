"""The agent's state before a launch or in a recovery: brought back where it was lost, kept as a snapshot.

What is replaced is kept in the incident's folder.
"""

from __future__ import annotations

import os
import time

from ..config.context import Context, Lock, new_id
from ..core import durable, fast_json
from ..core.errors import AgentctlError, is_full_disk
from ..ledger.database import Ledger
from ..ledger.models import GOOD_STAYS
from . import history, history_repair, task
from .snapshots import snapshot as snapshots

READ_WHOLE_BYTES = 512 * 1024  # a few milliseconds
SEAM_BYTES = 64 * 1024
COMPARED_BYTES = 64 * 1024 * 1024  # with the newest copy, to the byte: some 30 ms; of a longer one only the seam
SNAPSHOT_WAIT_SECONDS = 120.0  # for one that a person or the blessing takes at this moment
UNSAVED_SECONDS = 1.0  # an agent that saves after every message is never this far behind


def take_snapshot(context: Context) -> str:
    """Snapshot the state folder; return the snapshot's id."""
    with Lock(f"{context.paths.data_dir}/snapshots.lock", "a snapshot").take(wait_seconds=SNAPSHOT_WAIT_SECONDS):
        ids = [i for i in snapshots.list_ids(context.paths.snapshots_dir) if i.isdigit()]
        snapshot = f"{(int(ids[-1]) if ids else 0) + 1:06d}"
        snapshots.take(
            context.state_dir,
            context.paths.snapshots_dir,
            snapshot,
            previous=ids[-1] if ids else None,
            extra=context.extra_state,
            keep_patterns=context.config.state.keep,
        )
    return snapshot


def restore(attempt) -> str:
    """Put the state back that belongs to the target generation; safe to repeat."""
    context = attempt.context
    snapshot = _snapshot_to_restore(attempt)
    replaced = f"{context.incident_dir(attempt.incident)}/replaced-{attempt.number}"
    facts: dict[str, object] = {"snapshot": snapshot, "replaced": replaced}
    if not snapshot:
        os.makedirs(context.state_dir, exist_ok=True)
    else:
        settings = context.config.state
        report = snapshots.restore(
            context.paths.snapshots_dir,
            snapshot,
            context.state_dir,
            settings.restore,
            replaced,
            extra=context.extra_state,
            keep=settings.keep,
        )
        facts.update(restored=report.restored[:50], removed=report.removed[:50])
    own = attempt.ledger.step(attempt.incident, attempt.number, "snapshot")
    facts["history"] = repair_history(context, replaced, not_from=own.detail if own else "")
    facts["task"] = repair_task(context, attempt.reason)
    if attempt.rung == "golden without the task":
        facts["task"] = _set_task_aside(context, replaced)
    return fast_json.dumps(facts)


def _snapshot_to_restore(attempt) -> str:
    if attempt.rung == GOOD_STAYS:  # what was not launched has changed nothing of the state
        return ""
    if attempt.rung != "undo":
        return attempt.target.snapshot
    source = attempt.ledger.meta(f"undo {attempt.incident}")
    return next((step.detail for step in attempt.ledger.steps(source) if step.name == "snapshot"), "")


def repair_history(context: Context, kept_dir: str, not_from: str = "") -> str:
    """Make the history whole from the newest copies; one that has only grown since the last copy is left alone.

    `not_from` names a snapshot that was taken of the state that is being mended.
    """
    path, root = context.history_path, context.paths.snapshots_dir
    ids = [i for i in snapshots.list_ids(root)[-20:] if i != not_from]
    copies = [c for i in reversed(ids) if os.path.exists(c := f"{root}/{i}/tree/history.jsonl")]
    has_grown = _has_only_grown(path, copies)
    stored = history_repair.HistoryCopy(context.paths.store_path, context.paths.name)
    try:
        found = stored.judge(path)
        if has_grown and found == history_repair.WHOLE:
            return "whole"
        if has_grown and found == history_repair.SHORT:
            return _append_missing(context, stored)
        if not copies and found == history_repair.WHOLE and not os.path.lexists(path):
            return "none"
        return _repair_from(context, copies, stored, kept_dir)
    finally:
        stored.close()


def complete_history(context: Context, kept_dir: str) -> str:
    """Before a launch: give the agent's file what the watchdog's store has and the file has not."""
    path = context.history_path
    stored = history_repair.HistoryCopy(context.paths.store_path, context.paths.name)
    try:
        found = stored.judge(path)
        if found == history_repair.WHOLE:
            return "whole"
        if found == history_repair.SHORT:
            return _append_missing(context, stored)
        root = context.paths.snapshots_dir
        copies = [c for i in reversed(snapshots.list_ids(root)[-3:])
                  if os.path.exists(c := f"{root}/{i}/tree/history.jsonl")]  # fmt: skip
        return _repair_from(context, copies, stored, kept_dir)
    finally:
        stored.close()


def take_given_task(context: Context) -> None:
    """Put the task in place that was given with a restart; the one it replaces stays beside it."""
    given = durable.read(context.paths.given_task_path)
    if given is None:
        return
    present = _read_task(context.task_path)
    if present not in (None, given):
        _keep_beside(context.task_path, present, "replaced")
    durable.write(context.task_path, given, 0o644, context.owner)
    os.unlink(context.paths.given_task_path)


def _append_missing(context: Context, stored: history_repair.HistoryCopy) -> str:
    missing = stored.missing(context.history_path)
    if not missing:
        return "whole"
    history.append_lines(context.history_path, missing)
    _give_to_agent(context, context.history_path)
    return "completed"


def _repair_from(context: Context, copies: list[str], stored: history_repair.HistoryCopy, kept_dir: str) -> str:
    """Make the file the union of itself, the snapshots' copies and the watchdog's."""
    path = context.history_path
    os.makedirs(kept_dir, mode=0o700, exist_ok=True)
    os.makedirs(context.state_dir, exist_ok=True)
    exported = f"{kept_dir}/stored.jsonl"
    try:
        more = [exported] if stored.judge(path) != history_repair.WHOLE and stored.export(exported) else []
        history_repair.repair(path, [*more, *copies], keep_damaged_as=f"{kept_dir}/history.jsonl.damaged")
    finally:
        if os.path.exists(exported):
            os.unlink(exported)
    _give_to_agent(context, path)
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


def repair_task(context: Context, why: str) -> str:
    """Rebuild `current_task.md` from the history where it is missing or damaged though there is something to resume."""
    path = context.task_path
    present = _read_task(path)
    is_whole = present is not None and task.is_task(present)
    if is_whole and not _is_behind(context):
        return "whole"
    messages = history.tail(context.history_path, 20)
    version = _last_task(context.paths.snapshots_dir)
    if not messages and version is None and present is None:
        return "none"
    if is_whole:
        version = present
    elif present is not None:
        _keep_beside(path, present)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    durable.write(path, task.rebuild(version, messages, why, at).encode(), 0o644, context.owner)
    return "rebuilt"


def pending_actions(context: Context) -> list[str]:
    """Return what is unfinished in the agent's task, nothing where there is none that can be read."""
    data = durable.read(context.task_path)
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


def _is_behind(context: Context) -> bool:
    """Tell whether the conversation went on after the task was saved last: the agent died without saving."""
    try:
        saved_at = os.stat(context.task_path).st_mtime
        return os.stat(context.history_path).st_mtime - saved_at > UNSAVED_SECONDS
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


def _set_task_aside(context: Context, kept_dir: str) -> str:
    """The last rung runs without the resumed task: perhaps it is what breaks the agent."""
    if os.path.exists(context.task_path):
        os.makedirs(kept_dir, mode=0o700, exist_ok=True)
        data = durable.read(context.task_path) or b""
        durable.write(f"{kept_dir}/current_task.md", data, 0o600)
        os.unlink(context.task_path)
    return f"set aside in {kept_dir}"


def _give_to_agent(context: Context, path: str) -> None:
    if context.owner and os.path.exists(path):
        os.chown(path, *context.owner, follow_symlinks=False)


# -- present state ---------------------------------------------------------------------------------
# The state as it is before a launch or a recovery: brought back where it was lost, kept as a snapshot.
# A folder that was deleted or emptied while the agent ran comes back from the newest snapshot that has it. What is
# there stays; only what is missing is brought back. A history never gets shorter.


LOOKED_AT = 20  # snapshots, the newest first: one that was taken after the loss is as empty
EXACT_UP_TO = 1000  # paths; beyond that a folder that is there counts as whole


GONE = "the state folder was deleted while the agent ran"
EMPTIED = "the state folder was emptied while the agent ran"
SHORTER = "the history got shorter than it was"


def keep_before_launch(context: Context, ledger: Ledger, say) -> str:
    """Return a fresh snapshot, '' where there is no room: an agent without one is better than one that does not run."""
    brought = bring_back(context, f"{context.paths.incidents_dir}/state-{new_id()}")
    if brought:
        say(f"agentctl: {brought}")
        with ledger.transaction():
            opened = ledger.open_incident()
            _note(ledger, brought, opened.id if opened else "")
    try:
        return take_snapshot(context)
    except AgentctlError as error:
        if not is_full_disk(error):
            raise
        say(f"agentctl: launching without a snapshot: {error.message}")
        ledger.event("left-out", f"the snapshot before a launch: {error.message}")
        return ""


def _note(ledger: Ledger, brought: str, incident: str) -> None:
    ledger.event("state-restored", brought)
    if incident:
        ledger.add_evidence(incident, state_lost=brought)


def repair_before_restart(attempt, say) -> str:
    """Bring back what is lost and mend the task: all that a plain restart does to the state."""
    _bring_back_in(attempt, say)
    return repair_task(attempt.context, attempt.reason)


def _bring_back_in(attempt, say) -> None:
    brought = bring_back(attempt.context, f"{attempt.context.incident_dir(attempt.incident)}/state-{attempt.number}")
    if brought:
        say(f"agentctl: {brought}")
        attempt.write_with_end(lambda: _note(attempt.ledger, brought, attempt.incident))


def keep(attempt, say) -> str:
    """Snapshot the state that a rollback finds; without room it is left out: what gets replaced is kept in any case."""
    _bring_back_in(attempt, say)
    try:
        if not attempt.is_short:
            return take_snapshot(attempt.context)
    except (AgentctlError, OSError) as error:
        if not is_full_disk(error):
            raise
    left_out = [*attempt.ledger.evidence(attempt.incident).get("left_out", []), "the snapshot of the state as it was"]
    attempt.write_with_end(
        lambda: attempt.ledger.add_evidence(attempt.incident, left_out=list(dict.fromkeys(left_out)))
    )
    return ""


def bring_back(context: Context, kept_dir: str) -> str:
    """Bring back what is lost; return what was done in words, '' where nothing is lost."""
    root = context.paths.snapshots_dir
    _make_way(context.state_dir)
    source, why = find_loss(context.state_dir, root)
    if not source:
        return ""
    settings = context.config.state
    report = snapshots.restore(root, source, context.state_dir, ["**"], kept_dir, keep=_present(context.state_dir))
    outside = (
        snapshots.restore(root, source, context.state_dir, [], kept_dir, extra=settings.extra)
        if settings.extra and why == GONE
        else None
    )
    repair_history(context, kept_dir)
    repair_task(context, why)
    brought = len(report.restored) + (len(outside.restored) if outside else 0)
    return f"{why}: {brought} entries came back from snapshot {source}"


def _make_way(state_dir: str) -> None:
    """Move aside what stands in the folder's place and is none; not a link: what it leads to may come back."""
    if os.path.lexists(state_dir) and not os.path.isdir(state_dir) and not os.path.islink(state_dir):
        make_way(state_dir)


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
