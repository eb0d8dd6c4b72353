"""Whether the agent in this container is well: asked by the engine, and by `agentctl status` in it."""

import json

import pytest

from agentctl.cli import main


@pytest.mark.parametrize(("live", "status"), [
    ('{"launch_id": "a", "last_heartbeat_at": 1e12, "generation": 1, "phase": "steady"}', 0),
    ('{"launch_id": "a", "last_heartbeat_at": 1.0}', 3), ("{torn", 3), ("", 3),
])  # fmt: skip
def test_status_inside_reads_what_the_runner_wrote(monkeypatch, capfd, tmp_path, live, status):
    monkeypatch.setenv("AGENTCTL_CONTAINER", str(tmp_path))
    (tmp_path / "launch.json").write_text('{"launch_id": "a", "timeout_seconds": 5}')
    (tmp_path / "live.json").write_text(live)
    assert main.main(["status", "--json"]) == status
    assert json.loads(capfd.readouterr().out)["well"] is (status == 0)
