"""The guard before a launch, and what a launch costs: each on record before anything starts."""

import pytest

from agentctl.core.errors import LaunchRefused
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import writers
from agentctl.runner import launch

NOW = 1000.0


@pytest.mark.parametrize(
    ("deadline", "on_failure", "is_overdue"),
    [(None, "", False), (NOW + 1, "", False), (NOW, "", True), (NOW - 1, "freeze", True), (NOW - 1, "page", False)],
)
def test_when_a_confirmation_is_overdue(home, deadline, on_failure, is_overdue):
    home.generation(1, "candidate")
    writers.set_deadline(home.ledger, 1, deadline)
    writers.set_promotion(home.ledger, 1, change="feature/x", on_failure=on_failure)
    assert launch.is_overdue(home.ledger.generation(1), NOW) is is_overdue


def guard(home):
    launch._guard_generation(AgentContext.open("agent"), home.ledger, home.ledger.generation(1))


def test_a_good_one_and_one_with_tries_left_may_be_launched(home, ask):
    home.generation(1, "candidate")
    guard(home)
    writers.bless(home.ledger, 1, at=5.0, reason="", snapshot="")
    writers.set_tries(home.ledger, 1, 0)
    guard(home)
    assert ask("SELECT * FROM launches") == []


def condemned(home):
    writers.condemn(home.ledger, 1, at=5.0, reason="it hung")


def without_tries(home):
    writers.set_tries(home.ledger, 1, 0)


def overdue(home):
    writers.set_deadline(home.ledger, 1, 5.0)


@pytest.mark.parametrize(("why", "trigger"), [(condemned, "refused"), (without_tries, "refused"),
                                              (overdue, "not-confirmed")])  # fmt: skip
def test_what_is_refused_is_on_record(home, ask, why, trigger):
    home.generation(1, "candidate")
    why(home)
    with pytest.raises(LaunchRefused, match="not launching generation 1: ") as refused:
        guard(home)
    assert refused.value.exit_code == 65
    ((end, said, reason),) = ask("SELECT end, trigger, reason FROM launches")
    assert (end, said) == ("refused", trigger) and reason and "before that" not in reason


def test_a_failure_that_nobody_answered_is_told_with_the_refusal(home, ask):
    home.generation(1, "candidate")
    condemned(home)
    home.launch("L1", 1, end="failed", reason="exit status 1")
    with pytest.raises(LaunchRefused, match="before that: exit status 1"):
        guard(home)
    assert ask("SELECT reason FROM launches WHERE id<>'L1'")[0][0].endswith("; before that: exit status 1")


@pytest.mark.parametrize(("status", "left"), [("candidate", 1), ("good", 2)])
def test_a_candidate_pays_with_a_try_before_it_starts(home, ask, status, left):
    home.generation(1, status)
    home.incident("I")
    home.ledger.set_meta("switched", "{}")
    begun = launch._spend(home.ledger, home.ledger.generation(1), "000009")
    assert ask("SELECT tries_left FROM generations") == [(left,)]
    assert ask("SELECT id, snapshot, incident, end FROM launches") == [(begun.id, "000009", "I", "")]
    assert home.ledger.meta("switched") is None and begun.incident == "I"


def test_what_was_pruned_at_this_moment_is_not_launched(home, ask):
    home.generation(1, "candidate")
    row = home.ledger.generation(1)
    writers.let_go(home.ledger, 1)
    with pytest.raises(LaunchRefused, match="was pruned at this moment"):
        launch._spend(home.ledger, row, "")
    assert ask("SELECT tries_left FROM generations") == [(2,)] and ask("SELECT * FROM launches") == []


@pytest.mark.parametrize(
    ("end", "beat", "same", "is_kept"),
    [("stopped", None, True, True), ("asked", None, True, True), ("failed", None, True, False),
     ("failed", 5.0, True, False), ("failed", 5.0, False, True), ("failed", None, False, False)],
)  # fmt: skip
def test_whose_state_a_snapshot_is(home, ask, end, beat, same, is_kept):
    """It is that of the good one before, if that ended cleanly, or was seen well and other code comes after it."""
    home.generation(1)
    home.generation(2)
    before = 2 if same else 1
    home.launch("L1", before, end=end)
    if beat:
        writers.set_first_beat(home.ledger, "L1", beat)
    launch._keep_snapshot(home.ledger, home.ledger.generation(2), "000009")
    ((snapshot,),) = ask("SELECT snapshot FROM generations WHERE number=?", before)
    assert (snapshot == "000009") is is_kept


def test_a_new_one_owns_the_state_it_started_from(home, ask):
    home.generation(1)
    writers.set_snapshot(home.ledger, 1, "")
    launch._keep_snapshot(home.ledger, home.ledger.generation(1), "000009")
    launch._keep_snapshot(home.ledger, home.ledger.generation(1), "000010")
    assert ask("SELECT snapshot FROM generations") == [("000009",)]


def test_one_that_could_not_begin_gets_no_new_tries(home, ask):
    """Nothing of it ran, so the good one ran last; that makes it no version that somebody has put in anew."""
    home.generation(1)
    home.generation(2, "candidate")
    writers.set_tries(home.ledger, 2, 0)
    home.launch("L1", 1, end="stopped")
    ran = home.ledger.last_run()
    context = AgentContext.open("agent")
    assert launch._renew(context, home.ledger, home.ledger.generation(2), ran).tries_left > 0
    writers.set_tries(home.ledger, 2, 0)
    home.launch("L2", 2, end="failed", trigger="cannot-launch", reason="no such program")
    assert launch._renew(context, home.ledger, home.ledger.generation(2), home.ledger.last_run()).tries_left == 0
