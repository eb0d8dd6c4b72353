"""What a rollback by hand asks before, and what it calls held."""

import json

import pytest

from agentctl.cli import rollback_verbs
from agentctl.cli.rollback_verbs import Standing, find_why_not
from agentctl.ledger import writers
from ledger_builder import agentctl


@pytest.fixture
def rolled_back(home):
    """A home whose candidate was rolled back and condemned."""
    home.generation(1)
    home.generation(2, "condemned", reason="it hung")
    home.launch("L1", 2, end="failed")
    home.incident(outcome="recovered", ended_at=home.now - 90)
    home.attempt()
    home.launch("L2", 1, ready_at=home.now - 89)
    return home


@pytest.mark.parametrize("words", [["rollback"], ["rollback", "1"], ["rollback", "undo"], ["rollback", "--json"],
                                   ["rollback", "undo", "--force"]])  # fmt: skip
def test_nobody_to_ask_is_no_yes(rolled_back, words):
    refused = agentctl(*words)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "--yes does it" in refused.stderr and rolled_back.ledger.next_request() is None


def test_a_plan_needs_no_yes(rolled_back):
    assert json.loads(agentctl("rollback", "undo", "--dry-run", "--json").stdout)["to"] == 2


def test_an_undo_into_condemned_code_wants_more_than_a_yes(rolled_back):
    refused = agentctl("rollback", "undo", "--yes")
    assert refused.returncode == 1 and rolled_back.ledger.next_request() is None
    assert "from generation 1 to generation 2, which is condemned: it hung" in refused.stderr
    assert "rollback undo --force" in refused.stderr and "bless 2" in refused.stderr
    told = agentctl("rollback", "1", "--yes", "--force")
    assert told.returncode == 2 and "--force is for undo" in told.stderr


ASKED = {"id": "i-1", "trigger": "request:undo", "generation_from": 1, "generation_to": 2, "decision": "undo: by hand"}


@pytest.fixture
def undone(home):
    """A home whose undo was asked for and carried out: generation 2 is on trial again."""
    home.generation(1)
    home.generation(2, "candidate")
    home.incident(**ASKED, outcome="recovered", ended_at=home.now - 50)
    home.attempt("i-1", rung="undo", target=2, reason="undo asked for")
    home.launch("L2", 2, ready_at=home.now - 60)
    writers.set_first_beat(home.ledger, "L2", home.now - 60)
    return home


def why(home, outcome="recovered", seconds=600.0):
    return find_why_not(home.ledger, "i-1", outcome, seconds)


def test_what_beats_for_a_while_holds(undone):
    assert why(undone) == ""


def test_what_was_rolled_back_again_did_not_hold(undone):
    undone.incident("i-2", at=undone.now - 40, reason="exit status 1", outcome="recovered", ended_at=undone.now - 30)
    assert why(undone) == "it was rolled back to generation 1: exit status 1"


def test_what_went_further_down_in_the_same_incident_did_not_hold(undone):
    undone.attempt("i-1", 2, rung="restart", target=2)
    assert why(undone) == ""
    undone.attempt("i-1", 3, rung="older good", target=1, reason="exit status 1")
    assert why(undone) == "it was rolled back to generation 1: exit status 1"


def test_a_tree_that_had_more_than_its_commit_runs_under_another_number(undone):
    """An undo brings the tree back as it was: what was not committed makes it a generation of its own."""
    undone.generation(3, "candidate")
    writers.set_decision(undone.ledger, "i-1", "undo: by hand", 3)
    writers.end_launch(undone.ledger, "L2", "failed", at=undone.now - 55, trigger="", reason="")
    undone.launch("L3", 3, ready_at=undone.now - 50)
    writers.set_first_beat(undone.ledger, "L3", undone.now - 50)
    assert why(undone) == ""
    known = Standing.of_incident(undone.ledger, "i-1")
    assert (known.source, known.target, known.running, known.moved_on) == (1, 2, 3, None)


def test_halted_is_not_held(undone):
    with undone.ledger.transaction():
        undone.ledger.set_meta("halted", "nothing is left")
    assert why(undone, outcome="") == "the agent is halted: nothing is left"


def test_it_is_waited_for_what_crashed_and_is_started_again(undone, monkeypatch):
    """A candidate has tries: between two launches nothing is decided yet."""
    writers.end_launch(undone.ledger, "L2", "failed", at=undone.now - 20, trigger="crash", reason="x")
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            undone.incident("i-2", at=undone.now, reason="exit status 1", outcome="recovered", ended_at=undone.now)

    monkeypatch.setattr(rollback_verbs.time, "sleep", sleep)
    assert "rolled back to generation 1" in why(undone) and len(slept) == 3
