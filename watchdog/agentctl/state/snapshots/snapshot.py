"""Snapshots of the state folder: take, verify, list, read; what brings them back is in `restore`.

A snapshot is a folder `root/<id>/` with `tree/` (and `extra/` for paths outside the state
folder): plain files to look at, 0600, whose modes, owners and times are in `manifest.json`. It is
built under another name and renamed when it is durable, so the final name alone says that it is
whole. A taken snapshot is never changed; taking it again answers with the first.
"""

from __future__ import annotations

import os
import time

from . import file_copy, manifest, progress
from .capture import Capture
from .file_copy import Syncs, remove_tree
from .folders import SnapshotFolder, all_places, open_below, open_folder
from .manifest import Manifest, SnapshotFailed

__all__ = [
    "SnapshotFailed", "SnapshotReport", "list_ids", "newest_copy", "read_file", "restore", "take",
    "verify",
]  # fmt: skip


class SnapshotReport:
    """What `take` did; `skipped` says which paths are missing or unsettled, and why."""

    __slots__ = ("bytes", "copied_bytes", "files", "id", "note", "seconds", "skipped")

    def __init__(self, taken: Manifest) -> None:
        copies = [entry for entry in taken.entries if entry.has_copy]
        self.id, self.files, self.bytes = taken.id, len(copies), sum(entry.size for entry in copies)
        about = taken.about
        self.copied_bytes, self.skipped = about["copied_bytes"], about["skipped"]
        self.seconds, self.note = about["seconds"], about["note"]


