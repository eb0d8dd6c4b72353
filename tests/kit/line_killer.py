"""The line killer: SIGKILL before the Nth executed line of our code, for every N until a run comes to its end.

- `killed_at(line, act, is_ours)` runs `act()` in a forked child that dies there, and tells whether it got that far.
- `run(act, line)` tells more: where it died, how many lines there were, which SQL statements had been carried out.
  Programs that it had started die with it, as systemd ends a unit's cgroup.
- `explore(make, ...)` does a whole family of points: reset the world, kill, check, recover, check; some points in
  pairs, where the recovery is killed too. N counts up in several processes side by side, each with its own world.

Everything is imported once and forked for each point; the file system, git and SQLite are real.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback

import agentctl
from agentctl import ledger as ledgers

HOME = os.path.dirname(agentctl.__file__) + os.sep
HANG_SECONDS = 120.0
FAST = "/dev/shm"  # what counts here is the order of the calls, not the disk; power cuts have their own tests
MOST_FAILURES = 5  # of one worker; then it ends
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


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

    def __init__(self, was_killed: bool, lines: int, place: str, sql: list[tuple[str, str]]) -> None:
        self.was_killed, self.lines, self.place, self.sql = was_killed, lines, place, sql


def run(act, line: int | None = 0, is_ours=is_product) -> Run:
    """Run `act()` in a forked child, killed before its `line`-th line (0: never, None: and they are not counted).

    Fails if the child ends in any other way, with what it said.
    """
    told, said = os.memfd_create("told"), os.memfd_create("said")
    try:
        pid = os.fork()
        if pid == 0:
            _act_until(line, act, is_ours, told, said)
        status = _wait(pid)
        facts = [json.loads(text) for text in _content(told).splitlines()]
        lines, place = next(((f[1], f[2]) for f in facts if f[0] == "end"), (0, ""))
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}:\n{_content(said)[-4000:]}"
        return Run(status != 0, lines, place, [(f[1], f[2]) for f in facts if f[0] == "sql"])
    finally:
        os.close(told)
        os.close(said)


def _act_until(line: int | None, act, is_ours, told: int, said: int) -> None:
    """In the child: count lines, die at the right one, or say how many there were. Never returns."""
    count = 0
    os.dup2(said, 1)
    os.dup2(said, 2)
    _report_sql(told)

    def trace(frame, event, _):
        nonlocal count
        if not is_ours(frame.f_code.co_filename):
            return None
        if event == "line":
            count += 1
            if count == line:
                place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                os.write(told, json.dumps(["end", count, place]).encode() + b"\n")
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    status = 1
    try:
        sys.settrace(None if line is None else trace)
        act()
        sys.settrace(None)
        os.write(told, json.dumps(["end", count, ""]).encode() + b"\n")
        status = 0
    except BaseException:
        sys.settrace(None)
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _report_sql(told: int) -> None:
    """Have every ledger of this process report its statements; the line after one only runs when it was carried out."""
    connect = ledgers.Ledger._connect

    def connect_and_report(self, read_only: bool) -> None:
        connect(self, read_only)
        self.db.set_trace_callback(
            lambda text: os.write(told, json.dumps(["sql", self.path, text]).encode() + b"\n"))

    ledgers.Ledger._connect = connect_and_report


def _wait(pid: int) -> int:
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
    assert has_ended, f"the child hung for {HANG_SECONDS:g}s"
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


# -- a family of points -------------------------------------------------------------------------------------

_takes_orphans = False


class Found:
    """What an exploration found: `points` that held, of runs with `lines` lines; `failures` in words."""

    def __init__(self) -> None:
        self.points = self.pairs = self.lines = 0
        self.failures: list[str] = []


def explore(make, *, points: int = 0, pairs: int = 0, workers: int = 2, seed: int = 1) -> Found:
    """Kill at `points` places spread over the run (0: at every line), then at `pairs` of places.

    `make()` makes the world and how to break it, in each worker anew: an object with `reset`, `act`, `recover`,
    `at_the_kill(run)`, `afterwards(run)` and `end`. Fails with every point that did not hold, up to a few.
    """
    pipes = [_start_worker(make, number, workers, points, pairs, seed) for number in range(workers)]
    total = Found()
    for pid, fd in pipes:
        with os.fdopen(fd) as file:
            text = file.read()
        os.waitpid(pid, 0)
        said = json.loads(text or '{"failures": ["a worker died"]}')
        total.points += said.get("points", 0)
        total.pairs += said.get("pairs", 0)
        total.lines = max(total.lines, said.get("lines", 0))
        total.failures += said["failures"]
    assert not total.failures, f"{len(total.failures)} points failed:\n" + "\n\n".join(total.failures)
    return total


def _start_worker(make, number: int, workers: int, points: int, pairs: int, seed: int) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    found = Found()
    try:
        os.close(read_end)
        _become_worker(parent)
        _work(make(), found, number, workers, points, range(number, pairs, workers), random.Random(f"{seed} {number}"))
    except BaseException:
        found.failures.append(traceback.format_exc())
    finally:
        os.write(write_end, json.dumps(vars(found)).encode())
        os._exit(0)


def _become_worker(parent: int) -> None:
    """Take orphans in, and do not outlive who started us."""
    global _takes_orphans
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    if os.getppid() != parent:
        os._exit(1)
    _takes_orphans = True


def _work(family, found: Found, number: int, workers: int, points: int, pairs: range, dice: random.Random) -> None:
    try:
        found.lines, recovery_lines = _whole(family)
        stride = max(1, found.lines // points) if points else 1
        line = 1 + number * stride
        while len(found.failures) < MOST_FAILURES and _try(family, found, line):
            line += workers * stride
        for _ in pairs:
            if len(found.failures) < MOST_FAILURES:
                first, second = dice.randint(1, found.lines), dice.randint(1, recovery_lines)
                found.pairs += _try(family, found, first, second)
    finally:
        family.end()


def _whole(family) -> tuple[int, int]:
    """Run it once unharmed; return its lines, and those of a recovery where there is nothing to do any more."""
    family.reset()
    whole = run(family.act)
    family.at_the_kill(whole)
    recovery = run(family.recover)
    family.afterwards(recovery)
    return whole.lines, max(recovery.lines, whole.lines)


def _try(family, found: Found, line: int, second: int = 0) -> bool:
    """One point, or a pair of them; False if the run was over before."""
    began, where = time.monotonic(), f"line {line}"
    try:
        family.reset()
        killed = run(family.act, line)
        if not killed.was_killed:
            return False
        where = f"killed at line {line} of {found.lines}, {killed.place}"
        family.at_the_kill(killed)
        if second:
            again = run(family.recover, second)
            where += f", then at line {second} of the recovery, {again.place or 'its end'}"
            family.at_the_kill(again)
        recovery = run(family.recover, None)
        where += ", after the recovery"
        family.afterwards(recovery)
        found.points += 1
    except BaseException as error:
        found.failures.append(f"{where} ({time.monotonic() - began:.1f}s): {_in_short(error)}")
    return True


def _in_short(error: BaseException) -> str:
    """Say what failed and in which line of the check, with its own words where it has some."""
    frames = traceback.extract_tb(error.__traceback__)
    spots = "".join(f"\n  {os.path.basename(f.filename)}:{f.lineno}: {f.line}" for f in frames[-2:])
    return f"{type(error).__name__}: {str(error)[:3000]}{spots}"
