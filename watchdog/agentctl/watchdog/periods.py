"""Up, late, offline, rolled back, stopped, unknown: the facts of an agent's time. Pure: no clock, no files.

A period's length is measured on a steady clock and kept beside its instants, so a wall clock that jumps
falsifies no sum. Time in which nobody watched is `unknown`, never `offline`.
"""

from __future__ import annotations

from . import availability

UP, LATE, OFFLINE, ROLLBACK, STOPPED, UNKNOWN = "up", "late", "offline", "rollback", "stopped", "unknown"
KINDS = (UP, LATE, OFFLINE, ROLLBACK, STOPPED, UNKNOWN)
KIND_OF = {
    availability.WELL: UP, availability.LATE: LATE, availability.GRACE: LATE, availability.OFFLINE: OFFLINE,
    availability.RECOVERING: ROLLBACK, availability.STOPPED: STOPPED, availability.UNKNOWN: UNKNOWN,
}  # fmt: skip


class Period:
    """One stretch of time of one kind; `began_at` and `ended_at` are wall clock, `seconds` is measured."""

    __slots__ = ("began_at", "ended_at", "kind", "reason", "seconds", "steady_at")

    def __init__(
        self,
        kind: str,
        reason: str,
        began_at: float,
        steady_at: float = 0.0,
        *,
        ended_at: float | None = None,
        seconds: float | None = None,
    ) -> None:
        self.kind, self.reason, self.began_at, self.steady_at = kind, reason, began_at, steady_at
        self.ended_at, self.seconds = ended_at, seconds

    def close(self, now: float, steady: float) -> Period:
        """End it; a wall clock that went back does not end it before it began."""
        self.seconds = max(0.0, steady - self.steady_at)
        self.ended_at = max(now, self.began_at)
        return self


def follow(current: Period | None, kind: str, reason: str, now: float, steady: float) -> list[Period]:
    """Return the periods that change when an agent is judged to be `kind`: the one that ends, the one that begins."""
    if current is not None and current.kind == kind:
        return []
    ended = [current.close(now, steady)] if current is not None else []
    return [*ended, Period(kind, reason, now, steady)]


def bridge(current: Period | None, why: str, gap_seconds: float, now: float, steady: float) -> list[Period]:
    """Return the periods for a gap of `gap_seconds` before `now` in which nobody watched: what was, ended; unknown."""
    ended = [current.close(now - gap_seconds, steady - gap_seconds)] if current is not None else []
    unknown = Period(UNKNOWN, why, now - gap_seconds, steady - gap_seconds)
    return [*ended, unknown.close(now, steady)]


def sums(rows: list[dict], since: float, until: float) -> dict[str, float]:
    """Sum the seconds of each kind between two instants; rows as the store has them, an open one lasts until then."""
    total = dict.fromkeys(KINDS, 0.0)
    for row in rows:
        began, ended = row["began_at"], row["ended_at"] if row["ended_at"] is not None else until
        inside = max(0.0, min(ended, until) - max(began, since))
        measured = row["seconds"] if row["seconds"] is not None else inside
        is_whole = began >= since and ended <= until  # else no more of it than was measured of all of it
        total[row["kind"]] += measured if is_whole else min(inside, measured)
    return total


def share_up(total: dict[str, float]) -> float | None:
    """Return the share of time up of the time that is known and in which it was meant to run; None without any."""
    meant = total[UP] + total[LATE] + total[OFFLINE] + total[ROLLBACK]
    return (total[UP] + total[LATE]) / meant if meant > 0 else None


def slices(rows: list[dict], since: float, until: float) -> list[tuple[str, float, float, str]]:
    """Return (kind, from, to, reason), as shares of the time between two instants, for a picture."""
    span = until - since
    found = []
    for row in rows:
        began = max(row["began_at"], since)
        ended = min(row["ended_at"] if row["ended_at"] is not None else until, until)
        if ended > began:
            found.append((row["kind"], (began - since) / span, (ended - since) / span, row["reason"]))
    return found
