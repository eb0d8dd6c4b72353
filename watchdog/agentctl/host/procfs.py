"""Processes as /proc tells: what belongs to a launch, what runs, who holds a lock; end them. Standard library only."""

from __future__ import annotations

import os
import time

SIGKILL, SIGCONT = 9, 18
EXEC_SECONDS = 2.0  # so long we wait for a process that is just being given another program
KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h
# -- aliveness -------------------------------------------------------------------------------------
# Who is alive and who holds a lock, as /proc tells. It takes no lock, not even for an instant.


LOCKS_PATH = "/proc/locks"
SILENT_SECONDS = 30.0  # towards which a watchdog that lives has said something
SHELLS = (b"sh", b"dash", b"bash", b"zsh", b"ksh", b"mksh", b"busybox", b"fish")


def with_variable(name: str, value: str) -> list[int]:
    """List processes (not ourselves) whose environment at their start had NAME=value."""
    wanted = f"{name}={value}".encode()
    me, deadline = os.getpid(), time.monotonic() + EXEC_SECONDS
    return [pid for pid in _pids() if pid != me and wanted in _environ(pid, deadline).split(b"\0")]


def end_all(find, limit_seconds: float = 10.0) -> list[int]:
    """Kill what `find()` lists until it lists nothing; return what is left after the limit."""
    deadline = time.monotonic() + limit_seconds
    while pids := [p for p in find() if state(p) not in ("Z", "X", "")]:
        for pid in pids:
            signal_quietly(pid, SIGKILL)
        if time.monotonic() > deadline:
            return pids
        time.sleep(0.005)
    return []


def signal_quietly(pid: int, number: int) -> bool:
    """Send a signal; False if the process is gone or not ours."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_and_wake(pids: list[int], number: int) -> None:
    """Send a signal to processes, and SIGCONT: one that is stopped takes it only then."""
    for sent in (number, SIGCONT):
        for pid in pids:
            signal_quietly(pid, sent)


def state(pid: int) -> str:
    """Return the one-letter state (R, S, T, Z ...), '' if it is gone."""
    fields = stat_fields(pid)
    return fields[0] if fields else ""


def stat_fields(pid: int | str) -> list[str]:
    """Return /proc/PID/stat from the state on; the name before it may hold anything. A thread is PID/task/TID."""
    raw = _read(f"/proc/{pid}/stat").decode("utf-8", "replace")
    return raw.rpartition(")")[2].split()


def foreground_group(pid: int) -> int | None:
    """Return the foreground process group of the process's terminal, or None if there is none."""
    fields = stat_fields(pid)
    group = int(fields[5]) if len(fields) > 5 else 0
    return group if group > 0 else None


def in_group(group: int | None) -> list[int]:
    """List the members of a process group; none of no group."""
    if group is None or group <= 1:
        return []
    return [pid for pid in _pids() if stat_fields(pid)[2:3] == [str(group)]]


def in_front(leader: int) -> list[int]:
    """List the foreground group of the process's terminal, the process itself where there is none."""
    return in_group(foreground_group(leader)) or [leader]


def in_front_of_shell(leader: int) -> list[int]:
    """List the same without a shell that leads it: its end would take the terminal along."""
    return [pid for pid in in_front(leader) if pid != leader or not is_shell(pid)] or [leader]


def children(parent: int) -> list[int]:
    """List the children of a process."""
    return [pid for pid in _pids() if stat_fields(pid)[1:2] == [str(parent)]]


