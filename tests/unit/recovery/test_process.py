"""What the recovery process sees before it decides: attempts that count, requests, the failure that called it."""

from types import SimpleNamespace

import pytest

from agentctl.core.errors import TooNew
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import models, writers
from agentctl.recovery import process

DAY = 86400.0


@pytest.fixture
def observe(home, monkeypatch):
    for name in ("MONITOR_SERVICE_RESULT", "MONITOR_INVOCATION_ID"):
        monkeypatch.delenv(name, raising=False)
    return lambda: process.observe(AgentContext.open("agent"), home.ledger)


def test_of_an_agent_that_was_never_started_nothing_is_known(observe):
    world = observe()
    assert (world.launch, world.incident, world.request, world.is_halted) == (None, None, None, False)
    assert (world.attempts, world.recent, world.generations, world.paused_until) == ([], [], [], 0.0)
    assert (world.limits.restarts, world.limits.per_day) == (3, 10)


def test_what_is_on_record_is_seen(home, observe):
    home.generation(1)
    home.launch("L1", 1, end="failed")
    home.ledger.set_meta("halted", "nothing left")
    home.ledger.set_meta("paused_until", "99.5")
    writers.add_request(home.ledger, "rollback", "1", at=5.0, author="me", reason="")
    world = observe()
    assert world.is_halted and world.paused_until == 99.5
    assert None not in (world.launch, world.request) and len(world.generations) == 1


def test_attempts_of_the_open_incident_and_those_of_the_last_day_count(home, observe):
    home.incident("old", outcome="recovered", ended_at=5.0)
    home.incident("I")
    for incident, ago in (("old", 2 * DAY), ("I", 60.0), ("old", 30.0)):
        home.attempt(incident, len(observe().recent) + 1 if incident == "I" else int(ago), at=home.now - ago)
    world = observe()
    assert (len(world.attempts), len(world.recent)) == (1, 2)


@pytest.mark.parametrize(
    ("reset_ago", "counted"),
    [(None, 2), (45.0, 1), (10.0, 0), (-DAY, 2)],
    ids=["never", "between", "after", "clock back"],
)
def test_a_reset_by_hand_forgets_what_was_before_it_and_a_clock_that_went_back_forgets_nothing(
    home, observe, reset_ago, counted
):
    for number, ago in enumerate((60.0, 30.0, -300 * DAY), start=1):  # the last one is of a clock that was ahead
        home.attempt("another", number, at=home.now - ago)
    if reset_ago is not None:
        home.ledger.set_meta("limits_reset_at", str(home.now - reset_ago))
    assert len(observe().recent) == counted


@pytest.mark.parametrize(
    ("result", "invocation", "answered", "failure"),
    [
        (None, None, None, ""),
        ("success", "a", None, ""),
        ("exit-code", "a", None, "a"),
        ("watchdog", None, None, "unknown"),
        ("exit-code", "a", "a", ""),
        ("exit-code", "b", "a", "b"),
    ],
)
def test_which_failure_called_us_and_is_not_answered_yet(
    home, observe, monkeypatch, result, invocation, answered, failure
):
    for name, value in (("MONITOR_SERVICE_RESULT", result), ("MONITOR_INVOCATION_ID", invocation)):
        if value is not None:
            monkeypatch.setenv(name, value)
    home.ledger.set_meta("answered", answered)
    assert observe().failure == failure


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        (models.Decision(action=models.RESTART, reason="it hung", target=2), "restarting generation 2: it hung"),
        (models.Decision(action=models.UNDO, reason="by hand", target=3), "undoing the last rollback: by hand"),
        (models.Decision(action=models.ROLLBACK, reason="it hung", rung="last known good", target=1),
         "rolling back 2 -> 1 (last known good): it hung"),
    ],
)  # fmt: skip
def test_a_decision_is_one_line_of_the_journal(home, observe, decision, line):
    assert process.describe(
        observe(), models.Decision(action=models.ROLLBACK, reason="x", rung="r", target=1)
    ).startswith("rolling back ?")
    home.launch("L1", 2, end="failed")
    assert process.describe(observe(), decision) == line


def test_what_cannot_be_rolled_back_is_told_once(home, monkeypatch):
    sent, said = [], []
    monkeypatch.setattr("agentctl.host.alert_command.send", lambda context, what: sent.append(what))
    journal = SimpleNamespace(error=said.append, warning=said.append)
    for version in (9, 9, 10):
        process._leave_alone(AgentContext.open("agent"), TooNew("ledger", version, 1), journal)
    assert len(said) == 3 and len(sent) == 2 and "version 9" in sent[0] and "version 10" in sent[1]
