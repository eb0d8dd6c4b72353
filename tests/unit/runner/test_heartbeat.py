"""Which notification is a sign of life: tables, and the bound that nothing an agent sends can move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.runner.heartbeat import Judge

TIMEOUT, LONGEST = 10.0, 60.0
READY = {"READY": "1"}
BEAT = {"WATCHDOG": "1"}


def beat(progress: object = None, phase: str = "") -> dict[str, str]:
    more = {} if progress is None else {"X_AGENTCTL_PROGRESS": str(progress)}
    return {**BEAT, **more, **({"X_AGENTCTL_PHASE": phase} if phase else {})}


def judge(*, required: bool = False) -> Judge:
    return Judge(timeout_seconds=TIMEOUT, longest_wait_seconds=LONGEST, progress_required=required)


def counts(messages: list[dict], *, required: bool = False) -> list[bool]:
    judging = judge(required=required)
    return [judging.judge(fields, float(at)).counts for at, fields in enumerate(messages)]


@pytest.mark.parametrize(("messages", "optional", "required"), [
    # no progress at all
    ([BEAT, BEAT], [True, True], [False, False]),
    # a counter that moves, stands, goes back, moves
    ([beat(1), beat(2), beat(2), beat(1), beat(3)], [True, True, False, False, True],
     [True, True, False, False, True]),
    # once a counter was seen, a beat without one is a side thread's
    ([beat(1), BEAT, BEAT, beat(2)], [True, False, False, True], [True, False, False, True]),
    # waiting and idle need no progress; the phase holds until another is told
    ([beat(1, "waiting"), BEAT, beat(1), beat(1, "working"), beat(2)], [True, True, True, False, True],
     [True, True, True, False, True]),
    ([beat(phase="idle"), BEAT, beat(phase="working"), BEAT], [True, True, True, True], [True, True, False, False]),
    # a phase that does not exist changes nothing
    ([beat(phase="asleep"), beat(phase="IDLE")], [True, True], [False, False]),
    # what is no counter is no progress
    ([beat("-1"), beat("1.5"), beat("x"), beat("9" * 20), beat("٣")], [True] * 5, [False] * 5),
    ([beat(0), beat(0), beat(1)], [True, False, True], [True, False, True]),
    ([beat("0" * 18 + "5"), beat(5), beat("9" * 19)], [True, False, True], [True, False, True]),
    # only WATCHDOG=1 is a beat
    ([{"WATCHDOG": "trigger"}, {"WATCHDOG": "0"}, {"WATCHDOG": ""}, READY, {}], [False] * 5, [False] * 5),
])  # fmt: skip
def test_which_beats_count(messages, optional, required):
    assert counts(messages) == optional
    assert counts(messages, required=True) == required


@pytest.mark.parametrize(
    ("messages", "note"),
    [
        ([beat(7), beat(7)], "alive but no progress"),
        ([beat(7), BEAT], "no progress reported while working"),
        ([beat(7)], ""),
    ],
)
def test_what_is_said_of_a_beat_that_does_not_count(messages, note):
    judging = judge()
    assert [judging.judge(fields, 1.0).note for fields in messages][-1] == note


def test_a_counter_may_move_in_a_message_without_a_beat():
    judging = judge()
    judging.judge(beat(1), 0.0)
    assert not judging.judge({"X_AGENTCTL_PROGRESS": "2"}, 1.0).counts
    assert not judging.judge(beat(2), 2.0).counts


def test_ready_is_told_once():
    judging = judge()
    assert [judging.judge(READY, at).is_ready for at in (0.0, 1.0, 2.0)] == [True, False, False]
    assert not judge().judge({"READY": "yes"}, 0.0).is_ready
    assert judging.counted == 0


def test_ready_and_beat_in_one_message():
    verdict = judge().judge({**READY, **beat(1)}, 0.0)
    assert verdict.is_ready and verdict.counts


def test_what_is_remembered():
    judging = judge()
    for at, fields in enumerate([READY, beat(3, "working"), beat(3), beat(4), beat(2)]):
        judging.judge(fields, float(at))
    assert (judging.counted, judging.progress, judging.progressed, judging.phase) == (2, 4, True, "working")
    assert not judge().progressed


def test_status_and_stopping():
    verdict = judge().judge({"STATUS": "x" * 500, "STOPPING": "1"}, 0.0)
    assert verdict.status == "x" * 200 and verdict.stopping


# --- a longer silence


def extend(usec: object) -> dict[str, str]:
    return {"EXTEND_TIMEOUT_USEC": str(usec)}


def granted(asked: object, *, since_beat: float) -> float:
    judging = judge()
    judging.judge(READY, 0.0)
    judging.judge(beat(1), 100.0)
    return judging.judge(extend(asked), 100.0 + since_beat).extend_seconds


@pytest.mark.parametrize(
    ("asked", "since_beat", "expected"),
    [
        (5_000_000, 0, 5.0),
        (60_000_000, 0, 60.0),
        (61_000_000, 0, 60.0),
        (61_000_000, 20, 40.0),
        (1_000_000, 59.5, 0.5),
        (1_000_000, 60, 0.0),
        (1_000_000, 9999, 0.0),
        (0, 0, 0.0),
        # hostile
        (2**64 - 1, 0, 60.0),
        ("9" * 4000, 30, 30.0),
        ("-1", 0, 0.0),
        ("1e9", 0, 0.0),
        ("inf", 0, 0.0),
        ("", 0, 0.0),
        (" 5000000", 0, 0.0),
        ("5000000\n", 0, 0.0),
        ("٣٠", 0, 0.0),
        ("0x7f", 0, 0.0),
        ("²", 0, 0.0),
        ("+5", 0, 0.0),
    ],
)
def test_what_is_granted(asked, since_beat, expected):
    assert granted(asked, since_beat=since_beat) == pytest.approx(expected)


def test_a_beat_that_does_not_count_grants_nothing_more():
    judging = judge()
    judging.judge({**READY, **beat(1)}, 0.0)
    for at in range(1, 60):
        assert not judging.judge({**beat(1), **extend(10**12)}, float(at)).counts
    assert judging.judge({**beat(1), **extend(10**12)}, 60.0).extend_seconds == 0.0


def test_a_start_is_one_silence_however_it_beats():
    judging = judge()
    assert judging.judge(extend(10**12), 1000.0).extend_seconds == LONGEST
    assert judging.judge({**BEAT, **extend(10**12)}, 1050.0).extend_seconds == 10.0
    assert judging.judge({**BEAT, **extend(10**12)}, 1060.0).extend_seconds == 0.0
    judging.judge(READY, 1070.0)
    assert judging.judge(extend(10**12), 1070.0).extend_seconds == LONGEST


FIELDS = st.dictionaries(
    st.sampled_from(["WATCHDOG", "READY", "EXTEND_TIMEOUT_USEC", "X_AGENTCTL_PROGRESS", "X_AGENTCTL_PHASE",
                     "WATCHDOG_USEC", "STATUS", "STOPPING"]),
    st.one_of(st.sampled_from(["1", "0", "working", "idle", "18446744073709551615"]),
              st.integers(0, 10**30).map(str), st.text(max_size=30)))  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 100), FIELDS), max_size=30), st.booleans())
def test_no_message_delays_the_watchdog_beyond_the_longest_wait(messages, required):
    judging, now, allowed_until = judge(required=required), 500.0, None
    for pause, fields in messages:
        now += pause
        verdict = judging.judge(fields, now)
        if allowed_until is None or verdict.is_ready or (judging.is_ready and verdict.counts):
            allowed_until = now + LONGEST
        assert verdict.extend_seconds >= 0.0
        if verdict.extend_seconds:
            assert now + verdict.extend_seconds <= allowed_until + 1e-6
        if verdict.counts and required and judging.phase == "working":
            assert verdict.progress is not None
