"""One look at an agent: what ends between two glances is not taken for something else."""

from agentctl.generations.agent_context import AgentContext
from agentctl.watchdog import observation


def test_a_runner_that_ends_during_the_look_is_not_a_machine_that_went_down(home, monkeypatch):
    """Where the watchdog sees another boot id (a container), only the living runner speaks for the launch."""
    home.launch(boot="another", ready_at=home.now - 190)
    home.live("L1")
    read = observation._read_ledger

    def ends_while_it_is_read(context, seen):
        read(context, seen)
        monkeypatch.setattr(observation.procfs, "is_runner", lambda pid, name: False)

    monkeypatch.setattr(observation, "_read_ledger", ends_while_it_is_read)
    context = AgentContext.open("agent")
    seen = observation.look(context)
    assert observation.why_not_expected(context, seen) == (False, "")
    seen = observation.look(context, seen)
    assert observation.why_not_expected(context, seen) == (False, "not started since the machine came up")
