"""Incidents: one at a time, ended once, and launches that nobody closed."""

import pytest

from agentctl.core.errors import LaunchRefused
from agentctl.ledger import incidents, writers

OPEN = "SELECT id, at, trigger, reason, launch, generation_from FROM incidents"


def test_a_failure_is_an_incident_since_the_launch_ended(home, ask):
    home.launch("L1", 4, end="failed", at=77.0)
    found = incidents.open_for(home.ledger, home.ledger.last_launch(), trigger="crash", reason="exit status 1")
    assert ask(OPEN) == [(found, 77.0, "crash", "exit status 1", "L1", 4)]
    again = incidents.open_for(home.ledger, home.ledger.last_launch(), trigger="watchdog", reason="another")
    assert again == found and len(ask(OPEN)) == 1


def test_a_request_is_one_of_now_and_of_no_launch_where_there_was_none(home, ask):
    home.launch("L1", 4, end="failed", at=77.0)
    incidents.open_for(home.ledger, home.ledger.last_launch(), trigger="request-rollback", reason="by hand")
    assert ask(OPEN)[0][1] >= home.now
    incidents.end(home.ledger, ask(OPEN)[0][0], "recovered", 5.0)
    incidents.open_for(home.ledger, None, trigger="crash", reason="unknown")
    assert ask(OPEN)[1][1] >= home.now and ask(OPEN)[1][4:] == ("", None)


def test_the_first_end_counts(home, ask):
    home.incident("I")
    incidents.end(home.ledger, "I", "recovered", 5.0, generation_to=3)
    incidents.end(home.ledger, "I", "halted", 6.0, generation_to=2)
    incidents.end(home.ledger, "nobody knows it", "halted", 6.0)
    assert ask("SELECT outcome, ended_at, generation_to FROM incidents") == [("recovered", 5.0, 3)]
    assert ask("SELECT kind FROM events") == [("recovered",)]


@pytest.mark.parametrize(("move", "name"), [(0, "rescue/I"), (1, "rescue/I"), (2, "rescue/I-2"), (11, "rescue/I-11")])
def test_each_move_has_a_branch_of_its_own(move, name):
    assert incidents.rescue_branch("I", move) == name


def test_restarts_move_no_code(home):
    home.incident("I")
    for number, rung in enumerate(("restart", "last known good", "restart", "older good"), start=1):
        home.attempt("I", number, rung=rung)
    home.attempt("another", 1)
    assert [incidents.count_moves(home.ledger, "I", n) for n in range(6)] == [0, 0, 1, 1, 2, 2]


def test_what_could_not_be_started_is_on_record(home, ask):
    incidents.record_unlaunched(home.ledger, 7, "no room")
    found = ask("SELECT generation, end, trigger, reason FROM launches")
    assert found == [(7, "failed", "cannot-launch", "it could not be started: no room")]


def test_a_launch_that_the_machine_took_along_is_no_failure(home, ask):
    home.launch("L1", boot="another")
    incidents.settle_last_launch(home.ledger)
    assert ask("SELECT end, trigger, ended_at IS NULL FROM launches") == [("rebooted", "reboot", 0)]


def test_a_runner_that_was_killed_is_a_failure_to_be_looked_at(home, ask):
    home.launch("L1")
    with pytest.raises(LaunchRefused):
        incidents.settle_last_launch(home.ledger)
    assert ask("SELECT end, trigger FROM launches") == [("lost", "runner-killed")]
    incidents.settle_last_launch(home.ledger)  # it is closed now


def test_what_ended_is_left_as_it_is(home, ask):
    incidents.settle_last_launch(home.ledger)
    home.launch("L1", boot="another", end="stopped", at=5.0)
    incidents.settle_last_launch(home.ledger)
    assert ask("SELECT end, ended_at FROM launches") == [("stopped", 5.0)]


def test_an_incident_as_it_is_printed(home):
    home.incident("I", {"exit_class": "KeyError"})
    home.attempt("I", 1)
    home.step("stop", 0.25, incident="I")
    writers.begin_step(home.ledger, "I", 1, "switch", at=home.now)
    shown = incidents.as_public(home.ledger, home.ledger.open_incident())
    assert (shown["id"], shown["from"], shown["to"], shown["launch"]) == ("I", 2, 1, "L1")
    assert (shown["outcome"], shown["seconds"]) == (None, None)
    assert shown["evidence"] == {"exit_class": "KeyError"}
    assert [(step["name"], step["seconds"]) for step in shown["steps"]] == [("stop", 0.25), ("switch", None)]
    assert [attempt["rung"] for attempt in shown["attempts"]] == ["last known good"]
