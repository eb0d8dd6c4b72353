"""Judge the agent's notifications: which is a sign of life, and what systemd is told of it. Pure.

The runner relays, it never invents: whatever a process of the agent sends, the watchdog can be delayed by
`longest_wait` at most and never switched off.
"""

from __future__ import annotations

PHASES = ("working", "waiting", "idle")


class Verdict:
    """What one notification means."""

    __slots__ = ("counts", "extend_seconds", "is_ready", "note", "phase", "progress", "status", "stopping")

    def __init__(self) -> None:
        self.counts = self.is_ready = self.stopping = False
        self.extend_seconds = 0.0
        self.phase = self.status = self.note = ""
        self.progress: int | None = None


class Judge:
    """Keeps what is needed to judge the next notification of one launch."""

    def __init__(self, *, timeout_seconds: float, longest_wait_seconds: float, progress_required: bool) -> None:
        self.timeout_seconds, self.longest_wait_seconds = timeout_seconds, longest_wait_seconds
        self.progress_required = progress_required
        self.progress: int | None = None
        self.phase = "working"
        self.counted = 0
        self.progressed = False
        self.last_counted_at: float | None = None
        self.first_heard_at: float | None = None
        self.ready_at: float | None = None  # monotonic, like all instants here
        self.is_ready = False

    def judge(self, fields: dict[str, str], now: float) -> Verdict:
        """Judge one notification that arrived at `now` (monotonic seconds)."""
        verdict = Verdict()
        if self.first_heard_at is None:
            self.first_heard_at = now
        verdict.status = fields.get("STATUS", "")[:200]
        verdict.stopping = fields.get("STOPPING") == "1"
        self._read_phase(fields, verdict)
        advanced = self._read_progress(fields, verdict)
        if fields.get("READY") == "1" and not self.is_ready:
            self.is_ready = verdict.is_ready = True
            self.ready_at = now
            self.last_counted_at = now
        if fields.get("WATCHDOG") == "1":
            verdict.counts, verdict.note = self._counts(verdict, advanced)
        if verdict.counts:
            self.counted += 1
            self.last_counted_at = now
        if "EXTEND_TIMEOUT_USEC" in fields:
            verdict.extend_seconds = self._grant(fields["EXTEND_TIMEOUT_USEC"], now)
        return verdict

    def _read_phase(self, fields: dict[str, str], verdict: Verdict) -> None:
        phase = fields.get("X_AGENTCTL_PHASE", "")
        if phase in PHASES:
            self.phase = verdict.phase = phase

    def _read_progress(self, fields: dict[str, str], verdict: Verdict) -> bool:
        """Take the counter; True if it moved on."""
        raw = fields.get("X_AGENTCTL_PROGRESS", "")
        if not (raw.isascii() and raw.isdigit() and len(raw) < 20):
            return False
        verdict.progress = int(raw)
        advanced = self.progress is None or verdict.progress > self.progress
        if self.progress is not None and advanced:
            self.progressed = True
        self.progress = max(verdict.progress, self.progress or 0)
        return advanced

    def _counts(self, verdict: Verdict, advanced: bool) -> tuple[bool, str]:
        if self.phase != "working" or advanced:
            return True, ""
        if verdict.progress is not None:
            return False, "alive but no progress"
        if self.progress_required or self.progress is not None:
            return False, "no progress reported while working"
        return True, ""

    def _grant(self, raw: str, now: float) -> float:
        """Grant a longer silence, counted from the last sign of life that counted; a start is one silence."""
        if not (raw.isascii() and raw.isdigit()):
            return 0.0
        since = now - (self.last_counted_at if self.is_ready else self.first_heard_at)
        wanted = min(int(raw[:18]) / 1e6, self.longest_wait_seconds - since)
        return max(0.0, wanted)
