"""What status gathers: who is alive by /proc, who holds a lock, and what can be said of a ledger that is damaged."""

import json
import os
from pathlib import Path

import pytest

from agentctl.cli import status_document, status_facts
from agentctl.config.context import Lock
from agentctl.host import procfs
from kit import deadline
from ledger_builder import agentctl


def test_killed_agent_and_killed_runner(home):
    home.generation(1)
    home.launch(ready_at=home.now - 190)
    runner, agent = home.live()
    agent.kill()
    deadline.wait(agent)
    document = json.loads(agentctl("status", "--json").stdout)
    assert (document["phase"], document["agent"]["alive"]) == ("steady", False)
    runner.kill()
    deadline.wait(runner)
    done = agentctl("status", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["phase"] == "stopped"


def test_held_rollback_lock_means_rolling_back_and_is_not_touched(home):
    home.generation(1)
    with Lock(home.paths.rollback_lock_path, "a rollback").take():
        if not procfs.is_locked(home.paths.rollback_lock_path, procfs.read_locks()):
            pytest.skip("/proc/locks shows nothing here")
        found = status_facts.gather("agent", home.now)
        assert status_document.choose_phase(found) == "rolling-back"
    assert not status_facts.gather("agent", home.now).is_rolling_back


def test_boot_of_another_time_is_not_alive(home):
    home.generation(1)
    home.launch(boot="another", ready_at=home.now - 190)
    home.live()
    assert json.loads(agentctl("status", "--json").stdout)["phase"] == "stopped"


@pytest.mark.parametrize("damage", ["empty", "torn", "garbage", "missing"])
def test_damaged_ledger_is_said_and_what_runs_is_shown(home, damage):
    home.generation(1)
    home.launch(ready_at=home.now - 190)
    home.live()
    home.ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    home.ledger.close()
    path = home.paths.ledger_path
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    data = Path(path).read_bytes()
    torn = {
        "empty": b"",
        "torn": data[:4096] + os.urandom(len(data) - 4096),
        "garbage": b"x" * 9000,
    }
    if damage == "missing":
        os.unlink(path)
    else:
        Path(path).write_bytes(torn[damage])
    done = agentctl("status")
    assert done.returncode == 3, done.stderr
    assert "problem" in done.stdout and "ledger" in done.stdout
    assert "running   generation 1" in done.stdout
    assert max(map(len, done.stdout.split("\n"))) <= 80


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_ledger_of_another_user(home, monkeypatch):
    home.generation(1)
    home.live()
    os.chmod(home.root, 0o755)
    monkeypatch.setattr(status_facts, "_may_read", lambda path: False)
    found = status_facts.gather("agent", home.now)
    document = status_document.compose(found)
    assert not document["well"] and "sudo agentctl" in document["problems"][0]["hint"]
    assert document["agent"]["alive"]
