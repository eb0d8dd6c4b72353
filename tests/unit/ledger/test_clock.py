"""When the clock can be believed: a table of leaps, and what a person's word changes."""

from __future__ import annotations

import pytest

from agentctl.ledger import clock
from agentctl.ledger.clock import Look, why_leapt
from agentctl.ledger.database import Ledger

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
YEAR = 365 * DAY
NOW, UP = 2_000_000_000.0, 100 * DAY


def before(seconds: float, *, drift: float = 0.0, boot: str = "b", believed: float | None = 0.0) -> Look:
    """Make the look of so many seconds ago; the clock has gone wrong by `drift` since."""
    at = NOW - seconds - drift
    return Look(at=at, up=UP - seconds, boot=boot, believed_at=at if believed == 0.0 else NOW - (believed or 0.0))


def now(up: float = UP) -> Look:
    return Look(at=NOW, up=up, boot="b", believed_at=NOW)


@pytest.mark.parametrize(
    ("look", "newest", "said"),
    [
        (None, None, ""),  # nothing is known yet
        (None, NOW - HOUR, ""),
        (None, NOW + 9 * MINUTE, ""),
        (None, NOW + 11 * MINUTE, "is on record already"),
        (before(DAY), NOW - HOUR, ""),
        (before(DAY), NOW + 3 * YEAR, "is on record already"),
        (before(DAY, drift=9 * MINUTE), NOW - HOUR, ""),
        (before(DAY, drift=2 * HOUR), NOW - HOUR, "forward by 2 hours"),
        (before(MINUTE, drift=3 * YEAR), NOW - 3 * YEAR, "forward by 1095 days"),
        (before(DAY, drift=-2 * HOUR), NOW - 5 * HOUR, "back by 2 hours"),
        (before(90 * DAY), None, ""),  # nobody looked for long, and the clock went evenly all the time
        (before(DAY, believed=2 * DAY), NOW - HOUR, ""),  # it was moved before that look, and stayed
        (before(DAY, believed=3 * YEAR), NOW - HOUR, "was last looked at 1095 days earlier"),
        (before(20 * DAY, boot="a"), NOW - 20 * DAY, ""),  # switched off, it seems
        (before(3 * YEAR, boot="a"), NOW - HOUR, "was last looked at 1095 days earlier"),
    ],
)
def test_leaps(look, newest, said):
    found = why_leapt(now(UP if look is None or look.boot == "b" else HOUR), look, newest)
    assert (said in found) if said else found == ""


@pytest.mark.parametrize(("up", "is_believed"), [(HOUR, False), (61 * DAY, True)])
def test_a_silence_on_record_is_believed_where_the_machine_has_been_up_as_long(up, is_believed):
    assert (why_leapt(now(up), None, NOW - 60 * DAY) == "") == is_believed


class Clocks:
    """The clocks of the machine, to be set."""

    def __init__(self, monkeypatch) -> None:
        self.at, self.up, self.boot = NOW, UP, "b"
        monkeypatch.setattr(clock.time, "time", lambda: self.at)
        monkeypatch.setattr(clock.time, "clock_gettime", lambda _: self.up)
        monkeypatch.setattr(clock, "boot_id", lambda: self.boot)

    def go(self, seconds: float) -> None:
        self.at += seconds
        self.up += seconds


@pytest.fixture
def clocks(monkeypatch):
    return Clocks(monkeypatch)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(str(tmp_path / "ledger.db")) as ledger:
        yield ledger


def test_a_leap_for_a_moment_is_refused_and_so_is_the_way_back_once(ledger, clocks):
    clock.note(ledger)
    clocks.go(HOUR)
    assert clock.look(ledger) == ""
    clocks.at += 3 * YEAR
    assert "forward" in clock.ask(ledger) and "forward" in clock.look(ledger)
    clocks.go(DAY)
    assert "earlier" in clock.look(ledger), "a leap of years is not believed because it lasts"
    clocks.at -= 3 * YEAR
    assert "back" in clock.look(ledger)
    clocks.go(DAY)
    assert clock.look(ledger) == ""


def test_what_was_recorded_during_a_leap_speaks_against_the_right_clock_until_a_person_does(ledger, clocks):
    clock.note(ledger)
    clocks.at += 3 * YEAR
    ledger.event("launch", "in the future")
    clocks.at -= 3 * YEAR
    for _ in range(3):
        clocks.go(DAY)
        assert "on record already" in clock.look(ledger)
    clock.trust(ledger)
    assert clock.look(ledger) == ""
    clocks.go(DAY)
    ledger.event("launch", "now")
    assert clock.look(ledger) == ""


def test_the_first_word_of_a_person_is_enough(ledger, clocks):
    ledger.event("launch", "long ago")
    clocks.at += 2 * YEAR
    clocks.up = HOUR
    assert clock.look(ledger) and clock.look(ledger)
    clock.trust(ledger)
    assert clock.look(ledger) == ""
    clocks.go(DAY)
    assert clock.look(ledger) == ""


def test_a_launch_after_a_boot_by_a_clock_that_leapt_proves_nothing(ledger, clocks):
    clock.note(ledger)
    clocks.at, clocks.up, clocks.boot = NOW + 3 * YEAR, MINUTE, "c"
    clock.note(ledger)
    clocks.go(DAY)
    assert "earlier" in clock.look(ledger)