def take(state_dir: str, root: str, id: str, previous: str | None = None, extra=(), keep_patterns=()) -> SnapshotReport:
    """Copy the state folder and what `extra` (absolute globs) means into `root/id`.

    Cost is what changed since `previous`. `keep_patterns` are recorded: what they mean is copied
    too, and a restore of this snapshot leaves it alone unless told otherwise. Raise SnapshotFailed
    if it cannot be done; then no trace of it is left.
    """
    _check_id(id)
    os.makedirs(root, mode=0o700, exist_ok=True)
    if os.path.lexists(os.path.join(root, id)):
        return SnapshotReport(manifest.load(os.path.join(root, id)))
    syncs, folder = Syncs(), open_folder(os.path.abspath(root))
    partial = f".{id}.partial"
    places = all_places(state_dir, extra)
    try:
        noted = progress.open_in(folder, partial, time.time_ns())
        try:
            taken = _fill(folder, partial, id, _previous(root, previous), places, syncs, keep_patterns, noted)
            if noted.is_resumed:
                progress.clear_strays(os.path.join(root, partial), taken)
                syncs.count_as_many()
            noted.finish()
        finally:
            noted.close()
        syncs.finish(root)
        os.rename(partial, id, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except OSError as error:
        syncs.drop()
        _give_up(folder, partial)
        raise _failure(error, state_dir, root, id) from error
    finally:
        for place in places:
            place.close()
        os.close(folder)
    return SnapshotReport(taken)


def verify(root: str, id: str) -> list[str]:
    """Read every byte of a snapshot and return what is wrong with it; empty means whole."""
    folder = os.path.join(root, id)
    try:
        listed = manifest.load(folder)
    except SnapshotFailed as error:
        return [error.message]
    checks = ((entry.path, _problem(folder, entry)) for entry in listed.entries)
    return [f"{path}: {problem}" for path, problem in checks if problem]


def list_ids(root: str) -> list[str]:
    """Return the ids of the complete snapshots, oldest first as their names sort."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith(".") and os.path.isdir(os.path.join(root, name)))


def read_file(root: str, id: str, relpath: str) -> bytes | None:
    """Return one file's bytes from a snapshot, or None if it is not there or fails its checksum."""
    folder = os.path.join(root, id)
    try:
        entry = manifest.load(folder).by_path().get(relpath)
        if entry is None or not entry.has_copy or _problem(folder, entry):
            return None
        with open(os.path.join(folder, entry.stored_at), "rb") as file:
            return file.read()
    except (OSError, SnapshotFailed):
        return None


def newest_copy(root: str, ids, relpath: str) -> tuple[str, bytes] | None:
    """Return the id and bytes of the newest intact copy of a file among `ids`, or None."""
    for id in sorted(ids, reverse=True):
        data = read_file(root, id, relpath)
        if data is not None:
            return id, data
    return None


def restore(root: str, id: str, state_dir: str, patterns, replaced_dir: str, extra=(), keep=None):
    """Bring what `patterns` mean back from a snapshot; see `restoring.restore`."""
    from . import restore

    return restore.restore(root, id, state_dir, patterns, replaced_dir, extra, keep)


def _fill(
    folder: int, partial: str, id: str, before, places: list[SnapshotFolder], syncs: Syncs, keep, noted
) -> Manifest:
    started_ns, clock = time.time_ns(), time.perf_counter()
    target = open_below(folder, [partial])
    syncs.take_over(os.dup(target))
    if noted.is_resumed:
        remove_tree(target, manifest.NAME)
    else:
        os.mkdir("tree", 0o700, dir_fd=target)
    is_there = [place.open() for place in places]
    refused = [f"{place.path}: {place.why}" for place in places if place.why]
    capture = Capture(before, {_key(fd) for fd in (folder, *(p.fd for p in places[:1] if is_there[0]))}, syncs, noted)
    previous = open_below(folder, [before.id]) if before else -1
    try:
        for place in places:
            if place.fd >= 0:
                _fill_place(capture, place, target, previous, syncs)
        about = {
            "keep": list(keep),
            "places": [_about_place(place) for place in places if place.fd >= 0],
            "skipped": refused + capture.skipped,
            "copied_bytes": capture.copied_bytes,
            "seconds": round(time.perf_counter() - clock, 6),
        }
        taken = Manifest(id, started_ns, capture.entries, **about)
        if not is_there[0]:
            taken.about["note"] = "the state folder was not there: this snapshot of it is empty"
        fd = os.open(manifest.NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        file_copy.write_all(fd, manifest.encode(taken), 0)
        syncs.take_over(fd)
    finally:
        os.close(target)
        if previous >= 0:
            os.close(previous)
    return taken


def _fill_place(capture: Capture, place: SnapshotFolder, target: int, previous: int, syncs: Syncs) -> None:
    names = [name for name in ("extra" + place.prefix if place.prefix else "tree").split("/") if name]
    for depth, name in enumerate(names):
        parent = open_below(target, names[:depth])
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            syncs.take_over(parent)
    below = open_below(target, names)
    try:
        before = open_below(previous, names) if previous >= 0 else -1
    except OSError:
        before = -1
    try:
        capture.place(place, below, before)
    finally:
        syncs.take_over(below)
        if before >= 0:
            os.close(before)


def _previous(root: str, id: str | None) -> Manifest | None:
    """Load what to compare with; a damaged one only makes this snapshot dearer."""
    if id is None:
        return None
    try:
        return manifest.load(os.path.join(root, id))
    except SnapshotFailed:
        return None


def _problem(folder: str, entry) -> str:
    path = os.path.join(folder, entry.stored_at)
    if entry.type == "dir" and entry.state == "":
        return "" if os.path.isdir(path) and not os.path.islink(path) else "missing"
    if entry.type == "link":
        return "" if os.path.islink(path) and os.readlink(path) == entry.target else "missing or another link"
    if not entry.has_copy:
        return ""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return f"missing ({error.strerror})"
    try:
        size = os.fstat(fd).st_size
        if size != entry.size:
            return f"{size} bytes, not {entry.size}"
        return "" if file_copy.checksum(fd, size) == entry.crc else "fails its checksum"
    except file_copy.SourceUnreadable as error:
        return f"cannot be read ({error})"
    finally:
        os.close(fd)


def _about_place(place: SnapshotFolder) -> list:
    stat = os.fstat(place.fd)
    return [place.prefix, stat.st_mode & 0o7777, stat.st_uid, stat.st_gid]


def _key(fd: int) -> tuple[int, int]:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino


def _check_id(id: str) -> None:
    if not id or id.startswith(".") or "/" in id:
        raise SnapshotFailed(f"cannot take snapshot {id!r}: not a usable id", "use digits, as in 000012")


def _give_up(folder: int, partial: str) -> None:
    try:
        remove_tree(folder, partial)
    except OSError:
        return  # it does not count as a snapshot, and the next attempt removes it


def _failure(error: OSError, state_dir: str, root: str, id: str) -> SnapshotFailed:
    from errno import EDQUOT, ENOSPC, ENOTDIR

    if error.errno in (ENOSPC, EDQUOT):
        hint = f"make room on the file system of {root}, or prune old snapshots; nothing was changed"
    elif error.errno == ENOTDIR:
        hint = f"the state has to be a folder: look at {state_dir}"
    else:
        hint = f"check {root} and {state_dir}; nothing was changed"
    where = f" ({error.filename})" if error.filename else ""
    return SnapshotFailed(f"cannot take snapshot {id} of {state_dir}: {error.strerror}{where}", hint)
