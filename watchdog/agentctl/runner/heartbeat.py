"""Judge the agent's notifications and its hooks: which is a sign of life, and what systemd is told of it. Pure.

The runner relays, it never invents: whatever a process of the agent sends, the watchdog can be delayed by
`longest_wait` at most and never switched off.
"""

from __future__ import annotations

from ..ledger.models import PHASES


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


# -- hook events -----------------------------------------------------------------------------------
# Read what an agent's own hooks say: busy, idle, or just alive. Pure.
# Codex, Claude Code, Gemini CLI and Hermes run a command at points of their work and put similar JSON on its standard
# input. An event that nobody here knows is a sign of life and no more.


IDLE, BUSY = "idle", "working"
# The turn is over, or none has begun: the agent waits for its person.
_IDLE = {
    "sessionstart", "stop", "sessionend", "afteragent", "agentturncomplete", "onsessionstart", "onsessionend",
    "postllmcall", "onsessionfinalize", "idleprompt",
}  # fmt: skip
_BUSY = {
    "userpromptsubmit", "pretooluse", "posttooluse", "posttoolusefailure", "subagentstart", "subagentstop",
    "precompact", "postcompact", "beforeagent", "beforemodel", "aftermodel", "beforetoolselection", "beforetool",
    "aftertool", "prellmcall", "pretoolcall", "posttoolcall", "preapirequest", "postapirequest",
}  # fmt: skip
NAME_KEYS = ("hook_event_name", "hookEventName", "event", "type")
SESSION_KEYS = ("session_id", "sessionId", "conversation_id", "thread-id", "thread_id")
LONGEST_SESSION = 128


def read_event(document: object) -> tuple[str, str]:
    """Return (phase, session id) of one hook's document; '' for what it does not tell."""
    if not isinstance(document, dict):
        return "", ""
    name = next((document[k] for k in NAME_KEYS if isinstance(document.get(k), str)), "")
    kind = document.get("notification_type") or document.get("notificationType")
    if _plain(name) == "notification" and isinstance(kind, str):
        name = kind
    session = next((document[k] for k in SESSION_KEYS if isinstance(document.get(k), str)), "")
    return _phase_of(_plain(name)), session if is_session_id(session) else ""


def fields_of(phase: str, session: str) -> dict[str, str]:
    """Return the notification that a hook's event means: alive, ready, and what it told."""
    fields = {"READY": "1", "WATCHDOG": "1"}
    if phase:
        fields["X_AGENTCTL_PHASE"] = phase
    if session:
        fields["X_AGENTCTL_SESSION"] = session
    return fields


def is_session_id(text: str) -> bool:
    """Tell whether a text may be a session's id: it becomes an argument and part of file names."""
    return (
        0 < len(text) <= LONGEST_SESSION
        and text[0] not in "-."
        and text.isascii()
        and all(c.isalnum() or c in "-_.:" for c in text)
    )


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _phase_of(name: str) -> str:
    if name in _IDLE:
        return IDLE
    return BUSY if name in _BUSY else ""
