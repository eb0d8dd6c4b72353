"""Offline detection as a table: late, grace, offline, and everything that must not be taken for offline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.watchdog import availability
from agentctl.watchdog.availability import OfflineLimits, PresenceFacts, decide

LIMITS = OfflineLimits(timeout_seconds=60, after_seconds=180, grace_seconds=60)
GONE = {"is_process_gone": True}
START = 1000.0


def judge(silence, *, limits=LIMITS, watched=10_000.0, **facts):
    """Judge an agent that was last heard `silence` seconds ago, watched for long."""
    now = START + watched
    return decide(PresenceFacts(watched_since=START, beat_at=now - silence, **facts), limits, now)


@pytest.mark.parametrize(
    ("silence", "facts", "state"),
    [
        (0, {}, "well"),
        (60, {}, "well"),
        (61, {}, "late"),
        (180, {}, "late"),
        (181, {}, "grace"),
        (239, GONE, "grace"),
        (241, GONE, "offline"),
        (241, {"is_unanswered": True}, "offline"),
        (241, {"has_no_progress": True}, "offline"),
        # one piece of evidence is none
        (241, {}, "grace"),
        (100_000, {}, "grace"),
        (100_000, {"is_process_gone": False, "is_unanswered": False, "has_no_progress": None}, "grace"),
        # a machine that is hard pressed is given time, and never for ever
        (241, {**GONE, "pressure": 0.6}, "grace"),
        (301, {**GONE, "pressure": 0.25}, "offline"),
        (299, {**GONE, "pressure": 0.25}, "grace"),
        (361, {**GONE, "pressure": 99.0}, "offline"),
        (241, {**GONE, "pressure": -1.0}, "offline"),
        # not meant to run
        (100_000, {**GONE, "why_not_expected": "stopped by hand"}, "stopped"),
        (100_000, {**GONE, "is_recovering": True}, "recovering"),
    ],
)
def test_silence_and_evidence(silence, facts, state):
    found = judge(silence, **facts)
    assert found.state == state
    assert found.state in availability.STATES
    if state == "offline":
        assert len(found.evidence) >= 2


@pytest.mark.parametrize(
    ("since", "state"),
    [(0, "unknown"), (59, "unknown"), (61, "late"), (181, "grace"), (239, "grace"), (241, "offline")],
)
def test_after_its_own_start_or_a_gap_the_watchdog_is_patient_anew(since, state):
    now = START + since
    assert decide(PresenceFacts(watched_since=START, beat_at=None, is_process_gone=True), LIMITS, now).state == state
    long_ago = PresenceFacts(watched_since=START, beat_at=START - 100_000, is_process_gone=True)
    assert decide(long_ago, LIMITS, now).state == state


def test_an_agent_that_may_beat_seldom_is_offline_when_it_is_gone():
    seldom = OfflineLimits(timeout_seconds=3600, after_seconds=180, grace_seconds=60)
    assert judge(179, limits=seldom, **GONE).state == "well"
    assert judge(200, limits=seldom, **GONE).state == "grace"
    assert judge(241, limits=seldom, **GONE).state == "offline"
    assert judge(3000, limits=seldom, is_process_gone=False).state == "grace"


def test_an_announced_silence_does_not_count():
    now = START + 10_000
    facts = PresenceFacts(watched_since=START, beat_at=now - 900, silent_until_at=now - 30, is_process_gone=True)
    assert decide(facts, LIMITS, now).state == "well"
    facts.silent_until_at = now - 61
    assert decide(facts, LIMITS, now).state == "late"


@given(silence=st.floats(0, 1e6), pressure=st.floats(0, 1), gone=st.booleans(), watched=st.floats(0, 1e6))
def test_offline_takes_two_pieces_and_the_whole_patience(silence, pressure, gone, watched):
    found = judge(silence, pressure=pressure, is_process_gone=gone, watched=watched)
    if found.state == "offline":
        assert gone and min(silence, watched) > 240
    if gone and min(silence, watched) > 180 + 60 * availability.MOST_PATIENCE:
        assert found.state == "offline"


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1))))
def test_time_alone_only_makes_it_worse(points):
    order = ("well", "late", "grace", "offline")
    states = [order.index(judge(silence, is_process_gone=True, watched=1e6).state) for silence, _ in sorted(points)]
    assert states == sorted(states)


def test_pressure_is_read_from_the_kernels_own_words():
    text = "some avg10=12.50 avg60=1.00 avg300=0.00 total=77\nfull avg10=40.00 avg60=0.00 avg300=0.00 total=1\n"
    assert availability.read_pressure(text) == pytest.approx(0.4)
    assert availability.read_pressure("", "nonsense avg10=x") == 0.0


@pytest.mark.parametrize(
    ("passed", "asleep", "every", "is_so"),
    [(1, 0, 1, False), (5.9, 0, 1, False), (6.1, 0, 1, True), (3600, 3599, 1, True), (1.5, 1.2, 1, True),
     (39, 0, 10, False)],
)  # fmt: skip
def test_gaps(passed, asleep, every, is_so):
    assert availability.is_gap(passed, asleep, every) is is_so
