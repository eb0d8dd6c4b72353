"""The incidents as a table."""

import json

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
