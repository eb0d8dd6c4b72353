"""The decision as tables, and the promise that it always ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentctl.ledger import models
from agentctl.ledger.models import PolicyInput, RollbackLimits
from agentctl.recovery import policy
from agentctl.recovery.policy import HALT, NOTHING, RESTART, ROLLBACK, UNDO, decide, refuse_launch
from kit.rows import row

NOW = 1_000_000.0
INCIDENT = row("incidents", id="i")
CRASHES = ("crash", "crash-at-start", "watchdog", "not-ready", "tmux-killed", "runner-killed")
AT_ONCE = {  # failures that a plain restart cannot help
    "exit 78": {"trigger": "crash-at-start", "exit_status": 78},
    "refused": {"trigger": "refused", "end": models.REFUSED},
    "check failed": {"trigger": "check-failed"},
}


def limits_of(restarts: int, window: float, attempts: int, per_day: int) -> RollbackLimits:
    return RollbackLimits(restarts=restarts, window_seconds=window, attempts=attempts, per_day=per_day)


def generation(
    number: int,
    status: str = "good",
    *,
    tries: int = 0,
    golden: bool = False,
    blessed_at: float | None = None,
    on_failure: str = "",
) -> models.Generation:
    if blessed_at is None and status == "good":
        blessed_at = float(number)
    return row(
        "generations",
        number=number,
        status=status,
        tries_left=tries,
        is_golden=int(golden),
        blessed_at=blessed_at,
        reason="it crashed",
        vault_commit=f"{number:040x}",
        on_failure=on_failure,
    )


def launch(
    number: int,
    trigger: str = "crash",
    *,
    end: str = models.FAILED,
    exit_status: int | None = 1,
    lived: float = 5.0,
    now: float = NOW,
) -> models.Launch:
    return row(
        "launches",
        id="l",
        generation=number,
        end=end,
        trigger=trigger,
        reason=f"because of {trigger}",
        exit_status=exit_status,
        started_at=now - lived,
        ready_at=now - lived,
        ended_at=now,
    )


def attempt(rung: str, target: int, ago: float = 1.0, *, now: float = NOW) -> models.Attempt:
    return row("attempts", incident="i", rung=rung, target=target, at=now - ago)


def request(verb: str = "rollback", target: str = "", reason: str = "") -> models.Request:
    return row("requests", number=1, verb=verb, target=target, author="ann", reason=reason)


def world(
    of: models.Launch | None, generations: list[models.Generation], *, attempts=(), recent=None, limits=None, **more
) -> PolicyInput:
    return PolicyInput(
        now=NOW,
        limits=limits or limits_of(3, 1800.0, 4, 10),
        launch=of,
        generations=generations,
        incident=INCIDENT if attempts else None,
        attempts=list(attempts),
        recent=list(attempts if recent is None else recent),
        **{"ran": of, **more},
    )


def told(decision: models.Decision) -> tuple:
    return decision.action, decision.rung, decision.target, decision.condemn


GOODS = [generation(1), generation(2), generation(3)]
LKG = "last known good"


# --- what is answered


@pytest.mark.parametrize(
    ("launch_of", "ago", "is_answer"),
    [
        ("", 1.0, False),  # from before it was noted: the clock tells
        ("", 0.0, True),
        ("", -5.0, True),
        ("l", 0.0, True),
        ("l", 9e6, True),  # the clock was set back after the launch had ended
        ("l", -9e6, True),
        ("other", 0.0, False),
        ("other", -9e6, False),
    ],
)
def test_an_attempt_answers_the_launch_it_was_decided_for(launch_of, ago, is_answer):
    made = attempt("restart", 3, ago).replace(launch=launch_of)
    seen = world(launch(3), GOODS, recent=[made])
    assert policy.answers(seen) == ([made] if is_answer else [])


def test_the_newest_good_one_is_told_by_the_order_of_blessings():
    ahead = generation(2, blessed_at=NOW + 9e6).replace(blessing=2)
    newest = generation(3, blessed_at=NOW).replace(blessing=3)
    seen = world(launch(4), [generation(1).replace(blessing=1), ahead, newest, generation(4, "candidate")])
    assert told(decide(seen)) == (ROLLBACK, LKG, 3, 4)


# --- a candidate


@pytest.mark.parametrize("trigger", [*CRASHES, "wedged"])
@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        (2, (RESTART, "restart", 4, None)),
        (1, (RESTART, "restart", 4, None)),
        (0, (ROLLBACK, LKG, 3, 4)),
    ],
)
def test_a_candidate_is_restarted_while_it_has_tries(trigger, tries, expected):
    seen = world(launch(4, trigger), [*GOODS, generation(4, "candidate", tries=tries)])
    assert told(decide(seen)) == expected
    assert f"because of {trigger}" in decide(seen).reason


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize(("status", "condemned"), [("candidate", 4), ("good", 4), ("condemned", None)])
def test_what_a_restart_cannot_help_goes_to_the_next_rung_at_once(name, status, condemned):
    seen = world(launch(4, **AT_ONCE[name]), [*GOODS, generation(4, status, tries=5, blessed_at=0.5)])
    assert told(decide(seen)) == (ROLLBACK, LKG, 3, condemned)


@pytest.mark.parametrize("trigger", [*CRASHES, "wedged"])
def test_a_condemned_generation_is_never_restarted(trigger):
    seen = world(launch(4, trigger), [*GOODS, generation(4, "condemned", tries=9)])
    assert told(decide(seen)) == (ROLLBACK, LKG, 3, None)


def test_a_generation_that_the_ledger_does_not_know():
    assert told(decide(world(launch(9), GOODS))) == (ROLLBACK, LKG, 3, None)
    assert told(decide(world(launch(9, end=models.ASKED), GOODS))) == (ROLLBACK, LKG, 3, None)


# --- a good one


@pytest.mark.parametrize("trigger", CRASHES)
@pytest.mark.parametrize(
    ("restarts_ago", "expected"),
    [
        ([], RESTART),
        ([10, 20], RESTART),
        ([10, 20, 30], ROLLBACK),
        ([10, 20, 1801], RESTART),
    ],
)
def test_a_good_generation_is_restarted_so_often_within_the_window(trigger, restarts_ago, expected):
    recent = [attempt("restart", 3, ago) for ago in restarts_ago]
    seen = world(launch(3, trigger), GOODS, recent=recent)
    assert decide(seen).action == expected
    assert decide(seen).target == 3  # the last known good pair is its own: the state goes back


def test_restarts_of_another_generation_do_not_count():
    recent = [attempt("restart", 2)] * 5
    assert decide(world(launch(3), GOODS, recent=recent)).action == RESTART


def test_restarts_of_an_open_incident_count_however_long_a_launch_takes():
    slow = [attempt("restart", 3, ago) for ago in (9000, 6000, 3000)]
    assert decide(world(launch(3, "not-ready"), GOODS, attempts=slow)).action == ROLLBACK


@pytest.mark.parametrize("rung", [LKG, "older good", "golden", "by hand", "undo"])
@pytest.mark.parametrize("trigger", CRASHES)
def test_after_a_rollback_that_was_not_seen_well_comes_the_next_rung(rung, trigger):
    seen = world(launch(3, trigger), GOODS, attempts=[attempt(rung, 3)])
    assert told(decide(seen)) == (ROLLBACK, "older good", 2, 3)
    assert "before it was seen well" in decide(seen).reason


# --- a good one that is busy and gets nowhere


@pytest.mark.parametrize(
    ("restarts", "expected"),
    [
        (0, (RESTART, "restart", 3, None)),
        (2, (RESTART, "restart", 3, None)),
        (3, (HALT, "halted", None, None)),
    ],
)
@pytest.mark.parametrize("more", [[], [attempt(LKG, 3)]], ids=["by itself", "after a rollback"])
def test_a_wedge_does_not_move_code_that_was_good(restarts, expected, more):
    recent = [attempt("restart", 3)] * restarts
    seen = world(launch(3, "wedged"), GOODS, attempts=more, recent=[*recent, *more])
    assert told(decide(seen)) == expected


# --- we could not start it


@pytest.mark.parametrize(("status", "tries"), [("good", 0), ("candidate", 0), ("candidate", 2), ("condemned", 0)])
@pytest.mark.parametrize("trigger", ["cannot-launch", "engine-away"])
@pytest.mark.parametrize(("restarts", "expected"), [(0, RESTART), (2, RESTART), (3, HALT), (9, HALT)])
def test_what_cannot_be_launched_keeps_its_code(status, tries, restarts, expected, trigger):
    recent = [attempt("restart", 4)] * restarts
    seen = world(launch(4, trigger), [*GOODS, generation(4, status, tries=tries)], recent=recent)
    if status == "condemned" and expected == HALT:  # it halts on good code, which cannot be launched either
        seen = seen.replace(ran=launch(3))
        assert told(decide(seen)) == (ROLLBACK, models.GOOD_STAYS, 3, None)
        seen = seen.replace(attempts=[attempt(models.GOOD_STAYS, 3)])
    assert told(decide(seen))[0] == expected
    assert decide(seen).condemn is None


@pytest.mark.parametrize("tries", [0, 1, 2])
def test_who_had_no_room_to_build_its_image_goes_back_and_is_not_condemned(tries):
    seen = world(launch(4, "no-room-for-image"), [*GOODS, generation(4, "candidate", tries=tries)])
    assert told(decide(seen))[1:3] == (LKG, 3)
    assert decide(seen).condemn is None


# --- the ladder


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([], (LKG, 5)),
        ([(LKG, 5)], ("older good", 4)),
        ([(LKG, 5), ("older good", 4)], ("older good", 3)),
        ([(LKG, 5), ("older good", 4), ("older good", 3)], ("golden without the task", 3)),
        ([(LKG, 5), ("older good", 4), ("older good", 3), ("golden without the task", 3)], None),
        ([("by hand", 5)], ("older good", 4)),
        ([("restart", 5)], (LKG, 5)),
        ([("by hand", 3)], (LKG, 5)),
    ],
)
def test_the_ladder_goes_down_to_golden_and_never_below(tried, expected):
    rows = [
        generation(1),
        generation(2),
        generation(3, golden=True),
        generation(4),
        generation(5),
        generation(6, "condemned"),
    ]
    attempts = [attempt(rung, target) for rung, target in tried]
    found = decide(world(launch(6), rows, attempts=attempts, limits=limits_of(3, 1800.0, 99, 99)))
    assert (found.action, found.rung, found.target) == ((ROLLBACK, *expected) if expected else (HALT, "halted", None))
    assert found.without_task == (found.rung == "golden without the task")


def test_without_a_golden_one_the_oldest_good_one_is_the_floor():
    attempts = [attempt(LKG, 3), attempt("older good", 2), attempt("older good", 1)]
    assert told(decide(world(launch(1), GOODS, attempts=attempts))) == (ROLLBACK, "golden without the task", 1, None)


def test_golden_that_is_not_among_the_good_is_a_rung_of_its_own():
    rows = [generation(1, "candidate", golden=True), generation(2, "condemned")]
    assert told(decide(world(launch(2), rows))) == (ROLLBACK, "golden", 1, None)


def test_golden_is_never_condemned_by_itself():
    rows = [generation(1, golden=True), generation(2)]
    assert told(decide(world(launch(1, exit_status=78), rows))) == (ROLLBACK, LKG, 2, None)


def test_the_last_known_good_is_the_newest_blessed_not_the_highest_number():
    rows = [generation(1, blessed_at=50.0), generation(2, blessed_at=9.0), generation(3, "condemned")]
    assert decide(world(launch(3), rows)).target == 1


def test_nothing_to_go_back_to():
    found = decide(world(launch(1), [generation(1, "condemned")]))
    assert (found.action, found.rung) == (HALT, "halted")
    assert "nothing is left" in found.reason


BUDGETS = [
    (limits_of(3, 1800.0, 4, 10), [attempt(LKG, 3, 60)] * 3, False),
    (limits_of(3, 1800.0, 4, 10), [attempt(LKG, 3, 60)] * 4, True),
    (limits_of(3, 1800.0, 4, 10), [attempt(LKG, 3, 1801)] * 4, False),
    (limits_of(3, 1800.0, 4, 10), [attempt(LKG, 3, 7200)] * 10, True),
    (limits_of(3, 1800.0, 4, 10), [attempt(LKG, 3, 90_000)] * 10, False),
    (limits_of(3, 1800.0, 4, 10), [attempt("restart", 2, 60)] * 20, False),
    (limits_of(3, 1800.0, 4, 10), [attempt("asked", 3, 60)] * 20, False),
    (limits_of(3, 1800.0, 4, 10), [attempt(models.GOOD_STAYS, 3, 60)] * 20, False),
    (limits_of(3, 1800.0, 4, 10), [attempt("by hand", 3, 60)] * 20, False),
]


@pytest.mark.parametrize(("limits", "recent", "is_spent"), BUDGETS)
def test_the_budget_holds_candidates_and_never_halts(limits, recent, is_spent):
    """The newest good code runs: one that failed goes back whatever the budget, and the next one is not launched."""
    failed = decide(world(launch(4), [*GOODS, generation(4, "candidate")], recent=recent, limits=limits))
    assert told(failed) == (ROLLBACK, LKG, 3, 4)
    hold = policy.find_hold(NOW, limits, recent)
    assert (hold is not None) == is_spent
    said = {
        status: refuse_launch(generation(5, status, tries=2), is_halted=False, has_intent=False, hold=hold)
        for status in ("candidate", "good")
    }
    assert said["good"] == "" and ("held: " in said["candidate"]) == is_spent
    promoted = generation(5, "candidate", tries=2).replace(change="feature/x")
    assert refuse_launch(promoted, is_halted=False, has_intent=False, hold=hold) == ""


@pytest.mark.parametrize(("limits", "recent", "is_spent"), BUDGETS)
def test_the_budget_of_good_code_that_fails_again_and_again(limits, recent, is_spent):
    found = decide(world(launch(3, exit_status=78), GOODS, recent=recent, limits=limits))
    assert found.action == (HALT if is_spent else ROLLBACK)
    assert "limit" in found.reason or not is_spent


def test_what_candidates_used_up_is_not_the_good_code_s_fault():
    bad = [generation(n, "condemned").replace(condemned_at=NOW - 60) for n in (4, 5, 6, 7)]
    seen = world(launch(3, exit_status=78), [*GOODS, *bad], recent=[attempt(LKG, 3, 60)] * 4)
    assert decide(seen).action == ROLLBACK


def test_a_hold_ends_when_the_window_has_passed():
    recent = [attempt(LKG, 3, ago) for ago in (100, 200, 300, 400, 500)]
    hold = policy.find_hold(NOW, limits_of(3, 1800.0, 4, 10), recent)
    assert hold.until == NOW - 400 + 1800 and hold.count == 5
    assert policy.tell_hold(hold) == "held: 5 rollbacks within 30m, the limit is 4, and the good code stays"


# --- what is put in place and not launched


@pytest.mark.parametrize(("status", "tries"), [("condemned", 9), ("candidate", 0), ("candidate", 2)])
@pytest.mark.parametrize(
    ("ran", "attempts", "expected"),
    [
        (3, [], (ROLLBACK, "good stays", 3, None)),
        (2, [], (ROLLBACK, "good stays", 2, None)),  # somebody went back to it, and it ran
        (3, [("good stays", 3)] * 9, (ROLLBACK, "good stays", 3, None)),  # however often it is put in again
        (4, [], (ROLLBACK, LKG, 3, 4)),  # it ran itself: that is to be answered
        (
            4,
            [(LKG, 3)],
            (ROLLBACK, "good stays", 3, None),
        ),  # that was answered, and it was put in again before a launch
        (3, [("restart", 3)], (ROLLBACK, "good stays", 3, None)),
        (None, [], (ROLLBACK, "good stays", 3, None)),
    ],
)
def test_for_what_is_refused_the_good_code_stays(status, tries, ran, attempts, expected):
    recent = [attempt(*one) for one in attempts]
    seen = world(
        launch(4, "refused", end=models.REFUSED),
        [*GOODS, generation(4, status, tries=tries)],
        attempts=recent,
        recent=[*[attempt(LKG, 2, 60)] * 9, *recent],
        ran=launch(ran, now=NOW - 50) if ran else None,
    )
    action, rung, target, condemned = expected
    if status == "condemned":
        condemned = None
    assert told(decide(seen)) == (action, rung, target, condemned)


@pytest.mark.parametrize(
    ("attempts", "of", "expected"),
    [
        ([], launch(4), False),
        ([attempt("restart", 3)], launch(4), False),
        ([attempt(LKG, 3, 9)], launch(3), False),
        ([attempt(LKG, 3, 9)], launch(4), True),  # somebody put it in before the good one had beaten
        ([attempt(LKG, 3, 9), attempt("restart", 3, 8)], launch(4), True),
        ([attempt(LKG, 3, -9)], launch(4), False),  # that is what it answers
        ([attempt(LKG, 3, 9)], None, False),
        ([attempt(LKG, 3, 9)], launch(4).replace(ended_at=None), False),
    ],
)
def test_an_incident_is_over_when_what_it_put_in_place_is_replaced(attempts, of, expected):
    assert policy.is_superseded(attempts, of) is expected


def test_a_good_tree_that_is_gone_is_no_tree_that_was_put_in():
    assert decide(world(launch(3, "refused", end=models.REFUSED), GOODS, ran=launch(3))).rung == LKG


def test_after_that_the_good_code_has_its_restarts():
    seen = world(launch(3), GOODS, attempts=[attempt(models.GOOD_STAYS, 3)])
    assert told(decide(seen)) == (RESTART, "restart", 3, None)
    seen = world(launch(3), GOODS, attempts=[attempt(models.GOOD_STAYS, 3), *[attempt("restart", 3)] * 3])
    assert told(decide(seen)) == (ROLLBACK, LKG, 3, None)


# --- whose tries they are


@pytest.mark.parametrize(
    ("end", "status", "left", "unproven", "expected"),
    [
        (models.FAILED, "candidate", 1, 0, (1, True)),
        (models.LOST, "candidate", 1, 0, (1, True)),
        (models.REBOOTED, "candidate", 2, 0, (2, True)),
        (models.FAILED, "candidate", 0, 0, (0, True)),
        (models.FAILED, "candidate", 9, 0, (2, True)),
        (models.FAILED, "good", 0, 0, (2, False)),
        (models.FAILED, "condemned", 0, 0, (2, False)),  # that lineage has ended
        (models.STOPPED, "candidate", 1, 3, (2, False)),
        (models.STOPPED, "candidate", 1, 4, (1, True)),
        (models.ASKED, "candidate", 0, 3, (2, False)),
        (models.ASKED, "candidate", 0, 4, (0, True)),
        (models.ASKED, "good", 0, 9, (2, False)),
    ],
)
def test_a_new_tree_has_what_its_lineage_has_left(end, status, left, unproven, expected):
    before = generation(4, status, tries=left)
    assert policy.choose_tries(2, launch(4, end=end), before, limit=4, unproven=unproven) == expected


def test_the_first_tree_of_all_has_fresh_tries():
    assert policy.choose_tries(2, None, None, limit=4, unproven=0) == (2, False)


@pytest.mark.parametrize(
    ("status", "tries", "end", "before", "expected"),
    [
        ("candidate", 0, models.STOPPED, "good", True),
        ("candidate", 0, models.ASKED, "good", True),
        ("candidate", 0, models.FAILED, "good", False),
        ("candidate", 0, models.STOPPED, "candidate", False),
        ("candidate", 1, models.STOPPED, "good", False),
        ("condemned", 0, models.STOPPED, "good", False),
    ],
)
def test_who_never_had_a_verdict_and_is_put_in_anew_is_tried(status, tries, end, before, expected):
    put_in = generation(4, status, tries=tries)
    assert policy.is_put_in_anew(put_in, launch(3, end=end), generation(3, before)) is expected


def test_one_that_could_not_begin_is_no_stranger_to_good_code():
    """An image that cannot be started: its candidate was tried, and is not held off as if nobody had tried it."""
    rows = [*GOODS, generation(4, "candidate")]
    seen = world(launch(4, "refused", end=models.REFUSED), rows, ran=launch(3, end=models.STOPPED))
    assert told(decide(seen)) == (ROLLBACK, models.GOOD_STAYS, 3, None)
    assert told(decide(seen.replace(attempts=[attempt("restart", 4)]))) == (ROLLBACK, LKG, 3, 4)


@pytest.mark.parametrize(("unproven", "expected"), [(3, RESTART), (4, ROLLBACK)])
def test_a_self_restart_with_changed_code_renews_the_tries_so_often(unproven, expected):
    fresh = [generation(n, "candidate").replace(created_at=NOW - 60) for n in range(4, 4 + unproven)]
    old = generation(9, "condemned").replace(created_at=NOW - 3600)
    of = launch(4, "asked", end=models.ASKED, lived=3600)
    assert decide(world(of, [*GOODS, *fresh, old], has_changed=True)).action == expected
    assert decide(world(of, [*GOODS, *fresh, old])).action == ROLLBACK


# --- a candidate that has failed


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        ([], None),
        ([(4, models.FAILED)], models.FAILED),
        ([(4, models.LOST)], models.LOST),
        ([(4, models.REBOOTED)], None),
        ([(4, models.STOPPED), (4, models.FAILED)], models.FAILED),
        ([(4, models.REBOOTED), (3, models.FAILED)], models.FAILED),  # its tree was another one then
        ([(3, models.STOPPED), (3, models.FAILED)], None),  # somebody put a new one in
        ([(4, models.ASKED), (4, models.FAILED)], models.FAILED),
        ([(3, models.ASKED), (3, models.FAILED)], None),
    ],
)
def test_a_candidate_that_has_failed_is_known(trial, expected):
    found = policy.find_stumble([launch(number, end=end) for number, end in trial], 4)
    assert (found and found.end) == expected


def test_what_was_no_fault_of_its_code_is_no_failure_of_it():
    for trigger in ("cannot-launch", "engine-away", "no-room-for-image"):
        assert policy.find_stumble([launch(4, trigger)], 4) is None


# --- nothing to decide


@pytest.mark.parametrize("of", [None, launch(3, "stop", end=models.STOPPED), launch(3, "reboot", end=models.REBOOTED)])
def test_no_failure_is_no_reason(of):
    assert decide(world(of, GOODS)).action == NOTHING


@pytest.mark.parametrize(("paused_until", "expected"), [(NOW + 1, NOTHING), (NOW, RESTART), (NOW - 1, RESTART)])
@pytest.mark.parametrize("end", [models.FAILED, models.LOST])
def test_paused_means_watching(paused_until, expected, end):
    assert decide(world(launch(3, end=end), GOODS, paused_until=paused_until)).action == expected


def test_a_pause_does_not_keep_down_an_agent_that_restarts_itself():
    assert decide(world(launch(3, end=models.ASKED), GOODS, paused_until=NOW + 1)).action == RESTART


def test_what_a_human_asked_for_uses_up_no_budget():
    by_hand = [attempt(rung, 2, float(n)) for n, rung in enumerate(["by hand", "undo"] * 20)]
    assert decide(world(launch(3, "crash"), GOODS, recent=by_hand)).action != HALT


@pytest.mark.parametrize("of", [None, launch(3), launch(3, end=models.ASKED), launch(3, "stop", end=models.STOPPED)])
def test_halted_stays_halted(of):
    assert told(decide(world(of, GOODS, is_halted=True))) == (HALT, "halted", None, None)


# --- asked for


@pytest.mark.parametrize(
    ("status", "tries", "asked", "lived", "expected"),
    [
        ("good", 0, 0, 1, RESTART),
        ("good", 0, 2, 1, RESTART),
        ("good", 0, 3, 1, ROLLBACK),
        ("good", 0, 9, 31, RESTART),
        ("candidate", 1, 0, 1, RESTART),
        ("candidate", 0, 0, 1, ROLLBACK),
        ("candidate", 0, 0, 3600, ROLLBACK),
        ("candidate", 1, 3, 1, ROLLBACK),
    ],
)
def test_an_agent_that_restarts_itself(status, tries, asked, lived, expected):
    rows = [*GOODS, generation(4, status, tries=tries)]
    seen = world(launch(4, "asked", end=models.ASKED, lived=lived), rows, recent=[attempt("asked", 4)] * asked)
    assert decide(seen).action == expected


def test_self_restarts_outside_the_window_or_of_another_generation_are_no_loop():
    recent = [attempt("asked", 3, 1801)] * 5 + [attempt("asked", 2)] * 5
    assert decide(world(launch(3, "asked", end=models.ASKED, lived=1), GOODS, recent=recent)).action == RESTART


REQUEST = request()


@pytest.mark.parametrize(
    ("running", "target", "expected"),
    [
        (generation(4, "candidate", tries=1), "", (ROLLBACK, "by hand", 3, 4)),
        (generation(4, "candidate", tries=1), "2", (ROLLBACK, "by hand", 2, 4)),
        (generation(4), "", (ROLLBACK, "by hand", 3, None)),
        (generation(4), "1", (ROLLBACK, "by hand", 1, None)),
        (generation(4), "4", (ROLLBACK, "by hand", 4, None)),
        (generation(4, "condemned"), "", (ROLLBACK, "by hand", 3, None)),
        (generation(4), "99", (NOTHING, "", None, None)),
    ],
)
@pytest.mark.parametrize("more", [{}, {"is_halted": True}, {"paused_until": NOW + 9}])
def test_a_human_asks_for_a_rollback(running, target, expected, more):
    asked = request(target=target)
    found = decide(world(launch(4, "stop", end=models.STOPPED), [*GOODS, running], request=asked, **more))
    assert told(found) == expected
    assert found.action == NOTHING or found.reason == "asked for by ann"


def test_a_human_asks_with_nothing_to_go_back_to():
    assert decide(world(launch(1), [generation(1)], request=REQUEST)).action == NOTHING
    assert decide(world(None, [], request=REQUEST)).action == NOTHING


def test_a_human_is_not_held_by_the_budget():
    recent = [attempt("by hand", 3)] * 50
    assert decide(world(launch(4), [*GOODS, generation(4)], recent=recent, request=REQUEST)).action == ROLLBACK


@pytest.mark.parametrize("more", [{}, {"is_halted": True}, {"paused_until": NOW + 9}])
def test_undo(more):
    found = decide(world(launch(3), GOODS, request=request("undo", reason="it was fine"), **more))
    assert (found.action, found.reason) == (UNDO, "it was fine")


# --- the guard


@pytest.mark.parametrize(
    ("row", "more", "words"),
    [
        (generation(1), {}, ""),
        (generation(1, "candidate", tries=1), {}, ""),
        (generation(1, golden=True), {}, ""),
        (generation(1), {"has_intent": True}, "under way"),
        (generation(1), {"is_halted": True}, "halted"),
        (generation(1, "condemned", tries=5), {}, "condemned as generation 1: it crashed"),
        (generation(1, "candidate", tries=0), {}, "no tries left"),
        (generation(1, "candidate", tries=-1), {}, "no tries left"),
    ],
)
def test_the_guard(row, more, words):
    said = refuse_launch(row, **{"is_halted": False, "has_intent": False, **more})
    assert words in said and bool(said) == bool(words)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, True),
        ({"ready_at": None}, False),
        ({"now": 109.9}, False),
        ({"beats": 4}, False),
        ({"reports_progress": True}, False),
        ({"reports_progress": True, "progressed": True}, True),
    ],
)
def test_a_trial_is_proven(facts, expected):
    usual = {
        "now": 110.0,
        "ready_at": 100.0,
        "beats": 5,
        "progressed": False,
        "reports_progress": False,
        "duration_seconds": 10.0,
        "heartbeats": 5,
    }
    assert policy.is_proven(**{**usual, **facts}) is expected


# --- it always ends


class Simulation:
    """An agent that fails after every decision, and a ledger as rows."""

    def __init__(self, rows: list[models.Generation], limits: RollbackLimits) -> None:
        self.rows, self.limits = rows, limits
        self.now, self.attempts, self.recent = NOW, [], []
        self.is_halted, self.ran = False, None

    def fail(self, number: int, ending: dict, lived: float, seconds: float) -> models.Decision:
        self.now += seconds
        row = next(r for r in self.rows if r.number == number)
        hold = policy.find_hold(self.now, self.limits, self.recent)
        refusal = refuse_launch(row, is_halted=self.is_halted, has_intent=False, hold=hold)
        if refusal:
            ending = AT_ONCE["refused"]
        elif row.status == "candidate":
            self.change(row.number, tries_left=row.tries_left - 1)
        failed = launch(number, **ending, lived=lived, now=self.now)
        if failed.end != models.REFUSED and failed.trigger != "cannot-launch":
            self.ran = failed
        recent = [a for a in self.recent if a.at > self.now - policy.DAY_SECONDS]
        found = decide(
            PolicyInput(
                now=self.now,
                limits=self.limits,
                launch=failed,
                generations=self.rows,
                incident=INCIDENT if self.attempts else None,
                attempts=self.attempts,
                recent=recent,
                is_halted=self.is_halted,
                ran=self.ran,
            )
        )
        self.check(found, row)
        self.record(found, failed.end)
        return found

    def check(self, found: models.Decision, failed: models.Generation) -> None:
        """What is halted stands on good code, if there is any: never on what was condemned."""
        goods = PolicyInput(
            now=self.now, limits=self.limits, launch=None, generations=self.rows, incident=None, attempts=[], recent=[]
        ).goods
        if found.action == HALT and not self.is_halted and goods:
            assert failed.status != "condemned"

    def record(self, found: models.Decision, end: str) -> None:
        if found.action == HALT:
            self.is_halted = True
            return
        is_asked = end == models.ASKED and found.action == RESTART
        done = attempt("asked" if is_asked else found.rung, found.target, 0.0, now=self.now)
        self.recent.append(done)
        if not is_asked:
            self.attempts.append(done)
        if found.condemn is not None:
            self.change(found.condemn, status="condemned", condemned_at=self.now)

    def change(self, number: int, **facts: object) -> None:
        self.rows = [row.replace(**facts) if row.number == number else row for row in self.rows]

    def beat(self) -> None:
        """A heartbeat ends the incident; the next failure opens another one."""
        self.attempts = []


ENDINGS = st.sampled_from(
    [
        *({"trigger": trigger} for trigger in (*CRASHES, "wedged")),
        *AT_ONCE.values(),
        {"trigger": "cannot-launch"},
        {"trigger": "engine-away"},
        {"trigger": "no-room-for-image"},
        {"trigger": "asked", "end": models.ASKED, "exit_status": 0},
    ]
)


@st.composite
def generations(draw):
    count = draw(st.integers(1, 6))
    golden = draw(st.integers(0, count))
    rows = []
    for number in range(1, count + 1):
        status = draw(st.sampled_from(["good", "candidate", "condemned"]))
        rows.append(
            generation(
                number,
                status,
                tries=draw(st.integers(0, 3)),
                golden=number == golden,
                blessed_at=draw(st.floats(0, 100)) if status == "good" else None,
            )
        )
    return rows


LIMITS = st.builds(
    limits_of,
    st.integers(0, 4),
    st.sampled_from([1.0, 60.0, 1800.0, 86400.0]),
    st.integers(1, 5),
    st.integers(1, 12),
)


@settings(max_examples=400, deadline=None)
@given(rows=generations(), limits=LIMITS, data=st.data())
def test_failure_after_failure_ends_halted_and_no_rung_is_tried_twice(rows, limits, data):
    simulation = Simulation(rows, limits)
    running = rows[-1].number
    # A self-restart is bounded by its window, everything else whatever the time between.
    tries = sum(max(0, row.tries_left) for row in rows)
    bound = tries + (len(rows) + 4) * (2 * limits.restarts + 3)
    for _ in range(bound):
        ending = data.draw(ENDINGS)
        seconds = 0.01 if ending["trigger"] == "asked" else data.draw(st.sampled_from([0.01, 5.0, 700.0, 40_000.0]))
        if any(a.rung == "asked" for a in simulation.recent):
            seconds = 0.0001
        found = simulation.fail(running, ending, lived=1.0, seconds=seconds)
        if found.action == HALT:
            break
        assert found.action in (RESTART, ROLLBACK)
        running = found.target
    assert simulation.is_halted, "no end"
    moves = [(a.rung, a.target) for a in simulation.attempts if a.rung not in ("restart", models.GOOD_STAYS)]
    assert len(moves) == len(set(moves))
    targets = [target for rung, target in moves if rung != "golden without the task"]
    assert len(targets) == len(set(targets))
    golden = next((row.number for row in rows if row.is_golden), 0)
    assert all(target >= golden for _, target in moves)
    for _ in range(3):  # halted: never relaunched afterwards, whatever ends and however long it takes
        assert simulation.fail(running, data.draw(ENDINGS), lived=1.0, seconds=1e6).action == HALT


@settings(max_examples=200, deadline=None)
@given(rows=generations(), limits=LIMITS, data=st.data())
def test_an_agent_that_beats_once_and_fails_again_ends_halted_too(rows, limits, data):
    """Every launch recovers for a moment, so every incident is a new one: the budgets end it."""
    limits = limits.replace(window_seconds=86400.0)
    simulation = Simulation(rows, limits)
    running = rows[-1].number
    budget = min(limits.attempts, limits.per_day) + 1
    tries = sum(max(0, row.tries_left) for row in rows)
    for _ in range(tries + budget + 2 * len(rows) * (limits.restarts + 1)):
        found = simulation.fail(running, data.draw(ENDINGS), lived=1.0, seconds=0.5)
        if found.action == HALT:
            break
        running = found.target
        simulation.beat()
    assert simulation.is_halted
    moves = [a for a in simulation.recent if a.rung not in models.UNCOUNTED]
    candidates = sum(1 for row in rows if row.status == "candidate")  # to leave one is always allowed
    assert len(moves) <= budget - 1 + candidates


# -- several triggers for one failure -----------------------------------------------------------------------


def answered(rung: str = "last known good", target: int = 3, ago: float = -1.0) -> dict:
    """An attempt made after the last launch had ended."""
    return attempt(rung, target, ago)


def test_a_second_trigger_for_a_failure_that_is_answered_does_nothing():
    failed, rows = launch(4), [*GOODS, generation(4, "condemned")]
    for before in ([answered()], [answered()] * 9):
        found = decide(world(failed, rows, attempts=before, failure=""))
        assert told(found) == (NOTHING, "", None, None)
    assert told(decide(world(failed, rows, attempts=[answered()]))) == (RESTART, "restart", 3, None)
    assert decide(world(failed, rows, attempts=[answered()] * 4)).action == HALT


@pytest.mark.parametrize(("target", "given", "answer"), [
    ("", [answered()], "i"),
    ("3", [answered()], "i"),
    ("3", [answered("golden")], "i"),
    ("3", [answered(), answered("restart", 3)], "i"),
    ("2", [answered()], ""),  # another one than what is in place
    ("", [answered("restart", 4)], ""),
    ("3", [answered(), answered("undo", 4)], ""),
    ("3", [answered("by hand", 3, ago=1.0)], ""),  # before the launch that has now failed
])  # fmt: skip
def test_a_request_for_what_was_just_put_in_place_is_answered_by_that(target, given, answer):
    rows = [*GOODS, generation(4, "condemned")]
    found = decide(world(launch(4), rows, attempts=given, request=request(target=target)))
    assert (found.action, found.answered_by) == ((NOTHING, answer) if answer else (ROLLBACK, ""))


# --- what its promotion asked for


def promoted(on_failure, tries=0, status="candidate"):
    return generation(4, status, tries=tries, on_failure=on_failure)


@pytest.mark.parametrize(("of", "on_failure", "tries", "attempts", "expected"), [
    ("crash", "rollback", 0, (), (ROLLBACK, LKG, 3, 4)),
    ("crash", "freeze", 0, (), (HALT, "halted", None, None)),
    ("crash", "freeze", 2, (), (HALT, "halted", None, None)),  # at its first failure: the scene is kept
    ("not-confirmed", "freeze", 2, (), (HALT, "halted", None, None)),
    ("not-confirmed", "rollback", 2, (), (ROLLBACK, LKG, 3, 4)),
    ("crash", "page", 2, (), (RESTART, "restart", 4, None)),
    ("crash", "page", 0, (), (RESTART, "restart", 4, None)),
    ("crash", "page", 0, [attempt("restart", 4)] * 3, (HALT, "halted", None, None)),
])  # fmt: skip
def test_what_follows_the_failure_of_a_promoted_candidate(of, on_failure, tries, attempts, expected):
    seen = world(launch(4, of), [*GOODS, promoted(on_failure, tries)], attempts=attempts)
    assert told(decide(seen)) == expected
    if expected[0] == HALT:
        assert f"--on-failure {on_failure}" in decide(seen).reason


def test_once_it_is_blessed_it_is_like_any_other():
    for on_failure in ("freeze", "page"):
        seen = world(
            launch(4, "crash"), [*GOODS, promoted(on_failure, status="good")], attempts=[attempt("restart", 4)] * 3
        )
        assert decide(seen).action == ROLLBACK


def test_who_wants_to_be_paged_is_launched_without_tries():
    assert policy.refuse_launch(promoted("page"), is_halted=False, has_intent=False) == ""
    assert "no tries left" in policy.refuse_launch(promoted("rollback"), is_halted=False, has_intent=False)


def test_a_promotion_is_done_only_to_a_candidate_and_never_while_halted():
    wish = request("promote", "4", "change feature/x")
    for status, is_halted, expected in (
        ("candidate", False, models.PROMOTE),
        ("candidate", True, models.NOTHING),
        ("condemned", False, models.NOTHING),
        ("good", False, models.NOTHING),
    ):
        seen = world(launch(3), [*GOODS, generation(4, status)], request=wish, is_halted=is_halted)
        assert decide(seen).action == expected
    assert decide(world(launch(3), GOODS, request=wish)).action == models.NOTHING
