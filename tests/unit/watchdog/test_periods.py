"""Up, late, offline, unknown as facts: what follows what, sums, gaps, and clocks that jump."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.watchdog import availability, periods
from agentctl.watchdog.periods import Period, bridge, follow, share_up, slices, sums

DAY = 86400.0


def row(kind, began, ended=None, seconds=None, reason=""):
    measured = seconds if seconds is not None or ended is None else ended - began
    return {"kind": kind, "began_at": began, "ended_at": ended, "seconds": measured, "reason": reason}


def test_every_state_has_a_kind():
    assert set(periods.KIND_OF) == set(availability.STATES)
    assert set(periods.KIND_OF.values()) == set(periods.KINDS)


def test_the_same_kind_goes_on_and_another_ends_it():
    (first,) = follow(None, "up", "", 100.0, 5.0)
    assert follow(first, "up", "", 110.0, 15.0) == []
    ended, begun = follow(first, "late", "no heartbeat", 130.0, 35.0)
    assert ended is first and (ended.ended_at, ended.seconds) == (130.0, 30.0)
    assert (begun.kind, begun.began_at, begun.reason) == ("late", 130.0, "no heartbeat")


@pytest.mark.parametrize("jump", [DAY, -DAY, 3600.0, -1.0])
def test_a_clock_that_jumps_falsifies_no_length(jump):
    (first,) = follow(None, "up", "", 1_000_000.0, 5.0)
    ended, _ = follow(first, "late", "", 1_000_010.0 + jump, 15.0)
    assert ended.seconds == 10.0
    assert ended.ended_at >= ended.began_at


def test_a_gap_is_unknown_and_what_was_before_ends_where_it_began():
    (first,) = follow(None, "up", "", 100.0, 5.0)
    ended, unknown = bridge(first, "the machine slept", 50.0, 180.0, 85.0)
    assert (ended.seconds, ended.ended_at) == (30.0, 130.0)
    assert (unknown.kind, unknown.began_at, unknown.ended_at, unknown.seconds) == ("unknown", 130.0, 180.0, 50.0)
    assert [p.kind for p in bridge(None, "x", 1.0, 9.0, 9.0)] == ["unknown"]


def test_sums_and_share_up():
    rows = [row("up", 0, 60), row("late", 60, 70), row("offline", 70, 80), row("rollback", 80, 90),
            row("unknown", 90, 100), row("stopped", 100, 150), row("up", 150)]  # fmt: skip
    total = sums(rows, 0, 200)
    assert total == {"up": 110, "late": 10, "offline": 10, "rollback": 10, "unknown": 10, "stopped": 50}
    assert share_up(total) == pytest.approx(120 / 140)
    assert share_up(sums([row("unknown", 0, 10)], 0, 10)) is None
    assert sums(rows, 65, 75)["late"] == 5


def test_a_clock_that_was_set_during_a_period_makes_it_neither_longer_nor_nothing():
    """A machine without a clock of its own comes up in 1970; seconds later it is set."""
    assert sums([row("up", 0, 50 * 365 * DAY, seconds=20.0)], 50 * 365 * DAY - DAY, 50 * 365 * DAY)["up"] == 20.0
    assert sums([row("up", 5000, 5000, seconds=60.0)], 0, 6000)["up"] == 60.0  # it was set back
    assert sums([row("up", 0, 100)], 90, 200)["up"] == 10


def test_slices_are_shares_of_the_picture():
    rows = [row("up", -50, 50), row("offline", 50, 75, reason="gone"), row("up", 75)]
    assert slices(rows, 0, 100) == [("up", 0.0, 0.5, ""), ("offline", 0.5, 0.75, "gone"), ("up", 0.75, 1.0, "")]


CHANGE = st.tuples(st.sampled_from(periods.KINDS), st.floats(0.01, 1e4), st.floats(-2 * DAY, 2 * DAY))


@given(st.lists(CHANGE, max_size=30))
def test_lengths_add_up_whatever_the_wall_clock_does(changes):
    """The measured seconds of a chain of periods are the time that went by on the steady clock."""
    steady, wall, current, ended = 0.0, 1e9, None, []
    for kind, passed, jump in changes:
        for period in follow(current, kind, "", wall, steady):
            if period.ended_at is None:
                current = period
            else:
                ended.append(period)
        steady, wall = steady + passed, wall + passed + jump
    if current is not None:
        ended.append(current.close(wall, steady))
    assert sum(period.seconds for period in ended) == pytest.approx(steady, abs=1e-6 * (1 + steady))
    assert all(period.ended_at >= period.began_at for period in ended)


def test_a_period_is_plain_words():
    assert Period("up", "", 1.0).ended_at is None
