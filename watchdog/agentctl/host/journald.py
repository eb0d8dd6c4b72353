"""Put lines into the journal with our fields on them, or on standard output where there is none.

Never raises and never waits long: the agent's heartbeats pass through the same process. Lines that
could not be placed are counted, and the count is told before the next line that can.
"""

from __future__ import annotations

import _socket  # `socket` costs 10 ms of import (selectors, enum), more than everything else here
import errno
import os
import select
import sys
import time

from ..core.paths import SYSTEM, AgentPaths

JOURNAL_SOCKET = "/run/systemd/journal/socket"
PATIENCE_SECONDS = 1.0
INFO, WARNING, ERROR = 6, 4, 3
LARGEST_COPY = 16 * 1024 * 1024  # bytes; one older file is kept beside it
LOOK_AT_COPY = 64 * 1024  # bytes that one process writes between two looks at its size
# Fits in the default send buffer (208 KiB). Longer texts are cut, not passed in a sealed memfd: a
# pane's lines are at most 8 KiB, so that code would run in no real case and be wrong in the first.
LONGEST_MESSAGE = 128 * 1024
SHORT_MESSAGE = 1024  # for a machine whose send buffer is tiny
CHUNK = 4096  # a pipe that is writable takes this much without blocking


class Journal:
    """One sender: `identifier` and `fields` go with each line; `to_stdout` is for containers."""

    def __init__(
        self,
        identifier: str,
        fields: dict[str, str] | None = None,
        *,
        to_stdout: bool = False,
        socket_path: str = JOURNAL_SOCKET,
        patience_seconds: float = PATIENCE_SECONDS,
        copy_path: str = "",
    ) -> None:
        self.fields = {"SYSLOG_IDENTIFIER": identifier, **(fields or {})}
        self.dropped = 0  # since the last report
        self._path, self._patience_seconds = socket_path, patience_seconds
        self._is_stuck = False  # waited in vain: do not wait again until something got through
        self._copy_path, self._copied = copy_path, 0  # bytes since its size was looked at
        self._copy = _open_copy(copy_path) if copy_path else -1
        self._socket = None
        if not to_stdout:
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            _limit_wait(self._socket, patience_seconds)

    def line(self, message: str, priority: int = INFO, **fields: str) -> bool:
        """Send one line; tell whether it was taken."""
        if self.dropped:
            self._report()
        is_placed = self._place(message, priority, fields)
        self.dropped += not is_placed
        return is_placed

    def info(self, message: str) -> None:
        """Send our own words, line by line: something changed."""
        self._say(message, INFO)

    def warning(self, message: str) -> None:
        """Send our own words: something is not as it should be."""
        self._say(message, WARNING)

    def error(self, message: str) -> None:
        """Send our own words: something failed."""
        self._say(message, ERROR)

    def set_fields(self, **fields: str) -> None:
        """Add fields that go with every line from now on."""
        self.fields.update(fields)

    def _say(self, message: str, priority: int) -> None:
        for line in message.splitlines():
            self.line(line, priority)

    def close(self) -> None:
        """Report what was dropped, as far as anybody listens, and let go of the socket."""
        if self.dropped:
            self._report()
        if self._socket is not None:
            self._socket.close()

    def _report(self) -> None:
        count = self.dropped
        if self._place(f"{count} lines lost: the journal did not take them in time", WARNING, {}):
            self.dropped -= count

    def _place(self, message: str, priority: int, fields: dict[str, str]) -> bool:
        if self._socket is None:
            is_placed = self._print(message)
        else:
            named = {**self.fields, **fields, "PRIORITY": str(priority)}
            is_placed = self._send(named, message, LONGEST_MESSAGE)
        self._is_stuck = not is_placed
        return is_placed

    def _send(self, named: dict[str, str], message: str, longest: int) -> bool:
        datagram = encode({**named, "MESSAGE": _cut(message, longest)})
        try:
            self._socket.sendto(datagram, _socket.MSG_DONTWAIT if self._is_stuck else 0, self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            return self._print(message)
        except OSError as error:
            is_too_long = error.errno == errno.EMSGSIZE and longest > SHORT_MESSAGE
            return is_too_long and self._send(named, message, SHORT_MESSAGE)
        return True

    def _make_room_in_copy(self, line: bytes) -> None:
        """Look now and then whether the copy has become large, or was moved away by another process."""
        self._copied += len(line)
        is_gone = os.fstat(self._copy).st_nlink == 0  # moved away, and another one after it
        if self._copied < LOOK_AT_COPY and not is_gone:
            return
        self._copied = 0
        try:
            fresh = _open_copy(self._copy_path)
        except OSError:  # a full disk, a folder that is gone: the old one is as good
            return
        os.close(self._copy)
        self._copy = fresh
        if is_gone:
            _write(self._copy, line, 0.0)

    def _print(self, message: str) -> bool:
        line = message.encode("utf-8", "replace") + b"\n"
        if self._copy >= 0:
            _write(self._copy, line, 0.0)
            self._make_room_in_copy(line)
        return _write(1, line, 0.0 if self._is_stuck else self._patience_seconds)


def _open_copy(path: str) -> int:
    """Open the file that stands for the journal where there is none; a large one makes room first.

    Several processes write it: who holds its lock moves it away, and only if it still has its name. On a disk that
    takes no writes there is none: -1, and standard output has it all the same.
    """
    try:
        return _open_for_append(path)
    except OSError:
        return -1


def _open_for_append(path: str) -> int:
    import fcntl

    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        opened = os.fstat(fd)
        if opened.st_size <= LARGEST_COPY:
            return fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.stat(path).st_ino == opened.st_ino:
                os.rename(path, f"{path}.1")
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)


