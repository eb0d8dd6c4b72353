"""agentctl called by an agent's tool that passes no variables on finds the agent above it, and nobody else's."""

import json
import os
import sys
from pathlib import Path

from agentctl.host import procfs
from agentctl.runtime import runner_client
from kit import deadline

SOURCE = str(Path(runner_client.__file__).parents[2])
RECALL = (
    "import json, os\nfrom agentctl.runtime.runner_client import recall\n"
    "recall(os.environ)\nprint(json.dumps(dict(os.environ)))"
)
AGENT = {"AGENT_NAME": "robin", "AGENTCTL_ROOT": "/x", "NOTIFY_SOCKET": "/x/notify", "AGENT_SECRET": "no"}


def recalled(above, *given):
    """Return what a process recalls: started with the last of `given` by one with the one before, and so on up."""
    code = RECALL
    for environment in reversed(given or ({},)):
        started = {"PYTHONPATH": SOURCE, **environment}
        code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}], env={started!r})"
    done = deadline.run([sys.executable, "-c", code], env=above, capture_output=True, text=True, check=True)
    return {k: v for k, v in json.loads(done.stdout).items() if k.startswith(("AGENT", "NOTIFY"))}


def test_what_the_contract_says_comes_back():
    assert recalled(AGENT) == {k: v for k, v in AGENT.items() if k != "AGENT_SECRET"}


def test_who_says_what_is_meant_is_believed():
    for given in ({"AGENT_NAME": "wren"}, {"AGENTCTL_ROOT": "/y"}, {"AGENTCTL_SCOPE": "user"}):
        assert recalled(AGENT, given) == given


def test_an_empty_name_hides_the_agent_above():
    assert recalled(AGENT, {}, {}) != {}
    assert recalled(AGENT, {"AGENT_NAME": ""}, {}) == {}


def test_another_users_process_is_not_looked_at():
    assert runner_client.find(os.getpid(), os.geteuid() + 1) == {}
    assert procfs.user(os.getpid()) == os.geteuid()
    assert procfs.user(0) == -1
