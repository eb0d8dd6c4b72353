"""The front of the command: what is not for here is told at once."""

import pytest

from agentctl.cli import main


@pytest.mark.parametrize("verb", ["rollback", "change", "generations", "init", "task", "config"])
def test_what_needs_the_records_says_that_it_is_for_outside(monkeypatch, capfd, verb):
    monkeypatch.setenv("AGENTCTL_CONTAINER", "/run/agentctl/agent")
    assert main.main(["--name", "agent", verb, "list"]) == 1
    said = capfd.readouterr().err
    assert f"'{verb}' does not work inside" in said and f"outside: agentctl --name agent {verb} list" in said
