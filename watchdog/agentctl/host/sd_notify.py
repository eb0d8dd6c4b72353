"""Speak systemd's notification protocol, both ways: hear the agent, report to systemd.

Refuses to judge: who may say what is the caller's to decide, by the kernel's word (pid, uid) in
each message. What is too long, has a NUL inside or says nothing is dropped, as by systemd itself.
"""

from __future__ import annotations

import _socket  # `socket` costs 10 ms of import (selectors, enum), more than everything else here
import os
import sys
import time

LONGEST_MESSAGE = 4096  # systemd's own limit
LONGEST_NAME = 64
CREDENTIALS = 12  # struct ucred: pid, uid, gid
# Room for the credentials and not one descriptor more. The kernel puts credentials first and drops
# what does not fit, so descriptors sent to us (FDSTORE=1, BARRIER=1) are closed before they ever
# exist here. For sd_notify_barrier() that close is the answer it waits for.
ANCILLARY = _socket.CMSG_SPACE(CREDENTIALS)
SEND_PATIENCE_SECONDS = 0.5


class Message:
    """One datagram: its NAME=value lines, and who sent it (pid 0: from another pid namespace)."""

    __slots__ = ("fields", "pid", "uid")

    def __init__(self, fields: dict[str, str], pid: int, uid: int) -> None:
        self.fields, self.pid, self.uid = fields, pid, uid


class NotifyReceiver:
    """The socket behind the agent's NOTIFY_SOCKET; `dropped` counts what was no message."""

    def __init__(self, path: str, mode: int = 0o600) -> None:
        self.path, self.dropped = path, 0
        _unlink(path)
        kind = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_UNIX, kind)
        try:
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            before = os.umask(0o777 & ~mode)  # never wider than `mode`, not even for an instant
            try:
                self._socket.bind(path)
            finally:
                os.umask(before)
            os.chmod(path, mode)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def receive(self, most: int = 64) -> list[Message]:
        """Return what has arrived, looking at no more than `most` datagrams, without waiting."""
        messages = []
        for _ in range(most):
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(LONGEST_MESSAGE, ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                break
            pid, uid = _sender(ancillary)
            fields = {} if flags & _socket.MSG_TRUNC else parse(data)
            if fields:
                messages.append(Message(fields, pid, uid))
            else:
                self.dropped += 1
        return messages

    def close(self) -> None:
        """Close the socket and remove its file."""
        self._socket.close()
        _unlink(self.path)


class Notifier:
    """Tells systemd about us; silent where there is nobody, never raises when it is gone."""

    def __init__(self, address: str | None) -> None:
        self._address = _native(address)
        self._socket = None
        self.patient_until = 0.0  # by the monotonic clock: as asked for in the agent's name
        self.has_lent = False
        if self._address is not None:
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            _limit_wait(self._socket, SEND_PATIENCE_SECONDS)

    def send(self, **fields: str | int) -> bool:
        """Send one message; tell whether systemd's socket took it."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(_encode(fields), self._address)
        except OSError:
            return False
        return True

    def ready(self, status: str = "") -> bool:
        """Say that the start is over."""
        return self.send(READY=1, **({"STATUS": status} if status else {}))

    def keepalive(self) -> bool:
        """Give a sign of life."""
        return self.send(WATCHDOG=1)

    def status(self, text: str) -> bool:
        """Say in words what is being done."""
        return self.send(STATUS=text)

    def stopping(self) -> bool:
        """Say that the end has begun."""
        return self.send(STOPPING=1)

    def watchdog_usec(self, usec: int) -> bool:
        """Change how long systemd waits for a sign of life."""
        return self.send(WATCHDOG_USEC=usec)

    def extend(self, usec: int) -> bool:
        """Ask for more time to start or to end."""
        self.patient_until = max(self.patient_until, time.monotonic() + usec / 1e6)
        return self.send(EXTEND_TIMEOUT_USEC=usec)

    def lend(self, usec: int, status: str) -> bool:
        """Ask for more time in our own name: whoever is to be ready in time is judged by `patient_until` then."""
        self.has_lent = True
        return self.send(EXTEND_TIMEOUT_USEC=usec, STATUS=status)


def parse(data: bytes) -> dict[str, str]:
    """Read NAME=value lines, the first of a name wins; empty if this is no message."""
    data = data.rstrip(b"\0")
    fields = {}
    if b"\0" in data:
        return fields
    for line in data.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name and name.isascii():
            fields.setdefault(name.decode("ascii"), value.decode("utf-8", "replace"))
    return fields


def _sender(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    pid, uid = -1, -1
    for level, kind, data in ancillary:
        if level != _socket.SOL_SOCKET:
            continue
        if kind == _socket.SCM_CREDENTIALS and len(data) >= CREDENTIALS:
            pid, uid = (int.from_bytes(data[at : at + 4], sys.byteorder) for at in (0, 4))
        elif kind == _socket.SCM_RIGHTS:  # only from a kernel that found room after all
            for fd in memoryview(data[: len(data) // 4 * 4]).cast("i").tolist():
                os.close(fd)
    return pid, uid


def _limit_wait(sender: _socket.socket, seconds: float) -> None:
    """Let the kernel bound a send: settimeout() would spin, as poll() says writable."""
    long_size = (sys.maxsize.bit_length() + 1) // 8  # struct timeval is two of these
    parts = (int(seconds), int(seconds % 1 * 1_000_000))
    timeval = b"".join(part.to_bytes(long_size, sys.byteorder) for part in parts)
    sender.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeval)


def _native(address: str | None) -> bytes | None:
    """Turn NOTIFY_SOCKET's value into an address; None if it is no unix socket (vsock: of 254+)."""
    if not address or address[0] not in "/@":
        return None
    return b"\0" + os.fsencode(address[1:]) if address[0] == "@" else os.fsencode(address)


def _encode(fields: dict[str, str | int]) -> bytes:
    """One line per field; a newline in a value (it may quote the agent) must not begin a field."""
    lines = []
    room = LONGEST_MESSAGE // max(1, len(fields)) - LONGEST_NAME  # else systemd drops the whole
    for name, value in fields.items():
        text = str(value).replace("\n", " ").replace("\0", " ").encode("utf-8", "replace")[:room]
        lines.append(name.encode("ascii") + b"=" + text.decode("utf-8", "ignore").encode())
    return b"\n".join(lines)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
