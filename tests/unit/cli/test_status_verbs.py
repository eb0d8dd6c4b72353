"""`agentctl status` as it is called: from a real ledger and real processes, in JSON and in words."""

import json
from pathlib import Path

import pytest

from ledger_builder import agentctl

KEYS = {"name", "phase", "generation", "commit", "branch", "last_known_good", "tries_left"} | {
    "launch_id",
    "started_at",
    "last_heartbeat_at",
    "agent",
    "last_incident",
}


INCIDENT_KEYS = {"id", "trigger", "reason", "from", "to", "outcome", "seconds"}


def test_well(home):
    home.generation(1, is_golden=1)
    home.launch(ready_at=home.now - 190)
    home.live()
    home.incident(outcome="recovered", ended_at=home.now - 97.5)
    done = agentctl("status", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert document.keys() >= KEYS
    assert document["agent"].keys() >= {"pid", "alive"}
    assert document["last_incident"].keys() >= INCIDENT_KEYS
    assert document["last_incident"]["seconds"] == pytest.approx(2.5)
    assert document["started_at"].endswith("Z") and len(document["started_at"]) == 24
    assert (document["phase"], document["generation_status"]) == ("steady", "golden")
    assert agentctl("status").stdout.startswith("agent is well: steady\n")


@pytest.mark.parametrize("words", [("--json", "status"), ("status", "--json", "--name=agent")])
def test_options_before_and_after_the_verb(home, words):
    home.generation(1)
    assert json.loads(agentctl(*words).stdout)["phase"] == "stopped"


def test_broken_settings_are_said(home):
    home.generation(1)
    Path(home.paths.config_path).write_text("[agent\n")
    done = agentctl("status", "--json")
    assert "agent.toml" in json.loads(done.stdout)["problems"][0]["message"]


def test_unknown_agent(home):
    done = agentctl("status", "--name", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no agent called 'nobody'")
    assert "Hint:  agentctl init" in done.stderr


def test_a_name_is_no_path(home):
    assert agentctl("status", "--name", "../../etc").returncode == 2
