"""The incidents as a table."""

import json
import os

import pytest

from agentctl.cli.incident_verbs import tell_awaited
from ledger_builder import INCIDENT_KEYS, agentctl


def test_incidents(home):
    assert agentctl("incidents").stdout == "no incident yet\n"
    home.incident(outcome="recovered", ended_at=home.now - 98)
    home.incident("20260202-000000-123456", at=home.now, reason="long " * 40, generation_to=None)
    lines = agentctl("incidents").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "20260202" in lines[1] and "open" in lines[1] and "2 -> 1" in lines[3]
    assert lines[2].startswith("  long long") and lines[4] == "  exit status 1 after 3.0s"
    rows = json.loads(agentctl("incidents", "--json").stdout)
    assert rows[0]["id"].startswith("20260202") and all(row.keys() >= INCIDENT_KEYS for row in rows)
    assert len(json.loads(agentctl("incidents", "-n", "1", "--json").stdout)) == 1


@pytest.mark.parametrize(("more", "is_told"), [
    ({}, True), ({"waits_for": ""}, False), ({"runner_pid": 0}, False), ({"runner_pid": 2**22 + 1}, False),
])  # fmt: skip
def test_why_begins_with_what_a_launch_waits_for(tmp_path, more, is_told):
    live = {"runner_pid": os.getpid(), "generation": 3, "started_at": 0, "waits_for": "READY=1", "helps": "agentctl go"}
    path = tmp_path / "live.json"
    path.write_text(json.dumps({**live, **more}))
    told = tell_awaited(str(path))
    assert bool(told) is is_told
    if is_told:
        assert "Generation 3 is not ready after" in told and told.endswith("If that never comes: agentctl go")
