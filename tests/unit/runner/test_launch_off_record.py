"""A launch that the real ledger knows nothing of: a bare one serves it, and failures follow each other slowly."""

from types import SimpleNamespace

import pytest

from agentctl.core.errors import LaunchRefused, TooNew
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import models, writers
from agentctl.runner import launch_off_record

NEWER = TooNew("ledger", 9, 1)


@pytest.fixture
def context(home):
    return AgentContext.open("agent")


def begin(context):
    ledger, begun = launch_off_record.begin_beside(context, NEWER, lambda text: None)
    return ledger, begun


def test_the_launch_is_on_a_bare_ledger_and_the_real_one_is_as_it_was(home, context, ask):
    home.generation(7)
    ledger, _ = launch_off_record.begin_off_record(context)
    ledger.close()
    assert ledger.path.startswith(home.paths.runtime_dir)
    ledger, begun = launch_off_record.begin_off_record(context)
    with ledger:
        assert ask("SELECT id, generation FROM launches", path=ledger.path) == [(begun.id, 0)], "of the last one only"
        assert ask("SELECT number, status FROM generations", path=ledger.path) == [(0, "good")]
    assert ask("SELECT number FROM generations") == [(7,)] and ask("SELECT * FROM launches") == []


@pytest.mark.parametrize(
    ("end", "waits"),
    [(models.STOPPED, False), (models.ASKED, False), (models.FAILED, True), (models.RUNNING, True)],
)
def test_after_a_failure_there_is_a_pause(home, context, monkeypatch, end, waits):
    slept = []
    monkeypatch.setattr(launch_off_record.time, "sleep", slept.append)
    ledger, begun = begin(context)
    with ledger:
        if end:
            writers.end_launch(ledger, begun.id, end, at=5.0, trigger="", reason="")
    begin(context)[0].close()
    assert [0 < seconds <= launch_off_record.PAUSE_SECONDS for seconds in slept] == [True] * waits


def test_in_the_middle_of_a_switch_nothing_is_launched(context):
    context.slots = SimpleNamespace(is_moving=True)
    with pytest.raises(LaunchRefused, match="a switch of the trees is under way"):
        begin(context)