def encode(fields: dict[str, str]) -> bytes:
    """Build a datagram of journald's native protocol; a newline in a value wants its length."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "replace")
        key = name.encode("ascii")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (key, len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (key, data))
    return b"".join(parts)


def _cut(message: str, longest: int) -> str:
    data = message.encode("utf-8", "replace")
    if len(data) <= longest:
        return message
    return data[:longest].decode("utf-8", "ignore") + f" [cut: {len(data)} bytes]"


def _limit_wait(sender: _socket.socket, seconds: float) -> None:
    """Let the kernel bound a send: settimeout() would spin, as poll() says writable."""
    long_size = (sys.maxsize.bit_length() + 1) // 8  # struct timeval is two of these
    parts = (int(seconds), int(seconds % 1 * 1_000_000))
    timeval = b"".join(part.to_bytes(long_size, sys.byteorder) for part in parts)
    sender.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeval)


def _write(fd: int, data: bytes, wait_seconds: float) -> bool:
    """Write all, in pieces that a writable pipe takes at once; give up on a deaf reader."""
    deadline = time.monotonic() + wait_seconds
    poll = select.poll()
    try:
        poll.register(fd, select.POLLOUT)
        for start in range(0, len(data), CHUNK):
            piece = memoryview(data)[start : start + CHUNK]
            while piece:
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    return False
                piece = piece[os.write(fd, piece) :]
    except (OSError, ValueError):
        return False
    return True


def open_journal(identifier: str, paths: AgentPaths) -> Journal:
    """Open where our words and the agent's go: the journal, or standard output and a file without systemd."""
    if os.environ.get("AGENTCTL_RUNTIME") != "direct":
        # Of a process that ends with its last words the journal may not find the unit any more; `journalctl -u` looks
        # for this field, too.
        unit = "OBJECT_SYSTEMD_UNIT" if paths.scope == SYSTEM else "OBJECT_SYSTEMD_USER_UNIT"
        return Journal(identifier, {unit: f"{identifier}.service"})
    has_folder = os.path.isdir(paths.data_dir)
    return Journal(identifier, to_stdout=True, copy_path=paths.log_path if has_folder else "")
