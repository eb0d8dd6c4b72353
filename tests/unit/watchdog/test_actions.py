"""What is asked of the agent by the API: written down first, refused where it makes no sense."""

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations.agent_context import AgentContext
from agentctl.watchdog import actions
from kit.rows import row


@pytest.fixture
def context(home):
    home.generation(1, is_golden=True)
    home.generation(2)
    home.launch("L1", 2)
    return AgentContext.open("agent")


@pytest.fixture
def started(monkeypatch):
    """Count how often the recovery was started; nothing is."""
    calls = []
    monkeypatch.setattr(actions, "start_recovery", calls.append)
    return calls


@pytest.fixture
def requests(ask):
    """Return the requests that were written down."""
    return lambda: ask("SELECT number, verb, target, author, length(reason) FROM requests")


def test_a_rollback_is_on_record_before_anything_starts(home, context, started, requests):
    number = actions.ask_rollback(context, "1", "because " * 100)
    assert requests() == [(number, "rollback", "1", "watchdog", 500)] and started == [context]


def test_one_to_what_is_not_there_is_refused(home, context, started, requests):
    with pytest.raises(AgentctlError, match="there is no generation 9"):
        actions.ask_rollback(context, "9", "")
    assert requests() == [] and started == []


def test_offline_is_asked_once_and_only_of_the_launch_that_runs(home, context, started, requests):
    actions.ask_offline(context, row("launches", id="L0"), "silent")
    assert requests() == [] and started == []
    for _ in range(2):
        actions.ask_offline(context, row("launches", id="L1"), "silent")
    assert [asked[1:3] for asked in requests()] == [("offline", "L1")]
    assert len(started) == 2, "what was written down may still have to be started"


def test_one_that_has_ended_is_not_offline(home, context, started, requests):
    home.launch("L2", 2, end="stopped")
    actions.ask_offline(context, row("launches", id="L2"), "silent")
    assert requests() == [] and started == [context]


def test_a_pause_has_an_end_and_can_be_ended(home, context):
    actions.pause(context, 99.5)
    assert home.ledger.meta("paused_until") == "99.5"
    actions.pause(context, None)
    assert home.ledger.meta("paused_until") is None


def test_the_newest_generations_come_first(context):
    shown = actions.generations(context, 1) + actions.generations(context, 10)
    assert [(one["number"], one["status"]) for one in shown] == [(2, "good"), (2, "good"), (1, "golden")]
    assert shown[0]["commit"].startswith("02") and "commit_id" not in shown[0]


@pytest.mark.parametrize("text", ["", "hello", "## Plan\n# Current Task\n"])
def test_what_is_no_task_is_refused(text):
    actions.check_task("# Current Task\n")
    with pytest.raises(AgentctlError, match="not a task file"):
        actions.check_task(text)


def test_what_is_halted_is_not_restarted(home, context):
    home.ledger.set_meta("halted", "nothing is left")
    with pytest.raises(AgentctlError, match="the agent is halted: nothing is left"):
        actions.restart(context, None, "")


def test_a_runner_that_is_away_has_no_terminal_to_show(context):
    assert actions.pane(context) == []
