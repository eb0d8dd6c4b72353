"""A home of one agent in a temp folder: real paths, a real agent.toml, a real ledger, for the views."""

import json
import os
import pathlib
import subprocess
import sys
import time

from agentctl.paths import USER, Places
from agentctl.records.ledger import Ledger
from agentctl.station import boot_id
from kit import deadline

# What every incident shows in JSON (DESIGN, the command line).
INCIDENT_KEYS = {"id", "at", "trigger", "evidence", "decision", "from", "to", "steps", "outcome", "seconds"}
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOML = """\
[agent]
name = "agent"
code = "{code}"
command = ["python3", "agent.py"]
user = "{user}"
branch = "main"
"""


class Home:
    """Builds rows with defaults; every keyword is a column."""

    def __init__(self, tmp_path, monkeypatch, name="agent"):
        self.root, self.children = tmp_path, []
        monkeypatch.setenv("AGENTCTL_ROOT", str(tmp_path))
        monkeypatch.setenv("AGENTCTL_SCOPE", "user")
        for variable in ("AGENT_NAME", "AGENT_API_URL", "AGENTCTL_DEBUG"):
            monkeypatch.delenv(variable, raising=False)
        self.places = Places(name, USER, dict(os.environ), os.getuid())
        for folder in (self.places.config_dir, self.places.data_dir, self.places.runtime_dir):
            os.makedirs(folder)
        self.code = tmp_path / "code"
        self.code.mkdir()
        toml = TOML.format(code=self.code, user="root")
        with open(self.places.config_path, "w") as file:
            file.write(toml)
        self.ledger = Ledger.create(self.places.ledger_path)
        self.now = time.time()

    def generation(self, number, status="good", **row):
        blessed = self.now - 3600 + number if status == "good" else None
        known = {
            "vault_commit": f"{number:040x}",
            "commit_id": f"{number:02d}" + "c" * 38,
            "tree": f"{number:02d}" + "e" * 38,
            "branch": "main",
            "source": "capture",
            "created_at": self.now - 7200 + number,
            "blessed_at": blessed,
            "tries_left": 2,
            "snapshot": f"{number:06d}",
        }
        self.ledger.insert("generations", number=number, status=status, **{**known, **row})

    def launch(self, id="L1", generation=1, **row):
        known = {"started_at": self.now - 200, "boot_id": boot_id(), "snapshot": "000001"}
        self.ledger.insert("launches", id=id, generation=generation, **{**known, **row})

    def incident(self, id="20260101-000000-abcdef", evidence=None, **row):
        known = {
            "at": self.now - 100,
            "trigger": "crash",
            "reason": "exit status 1 after 3.0s",
            "launch": "L1",
            "generation_from": 2,
            "generation_to": 1,
            "decision": "rollback: last known good",
            "evidence": json.dumps(evidence or {}),
        }
        self.ledger.insert("incidents", id=id, **{**known, **row})

    def attempt(self, incident="20260101-000000-abcdef", number=1, **row):
        known = {"at": self.now - 99, "rung": "last known good", "target": 1, "is_open": 0}
        known["reason"] = "exit status 1 after 3.0s; no tries left"
        self.ledger.insert("attempts", incident=incident, number=number, **{**known, **row})

    def step(self, name, seconds=0.1, detail="", incident="20260101-000000-abcdef", attempt=1):
        began = self.now - 99
        self.ledger.insert(
            "steps",
            incident=incident,
            attempt=attempt,
            name=name,
            started_at=began,
            ended_at=None if seconds is None else began + seconds,
            detail=detail,
        )

    def live(self, launch_id="L1", **facts):
        """Write the live status of a runner and an agent that really are processes."""
        runner, agent = self.process("runner", self.places.name), self.process("agent")
        known = {
            "launch_id": launch_id,
            "generation": 1,
            "runner_pid": runner.pid,
            "pid": agent.pid,
            "started_at": self.now - 200,
            "last_heartbeat_at": self.now - 1,
            "heartbeats": 57,
            "agent_phase": "working",
            "phase": "steady",
        }
        with open(self.places.live_status_path, "w") as file:
            json.dump({**known, **facts}, file)
        return runner, agent

    def process(self, *words):
        child = subprocess.Popen(["/bin/sh", "-c", "read _; :", *words], stdin=subprocess.PIPE)
        self.children.append(child)
        words_path = pathlib.Path(f"/proc/{child.pid}/cmdline")
        deadline.until(words_path.read_bytes, "the kernel to know the words, a moment after Popen returns")
        return child

    def close(self):
        self.ledger.close()
        for child in self.children:
            child.kill()
            deadline.wait(child)


def agentctl(*words, **environment):
    """Run the real door in a process of its own."""
    code = "import sys; from agentctl.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog", "TZ": "UTC", **environment}
    return deadline.run(
        [sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=60
    )
