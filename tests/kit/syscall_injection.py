"""System-call injection: a real program, whose Nth call of a kind (also its children's) is killed or fails.

    profile = run(argv, env, below=folder)                       # every call that could be hit
    run(argv, env, below=folder, fault=Fault(call.kind, 3, "ENOSPC"))   # the third of that kind fails

A seccomp filter hands the chosen calls to us (user notification), we let them go on, answer with an error, or
kill the caller. `strace -e inject` does the same for one process; but it counts in each process apart, and cannot
tell a write to the ledger from one to a pipe, nor say "this file system is full from now on". Works without root.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field

# name: (x86_64, aarch64, where the path is): "3" a descriptor, "0/1" a folder's descriptor and a name, "/0" a name
CALLS = {
    "read": (0, 63, "0"), "pread64": (17, 67, "0"), "open": (2, -1, "/0"), "openat": (257, 56, "0/1"),
    "write": (1, 64, "0"), "pwrite64": (18, 68, "0"), "writev": (20, 66, "0"), "sendfile": (40, 71, "0"),
    "copy_file_range": (326, 285, "2"), "ftruncate": (77, 46, "0"), "fallocate": (285, 47, "0"),
    "fsync": (74, 82, "0"), "fdatasync": (75, 83, "0"), "syncfs": (306, 267, "0"),
    "rename": (82, -1, "/1"), "renameat": (264, 38, "2/3"), "renameat2": (316, 276, "2/3"),
    "mkdir": (83, -1, "/0"), "mkdirat": (258, 34, "0/1"), "rmdir": (84, -1, "/0"),
    "unlink": (87, -1, "/0"), "unlinkat": (263, 35, "0/1"), "link": (86, -1, "/1"), "linkat": (265, 37, "2/3"),
    "symlink": (88, -1, "/1"), "symlinkat": (266, 36, "1/2"), "chmod": (90, -1, "/0"), "fchmod": (91, 52, "0"),
    "fchmodat": (268, 53, "0/1"), "clone": (56, 220, ""), "clone3": (435, 435, ""), "vfork": (58, -1, ""),
    "execve": (59, 221, ""), "pipe2": (293, 59, ""), "pipe": (22, -1, ""), "socket": (41, 198, ""),
}  # fmt: skip
STARTS = {"clone", "clone3", "vfork", "execve", "pipe", "pipe2", "socket"}
READS = {"read", "pread64"}
FREES = {"unlink", "unlinkat", "rmdir", "fchmod", "chmod", "fchmodat", "ftruncate"}  # a full disk lets these
OPENS = {"open", "openat"}
KINDS = {  # what each fault may hit
    "SIGKILL": set(CALLS) - READS,
    "ENOSPC": set(CALLS) - STARTS - READS - FREES,
    "EIO": set(CALLS) - STARTS,
    "EROFS": set(CALLS) - STARTS - READS - {"fsync", "fdatasync", "syncfs"},
    "EMFILE": OPENS | {"pipe", "pipe2", "socket"},
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctls: struct seccomp_notif, struct seccomp_notif_resp
_CONTINUE = 1
_AT_FDCWD = -100
_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Call:
    """One call as it was met: by which program, what, on which path below the folder watched ('' for none)."""

    program: str
    name: str
    path: str
    writes: bool

    @property
    def kind(self) -> tuple[str, str]:
        """What a fault is aimed at: the same in every run, whatever else goes on beside it."""
        return self.program, self.name


@dataclass(frozen=True)
class Fault:
    """Hit the `nth` (from 1) call of a kind with SIGKILL or an errno's name; `stays`: and all that follow, any kind."""

    kind: tuple[str, str]
    nth: int
    what: str
    stays: bool = False


@dataclass
class Ran:
    """How it ended: exit status (or minus the signal), all it said, the calls it made, those that were hit."""

    status: int
    said: str
    calls: list[Call] = field(default_factory=list)
    hits: list[Call] = field(default_factory=list)


