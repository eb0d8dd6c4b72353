"""Where the agent's log is read: the journal, or the file of the runtime `direct`."""

import pytest

from agentctl.cli import agent_verbs
from agentctl.core.paths import SYSTEM, USER, AgentPaths
from ledger_builder import agentctl


@pytest.mark.parametrize(
    ("scope", "arguments", "expected"),
    [
        (SYSTEM, {}, "-u a.service -u a-rollback.service -u a-rescue.service -n 200 --output=short-iso"),
        (USER, {"lines": 5}, "--user -u a.service -u a-rollback.service -u a-rescue.service -n 5"),
        (SYSTEM, {"follow": True}, "-n 200 --follow --output"),
        (SYSTEM, {"follow": True, "since": "-1h"}, "--no-tail --follow --since=-1h --output"),
        (SYSTEM, {"fields": {"AGENTCTL_LAUNCH_ID": "L"}}, "short-iso AGENTCTL_LAUNCH_ID=L"),
        (SYSTEM, {"fields": {"AGENTCTL_GENERATION": 0}, "as_json": True}, "json AGENTCTL_GENERATION=0"),
    ],
)  # fmt: skip
def test_journal_call(scope, arguments, expected):
    known = {"follow": False, "lines": None, "since": "", "fields": {}, "as_json": False}
    argv = agent_verbs.journal_argv(AgentPaths("a", scope, {"HOME": "/h"}, 0), **{**known, **arguments})
    assert expected in " ".join(argv)


def test_kept_file_of_the_direct_runtime(home):
    with open(f"{home.paths.data_dir}/agent.log", "w") as file:
        file.write("one\n\x1b[31mtwo\x1b[0m\nthree\n")
    assert agentctl("logs", "-n", "2").stdout == "two\nthree\n"
    refused = agentctl("logs", "--launch", "L1")
    assert refused.returncode == 2 and "cannot be filtered" in refused.stderr
