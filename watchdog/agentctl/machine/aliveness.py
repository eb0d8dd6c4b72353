"""Who is alive and who holds a lock, as /proc tells. It takes no lock, not even for an instant."""

from __future__ import annotations

import os

from . import process

LOCKS_PATH = "/proc/locks"
SILENT_SECONDS = 30.0


def is_runner(pid: int, name: str) -> bool:
    """Tell whether the process is alive and this agent's runner, no stranger of its number."""
    words = _read_text(f"/proc/{pid}/cmdline").split("\0")
    return process.is_alive(pid) and "runner" in words and name in words


def is_watchdog(told: dict, now: float) -> bool:
    """Tell by what the watchdog last said whether it is there; its lock is not seen on every file system."""
    return now - (told.get("at") or 0.0) < SILENT_SECONDS and process.is_alive(told.get("pid") or 0)


def command_line(pid: int) -> str:
    """Return a process's words, apart by blanks."""
    return _read_text(f"/proc/{pid}/cmdline").replace("\0", " ")


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
    return _read_text(LOCKS_PATH)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
