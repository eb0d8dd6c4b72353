"""The live status of one launch on the runtime tmpfs: heartbeats never touch the disk."""

from __future__ import annotations

import os
import time

from ..core import fast_json

LEAST_SECONDS_BETWEEN = 0.5


class StatusFile:
    """Rewritten by the runner, read by `agentctl status`."""

    def __init__(self, path: str, launch_id: str, generation: int, started_at: float) -> None:
        self.path = path
        self.facts = {
            "launch_id": launch_id,
            "generation": generation,
            "runner_pid": os.getpid(),
            "started_at": started_at,
            "last_heartbeat_at": None,
        }
        self._written_at = 0.0

    def write(self, **facts: object) -> None:
        """Merge facts in and rewrite the file; where that cannot be done, the agent runs on without."""
        self.facts.update(facts)
        self._written_at = time.monotonic()
        temp = f"{self.path}.new"
        try:
            with open(temp, "w", encoding="utf-8") as file:
                file.write(fast_json.dumps(self.facts))
            os.rename(temp, self.path)
        except OSError:
            return

    def beat(self, at: float, *, heartbeats: int, phase: str, progress: int | None) -> bool:
        """Note a heartbeat; written at most twice a second: False if it still has to be."""
        self.facts.update(last_heartbeat_at=at, heartbeats=heartbeats, agent_phase=phase, progress=progress)
        self.facts.pop("silent_until_at", None)
        is_due = time.monotonic() - self._written_at >= LEAST_SECONDS_BETWEEN
        if is_due:
            self.write()
        return is_due


def read(path: str) -> dict:
    """Return the live status, {} if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return fast_json.loads(file.read())
    except (OSError, ValueError):
        return {}
