"""The agent's signs of life in one launch: heard, judged, and passed on to systemd, the ledger and the live status.

They come as notifications, through the API and from probes; one judge decides for all of them.
"""

from __future__ import annotations

import time

from ..decisions.heartbeat import Judge
from ..machine.status_file import LEAST_SECONDS_BETWEEN
from ..records import writers


class Life:
    """What the session knows of how the agent is: ready since when, its last heartbeat, what did not count."""

    def __init__(self, session) -> None:
        self.session = session
        heartbeat = session.station.config.heartbeat
        self.judge = Judge(
            timeout_seconds=heartbeat.timeout,
            longest_wait_seconds=heartbeat.longest_wait,
            progress_required=heartbeat.progress == "required",
        )
        self.ready_at = self.first_beat_at = self.last_beat_at = None
        self.notes: list[str] = []
        self.is_extended = False

    def hear(self, fields: dict[str, str]) -> None:
        """Take one notification of the agent, whatever way it came, and pass on what counts."""
        session = self.session
        verdict = self.judge.judge(fields, time.monotonic())
        if "X_AGENTCTL_SESSION" in fields:
            from .resumption import hear_session

            hear_session(session, fields["X_AGENTCTL_SESSION"])
        if verdict.status:
            session.notifier.status(verdict.status)
        if verdict.note and verdict.note not in self.notes:
            self.notes.append(verdict.note)
            session.journal.warning(f"agentctl: a heartbeat does not count: {verdict.note}")
        if verdict.is_ready:
            self._become_ready()
        if verdict.extend_seconds > 0:
            self._extend(verdict.extend_seconds)
        if verdict.counts:
            self._beat()

    def silence(self) -> tuple[str, str]:
        """Return the trigger and the reason of an end that was made because nothing was heard for too long."""
        if self.ready_at is None:
            return "not-ready", f"it was not ready within {self.session.station.config.agent.ready_timeout:g}s"
        silent = time.time() - (self.last_beat_at or self.ready_at)
        reason = f"no heartbeat for {silent:.1f}s (limit {self.judge.timeout_seconds:g}s)"
        return "watchdog", f"{reason}; {self.notes[-1]}" if self.notes else reason

    def tell(self, ending) -> None:
        """Write what was heard into how the launch ended."""
        ending.ready_at, ending.first_beat_at, ending.last_beat_at = (
            self.ready_at, self.first_beat_at, self.last_beat_at)  # fmt: skip
        ending.beats, ending.phase, ending.progress = self.judge.counted, self.judge.phase, self.judge.progress
        ending.notes = self.notes

    def _become_ready(self) -> None:
        session = self.session
        self.ready_at = time.time()
        session.notifier.ready(f"generation {session.launch.generation['number']}: running")
        session.record(lambda: writers.set_ready(session.ledger, session.launch.id, self.ready_at))
        is_candidate = session.launch.generation["status"] == "candidate"
        session.status.write(pid=session.pane.pane_pid, phase="probation" if is_candidate else "steady")
        session.after_ready()

    def _beat(self) -> None:
        session = self.session
        if self.is_extended:
            session.notifier.watchdog_usec(int(self.judge.timeout_seconds * 1e6))
            self.is_extended = False
        session.notifier.keepalive()
        self.last_beat_at = time.time()
        if self.first_beat_at is None and self.ready_at is not None:
            self.first_beat_at = self.last_beat_at
            self._first_beat()
        if not session.status.beat(self.last_beat_at, self.judge):
            session.loop.set_timer("status", LEAST_SECONDS_BETWEEN, session.status.write)

    def _first_beat(self) -> None:
        """The first heartbeat of this launch: only now is a recovery a recovery."""
        session, at = self.session, self.first_beat_at
        session.record(lambda: writers.set_first_beat(session.ledger, session.launch.id, at))
        session.jobs.settle_incident()

    def _extend(self, seconds: float) -> None:
        wanted = max(seconds, self.judge.timeout_seconds)
        if self.ready_at is None:
            self.session.notifier.extend(int(wanted * 1e6))
            return
        self.session.notifier.watchdog_usec(int(wanted * 1e6))
        self.is_extended = True
        self.session.status.write(silent_until_at=time.time() + wanted)
