"""The line killer: SIGKILL before the Nth executed line of our code, for every N until a run comes to its end.

- `killed_at(line, act, is_ours)` runs `act()` in a forked child that dies there, and tells whether it got that far.
- `run(act, line)` tells more: where it died, how many lines there were, which SQL statements had been carried out.
  Programs that it had started die with it, as systemd ends a unit's cgroup. Where not every line can be tried,
  `call=K` dies on the first line after the Kth call to the outside: between two of these nothing changes on disk.

Everything is imported once and forked for each point; the file system, git and SQLite are real. `kit.exploration`
counts N up.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import tempfile
import traceback

import agentctl
from agentctl.ledger import database

HOME = os.path.dirname(agentctl.__file__) + os.sep
HANG_SECONDS = 120.0
FAST = "/dev/shm"  # what counts here is the order of the calls, not the disk; power cuts have their own tests
OUTSIDE = ("posix", "sqlite3", "_io")  # whose calls can change the world
READING = ("SELECT", "PRAGMA")
HARMLESS = {"read", "pread", "readline", "seek", "close", "closerange", "pipe", "dup", "fsync", "fspath", "fsencode",
            "fsdecode", "getpid", "geteuid", "getuid", "getcwd", "stat", "lstat", "fstat", "listdir", "scandir",
            "fetchone", "fetchall", "urandom", "access", "posix_fadvise", "pidfd_open", "waitstatus_to_exitcode",
            "set_inheritable", "readlink", "open", "execute", "executescript", "connect", "readlines"}  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_takes_orphans = False


def killed_at(line: int, act, is_ours) -> bool:
    """Run `act()` in a forked child; kill it before the `line`-th line of files for which `is_ours(path)`.

    Tell whether it got that far. Fails if the child ends in any other way.
    """
    return run(act, line, is_ours).was_killed


def is_product(path: str) -> bool:
    """Tell whether a source file is of the product."""
    return path.startswith(HOME)


def fast_folder() -> str:
    """Name a folder for worlds that are made anew thousands of times."""
    return FAST if os.path.isdir(FAST) and os.access(FAST, os.W_OK) else tempfile.gettempdir()


class Run:
    """How one run in a child went: `place` is where it died ('' if it did not), `sql` what its ledgers had done."""

    def __init__(self, was_killed: bool, facts: list[list]) -> None:
        self.was_killed = was_killed
        self.lines, self.calls, self.place = next((f[1:] for f in facts if f[0] == "end"), (0, 0, ""))
        self.sql = [(f[1], f[2]) for f in facts if f[0] == "sql"]


def run(act, line: int = 0, is_ours=is_product, *, call: int = 0, is_traced: bool = True) -> Run:
    """Run `act()` in a forked child, killed before its `line`-th line, or after its `call`-th call to the outside.

    With neither it is killed nowhere, and if it `is_traced` both are counted; with a line and call -1, too. Fails if
    the child ends in any other way, with what it said.
    """
    told, said = os.memfd_create("told"), os.memfd_create("said")
    try:
        pid = os.fork()
        if pid == 0:
            _act_until(_Tracer(line, call, is_ours, told) if is_traced else None, act, told, said)
        status = _wait(pid, said)
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}:\n{_content(said)[-4000:]}"
        return Run(status != 0, [json.loads(text) for text in _content(told).splitlines()])
    finally:
        os.close(told)
        os.close(said)


class _Tracer:
    """In the child: count lines and calls to the outside, and die at the right one."""

    def __init__(self, line: int, call: int, is_ours, told: int) -> None:
        self.line, self.call, self.is_ours, self.told = line, call, is_ours, told
        self.lines = self.calls = 0

    def start(self) -> None:
        if not self.line or self.call < 0:
            sys.setprofile(self._count_call)
            sys.addaudithook(self._count_event)
        sys.settrace(self._trace)

    def stop(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)
        self._tell("")

    def _trace(self, frame, event, _):
        if not self.is_ours(frame.f_code.co_filename):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line or 0 < self.call <= self.calls:
                self._tell(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
                os.kill(os.getpid(), signal.SIGKILL)
        return self._trace

    def _count_call(self, frame, event, called) -> None:
        """Count what may change the world, but not the talk with children: how often that is polled varies."""
        path = frame.f_code.co_filename
        if event != "c_call" or not self.is_ours(path) or frame.f_code.co_name == "_pump":
            return
        of = getattr(called, "__self__", None)
        owner = getattr(called, "__module__", None) or type(of).__module__
        if called.__name__ == "__exit__":  # of a file that was written
            self.calls += owner == "_io" and of.writable()
        else:
            self.calls += owner in OUTSIDE and called.__name__ not in HARMLESS

    def _count_event(self, event, args) -> None:
        """What no profiler tells: a file opened for writing; a function of the C library looked up to be called."""
        if event == "open":
            self.calls += bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            self.calls += event == "ctypes.dlsym"

    def count_sql(self, text: str) -> None:
        self.calls += not text.startswith(READING)

    def _tell(self, place: str) -> None:
        os.write(self.told, json.dumps(["end", self.lines, self.calls, place]).encode() + b"\n")


def _act_until(tracer: _Tracer | None, act, told: int, said: int) -> None:
    """In the child: act, and tell how it went. Never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(said, 1)
    os.dup2(said, 2)
    _report_sql(told, tracer)
    status = 1
    try:
        if tracer:
            tracer.start()
        act()
        if tracer:
            tracer.stop()
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must never run the parent's code
        sys.settrace(None)
        sys.setprofile(None)
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _report_sql(told: int, tracer: _Tracer | None) -> None:
    """Have every ledger of this process report its statements; the line after one only runs when it was carried out."""
    connect = database.Ledger._connect

    def connect_and_report(self, read_only: bool) -> None:
        def report(text: str) -> None:
            os.write(told, json.dumps(["sql", self.path, text]).encode() + b"\n")
            if tracer:
                tracer.count_sql(text)

        connect(self, read_only)
        self.db.set_trace_callback(report)

    database.Ledger._connect = connect_and_report


def take_orphans_in(parent: int) -> None:
    """Become the process that ends what killed ones leave running; do not outlive `parent`, who started us."""
    global _takes_orphans  # noqa: PLW0603 - a property of the whole process
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("who started us is gone"))  # and leave nothing behind
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    if os.getppid() != parent:
        os._exit(1)
    _takes_orphans = True
    os.chdir("/")  # as systemd starts them


def _wait(pid: int, said: int) -> int:
    """Wait for the child, then end what it left running; return its exit status or minus the signal."""
    pidfd = os.pidfd_open(pid)
    try:
        has_ended = select.select([pidfd], [], [], HANG_SECONDS)[0]
    finally:
        os.close(pidfd)
    if not has_ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _end_orphans()
    assert has_ended, f"the child hung for {HANG_SECONDS:g}s; it said:\n{_content(said)[-4000:]}"
    return status


def _end_orphans() -> None:
    """End and reap what the child had started: it came to us, if we take orphans in."""
    if not _takes_orphans:
        return
    while True:
        with open("/proc/thread-self/children") as file:
            left = [int(pid) for pid in file.read().split()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in left:
            os.waitpid(pid, 0)
        if not left:
            return


def _content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace")
