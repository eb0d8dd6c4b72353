"""Judge whether the agent is online, by heartbeats and a second piece of evidence. Pure: no clock, no files.

Missed heartbeats alone never make an agent offline, and neither does time in which nobody watched: after the
watchdog's own start, or a gap in which it slept, a whole new patience begins. All instants are of one steady clock.
"""

from __future__ import annotations

WELL, LATE, GRACE, OFFLINE = "well", "late", "grace", "offline"
UNKNOWN, STOPPED, RECOVERING = "unknown", "stopped", "recovering"
STATES = (WELL, LATE, GRACE, OFFLINE, UNKNOWN, STOPPED, RECOVERING)

MOST_PATIENCE = 3.0  # times the grace, however hard pressed the machine is
STARVED_SHARE = 0.5  # tasks that wait half of the time: the machine is hard pressed


class OfflineLimits:
    """The bounds of `[heartbeat] timeout` and `[offline]`, in seconds."""

    __slots__ = ("after_seconds", "grace_seconds", "timeout_seconds")

    def __init__(self, timeout_seconds: float, after_seconds: float, grace_seconds: float) -> None:
        self.timeout_seconds, self.after_seconds, self.grace_seconds = timeout_seconds, after_seconds, grace_seconds


class PresenceFacts:
    """What is known of one agent; evidence is True, False, or None where it was not or cannot be looked at."""

    __slots__ = ("beat_at", "has_no_progress", "is_process_gone", "is_recovering", "is_unanswered", "pressure",
                 "silent_until_at", "watched_since", "why_not_expected")  # fmt: skip

    def __init__(
        self,
        *,
        watched_since: float,
        beat_at: float | None = None,
        silent_until_at: float = 0.0,
        why_not_expected: str = "",
        is_recovering: bool = False,
        is_process_gone: bool | None = None,
        is_unanswered: bool | None = None,
        has_no_progress: bool | None = None,
        pressure: float = 0.0,
    ) -> None:
        self.watched_since, self.beat_at, self.silent_until_at = watched_since, beat_at, silent_until_at
        self.why_not_expected, self.is_recovering = why_not_expected, is_recovering
        self.is_process_gone, self.is_unanswered, self.has_no_progress = (
            is_process_gone, is_unanswered, has_no_progress)  # fmt: skip
        self.pressure = pressure


class Judgement:
    """What the facts mean: a state, why, the evidence, and how long until it would be offline."""

    __slots__ = ("evidence", "offline_in_seconds", "reason", "state")

    def __init__(
        self, state: str, reason: str, evidence: list[str] | None = None, offline_in_seconds: float | None = None
    ) -> None:
        self.state, self.reason, self.evidence = state, reason, evidence or []
        self.offline_in_seconds = offline_in_seconds


def decide(facts: PresenceFacts, limits: OfflineLimits, now: float) -> Judgement:
    """Judge one agent at `now`."""
    if facts.is_recovering:
        return Judgement(RECOVERING, facts.why_not_expected or "a rollback or a start is under way")
    if facts.why_not_expected:
        return Judgement(STOPPED, facts.why_not_expected)
    heard_at = max(facts.beat_at or facts.watched_since, facts.watched_since, facts.silent_until_at)
    silence = now - heard_at
    patience = limits.after_seconds + limits.grace_seconds * patience_factor(facts.pressure)
    left = patience - silence
    if silence <= min(limits.timeout_seconds, limits.after_seconds):
        if facts.beat_at is None or facts.beat_at < facts.watched_since:
            return Judgement(UNKNOWN, "watched only since a moment ago", offline_in_seconds=left)
        return Judgement(WELL, "", offline_in_seconds=left)
    told = f"no heartbeat for {silence:.1f}s"
    if silence <= limits.after_seconds:
        return Judgement(LATE, told, [told], left)
    evidence = [told, *second_evidence(facts)]
    if left > 0:
        return Judgement(GRACE, told, evidence, left)
    if len(evidence) < 2:
        return Judgement(GRACE, f"{told}, but nothing else speaks against it", evidence)
    return Judgement(OFFLINE, f"{told} (limit {limits.after_seconds:g}s), and {evidence[1]}", evidence, 0.0)


def second_evidence(facts: PresenceFacts) -> list[str]:
    """List what speaks against the agent besides its silence."""
    known = (
        (facts.is_process_gone, "its process is gone"),
        (facts.is_unanswered, "its runner does not answer"),
        (facts.has_no_progress, "it makes no progress"),
    )
    return [words for is_so, words in known if is_so]


def patience_factor(pressure: float) -> float:
    """Return by how much the grace is longer where tasks wait `pressure` (0 to 1) of the time for CPU or memory."""
    share = min(max(pressure, 0.0), STARVED_SHARE) / STARVED_SHARE
    return 1.0 + share * (MOST_PATIENCE - 1.0)


def read_pressure(*texts: str) -> float:
    """Return the worst share of time, 0 to 1, that /proc/pressure files tell of the last ten seconds."""
    worst = 0.0
    for text in texts:
        for line in text.splitlines():
            for word in line.split():
                name, _, value = word.partition("=")
                if name == "avg10" and value.replace(".", "", 1).isdigit():
                    worst = max(worst, float(value) / 100)
    return worst


def is_gap(passed_seconds: float, asleep_seconds: float, every_seconds: float) -> bool:
    """Tell whether between two looks too much time went by, or the machine slept: then nobody watched."""
    return asleep_seconds > 1.0 or passed_seconds > max(4 * every_seconds, every_seconds + 5.0)
