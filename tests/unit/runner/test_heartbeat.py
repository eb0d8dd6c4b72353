"""Which notification is a sign of life: tables, and the bound that nothing an agent sends can move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.config.schema import BY_KEY
from agentctl.runner import heartbeat
from agentctl.runner.heartbeat import BEATS, HOOKS, OUTPUT, PROCESS, STATE, AutoJudge, ExpectedLife, Judge, expect

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


# -- auto -------------------------------------------------------------------------------------------

MAIN, HELPER, OTHER = 100, 200, 300
NOTHING = ExpectedLife()
KNOWN = ExpectedLife(number=3, is_notified=True, has_own_beats=True, kinds=(BEATS,))


def auto(expected: ExpectedLife = NOTHING) -> AutoJudge:
    return AutoJudge(timeout_seconds=TIMEOUT, expected=expected)


def hear(judging: AutoJudge, beats: list[tuple[int, float]], parent: int = 1) -> AutoJudge:
    for sender, now in beats:
        judging.hear_beat(sender, now, main=MAIN, parent=parent)
    return judging


@pytest.mark.parametrize(("beats", "parent", "heart", "shown"), [
    ([], 1, None, set()),
    ([(MAIN, 0), (MAIN, 1)], 1, None, {"notified"}),
    ([(MAIN, 0), (MAIN, 1), (MAIN, 2)], 1, MAIN, {"notified", "beats", "own"}),
    ([(HELPER, 0), (HELPER, 1), (HELPER, 2)], 1, HELPER, {"notified", "beats"}),
    # each in time after the one before, or it begins anew
    ([(MAIN, 0), (MAIN, 9), (MAIN, 20)], 1, None, {"notified"}),
    ([(MAIN, 0), (MAIN, 11), (MAIN, 20), (MAIN, 29)], 1, MAIN, {"notified", "beats", "own"}),
    # of one process
    ([(MAIN, 0), (HELPER, 1), (OTHER, 2)], 1, None, {"notified"}),
    ([(MAIN, 0), (HELPER, 1), (MAIN, 2), (HELPER, 3), (MAIN, 4)], 1, MAIN, {"notified", "beats", "own"}),
    # a command run for each of them is the word of the agent that runs it, not of a helper's helper
    ([(201, 0), (202, 1), (203, 2)], MAIN, MAIN, {"notified", "beats", "own"}),
    ([(201, 0), (202, 1), (203, 2)], HELPER, None, {"notified"}),
    # a helper that stays is one child, however often it says so
    ([(HELPER, 0), (HELPER, 1), (OTHER, 2)], MAIN, None, {"notified"}),
    # from another pid namespace nobody knows whose they are
    ([(0, 0), (0, 1), (0, 2)], 0, 0, {"notified", "beats"}),
])  # fmt: skip
def test_beats_take_over_after_three_in_time_from_one_process(beats, parent, heart, shown):
    judging = hear(auto(), beats, parent)
    assert (judging.heart, judging.shown) == (heart, shown)
    assert judging.judged_by(is_busy=True) == (PROCESS if heart is None else BEATS)


def test_the_process_counts_again_when_who_beat_has_ended():
    judging = hear(auto(), [(HELPER, 0), (HELPER, 1), (HELPER, 2)])
    judging.lose_heart()
    assert judging.judged_by(is_busy=False) == PROCESS
    assert hear(judging, [(OTHER, 3), (OTHER, 4), (OTHER, 5)]).judged_by(is_busy=False) == BEATS


def test_what_is_remembered_of_who_beats_has_a_limit():
    judging = hear(auto(), [(sender, 0.0) for sender in range(1000, 9000)])
    assert len(judging._rows) <= heartbeat.MOST_SENDERS


@pytest.mark.parametrize(("expected", "alive", "ready"), [
    (NOTHING, 1.9, False), (NOTHING, 2.0, True), (KNOWN, 2.0, False), (KNOWN, 80.0, False),
])  # fmt: skip
def test_being_alive_makes_it_ready_where_it_is_not_known_to_notify(expected, alive, ready):
    assert auto(expected).is_ready(alive) is ready


def test_the_first_beat_makes_it_ready_where_that_is_found_out():
    notified = Judge(timeout_seconds=TIMEOUT, longest_wait_seconds=LONGEST, progress_required=False)
    found_out = Judge(
        timeout_seconds=TIMEOUT, longest_wait_seconds=LONGEST, progress_required=False, is_beat_ready=True
    )
    assert (notified.judge(BEAT, 1.0).is_ready, found_out.judge(BEAT, 1.0).is_ready) == (False, True)


def test_where_good_code_beat_itself_they_are_waited_for_from_the_beginning():
    judging = auto(KNOWN)
    assert judging.judged_by(is_busy=False) == BEATS
    hear(judging, [(MAIN, 0), (MAIN, 1), (MAIN, 2)]).lose_heart()
    assert judging.judged_by(is_busy=False) == PROCESS


@pytest.mark.parametrize(("hooks", "is_busy", "by"), [
    ([0, 1], True, PROCESS), ([0, 1, 2], True, HOOKS), ([0, 1, 2], False, PROCESS), ([0, 11, 22], True, PROCESS),
])  # fmt: skip
def test_hooks_count_while_it_is_busy(hooks, is_busy, by):
    judging = auto()
    for now in hooks:
        judging.hear_hook(float(now))
    assert judging.judged_by(is_busy=is_busy) == by


@pytest.mark.parametrize(("lives", "expected"), [
    ([], {}),
    (["", ""], {}),
    (["whole"], {}),
    (["beats notified own whole"] * 2, {"is_notified": True, "has_own_beats": True, "kinds": ("beats",)}),
    (["beats notified whole", "beats notified own whole"], {"is_notified": True, "kinds": ("beats",)}),
    # every launch: one that had its time and showed nothing speaks for the others
    (["beats notified own whole", "output whole"], {}),
    # one that ended early counts for what it has shown alone
    (["beats notified own whole", "notified"], {"is_notified": True, "has_own_beats": True, "kinds": ("beats",)}),
    (["notified"], {"is_notified": True}),
    (["output whole", "state whole"], {"has_trace": True}),
    (["output whole", "whole"], {}),
    (["hooks notified output whole"], {"is_notified": True, "kinds": ("hooks",), "has_trace": True}),
])  # fmt: skip
def test_what_is_expected_is_what_every_launch_has_shown(lives, expected):
    assert expect(4, lives) == ExpectedLife(number=4, **expected)


@pytest.mark.parametrize(("expected", "shown", "missing"), [
    ({}, set(), []),
    ({"kinds": ("beats",), "has_trace": True}, {"output"}, ["beats"]),
    ({"kinds": ("beats", "hooks")}, {"beats"}, ["hooks"]),
    ({"kinds": ("beats",)}, {"beats"}, []),
    ({"has_trace": True}, set(), [OUTPUT, STATE]),
    ({"has_trace": True}, {"state"}, []),
    ({"has_trace": True}, {"output"}, []),
    ({"has_trace": True}, {"beats"}, []),
    ({"is_notified": True}, set(), []),
])  # fmt: skip
def test_a_candidate_has_to_show_the_kind_of_life_of_good_code(expected, shown, missing):
    judging = auto(ExpectedLife(number=3, **expected))
    judging.shown |= shown
    assert judging.missing() == missing


def test_what_is_missing_is_said_with_the_word_that_overrules_it():
    told = heartbeat.tell_missing([OUTPUT, STATE], ExpectedLife(number=3), 5, 30.0)
    assert told == (
        "it wrote nothing on its terminal and to none of its files in 30s, unlike generation 3, which always did; "
        "'agentctl bless 5' if it is good all the same"
    )
    on_trial = heartbeat.tell_missing([BEATS], ExpectedLife(number=3), 0, 30.0)
    assert on_trial == "it sent no heartbeats in 30s, unlike generation 3, which always did"


@pytest.mark.parametrize(("source", "ready", "given", "old", "rules"), [
    ("auto", "auto", False, False, ("auto", "auto")),
    ("auto", "auto", True, True, ("auto", "auto")),
    ("auto", "auto", False, True, ("notify", "notify")),
    ("auto", 5.0, False, True, ("notify", 5.0)),
    ("auto", "notify", False, False, ("auto", "notify")),
    ("notify", "auto", True, False, ("notify", "notify")),
    ("hook", "auto", True, True, ("hook", "notify")),
    ("process", "auto", True, False, ("process", heartbeat.READY_AFTER_SECONDS)),
    ("process", ["check"], True, False, ("process", ["check"])),
])  # fmt: skip
def test_what_both_settings_mean_together(source, ready, given, old, rules):
    assert heartbeat.rules_of(source, ready, is_given=given, is_of_old=old) == rules


@pytest.mark.parametrize(("source", "ready", "expected", "what", "command"), [
    ("auto", "auto", KNOWN, "READY=1 or a heartbeat, which generation 3", "config set agent.ready 5s"),
    ("auto", "auto", NOTHING, "it is stopped", "agentctl attach"),
    ("auto", "notify", NOTHING, "READY=1", "config set agent.ready auto"),
    ("notify", "notify", NOTHING, "READY=1", "config set heartbeat.from auto"),
    ("hook", "notify", NOTHING, "(hook)", "config set agent.ready 5s"),
    ("http", "notify", NOTHING, "its health address", "config set agent.ready 5s"),
    ("auto", 300.0, NOTHING, "being alive for 5m", "config set agent.ready auto"),
    ("auto", ["true", "x"], NOTHING, "'true x' to exit with status 0", "agentctl logs -f"),
])  # fmt: skip
def test_what_is_waited_for_is_said_with_the_command_that_helps(source, ready, expected, what, command):
    told, helps = heartbeat.tell_awaited(source, ready, expected)
    assert what in told and command in helps


def test_each_way_of_watching_has_its_sentence():
    assert heartbeat.WATCHED.keys() == set(BY_KEY["heartbeat.from"].kind.words)