def run(argv: list[str], env: dict[str, str], *, below, fault: Fault | None = None) -> Ran:
    """Run a program to its end, with what it starts; only calls on paths below `below`, or on none, count."""
    with tempfile.TemporaryFile() as output:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _become(argv, env, output.fileno(), theirs)
        theirs.close()
        with ours:
            listener = socket.recv_fds(ours, 1, 1)[1][0]
        watch = _Watch(listener, os.path.realpath(below), fault)
        try:
            status = watch.serve(pid)
        finally:
            os.close(listener)
        output.seek(0)
        return Ran(status, output.read().decode("utf-8", "replace"), watch.calls, watch.hits)


def choose_faults(calls: list[Call], points: int, whats=tuple(KINDS)) -> list[Fault]:
    """Choose faults over a profile: every kind of call gets its turn before any gets a second one."""
    offered = []
    for what in whats:
        counted: dict[tuple[str, str], list[int]] = {}
        for call in calls:
            seen = counted.setdefault(call.kind, [0])
            seen[0] += 1
            if is_subject(call, what):
                seen.append(seen[0])
        offered += [
            (rank / len(nths), turn, what, kind, nth)
            for turn, (kind, (_, *nths)) in enumerate(counted.items())
            for rank, nth in enumerate(_spread(nths))
        ]
    by_kind: dict[tuple, list] = {}
    for _, _, what, kind, nth in sorted(offered, key=lambda o: o[:2]):
        by_kind.setdefault((what, kind), []).append(Fault(kind, nth, what))
    chosen, rows = [], list(by_kind.values())
    while len(chosen) < points and any(rows):
        turn = [row.pop(0) for row in rows if row]
        chosen += _spread(turn)[: points - len(chosen)]
    return chosen


def is_subject(call: Call, what: str) -> bool:
    """Tell whether this fault could happen to this call in the world outside."""
    if call.name not in KINDS[what]:
        return False
    if call.name in OPENS and what in ("ENOSPC", "EROFS"):
        return call.writes
    return what == "SIGKILL" or bool(call.path) or call.name in STARTS


