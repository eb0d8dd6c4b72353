"""Judge the agent's notifications and its hooks: which is a sign of life, and what systemd is told of it. Pure.

The runner relays, it never invents: whatever a process of the agent sends, the watchdog can be delayed by
`longest_wait` at most and never switched off.
"""

from __future__ import annotations

from ..core.record import Record
from ..core.text import duration
from ..ledger.models import PHASES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, TypeAlias

    ReadyRule: TypeAlias = Literal["auto", "notify"] | float | list[str]


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

    def __init__(
        self,
        *,
        timeout_seconds: float,
        longest_wait_seconds: float,
        progress_required: bool,
        is_beat_ready: bool = False,
    ) -> None:
        self.timeout_seconds, self.longest_wait_seconds = timeout_seconds, longest_wait_seconds
        self.progress_required, self.is_beat_ready = progress_required, is_beat_ready
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
        says_ready = fields.get("READY") == "1" or (self.is_beat_ready and fields.get("WATCHDOG") == "1")
        if says_ready and not self.is_ready:
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

    def be_ready(self, now: float) -> None:
        """Take it as ready, though it has said nothing."""
        self.is_ready, self.ready_at, self.last_counted_at = True, now, self.last_counted_at or now
        self.first_heard_at = self.first_heard_at or now

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
    fields = {"READY": "1", "WATCHDOG": "1", "X_AGENTCTL_HOOK": "1"}
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


# -- auto -------------------------------------------------------------------------------------------
# What life is judged by with `heartbeat.from = "auto"`: the process, until something better is heard. Pure.


AUTO, NOTIFY = "auto", "notify"
PROCESS, BEATS, HOOKS = "process", "beats", "hooks"  # what life is judged by; two of them are kinds of life, too
NOTIFIED, OWN, OUTPUT, STATE, WHOLE = "notified", "own", "output", "state", "whole"  # more that a launch has shown
READY_AFTER_SECONDS = 2.0
TO_TAKE_OVER = 3
KIND_SECONDS = 30.0
MOST_SENDERS = 64
NOBODY = 0  # a sender that cannot be known: one in another pid namespace


class ExpectedLife(Record):
    """What every launch of a generation has shown, as far as was seen."""

    number: int = 0
    is_notified: bool = False  # READY=1 or a heartbeat
    has_own_beats: bool = False  # of the agent's main process: they may be waited for from the beginning
    kinds: tuple[str, ...] = ()  # what a candidate has to show, too
    has_trace: bool = False  # it wrote on its terminal or its state


def expect(number: int, lives: Iterable[str]) -> ExpectedLife:
    """Return what launches of generation `number` had in common, by the `life` of each.

    One that ended early counts for what it has shown, not for what it had no time to show.
    """
    known = [set(life.split()) for life in lives if life]

    def is_shown(*kinds: str) -> bool:
        shows = [not life.isdisjoint(kinds) for life in known]
        return any(shows) and all(shown or WHOLE not in life for shown, life in zip(shows, known, strict=True))

    return ExpectedLife(
        number=number,
        is_notified=is_shown(NOTIFIED, BEATS),
        has_own_beats=is_shown(OWN),
        kinds=tuple(kind for kind in (BEATS, HOOKS) if is_shown(kind)),
        has_trace=is_shown(OUTPUT, STATE),
    )


