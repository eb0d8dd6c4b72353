"""`agentctl status`: the phases, is it well, what comes next, and that it prints what it can."""

import copy
import json
import os
import sys
from pathlib import Path

import pytest

from agentctl.cli import status_document, status_facts, status_quick, status_text
from agentctl.cli.status_facts import StatusFacts
from agentctl.config import toml_file
from agentctl.config.context import Lock
from agentctl.host import procfs
from agentctl.ledger import models
from kit import deadline, rows
from ledger_builder import ROOT, Home, agentctl

NOW = 1_800_000_000.0
KEYS = {"name", "phase", "generation", "commit", "branch", "last_known_good", "tries_left"} | {
    "launch_id",
    "started_at",
    "last_heartbeat_at",
    "agent",
    "last_incident",
}
INCIDENT_KEYS = {"id", "trigger", "reason", "from", "to", "outcome", "seconds"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path, monkeypatch)
    yield made
    made.close()


def generation(number, status="good", **row):
    known = {"commit_id": "c" * 40, "branch": "main", "vault_commit": "d" * 40}
    blessed = NOW - 1000 + number if status == "good" else None
    return rows.row("generations", number=number, status=status, blessed_at=blessed, **{**known, **row})


def launch(number=5, **row):
    known = {"id": "L1", "generation": number, "started_at": NOW - 100, "ready_at": NOW - 90}
    return rows.row("launches", **{**known, **row})


def settings():
    document = {"agent": {"code": "/srv/agent", "command": ["python3", "agent.py"]}}
    return toml_file.check(document)


def facts(**known):
    """A steady agent on generation 5, as it is in all good times."""
    good = {
        "config": settings(),
        "has_ledger": True,
        "generations": [generation(4), generation(5)],
        "launch": launch(),
        "live": {"launch_id": "L1", "pid": 42, "last_heartbeat_at": NOW - 4, "heartbeats": 20},
        "is_runner_alive": True,
        "is_agent_alive": True,
        "is_locked": True,
    }
    return StatusFacts("agent", NOW, **{**good, **known})


def on_trial(**row):
    return [generation(4), generation(5, "candidate", tries_left=1, **row)]


DOWN = {"is_runner_alive": False, "is_agent_alive": False, "is_locked": False}
ENDED = launch(end="stopped", ended_at=NOW - 50)
INTENT = rows.row("attempts", incident="I", number=1, target=4, rung="last known good", is_open=1)
CRASHED = launch(end=models.FAILED, ended_at=NOW - 1, trigger="crash", reason="exit status 1")


@pytest.mark.parametrize(
    ("known", "phase", "is_well"),
    [
        ({}, "steady", True),
        ({"generations": on_trial()}, "probation", True),
        ({"launch": launch(ready_at=None)}, "starting", False),
        ({"launch": ENDED, **DOWN}, "stopped", False),
        ({"launch": ENDED, **DOWN, "is_locked": True}, "starting", False),
        ({"launch": CRASHED, **DOWN, "intent": INTENT}, "rolling-back", False),
        ({"launch": CRASHED, **DOWN, "is_rolling_back": True}, "rolling-back", False),
        ({"launch": CRASHED, **DOWN, "halted": "nothing left"}, "halted", False),
        ({"launch": CRASHED, **DOWN}, "stopped", False),
        ({"paused_until": NOW + 60}, "paused", False),
        ({"paused_until": NOW - 1}, "steady", True),
        ({"launch": launch(), **DOWN}, "stopped", False),  # the runner was killed
        ({"live": {"launch_id": "L0", "pid": 42}, "is_locked": True}, "starting", False),
        ({"is_agent_alive": False}, "steady", False),
        ({"live": {"launch_id": "L1", "last_heartbeat_at": NOW - 119}}, "steady", True),
        ({"live": {"launch_id": "L1", "last_heartbeat_at": NOW - 121}}, "steady", False),
        (
            {"live": {"launch_id": "L1", "last_heartbeat_at": NOW - 600, "agent_phase": "waiting"}},
            "steady",
            True,
        ),
        ({"live": {"launch_id": "L1"}}, "steady", True),  # ready a moment ago, no beat yet
        ({"launch": None, "generations": [], **DOWN}, "stopped", False),
        ({"config": None}, "steady", True),
        ({"has_ledger": False, "launch": None, "generations": []}, "starting", False),
    ],
)
def test_phase(known, phase, is_well):
    document = status_document.compose(facts(**known))
    assert (document["phase"], document["well"]) == (phase, is_well)
    assert document["phase"] in status_document.PHASES
    assert document["well"] or document["because"]


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, "a failure now: restart (3 of 3 left in 30m), then generation 5 put back whole"),
        (
            {"recent": [rows.row("attempts", at=NOW - 9, rung="restart", target=5)]},
            "a failure now: restart (2 of 3 left in 30m), then",
        ),
        ({"generations": on_trial()}, "on probation: good in about 30s if it keeps beating; 1 try"),
        (
            {"generations": on_trial()},
            "a failure now: restart (1 try left), then generation 4 (last known good)",
        ),
        (
            {"generations": [generation(4), generation(5, "candidate")]},
            "a failure now: generation 4 (last known good)",
        ),
        ({"generations": [generation(5, "candidate")]}, "a failure now: halted until a human acts"),
        (
            {
                "generations": on_trial(),
                "launch": launch(ready_at=NOW - 500),
                "live": {"launch_id": "L1", "heartbeats": 3, "last_heartbeat_at": NOW - 1},
            },
            "good after 2 more heartbeats",
        ),
        ({"launch": launch(ready_at=None, started_at=NOW - 30)}, "it has 1m left to become ready"),
        ({"launch": ENDED, **DOWN}, "agentctl start starts generation 5"),
        ({"intent": INTENT, "step": "switch"}, "to generation 4 (last known good), step 'switch'"),
        ({"halted": "x", **DOWN}, "agentctl why"),
        ({"paused_until": NOW + 9}, "agentctl resume"),
    ],
)  # fmt: skip
def test_what_comes_next(known, sentence):
    assert sentence in " | ".join(status_document.compose(facts(**known))["next"])