def _spread(row: list) -> list:
    """Reorder so that every beginning of the row is spread over the whole of it (halves, quarters, eighths...)."""
    found, step = [], len(row)
    seen = set()
    while step >= 1:
        for number in range(step // 2, len(row), step):
            if number not in seen:
                seen.add(number)
                found.append(row[number])
        step //= 2
    return found


class _Watch:
    """Answers the filter's questions until nobody is left to ask any."""

    def __init__(self, listener: int, below: str, fault: Fault | None) -> None:
        self.listener, self.below, self.fault = listener, below, fault
        self.calls, self.hits, self.met = [], [], 0
        self.programs: dict[int, str] = {}
        column = _MACHINES[platform.machine()][0]
        self.names = {numbers[column]: name for name, numbers in CALLS.items() if numbers[column] >= 0}

    def serve(self, pid: int) -> int:
        """Serve until the program and all it started have ended; return the program's status."""
        poll, deadline = select.poll(), time.monotonic() + _LIMIT_SECONDS
        poll.register(self.listener, select.POLLIN)
        while True:
            events = poll.poll(1000)
            if events and events[0][1] & select.POLLIN:
                self._answer()
            elif events:  # hung up: the last one that had the filter is gone
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if time.monotonic() > deadline:
                for other in {pid, *self.programs}:
                    _kill(other)
                raise AssertionError(f"no end after {_LIMIT_SECONDS:g}s; last call: {self.calls[-1:]}")

    def _answer(self) -> None:
        asked = bytearray(80)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, asked)
        except OSError:  # it was killed in between
            return
        number, pid, _, call, _, _, *args = struct.unpack("<QIIiIQ6Q", asked)
        error = self._judge(pid, self.names[call], args)
        answer = struct.pack("<QqiI", number, 0, -error, 0 if error else _CONTINUE)
        try:
            fcntl.ioctl(self.listener, _SEND, bytearray(answer))
        except OSError:  # killed, by us or by its parent
            return

    def _judge(self, pid: int, name: str, args: list[int]) -> int:
        """Return the error to answer with, 0 for none; may kill the caller."""
        call = Call(self._program(pid, name), name, self._path(pid, name, args), _is_writing(name, args))
        if CALLS[name][2] and not call.path:
            return 0
        self.calls.append(call)
        fault = self.fault
        if fault is None or not (is_hit := self._is_hit(call, fault)):
            return 0
        self.hits.append(call)
        if fault.what == "SIGKILL" and is_hit:
            _kill(pid)
            return errno.EINTR
        return getattr(errno, fault.what)

    def _is_hit(self, call: Call, fault: Fault) -> bool:
        if call.kind == fault.kind:
            self.met += 1
        if fault.stays and self.met >= fault.nth:
            return is_subject(call, fault.what)
        return call.kind == fault.kind and self.met == fault.nth

    def _program(self, pid: int, name: str) -> str:
        if pid not in self.programs or name == "execve":
            self.programs.pop(pid, None)
            words = _read(f"/proc/{pid}/cmdline").split(b"\0")
            program = os.path.basename(words[0].decode("utf-8", "replace"))
            if program == "git":  # tell its commands apart
                rest = [w for w in words[1:] if not w.startswith((b"-", b"/"))]
                program = f"git {rest[0].decode('utf-8', 'replace')}" if rest else program
            if name == "execve":
                return program
            self.programs[pid] = program
        return self.programs[pid]

    def _path(self, pid: int, name: str, args: list[int]) -> str:
        """Return the path a call is about, relative to the folder watched; '' if it is not in there."""
        where = CALLS[name][2]
        if not where:
            return ""
        at, slash, said = where.partition("/")
        try:
            path = (
                os.readlink(f"/proc/{pid}/fd/{args[int(at)]}")
                if not slash
                else self._named(pid, args[int(said)], args[int(at)] if at else _AT_FDCWD)
            )
        except OSError:
            return ""
        return os.path.relpath(path, self.below) if path.startswith(self.below + "/") else ""

    def _named(self, pid: int, address: int, folder: int) -> str:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            name = os.fsdecode(memory.read(min(4096, 4096 - address % 4096)).split(b"\0")[0])
        folder = ctypes.c_int32(folder & 0xFFFFFFFF).value
        if not name.startswith("/"):
            base = f"/proc/{pid}/cwd" if folder == _AT_FDCWD else f"/proc/{pid}/fd/{folder}"
            name = f"{os.readlink(base)}/{name}"
        return os.path.normpath(name)


def _is_writing(name: str, args: list[int]) -> bool:
    flags = {"open": 1, "openat": 2}.get(name)
    return name not in READS if flags is None else bool(args[flags] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


# -- in the child -----------------------------------------------------------------------------------------------


def _become(argv: list[str], env: dict[str, str], output: int, theirs: socket.socket) -> None:
    """Put the filter on, hand its descriptor over, become the program. Never returns."""
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.environ.clear()
        socket.send_fds(theirs, [b"f"], [_install_filter()])
        os.execve(argv[0], argv, env)
    except BaseException as error:  # noqa: BLE001 - a forked child must never run the parent's code
        os.write(2, f"cannot start: {error!r}".encode())
    finally:
        os._exit(127)


def _install_filter() -> int:
    """Install the filter on this thread; return the descriptor on which it asks."""
    column, arch = _MACHINES[platform.machine()]
    numbers = [n[column] for n in CALLS.values() if n[column] >= 0]
    lines = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, 0x7FFF0000), (0x20, 0, 0, 0)]  # ours, or allow
    lines += [(0x15, len(numbers) - n, 0, number) for n, number in enumerate(numbers)]
    lines += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x7FC00000)]  # allow; ask
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(lines), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS: so no right is needed for the filter
        raise OSError(ctypes.get_errno(), "prctl")
    call = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    listener = libc.syscall(call, 1, 1 << 3, program)  # SET_MODE_FILTER, NEW_LISTENER
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


if __name__ == "__main__":  # python syscall_injection.py FOLDER COMMAND...: print the profile
    for met in run(sys.argv[2:], dict(os.environ), below=sys.argv[1]).calls:
        print(met)
