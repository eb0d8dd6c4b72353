"""Move the entries of one folder into another, where one rename of the whole is impossible.

What can be renamed is renamed. What cannot (another file system, a lower layer of an overlay) is gone into or
copied; only when all copies are durable and each has been compared is it removed where it was. Everything is done by
descriptor, so that no link planted on the way leads elsewhere. Safe to repeat from wherever it was cut off.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from zlib import crc32

from ..core import durable
from ..core.errors import AgentctlError
from ..host.mount_namespace import mount_points

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DEEPEST = 20_000


class Folder:
    """An open folder; `path` is for messages and for telling mount points."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path = fd, path

    @classmethod
    def open(cls, path: str, below: str = "") -> Folder:
        """Open a folder; no link is followed beneath the folder `below`."""
        if not below or not path.startswith(f"{below}/"):
            return cls(os.open(path, FOLDER & ~os.O_NOFOLLOW), path)
        folder = cls.open(below)
        for name in path[len(below) + 1 :].split("/"):
            with folder as above:
                folder = above.enter(name)
        return folder

    def enter(self, name: str) -> Folder:
        """Open a folder in it; raise OSError where the name is a link or no folder."""
        return Folder(os.open(name, FOLDER, dir_fd=self.fd), f"{self.path}/{name}")

    def make(self, name: str, mode: int = 0o700) -> Folder:
        """Open a folder in it, made if it is missing."""
        try:
            os.mkdir(name, mode, dir_fd=self.fd)
        except FileExistsError:
            return self.enter(name)
        folder = self.enter(name)
        os.fchmod(folder.fd, mode)
        return folder

    def names(self) -> list[str]:
        """Return the names of the entries, sorted."""
        return sorted(os.listdir(self.fd))

    def look(self, name: str) -> os.stat_result | None:
        """Describe an entry, a link itself; None if it is not there."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class Mover:
    """Moves entries; `workshop` and `partial` say where a copy stands while it is not whole.

    What something is mounted on stays where it is: `stayed` names it.
    """

    def __init__(self, workshop: Folder, partial: str) -> None:
        _allow_depth()
        self.workshop, self.partial = workshop, partial
        self.mounted = mount_points()
        self.stayed: list[str] = []

    def move_all(self, source: Folder, target: Folder, stay: list[str]) -> None:
        """Move everything but the names in `stay`; raise OSError or AgentctlError with nothing lost."""
        self._clean()
        names = [name for name in source.names() if name not in stay]
        is_left = [name for name in names if not self._place(source, target, name)]
        if not is_left:
            return
        durable.sync_filesystem(target.path)
        for name in is_left:
            self._clear(source, target, name)

    def move(self, source: Folder, target: Folder, name: str) -> None:
        """Move one entry."""
        self.move_all(source, target, [other for other in source.names() if other != name])

    def _clean(self) -> None:
        if self.workshop.look(self.partial) is not None:
            os.unlink(self.partial, dir_fd=self.workshop.fd)

    # -- first pass: everything stands at its new place ---------------------------------------------------------

    def _place(self, source: Folder, target: Folder, name: str) -> bool:
        """Have an entry at its new place; tell whether nothing of it is left at the old one."""
        if target.look(name) is None and _rename(source, target, name):
            return True
        if f"{source.path}/{name}" in self.mounted or f"{target.path}/{name}" in self.mounted:
            self.stayed.append(f"{source.path}/{name}")
            return True
        facts = source.look(name)
        if stat.S_ISDIR(facts.st_mode):
            self._place_folder(source, target, name, facts)
        elif not _looks_same(facts, target.look(name)):
            self._copy(source, target, name, facts)
        return False

    def _place_folder(self, source: Folder, target: Folder, name: str, facts: os.stat_result) -> None:
        is_new = target.look(name) is None
        with source.enter(name) as old, target.make(name) as new:
            for child in old.names():
                self._place(old, new, child)
            dress(new.fd, old.fd, facts, with_times=is_new)

    def _copy(self, source: Folder, target: Folder, name: str, facts: os.stat_result) -> None:
        """Copy what is no folder; it gets its name when it is whole."""
        room, partial = self.workshop.fd, self.partial
        self._clean()
        if stat.S_ISREG(facts.st_mode):
            self._copy_file(source, name, facts)
        elif stat.S_ISLNK(facts.st_mode):
            os.symlink(os.readlink(name, dir_fd=source.fd), partial, dir_fd=room)
        else:
            os.mknod(partial, facts.st_mode, facts.st_rdev, dir_fd=room)
        if not stat.S_ISREG(facts.st_mode):
            if os.geteuid() == 0:
                os.chown(partial, facts.st_uid, facts.st_gid, dir_fd=room, follow_symlinks=False)
            if not stat.S_ISLNK(facts.st_mode):
                os.chmod(partial, stat.S_IMODE(facts.st_mode), dir_fd=room)
            os.utime(partial, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=room, follow_symlinks=False)
        os.rename(partial, name, src_dir_fd=room, dst_dir_fd=target.fd)

    def _copy_file(self, source: Folder, name: str, facts: os.stat_result) -> None:
        from ..state.snapshots import file_copy

        old = os.open(name, FILE, dir_fd=source.fd)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            new = os.open(self.partial, flags, 0o600, dir_fd=self.workshop.fd)
            try:
                file_copy.copy(old, new, facts)
                dress(new, old, facts)
            finally:
                os.close(new)
        except file_copy.SourceUnreadable as error:
            raise AgentctlError(f"cannot move {source.path}/{name}: it cannot be read: {error}") from error
        finally:
            os.close(old)

    # -- second pass: the copies are durable and compared, the originals go -------------------------------------

    def _clear(self, source: Folder, target: Folder, name: str) -> None:
        """Remove at the old place what stands proven at the new one; raise AgentctlError where it does not."""
        facts = source.look(name)
        if f"{source.path}/{name}" in self.stayed:
            return
        if not stat.S_ISDIR(facts.st_mode):
            _prove(source, target, name, facts)
            os.unlink(name, dir_fd=source.fd)
            return
        with source.enter(name) as old, target.enter(name) as new:
            for child in old.names():
                self._clear(old, new, child)
        if not any(path.startswith(f"{source.path}/{name}/") for path in self.stayed):
            os.rmdir(name, dir_fd=source.fd)


def relocate(source: str, target: str) -> None:
    """Rename an entry, or move it by copies where it cannot be; `target` appears when it is whole. Safe to repeat."""
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV and not (isinstance(error, FileNotFoundError) and is_under_way(target)):
            raise
    folder, name = os.path.split(source)
    room = _room(target)
    os.makedirs(room, mode=0o700, exist_ok=True)
    with Folder.open(folder) as old, Folder.open(room) as new:
        if old.look(name) is not None:
            Mover(new, f"{name[:60]}.partial").move(old, new, name)
    os.rename(f"{room}/{name}", target)
    os.rmdir(room)


def is_under_way(target: str) -> bool:
    """Tell whether a `relocate` to this place was cut off."""
    return os.path.isdir(_room(target))


def _room(target: str) -> str:
    """Where a thing stands while it is on its way to `target`."""
    folder, name = os.path.split(target)
    return f"{folder}/.agentctl-{crc32(os.fsencode(name)):08x}.moving"


def _allow_depth() -> None:
    """A folder in a folder takes two descriptors and a call for each level, and an agent can make thousands."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEEPEST))


