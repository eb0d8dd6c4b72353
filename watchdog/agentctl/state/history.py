"""The history file: one JSON object a line, append-only. Check it, read its end, append to it.

A message is acknowledged when it is on the disk, not before. Never opens what is no plain file:
reading takes that for damage, appending refuses it. Deletes nothing. A line is whole if it is a
JSON object; `history_mend` heals what is not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from ..core import durable, fast_json
from ..core.errors import AgentctlError

LOCK_SECONDS = 10.0
LONGEST_LINE = 64 << 20  # more than that is damage, and is never held in memory
BLOCK = 1 << 16
MOST_LISTED = 100


class NotPlain(AgentctlError):
    """The name is taken by something that is no plain file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"history {path} is not a plain file", "move it away; it is no history")


class HistoryFacts:
    """What a scan saw: `damaged` lists the first hundred bad lines as (number, why)."""

    __slots__ = ("count", "damaged", "damaged_count", "ends_torn", "good_bytes", "last_id")

    def __init__(self) -> None:
        self.count, self.damaged_count, self.good_bytes = 0, 0, 0
        self.damaged: list[tuple[int, str]] = []
        self.last_id: str | None = None
        self.ends_torn = False

    @property
    def is_whole(self) -> bool:
        """Tell whether every line is a message and the last one is ended."""
        return not self.damaged_count and not self.ends_torn


def scan(path: str, start: int = 0) -> HistoryFacts:
    """Read the file as a stream and say what is in it; a missing file has no messages.

    Who kept the `good_bytes` of an earlier scan can `start` there, and gets the facts of the rest.
    """
    facts = HistoryFacts()
    offset = facts.good_bytes = start
    if not is_plain(path):
        facts.damaged_count, facts.damaged = 1, [(0, "not a plain file")]
        return facts
    for number, (raw, length) in enumerate(lines(path, start), 1):
        offset += length
        is_ended = raw.endswith(b"\n") or not raw
        facts.ends_torn = not is_ended
        if raw.isspace():
            continue
        try:
            message = parse(raw)
        except ValueError as error:
            facts.damaged_count += 1
            if len(facts.damaged) < MOST_LISTED:
                facts.damaged.append((number, str(error)))
            continue
        facts.count += 1
        facts.last_id = id_of(message) or facts.last_id
        if is_ended:
            facts.good_bytes = offset
    return facts


def is_whole(path: str) -> bool:
    """Tell whether the file is there and undamaged."""
    return os.path.lexists(path) and scan(path).is_whole


def tail(path: str, count: int) -> list[dict]:
    """Return the newest `count` messages, oldest first, read from the end; skip what is damaged."""
    found: list[dict] = []
    for raw in _lines_backwards(path) if count > 0 and is_plain(path) else ():
        try:
            found.append(parse(raw))
        except ValueError:
            continue
        if len(found) == count:
            break
    return found[::-1]


def append(path: str, message: dict) -> str:
    """Append one message, with an id and a time if it has none; return its id once durable."""
    whole = {"id": None, "at": None, **message}
    whole["id"], whole["at"] = whole["id"] or new_id(), whole["at"] or now()
    append_lines(path, [encode(whole)])
    return str(whole["id"])


def append_lines(path: str, lines: list[bytes]) -> None:
    """Append whole lines as they are; on the disk when this returns."""
    data = b"".join(lines)
    fd = _open_locked(path)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # the torn piece of somebody killed here stays, as its own line
        if os.write(fd, data) != len(data):
            raise AgentctlError(f"cannot append to {path}: the disk took only a part of the line")
        os.fsync(fd)
    finally:
        os.close(fd)
    if not size:
        durable.sync_folder(os.path.dirname(path) or ".")


def lock(fd: int) -> bool:
    """Wait until nobody else writes; False if it is never so: whoever may read the file can hold its lock."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
        time.sleep(0.001)


def new_id() -> str:
    """Return a new random (version 4) UUID as 32 hex digits."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    return data.hex()


def now() -> str:
    """Return the present time as RFC 3339, in UTC, with milliseconds."""
    seconds, millis = divmod(time.time_ns() // 1_000_000, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{millis:03d}Z"


def is_plain(path: str) -> bool:
    """Tell whether a plain file or nothing at all has that name."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def open_plain(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a plain file, or raise NotPlain: a link or a FIFO may lead anywhere, or block."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotPlain(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotPlain(path)
    return fd


def lines(path: str, start: int = 0):
    """Yield (raw line, its length) from `start`; a line that is too long comes as b""."""
    try:
        fd = open_plain(path)
    except FileNotFoundError:
        return
    with open(fd, "rb", buffering=1 << 20) as file:
        file.seek(start)
        while raw := file.readline(LONGEST_LINE):
            length = len(raw)
            if length == LONGEST_LINE and not raw.endswith(b"\n"):
                raw, length = b"", length + _skip_line(file)
            yield raw, length


def parse(raw: bytes) -> dict:
    """Return the message of one line; raise ValueError that says what is wrong with it."""
    if not raw:
        raise ValueError("empty, or too long")
    try:
        message = fast_json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, RecursionError, SystemError):  # SystemError: see the test
        raise ValueError("NUL bytes" if b"\0" in raw else "not JSON") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def encode(message: dict) -> bytes:
    """Return `message` as its line; raise TypeError or ValueError if it is no JSON."""
    import json  # costs 11 ms, and the recovery path only reads

    for is_ascii in (False, True):  # a lone surrogate has no UTF-8, but it has an escape
        text = json.dumps(message, ensure_ascii=is_ascii, allow_nan=False, separators=(",", ":"))
        try:
            return text.encode("utf-8") + b"\n"
        except UnicodeEncodeError:
            continue
    raise AssertionError("ASCII always encodes")


def id_of(message: dict) -> str | None:
    """Return the id as text; numbers are accepted from careless writers."""
    given = message.get("id")
    return str(given) if isinstance(given, str | int) and given != "" else None


def _skip_line(file) -> int:
    length = 0
    while more := file.readline(BLOCK):
        length += len(more)
        if more.endswith(b"\n"):
            break
    return length


def _lines_backwards(path: str):
    """Yield the lines from the last to the first; one that is too long comes as b""."""
    try:
        fd = open_plain(path)
    except FileNotFoundError:
        return
    pieces, held = [], 0  # of the line whose start is not read yet, its end first
    try:
        offset = os.fstat(fd).st_size
        while offset:
            size = min(BLOCK, offset)
            offset -= size
            first, *rest = os.pread(fd, size, offset).split(b"\n")
            if rest:
                yield _join(rest.pop(), pieces, held)
                yield from reversed(rest)
                pieces, held = [], 0
            held += len(first)
            pieces = [*pieces, first] if held <= LONGEST_LINE else []
        yield _join(b"", pieces, held)
    finally:
        os.close(fd)


def _join(start: bytes, pieces: list[bytes], held: int) -> bytes:
    return b"".join([start, *reversed(pieces)]) if held <= LONGEST_LINE else b""


def _open_locked(path: str) -> int:
    """Open the file for appending, locked; if it was mended meanwhile, it is another file now."""
    while True:
        fd = open_plain(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            if not lock(fd):
                raise AgentctlError(f"cannot append to {path}: somebody keeps it locked", f"lsof {path}")
            if os.path.lexists(path) and os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