class AutoJudge:
    """Keeps who beats in one launch, what kinds of life it has shown, and what it is judged by."""

    def __init__(self, *, timeout_seconds: float, expected: ExpectedLife) -> None:
        self.timeout_seconds, self.expected = timeout_seconds, expected
        self.shown: set[str] = set()
        self.heart: int | None = None  # the process whose heartbeats count
        self.has_beaten = self.is_hooked = False
        self._rows: dict[tuple[str, int], tuple[int, float]] = {}  # who -> heartbeats in a row, the last one's instant

    def is_ready(self, alive_seconds: float) -> bool:
        """Tell whether being alive that long makes it ready; not where it is known to say so itself."""
        return not self.expected.is_notified and alive_seconds >= READY_AFTER_SECONDS

    def hear_beat(self, sender: int, now: float, *, main: int, parent: int) -> bool:
        """Take one heartbeat of the process `sender`; true if heartbeats take over with it.

        `main` is the agent's process. A command that is run for each heartbeat, as by a shell script, is its parent's
        word, if that is `main`.
        """
        self.shown.add(NOTIFIED)
        if self.heart is not None:
            return False
        is_new = ("sender", sender) not in self._rows
        heart: int | None = sender if self._in_row(("sender", sender), now) >= TO_TAKE_OVER else None
        if heart is None and is_new and main not in (NOBODY, sender) and parent == main:
            heart = main if self._in_row(("parent", parent), now) >= TO_TAKE_OVER else None
        if heart is None:
            return False
        self.heart, self.has_beaten = heart, True
        self.shown.update((BEATS, OWN) if heart == main != NOBODY else (BEATS,))
        self._rows.clear()
        return True

    def hear_hook(self, now: float) -> None:
        """Take one hook."""
        self.shown.update((NOTIFIED, HOOKS))
        self.is_hooked = self.is_hooked or self._in_row(("hook", NOBODY), now) >= TO_TAKE_OVER

    def lose_heart(self) -> None:
        """The process that beat has ended, and the agent lives: its own process counts again."""
        self.heart = None

    def judged_by(self, *, is_busy: bool) -> str:
        """Return what counts now: heartbeats, hooks while it is busy, or else the process."""
        if self.heart is not None or (self.expected.has_own_beats and not self.has_beaten):
            return BEATS
        return HOOKS if self.is_hooked and is_busy else PROCESS

    def missing(self) -> list[str]:
        """List the kinds of life that are expected and have not been shown."""
        expected = self.expected
        if expected.kinds:
            return [kind for kind in expected.kinds if kind not in self.shown]
        has_trace = not self.shown.isdisjoint((OUTPUT, STATE, BEATS, HOOKS))
        return [OUTPUT, STATE] if expected.has_trace and not has_trace else []

    def life(self, *, is_whole: bool) -> str:
        """Return what was shown, as the ledger keeps it; whole once its first seconds were seen to the end."""
        return " ".join(sorted({*self.shown, WHOLE} if is_whole else self.shown))

    def _in_row(self, who: tuple[str, int], now: float) -> int:
        count, at = self._rows.get(who, (0, now))
        if who not in self._rows and len(self._rows) >= MOST_SENDERS:
            del self._rows[next(iter(self._rows))]
        count = count + 1 if now - at <= self.timeout_seconds else 1
        self._rows[who] = (count, now)
        return count


KINDS = {BEATS: "heartbeats", HOOKS: "a hook", OUTPUT: "output", STATE: "a write to its files"}
LACKS = {
    BEATS: "sent no heartbeats",
    HOOKS: "called no hook",
    OUTPUT: "wrote nothing on its terminal",
    STATE: "to none of its files",
}


def tell_missing(missing: list[str], expected: ExpectedLife, number: int, seconds: float) -> str:
    """Say which signs of life a candidate lacks, and whose word overrules that; on trial it has no number yet (0)."""
    lacks = " and ".join(LACKS[kind] for kind in missing)
    overrule = f"; 'agentctl bless {number}' if it is good all the same" if number else ""
    return f"it {lacks} in {duration(seconds)}, unlike generation {expected.number}, which always did{overrule}"


def rules_of(source: str, ready: ReadyRule, *, is_given: bool, is_of_old: bool) -> tuple[str, ReadyRule]:
    """Return what counts as a heartbeat, and how it becomes ready, once both settings are looked at.

    `is_of_old`: it was adopted when "notify" was the default, and it does notify; that stays until somebody says
    otherwise (`is_given`).
    """
    if source == AUTO and is_of_old and not is_given:
        source = NOTIFY
    if ready != AUTO or source == AUTO:
        return source, ready
    if source == PROCESS:
        return source, READY_AFTER_SECONDS
    return source, "notify"


def tell_awaited(source: str, ready: ReadyRule, expected: ExpectedLife) -> tuple[str, str]:
    """Say what a launch that is not ready waits for, and the command that helps if that never comes."""
    if isinstance(ready, (int, float)):
        return f"being alive for {duration(ready)}", "agentctl config set agent.ready auto"
    if not isinstance(ready, str):
        return f"'{' '.join(ready)}' to exit with status 0", "agentctl logs -f"
    if ready == AUTO and not expected.is_notified:
        return "its process to run: it is stopped", "agentctl attach"
    if ready == AUTO:
        told = f"READY=1 or a heartbeat, which generation {expected.number} always sent"
        return told, "agentctl config set agent.ready 5s"
    if source == NOTIFY:
        return "READY=1 from the agent", "agentctl config set heartbeat.from auto"
    if source == AUTO:
        return "READY=1 from the agent", "agentctl config set agent.ready auto"
    what = {"http": "an answer of its health address"}.get(source, source)
    return f"its first sign of life ({what})", "agentctl config set agent.ready 5s"


WATCHED = {
    AUTO: "its process; its heartbeats once it sends them (READY=1, WATCHDOG=1). A hang of an agent that sends none "
    "cannot be seen",
    NOTIFY: "its heartbeats (READY=1, WATCHDOG=1); without them it never becomes ready",
    PROCESS: "its process; a hang cannot be seen",
    "hook": "its hooks while it is busy, else its process",
    "http": "its heartbeats over HTTP",
    "file": "a file that it has to change",
    "command": "a command that has to exit with status 0",
    OUTPUT: "what it writes on its terminal",
}


def tell_watched(source: str) -> str:
    """Say in one line what is watched, and what cannot be seen."""
    return f"watched: {WATCHED[source]}"
