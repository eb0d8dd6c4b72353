"""Room on the disk: look before, give up the ballast when it is short, say what is left out.

The ballast is one file on each file system we need to write to. It holds nothing, so it is the one thing that may go.
"""

from __future__ import annotations

import _sqlite3 as sqlite3
import os

from ..config.context import Context
from ..core.errors import EXIT_FAILED, EXIT_NO_STORAGE, AgentctlError, is_no_storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    R = TypeVar("R")

SLICES = 4  # so that one full disk does not leave the next one without
LEAST_BYTES = 256 * 1024  # smaller than this it would help nobody
SHARE = 8  # of what is free, at most


class Ballast:
    """The files called `paths`, each of up to `size` bytes; of two on one file system the first counts."""

    def __init__(self, paths: list[str], size: int) -> None:
        self.size, self.paths, seen = size, [], set()
        for path in paths:
            device = device_of(os.path.dirname(path))
            if device not in seen:
                seen.add(device)
                self.paths.append(path)

    def make_room(self, wanted: int) -> int:
        """Give slices until `wanted` bytes are free everywhere, or nothing is left; return the bytes given."""
        given = 0
        for path in self.paths:
            while free_bytes(os.path.dirname(path)) < wanted and (slice_bytes := self._cut(path)):
                given += slice_bytes
        return given

    def give(self) -> int:
        """Give one slice where the disk is fullest; return the bytes, 0 if none is left."""
        fullest = sorted(self.paths, key=lambda path: free_bytes(os.path.dirname(path)))
        return next((given for path in fullest if (given := self._cut(path))), 0)

    def is_wanted(self) -> bool:
        """Tell whether there is less of it than there could be; costs two system calls for each file."""
        return any(self._missing(path) for path in self.paths)

    def refill(self) -> None:
        """Make it as large as the settings say and the disk allows; one that is too large shrinks."""
        for path in self.paths:
            if _size(path) > self.size:
                _shrink(path, self.size)
            missing = self._missing(path)
            if missing:
                _grow(path, _size(path) + missing)

    def _missing(self, path: str) -> int:
        there = _size(path)
        missing = min(self.size, (free_bytes(os.path.dirname(path)) + there) // SHARE) - there
        return missing if missing >= LEAST_BYTES or (missing > 0 and there + missing == self.size) else 0

    def _cut(self, path: str) -> int:
        there = _size(path)
        if there == 0:
            return 0
        cut = max(self.size // SLICES, there // SLICES, LEAST_BYTES)
        left = there - cut if there - cut >= LEAST_BYTES else 0
        try:
            _shrink(path, left)
        except OSError:  # read-only: then nothing of it helps
            return 0
        return there - left


def free_bytes(folder: str) -> int:
    """Return what we may still write on the file system of `folder`; a great deal if nobody can tell."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def is_read_only(folder: str) -> bool:
    """Tell whether the file system of `folder` takes no writes."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def device_of(folder: str) -> int | str:
    """Tell file systems apart; a folder that is not there is one of its own."""
    try:
        return os.stat(folder).st_dev
    except OSError:
        return folder


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _shrink(path: str, size: int) -> None:
    if size == 0:
        os.unlink(path)
    else:
        os.truncate(path, size)


def _grow(path: str, size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:  # no room after all: better none than a disk that we have filled
        os.unlink(path)
    finally:
        os.close(fd)


# -- room ------------------------------------------------------------------------------------------
# Room on the disk for a launch or a recovery: look before, give up the ballast when it is short, say what is left
# out.
# Everything that is done here again was safe to repeat before: a full disk is met like a kill.


NEEDED_BYTES = 4 * 1024 * 1024  # the ledger's log, evidence, a launch: what is written in any case
PLENTY_BYTES = 256 * 1024 * 1024  # with more than this nobody has to add up what a recovery needs
NOTHING_BYTES = 64 * 1024  # with less than this whatever went wrong, went wrong for want of room


class NoStorage(AgentctlError):
    """The disk is full or read-only: nobody's code is to blame, and no other code would do better."""

    exit_code = EXIT_NO_STORAGE


def folders(context: Context) -> list[str]:
    """Name the folders whose file systems have to take writes: our data, the slots beside the code, the state."""
    return [context.paths.data_dir, context.slots_dir, context.state_dir]


def ballast_of(context: Context) -> Ballast:
    """Return the agent's ballast, there or not."""
    homes = [home for home in (context.paths.data_dir, context.slots_dir) if _is_ours(home)]
    return Ballast([f"{home}/ballast" for home in homes], context.config.rollback.ballast)


def _is_ours(folder: str) -> bool:
    """Inside its own folder the agent may have put a link where ours belongs."""
    try:
        facts = os.lstat(folder)
    except OSError:
        return False
    return facts.st_mode & 0o170000 == 0o040000 and facts.st_uid == os.geteuid()


def look_ahead(context: Context, say) -> bool:
    """Before anything is written: make sure of the least that is needed; tell whether the disk is short of room."""
    short = [folder for folder in folders(context) if free_bytes(folder) < NEEDED_BYTES]
    if not short:
        return False
    given = ballast_of(context).make_room(NEEDED_BYTES)
    say(f"agentctl: hardly any room is left on the file system of {short[0]}" + _given_words(given))
    return True


def with_room(context: Context, do: Callable[[], R], say: Callable[[str], object]) -> R:
    """Do what may be repeated; while the disk is full, give up a slice of the ballast and do it again.

    Raise NoStorage when there is none left, or the disk takes no writes at all.
    """
    while True:
        try:
            return do()
        except (AgentctlError, OSError, sqlite3.Error) as error:
            is_other = getattr(error, "exit_code", EXIT_FAILED) != EXIT_FAILED  # a lock held, a launch refused
            if is_other or not (is_no_storage(error) or is_used_up(context) or takes_no_write(context)):
                raise
            given = ballast_of(context).give()
            if not given:
                raise no_storage(context, error) from error
            say(f"agentctl: no room on the disk ({_first_line(error)})" + _given_words(given))


def no_storage(context: Context, error: Exception) -> NoStorage:
    """Say which file system it is, and what to do."""
    if isinstance(error, NoStorage):
        return error
    sealed = next((folder for folder in folders(context) if is_read_only(folder)), "")
    if sealed:
        return NoStorage(
            f"the file system of {sealed} is read-only: {_first_line(error)}",
            f"'dmesg' tells why, 'mount -o remount,rw' may bring it back; {GOES_ON}",
        )
    tight = min(folders(context), key=free_bytes)
    return NoStorage(
        f"no room on the file system of {tight}: {_first_line(error)}",
        f"make room ('df -h {tight}', 'df -i {tight}'); {GOES_ON}",
    )


GOES_ON = "the agent is started again when there is room"


def is_used_up(context: Context) -> bool:
    """Tell whether a file system of ours takes nothing any more."""
    return any(free_bytes(folder) < NOTHING_BYTES or is_read_only(folder) for folder in folders(context))


def takes_no_write(context: Context) -> bool:
    """Try it where our data is: of a disk that says so at a sync SQLite tells no more than `disk I/O error`."""
    path = f"{context.paths.data_dir}/.room-{os.urandom(4).hex()}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(path)
    except OSError as error:
        return is_no_storage(error)
    return False


def has_hindered(context: Context, *, trigger: str, reason: str) -> bool:
    """Tell whether a launch that ended so could not begin for want of room, and there is none yet."""
    if trigger != "cannot-launch":
        return False
    return is_used_up(context) or (_is_little(context) and is_no_storage(AgentctlError(reason)))


def is_called_for(context: Context) -> bool:
    """Tell whether what called the recovery process, with no failure on record, lacked room and would again."""
    was_said = os.environ.get("MONITOR_EXIT_STATUS") == str(EXIT_NO_STORAGE)
    return is_used_up(context) or (was_said and _is_little(context))


def _is_little(context: Context) -> bool:
    return min(free_bytes(folder) for folder in folders(context)) < NEEDED_BYTES


def _given_words(given: int) -> str:
    return f"; gave up {given // 1024} KiB of the ballast" if given else "; no ballast is left"


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, AgentctlError) else str(error)
    return text.partition("\n")[0][:300]