def test_the_first_heartbeat_is_known_before_the_live_status_tells_it():
    known = facts(launch=launch(first_beat_at=NOW - 9), live={"launch_id": "L1"})
    assert status_document.compose(known)["last_heartbeat_at"] == NOW - 9


def test_the_forecast_does_not_change_the_facts():
    known = facts(generations=on_trial())
    before = copy.deepcopy((known.generations, known.attempts, known.recent))
    status_document.compose(known)
    assert (known.generations, known.attempts, known.recent) == before


def test_text_is_narrow_clean_and_says_first_whether_it_is_well():
    incident = rows.row(
        "incidents",
        id="20270115-000000-abcdef",
        at=NOW - 300,
        trigger="crash",
        reason="boom",
        generation_from=6,
        generation_to=5,
        decision="rollback",
        outcome="recovered",
        ended_at=NOW - 297.7,
    )
    known = facts(incident=incident, generations=on_trial(branch="feature/" + "x" * 90))
    known.add_problem("no \x1b[31mred\x1b[0m\x07 " + "/long/path" * 20, "look \x9b2J there")
    lines = status_text.render(status_document.compose(known), NOW).split("\n")
    assert lines[0] == "agent is well: probation"
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert "  incident  5m ago: crash, 6 -> 5: recovered in 2.3s (agentctl why)" in lines


def test_every_phase_renders_within_80_columns():
    for known in (
        {},
        {"launch": ENDED, **DOWN},
        {"halted": "why " * 60, **DOWN},
        {"intent": INTENT},
    ):
        text = status_text.render(status_document.compose(facts(**known)), NOW)
        assert max(map(len, text.split("\n"))) <= 80


# --- the real thing: a ledger, processes, the door


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


def test_click_and_the_quick_way_say_the_same(home):
    home.generation(1)
    home.launch(end="stopped", at=home.now - 5)
    assert status_quick.parse(["status", "--json", "--help"]) is None
    slow = agentctl("status", "--json", "--json")
    assert slow.returncode == 3 and json.loads(slow.stdout)["phase"] == "stopped"


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        (["status"], ("agent", False)),
        (["--name", "bob", "status", "--json"], ("bob", True)),
        (["status", "-h"], None),
        (["status", "status"], None),
        (["status", "--name"], None),
        ([], None),
        (["start"], None),
    ],
)
def test_simple_shapes(words, parsed, monkeypatch):
    monkeypatch.delenv("AGENT_NAME", raising=False)
    assert status_quick.parse(words) == parsed


def test_quick_way_loads_no_click(home):
    home.generation(1)
    code = "import sys; from agentctl.cli.main import main; main(['status']); print('click' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog"}
    done = deadline.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.endswith("False\n")


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


def test_a_stranger_with_the_runners_number_is_no_runner(home):
    stranger = home.process("something", "else")
    assert not procfs.is_runner(stranger.pid, "agent")
    assert not procfs.is_runner(0, "agent")
    assert procfs.is_runner(home.process("runner", "agent").pid, "agent")


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
