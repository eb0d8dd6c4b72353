"""Who says what: lines of the journal and of the supervisor as events.

An event is (instant, who, what). For showing only: nothing is decided by these words.
"""

import contextlib
import json
import queue
import threading
import time
from datetime import datetime

HOLD_SECONDS = 0.5


def read_journal(line):
    """Return (at, who, what) of a line of `journalctl -o json`."""
    entry = json.loads(line)
    at, what = int(entry["__REALTIME_TIMESTAMP"]) / 1e6, str(entry.get("MESSAGE"))
    if entry.get("_PID") == "1":
        return at, "systemd", what.partition(" - ")[0]
    if entry.get("SYSLOG_IDENTIFIER", "").endswith("-rollback"):
        return at, "rollback", what.removeprefix("agentctl: ")
    return at, *speaker(what)


def read_supervisor(line):
    return time.time(), "watchdog", line.strip().removeprefix("agentctl: ")


def read_output(line):
    """One stream for all: without systemd nobody keeps them apart."""
    at, what = time.time(), line.rstrip()
    is_rollback = what.startswith("agentctl: incident") and "recovered" not in what
    return (at, "rollback", what.removeprefix("agentctl: ")) if is_rollback else (at, *speaker(what))


def speaker(what):
    ours = what.removeprefix("agentctl: ")
    return ("agent", what) if ours == what else ("runner", ours)


class Events:
    """Everything that is said, in one queue of lines."""

    def __init__(self, pipes):
        self.queue = queue.SimpleQueue()
        for pipe, read in pipes:
            threading.Thread(target=self.follow, args=(pipe, read), daemon=True).start()
        self.waiting = []

    def follow(self, pipe, read):
        for line in pipe:
            self.queue.put(read(line.decode("utf-8", "replace")))

    def due(self, hold_seconds):
        """Return, in order, what was said longer ago than that; the journal is a little late."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.waiting.append(self.queue.get_nowait())
        self.waiting.sort(key=lambda event: event[0])
        limit = time.time() - hold_seconds
        due = [event for event in self.waiting if event[0] < limit]
        self.waiting = self.waiting[len(due) :]
        return due


def instant(value):
    return value if isinstance(value, (int, float)) else datetime.fromisoformat(value).timestamp()
