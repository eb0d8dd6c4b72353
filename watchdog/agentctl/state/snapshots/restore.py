"""Bring files of a snapshot back, in an order that may be cut at any instant and run again.

First everything that will be replaced or removed is saved (linked, or copied across file systems)
into `replaced_dir`, then all new files are written beside, and only then are they renamed into
place. Nothing is deleted, what is saved is never overwritten, what did not change is not touched.
Nobody else may be writing meanwhile.
"""

from __future__ import annotations

import os
import stat as modes
from errno import EXDEV

from . import file_copy, manifest
from .compare import Comparison, RestorePlan
from .file_copy import Syncs, remove_tree
from .folders import MAKING, STAGING, SnapshotFolder, all_places, open_child, open_folder, open_parent, place_of
from .manifest import Entry, SnapshotFailed


class RestoreReport:
    """Paths brought back, removed, and left as they are although a pattern means them."""

    __slots__ = ("kept", "removed", "restored")

    def __init__(self, restored: list[str], removed: list[str], kept: list[str]) -> None:
        self.restored, self.removed, self.kept = restored, removed, kept


def restore(root, id, state_dir, patterns, replaced_dir, extra=(), keep=None) -> RestoreReport:
    """Make what `patterns` (in the state folder) and `extra` (outside) mean equal to snapshot `id`.

    What `keep` means stays (by default what the snapshot was taken with). What is replaced goes to
    `replaced_dir`. Raise SnapshotFailed, with the state untouched, if the snapshot is damaged or
    there is no room.
    """
    folder = os.path.join(root, id)
    listed = manifest.load(folder)
    places = all_places(state_dir, extra)
    try:
        refused = [place.path for place in places if not place.open() and place.why]
        places = [place for place in places if place.fd >= 0 or _make_place(place, listed)]
        keep = listed.about["keep"] if keep is None else keep
        comparison = Comparison(listed, folder, places, patterns, keep, _keys(root, replaced_dir))
        plan = comparison.run()
        _clear(places, plan.leftovers)
        _save(places, plan, comparison, replaced_dir)
        _stage(places, plan, folder)
        _switch(places, plan)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise SnapshotFailed(
            f"cannot restore snapshot {id} to {state_dir}: {error.strerror}{where}",
            "fix that and run it again: it goes on where it was",
        ) from error
    finally:
        for place in places:
            place.close()
    written = sorted({e.path for e in (*plan.written, *plan.folders_made, *plan.folders_mended)})
    return RestoreReport(written, sorted(plan.removed + plan.folders_removed), sorted({*plan.kept, *refused}))


def _keys(*paths: str) -> set[tuple[int, int]]:
    """Identify our own folders, which may lie inside the state folder."""
    stats = [os.stat(path) for path in paths if os.path.exists(path)]
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _make_place(place: SnapshotFolder, listed) -> bool:
    """Make a folder that is gone as it was, if the one above it is there."""
    known = next((row for row in listed.about["places"] if row[0] == place.prefix), None)
    if known is None or place.why:
        return False
    try:
        parent = open_folder(os.path.dirname(place.path))
    except FileNotFoundError:
        return False
    try:
        _make_folder(parent, os.path.basename(place.path), *known[1:])
        os.fsync(parent)
    finally:
        os.close(parent)
    return place.open()


def _clear(places: list[SnapshotFolder], leftovers: list[str]) -> None:
    for path in leftovers:
        folder, name = open_parent(places, path)
        try:
            remove_tree(folder, name)
        finally:
            os.close(folder)


def _save(places: list[SnapshotFolder], plan: RestorePlan, comparison: Comparison, replaced_dir: str) -> None:
    paths = sorted(plan.folders_removed) + plan.replaced + plan.removed
    if not paths:
        return
    with Saved(replaced_dir) as saved:
        for path in paths:
            folder, name = open_parent(places, path)
            try:
                saved.add(folder, name, manifest.stored_at(path), comparison.live[path])
            finally:
                os.close(folder)
        saved.finish()


def _stage(places: list[SnapshotFolder], plan: RestorePlan, snapshot: str) -> None:
    """Write every new file into our own folder on the right file system, durably."""
    syncs = Syncs()
    try:
        for place in places:
            entries = [entry for entry in plan.written if place_of(places, entry.path) is place]
            if not entries:
                continue
            os.mkdir(STAGING, 0o700, dir_fd=place.fd)
            staging = open_child(place.fd, STAGING)
            try:
                for number, entry in enumerate(entries):
                    _stage_one(staging, str(number), entry, snapshot, syncs)
            finally:
                os.close(staging)
            syncs.finish(place.path)
    except BaseException:
        syncs.drop()
        for place in places:
            remove_tree(place.fd, STAGING)
        raise


