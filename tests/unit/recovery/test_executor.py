"""What an undo takes back, and why it cannot be done."""

import os

import pytest

from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import writers
from agentctl.recovery import executor
from agentctl.recovery.execution import Execution


@pytest.fixture
def open_attempt(home):
    """Open the attempt that is under way, as each run of the recovery process does anew."""
    home.generation(1)
    home.incident("I")
    writers.add_attempt(home.ledger, "I", 1, at=5.0, rung="last known good", target=1, reason="it hung", is_open=True)
    return lambda: Execution.unfinished(AgentContext.open("agent"), home.ledger)


def test_the_last_move_is_what_an_undo_takes_back(home, open_attempt):
    context = AgentContext.open("agent")
    writers.close_attempt(home.ledger, "I", 1)
    assert "its quarantined tree" in executor.why_no_undo(context, home.ledger)
    os.makedirs(f"{context.slots.quarantine_path('I', 1)}/tree")
    assert executor.why_no_undo(context, home.ledger) == ""


def test_without_a_rollback_there_is_nothing_to_undo(home):
    home.incident("I")
    home.attempt("I", 1, rung="restart")
    assert executor.why_no_undo(AgentContext.open("agent"), home.ledger)