def threads(pid: int) -> list[str]:
    """Name the threads of a process below /proc, none if it is gone."""
    try:
        return [f"{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def waits_in(thread: str) -> str:
    """Name the function of the kernel in which a thread waits, '' if it waits nowhere or we may not know."""
    return _read(f"/proc/{thread}/wchan").decode("ascii", "replace").removeprefix("0")


def switches(thread: str) -> int:
    """Count how often a thread left the processor: the number stands as long as it does not run."""
    lines = _read(f"/proc/{thread}/status").splitlines()
    return sum(int(line.split()[1]) for line in lines if b"ctxt_switches:" in line)


def words(pid: int) -> list[str]:
    """Return the command line a process was started with."""
    return _read(f"/proc/{pid}/cmdline").decode("utf-8", "surrogateescape").split("\0")


def program(pid: int) -> str:
    """Return the name of the program that a process runs, '' if it is gone."""
    return _read(f"/proc/{pid}/comm").decode("utf-8", "replace").rstrip("\n")


def living() -> list[int]:
    """List every process that is seen and lives, but for ourselves."""
    me = os.getpid()
    return [pid for pid in _pids() if pid != me and is_alive(pid)]


def is_shell(pid: int) -> bool:
    """Tell whether the process is a shell, by its name."""
    return _read(f"/proc/{pid}/comm").strip() in SHELLS


def is_stopped(pid: int) -> bool:
    """Tell whether the process, or one in the foreground of its terminal, is stopped (SIGSTOP, Ctrl-Z)."""
    return any(state(member) in ("T", "t") for member in {pid, *in_group(foreground_group(pid))})


def is_alive(pid: int) -> bool:
    """Tell whether the process exists and is not a zombie."""
    return state(pid) not in ("", "Z", "X")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read() or b""
    except OSError:
        return b""


def _environ(pid: int, deadline: float) -> bytes:
    """Read the environment of a process; in the midst of an exec it has none for a moment: look again then."""
    while True:
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                raw = file.read() or b""
        except OSError:  # it is gone, or we may not
            return b""
        if raw or _has_no_environ(pid) or time.monotonic() > deadline:
            return raw
        time.sleep(0.0005)


def _has_no_environ(pid: int) -> bool:
    """Tell an environment that is empty from one that an exec has not put in place yet.

    proc_pid_stat(5): startcode (field 26) is 0 until the environment (env_start 50, env_end 51) stands, and without
    memory: in the kernel's threads (flags 9) and the dead. Who may not know reads 1, 0 and 0.
    """
    fields = stat_fields(pid)
    if len(fields) < 49 or fields[0] in ("Z", "X", "x") or int(fields[6]) & KERNEL_THREAD:
        return True
    return fields[23] != "0" and fields[47] == fields[48]


def has_ancestor_with(name: str, value: str, also: str) -> bool:
    """Tell whether we or any process above us was started with NAME=value and `also` (as far as we may read that)."""
    pid = os.getpid()
    while pid > 1:
        known = variables(pid)
        if known.get(name) == value and also in known:
            return True
        pid = parent(pid)
    return False


def parent(pid: int) -> int:
    """Return the process above, 0 if there is none."""
    fields = stat_fields(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def variables(pid: int) -> dict[str, str]:
    """Return the environment a process was started with, {} if we may not read it."""
    raw = _environ(pid, time.monotonic() + EXEC_SECONDS)
    entries = raw.decode("utf-8", "surrogateescape").split("\0")
    return {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals}


def user(pid: int) -> int:
    """Return the user a process runs as, -1 if it is gone or of several at once. /proc/PID's owner would not tell."""
    for line in _read(f"/proc/{pid}/status").split(b"\n"):
        if line.startswith(b"Uid:"):
            uids = set(line.split()[1:])
            return int(uids.pop()) if len(uids) == 1 else -1
    return -1


def is_runner(pid: int, name: str) -> bool:
    """Tell whether the process is alive and this agent's runner, no stranger of its number."""
    line = words(pid)
    return is_alive(pid) and "runner" in line and name in line


def is_watchdog(told: dict, now: float) -> bool:
    """Tell by what the watchdog last said whether it is there; its lock is not seen on every file system."""
    return now - (told.get("at") or 0.0) < SILENT_SECONDS and is_alive(told.get("pid") or 0)


def command_line(pid: int) -> str:
    """Return a process's words, apart by blanks."""
    return " ".join(words(pid))


def is_locked(path: str, locks: str) -> bool:
    """Tell by the text of /proc/locks whether somebody is seen to hold the lock on a file."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    rows = (line.split() for line in locks.splitlines())
    return any(len(row) > 5 and row[1] == "FLOCK" and row[5] == file for row in rows)


def read_locks() -> str:
    """Return who holds which lock, as the kernel tells."""
    return _read(LOCKS_PATH).decode("utf-8", "replace")