def _stage_one(staging: int, name: str, entry: Entry, snapshot: str, syncs: Syncs) -> None:
    if entry.type == "link":
        os.symlink(entry.target, name, dir_fd=staging)
        if os.geteuid() == 0:
            os.chown(name, entry.uid, entry.gid, dir_fd=staging, follow_symlinks=False)
        return
    source = os.open(os.path.join(snapshot, entry.stored_at), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=staging)
        try:
            stat = os.fstat(source)
            if stat.st_size != entry.size or file_copy.copy(source, target, stat) != entry.crc:
                _refuse(snapshot, entry)
            _attribute(target, entry)
        except file_copy.SourceUnreadable:
            _refuse(snapshot, entry)
        finally:
            syncs.take_over(target)
    finally:
        os.close(source)


def _refuse(snapshot: str, entry: Entry) -> None:
    number = os.path.basename(snapshot)
    raise SnapshotFailed(
        f"cannot restore snapshot {number}: it fails its checksum ({entry.path})",
        "'agentctl generations' lists others; nothing was changed",
    )


def _attribute(fd: int, entry: Entry) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, entry.uid, entry.gid)  # before the mode: it clears set-user-id
    os.fchmod(fd, entry.mode)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def _switch(places: list[SnapshotFolder], plan: RestorePlan) -> None:
    """Only unlinks, renames and new folders: no data is written any more."""
    made = {entry.path for entry in plan.folders_made}
    syncs = Syncs()
    for path in [*plan.removed, *(path for path in plan.replaced if path in made)]:
        _at(places, path, syncs, lambda fd, name: os.unlink(name, dir_fd=fd))
    for path in plan.folders_removed:
        _at(places, path, syncs, _remove_folder)
    for entry in plan.folders_made:
        _at(
            places,
            entry.path,
            syncs,
            lambda fd, name, e=entry: _make_folder(fd, name, e.mode | 0o700, e.uid, e.gid),
        )
    for place in places:
        entries = [entry for entry in plan.written if place_of(places, entry.path) is place]
        for number, entry in enumerate(entries):
            _at(
                places,
                entry.path,
                syncs,
                lambda fd, name, p=place, n=str(number): _rename(p, n, fd, name),
            )
    for entry in reversed(plan.folders_made + plan.folders_mended):
        _at(places, entry.path, syncs, lambda fd, name, e=entry: _repair_folder(fd, name, e))
    for place in places:
        remove_tree(place.fd, STAGING)
        syncs.finish(place.path)


def _at(places: list[SnapshotFolder], path: str, syncs: Syncs, act) -> None:
    folder, name = open_parent(places, path)
    try:
        act(folder, name)
    finally:
        syncs.take_over(folder)


