"""Signs of life in memory: who beats, when last, with which launch. Heartbeats never touch the disk.

Instants called `..._at` here are of the steady clock; wall clock is kept beside them for people only.
"""

from __future__ import annotations

from collections import deque

from .periods import Period

REMEMBERED_LAUNCHES = 16
MOST_AGENTS = 100_000


class AgentPresence:
    """One agent as its heartbeats show it."""

    __slots__ = ("beat_at", "beat_wall", "foreign", "former", "heartbeats", "is_own", "judgement", "launch_id", "name",
                 "period", "phase", "progress", "progressed_at", "silent_until_at", "status",
                 "watched_since")  # fmt: skip

    def __init__(self, name: str, now: float, *, is_own: bool = False) -> None:
        self.name, self.is_own, self.watched_since = name, is_own, now
        self.launch_id, self.phase, self.status = "", "", ""
        self.beat_at: float | None = None
        self.beat_wall: float | None = None
        self.heartbeats = self.foreign = 0
        self.progress: int | None = None
        self.progressed_at = now
        self.silent_until_at = 0.0
        self.former: deque[str] = deque(maxlen=REMEMBERED_LAUNCHES)
        self.period: Period | None = None
        self.judgement = None

    def begin(self, launch_id: str) -> None:
        """Follow another launch: what the last one did is no sign of this one's life."""
        if self.launch_id:
            self.former.append(self.launch_id)
        self.launch_id, self.phase, self.status, self.progress = launch_id, "", "", None
        self.heartbeats, self.beat_at, self.silent_until_at = 0, None, 0.0

    def beat(self, now: float, wall: float, facts: dict) -> None:
        """Note a heartbeat that counts."""
        self.beat_at, self.beat_wall = now, wall
        self.heartbeats = facts.get("heartbeats", self.heartbeats + 1)
        self.phase = facts.get("phase") or self.phase
        self.status = facts.get("status", self.status)
        self.note_progress(facts.get("progress"), now)

    def note_progress(self, progress: int | None, now: float) -> None:
        """Note the agent's counter; the time it moves is what counts."""
        if progress is not None and progress != self.progress:
            self.progress, self.progressed_at = progress, now


class Presences:
    """All agents that are heard of."""

    def __init__(self, own: str, now: float) -> None:
        self.own = AgentPresence(own, now, is_own=True)
        self.by_name: dict[str, AgentPresence] = {own: self.own}
        self.total = 0  # heartbeats that counted, of everybody

    def hear(self, name: str, launch_id: str, now: float, wall: float, facts: dict) -> str:
        """Take a heartbeat; return '' if it counts, else why it does not."""
        life = self.by_name.get(name)
        if life is None:
            if len(self.by_name) >= MOST_AGENTS:
                return "there are too many agents"
            life = self.by_name[name] = AgentPresence(name, now)
        if launch_id != life.launch_id:
            if life.is_own or launch_id in life.former:
                life.foreign += 1
                return "the heartbeat is not of the launch that runs"
            life.begin(launch_id)
        life.beat(now, wall, facts)
        self.total += 1
        return ""
