"""`agentctl resume`: what halted an agent counts no more, and a candidate may be tried once again."""

import pytest
from click.testing import CliRunner

from agentctl.cli import group
from agentctl.cli.invocation import Invocation
from agentctl.ledger import writers


@pytest.fixture
def resume(home):
    def run():
        done = CliRunner().invoke(group.root, ["resume"], obj=Invocation())
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_a_halted_agent_is_resumed_with_a_try_more(home, resume, ask):
    home.generation(2, "candidate")
    home.launch("L1", 2, end="failed")
    writers.set_tries(home.ledger, 2, 0)
    home.ledger.set_meta("halted", "nothing is left")
    assert resume() == "resumed; it was halted\n"
    assert ask("SELECT end FROM launches") == [("stopped",)] and ask("SELECT tries_left FROM generations") == [(1,)]
    assert home.ledger.meta("halted") is None and float(home.ledger.meta("limits_reset_at")) > 0


def test_a_paused_one_keeps_its_launch_and_one_that_is_neither_is_told_so(home, resume, ask):
    home.generation(2, "candidate")
    home.launch("L1", 2, end="failed")
    home.ledger.set_meta("paused_until", str(home.now + 60))
    assert resume() == "resumed; it was paused\n" and ask("SELECT end FROM launches") == [("failed",)]
    assert resume() == "it was neither paused nor halted\n"
