"""Which agent is meant, and names that could not be an agent's."""

import pytest

from agentctl.cli.invocation import Invocation, check_name
from agentctl.core.errors import AgentctlError, UsageError


@pytest.mark.parametrize(("variable", "given", "name"), [(None, "", "agent"), ("", "", "agent"), ("wren", "", "wren"),
                                                          ("wren", "robin", "robin")])  # fmt: skip
def test_the_option_goes_before_the_variable(monkeypatch, variable, given, name):
    monkeypatch.delenv("AGENT_NAME", raising=False)
    if variable is not None:
        monkeypatch.setenv("AGENT_NAME", variable)
    assert Invocation(given).name == name


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".", "", "A", "a b", "x" * 33, "-a"])
def test_a_name_that_would_be_a_path_is_refused_before_anything_is_opened(name, monkeypatch):
    monkeypatch.delenv("AGENT_NAME", raising=False)
    with pytest.raises(UsageError, match="cannot be an agent's name"):
        check_name(name)
    if name:
        for use in (lambda: Invocation(name).config_path, lambda: Invocation(name).context()):
            with pytest.raises(UsageError):
                use()


def test_an_agent_is_opened_when_it_is_asked_for(home):
    call = Invocation("agent")
    assert call.config_path == home.paths.config_path
    assert call.context().paths.name == "agent"
    with pytest.raises(AgentctlError, match="there is no agent called 'nobody'"):
        Invocation("nobody").context()
