"""Whether the clock can be believed: judged by the newest instants on record and by the clock that counts since boot.

What is newest is never asked of a clock, but how old a thing is has to be. Who frees what is old asks here first.
"""

from __future__ import annotations

import time

from ..config.context import boot_id
from ..core import fast_json
from ..core.record import Record
from .database import Ledger

SLACK_SECONDS = 600.0  # a clock that is set right by that much makes nothing old
LONGEST_SILENCE_SECONDS = 30 * 86400.0  # without a look, across a boot: longer ones are told from a leap by a person
LOOK, TRUSTED = "clock", "clock_trusted"  # keys of facts in the ledger
ON_RECORD = (
    ("events", "at"),
    ("launches", "started_at"),
    ("launches", "ended_at"),
    ("incidents", "at"),
    ("attempts", "at"),
)


class Look(Record):
    """One look at the clocks: the instant, seconds since boot (with suspend), which boot, and when it was believed."""

    at: float
    up: float
    boot: str
    believed_at: float


def why_leapt(now: Look, before: Look | None, newest_at: float | None) -> str:
    """Say why the clock cannot be believed, '' if it can; `newest_at` is the newest instant on record. Pure."""
    if newest_at is not None and newest_at - now.at > SLACK_SECONDS:
        return f"it says {_day(now.at)}, and {_day(newest_at)} is on record already"
    if before is not None and before.boot == now.boot:
        moved = (now.at - before.at) - (now.up - before.up)
        if abs(moved) > SLACK_SECONDS:
            way = "forward" if moved > 0 else "back"
            return f"it was moved {way} by {_span(abs(moved))} since {_day(before.at)}"
        if before.believed_at == before.at:
            return ""
    since = before.believed_at if before is not None else newest_at
    if since is not None and now.at - since > max(LONGEST_SILENCE_SECONDS, now.up + SLACK_SECONDS):
        return f"it says {_day(now.at)}, and it was last looked at {_span(now.at - since)} earlier"
    return ""


def look(ledger: Ledger) -> str:
    """Look at the clocks and note it; return why the clock cannot be believed, '' if it can."""
    before, newest = _last(ledger), _newest(ledger)
    why = why_leapt(_now(), before, newest)
    _note(ledger, why, before)
    return why


def note(ledger: Ledger) -> None:
    """Note a look without asking what is on record: that would cost a launch more than it is worth."""
    before = _last(ledger)
    _note(ledger, why_leapt(_now(), before, None), before)


def ask(ledger: Ledger) -> str:
    """Return why the clock cannot be believed, '' if it can; notes nothing."""
    return why_leapt(_now(), _last(ledger), _newest(ledger))


def trust(ledger: Ledger) -> None:
    """Take a person's word that the clock is right: what is on record so far says nothing against it any more."""
    marks = {table: ledger.newest(table) for table, _ in ON_RECORD}
    with ledger.transaction():
        ledger.set_meta(TRUSTED, fast_json.dumps(marks))
        ledger.event("clock", "believed by hand")
        _note(ledger, "", None)


def _now() -> Look:
    at = time.time()
    return Look(at=at, up=time.clock_gettime(time.CLOCK_BOOTTIME), boot=boot_id(), believed_at=at)


def _last(ledger: Ledger) -> Look | None:
    said = fast_json.loads(ledger.meta(LOOK) or "null")
    return Look.of(said) if isinstance(said, dict) else None


def _note(ledger: Ledger, why: str, before: Look | None) -> None:
    now = _now()
    if why:  # without a look before there is nothing that was believed
        now = now.replace(believed_at=before.believed_at if before is not None else 0.0)
    ledger.set_meta(LOOK, fast_json.dumps(now.to_dict()))


def _newest(ledger: Ledger) -> float | None:
    marks = fast_json.loads(ledger.meta(TRUSTED) or "{}")
    after = marks if isinstance(marks, dict) else {}
    return max(ledger.newest(table, column, after=after.get(table, 0)) for table, column in ON_RECORD) or None


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _span(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} minutes"