def _rename(place: SnapshotFolder, number: str, folder: int, name: str) -> None:
    staging = open_child(place.fd, STAGING)
    try:
        os.rename(number, name, src_dir_fd=staging, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != EXDEV:
            raise
        _carry(staging, number, folder, name)
    finally:
        os.close(staging)


def _carry(staging: int, number: str, folder: int, name: str) -> None:
    """Something is mounted inside: write beside the target there, then rename."""
    remove_tree(folder, STAGING)
    copy_thing(staging, number, folder, STAGING)
    os.rename(STAGING, name, src_dir_fd=folder, dst_dir_fd=folder)


def _remove_folder(folder: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        from errno import EBUSY, EEXIST, ENOTEMPTY

        if error.errno not in (
            ENOTEMPTY,
            EEXIST,
            EBUSY,
        ):  # it holds something kept, or is a mount point
            raise


def _make_folder(folder: int, name: str, mode: int, uid: int, gid: int) -> None:
    """Make a folder that never shows with a wrong mode or owner."""
    remove_tree(folder, MAKING)
    os.mkdir(MAKING, 0o700, dir_fd=folder)
    fd = open_child(folder, MAKING)
    try:
        if os.geteuid() == 0:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        os.rename(MAKING, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(fd)


def _repair_folder(folder: int, name: str, entry: Entry) -> None:
    fd = open_child(folder, name)
    try:
        _attribute(fd, entry)
    finally:
        os.close(fd)


# -- saving ----------------------------------------------------------------------------------------
# Keep what a restore replaces or removes: a second link to it in another folder, or a copy across file systems.
# It never overwrites: a thing that is already there is recognised, another thing of the same name goes to `tree.2/`,
# and so on.


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HALF = ".agentctl-half-saved"


class Saved:
    """The folder of replaced things, while a restore adds to it; it is made if need be, 0700."""

    def __init__(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        self._path, self._fd, self._syncs = path, open_folder(os.path.abspath(path)), Syncs()

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_) -> None:
        self._syncs.drop()
        os.close(self._fd)

    def add(self, live: int, name: str, stored_at: str, stat) -> None:
        """Keep `name` of the folder `live` as `stored_at`."""
        top, *above, last = stored_at.split("/")
        turn = 1
        while not self._add_below([top if turn == 1 else f"{top}.{turn}", *above], live, name, last, stat):
            turn += 1

    def finish(self) -> None:
        """Make everything added durable."""
        self._syncs.finish(self._path)

    def _add_below(self, folders: list[str], live: int, name: str, last: str, stat) -> bool:
        try:
            folder = self._folder(folders)
        except NotADirectoryError:
            return False
        try:
            if modes.S_ISDIR(stat.st_mode):
                return _is_folder_made(folder, last)
            return _keep(folder, last, live, name, stat)
        finally:
            self._syncs.take_over(folder)

    def _folder(self, names: list[str]) -> int:
        fd = os.dup(self._fd)
        for name in names:
            try:
                is_made = _is_folder_made(fd, name)
                child = open_child(fd, name) if is_made else -1
            finally:
                self._syncs.take_over(fd)
            if not is_made:
                raise NotADirectoryError(name)
            fd = child
        return fd


def copy_thing(source: int, name: str, target: int, new_name: str) -> None:
    """Copy a file or link with its attributes, durably; other kinds have no content to copy."""
    stat = os.stat(name, dir_fd=source, follow_symlinks=False)
    if modes.S_ISLNK(stat.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=target)
        if os.geteuid() == 0:
            os.chown(new_name, stat.st_uid, stat.st_gid, dir_fd=target, follow_symlinks=False)
    elif modes.S_ISREG(stat.st_mode):
        _copy_file(source, name, target, new_name)


def _copy_file(source: int, name: str, target: int, new_name: str) -> None:
    old = os.open(name, _READ, dir_fd=source)
    try:
        new = os.open(new_name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            stat = os.fstat(old)
            file_copy.copy(old, new, stat)
            if os.geteuid() == 0:
                os.fchown(new, stat.st_uid, stat.st_gid)
            os.fchmod(new, modes.S_IMODE(stat.st_mode))
            os.utime(new, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
            os.fsync(new)
        finally:
            os.close(new)
    except file_copy.SourceUnreadable as error:
        raise OSError(5, f"cannot be read ({error})", name) from error
    finally:
        os.close(old)


def _keep(folder: int, last: str, live: int, name: str, stat) -> bool:
    """Link or copy; False if another thing has that name already."""
    try:
        os.link(name, last, src_dir_fd=live, dst_dir_fd=folder, follow_symlinks=False)
        return True
    except FileExistsError:
        return _is_the_same(folder, last, live, name, stat)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        if _exists(folder, last):
            return _is_the_same(folder, last, live, name, stat)
        remove_tree(folder, _HALF)
        copy_thing(live, name, folder, _HALF)
        if _exists(folder, _HALF):
            os.rename(_HALF, last, src_dir_fd=folder, dst_dir_fd=folder)
        return True


def _is_the_same(folder: int, last: str, live: int, name: str, stat) -> bool:
    """Recognise what an earlier attempt saved: the same inode, or a copy with the same bytes."""
    saved = os.stat(last, dir_fd=folder, follow_symlinks=False)
    if (saved.st_dev, saved.st_ino) == (stat.st_dev, stat.st_ino):
        return True
    if modes.S_IFMT(saved.st_mode) != modes.S_IFMT(stat.st_mode) or saved.st_dev == stat.st_dev:
        return False
    if modes.S_ISLNK(stat.st_mode):
        return os.readlink(last, dir_fd=folder) == os.readlink(name, dir_fd=live)
    if not modes.S_ISREG(stat.st_mode) or saved.st_size != stat.st_size:
        return False
    ours, theirs = os.open(last, _READ, dir_fd=folder), os.open(name, _READ, dir_fd=live)
    try:
        return file_copy.is_same(ours, theirs, stat.st_size)
    finally:
        os.close(ours)
        os.close(theirs)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_folder_made(folder: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
        return True
    except FileExistsError:
        return modes.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