def dress(new: int, old: int, facts: os.stat_result, *, with_times: bool = True) -> None:
    """Give an open copy the owner, attributes, mode and times of the original."""
    if os.geteuid() == 0:
        os.fchown(new, facts.st_uid, facts.st_gid)
    for key in _attributes(old):
        try:
            os.setxattr(new, key, os.getxattr(old, key))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
                raise
    os.fchmod(new, stat.S_IMODE(facts.st_mode))
    if with_times:
        os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError:  # a file system that knows none
        return []


def _rename(source: Folder, target: Folder, name: str) -> bool:
    """Rename; False where that cannot be. A folder that its owner may not write gets the right for the moment."""
    try:
        os.rename(name, name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
        return True
    except PermissionError:
        facts = source.look(name)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o200 or facts.st_uid != os.geteuid():
            raise
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EBUSY):
            return False
        raise
    os.chmod(name, stat.S_IMODE(facts.st_mode) | 0o200, dir_fd=source.fd)
    is_done = _rename(source, target, name)
    os.chmod(name, stat.S_IMODE(facts.st_mode), dir_fd=target.fd if is_done else source.fd)
    return is_done


def _looks_same(facts: os.stat_result, there: os.stat_result | None) -> bool:
    """Tell whether a copy of an earlier run stands there; its content is compared before the original goes."""
    return there is not None and facts.st_mode == there.st_mode and facts.st_size == there.st_size and (
        facts.st_mtime_ns == there.st_mtime_ns)  # fmt: skip


def _prove(source: Folder, target: Folder, name: str, facts: os.stat_result) -> None:
    there = target.look(name)
    is_same = there is not None and (facts.st_mode, facts.st_size) == (there.st_mode, there.st_size)
    if is_same and stat.S_ISREG(facts.st_mode):
        is_same = _same_content(source, target, name, facts.st_size)
    elif is_same and stat.S_ISLNK(facts.st_mode):
        is_same = os.readlink(name, dir_fd=source.fd) == os.readlink(name, dir_fd=target.fd)
    if not is_same:
        raise AgentctlError(
            f"the copy of {source.path}/{name} in {target.path} is not the same",
            "both are kept; look at the disk with dmesg and fsck",
        )


def _same_content(source: Folder, target: Folder, name: str, size: int) -> bool:
    from ..state.snapshots import file_copy

    old, new = os.open(name, FILE, dir_fd=source.fd), os.open(name, FILE, dir_fd=target.fd)
    try:
        os.posix_fadvise(new, 0, 0, os.POSIX_FADV_DONTNEED)  # read what is on the disk
        return file_copy.is_same(old, new, size)
    finally:
        os.close(old)
        os.close(new)
