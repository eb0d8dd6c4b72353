"""A home of one agent in a temp folder: real paths, a real agent.toml, a real ledger, for the views."""

import json
import os
import pathlib
import subprocess
import sys
import time

from agentctl.config.context import boot_id
from agentctl.core.paths import USER, AgentPaths
from agentctl.ledger import writers
from agentctl.ledger.database import Ledger
from kit import deadline, story

# What every incident shows in JSON (docs/cli.md).
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
    """Has the product's writers make rows, with instants around `now` and with defaults for what nobody asks."""

    def __init__(self, tmp_path, monkeypatch, name="agent"):
        self.root, self.children = tmp_path, []
        monkeypatch.setenv("AGENTCTL_ROOT", str(tmp_path))
        monkeypatch.setenv("AGENTCTL_SCOPE", "user")
        for variable in ("AGENT_NAME", "AGENT_API_URL", "AGENTCTL_DEBUG"):
            monkeypatch.delenv(variable, raising=False)
        self.paths = AgentPaths(name, USER, dict(os.environ), os.getuid())
        for folder in (self.paths.config_dir, self.paths.data_dir, self.paths.runtime_dir):
            os.makedirs(folder)
        self.code = tmp_path / "code"
        self.code.mkdir()
        toml = TOML.format(code=self.code, user="root")
        with open(self.paths.config_path, "w") as file:
            file.write(toml)
        self.ledger = Ledger.create(self.paths.ledger_path)
        self.now = time.time()
        self.title = f"{name} in {tmp_path.name}"
        story.register(self.title, self.tell_story)

    def generation(self, number, status="good", *, reason="", branch="main", vault_commit="", is_golden=False):
        snapshot = f"{number:06d}"
        writers.add_generation(
            self.ledger,
            number,
            vault_commit=vault_commit or f"{number:040x}",
            commit_id=f"{number:02d}" + "c" * 38,
            tree=f"{number:02d}" + "e" * 38,
            branch=branch,
            status="candidate",
            source="capture",
            created_at=self.now - 7200 + number,
            tries_left=2,
            reason=reason,
        )
        writers.set_snapshot(self.ledger, number, snapshot)
        if status == "good":
            writers.bless(self.ledger, number, at=self.now - 3600 + number, reason=reason, snapshot=snapshot)
        elif status == "condemned":
            writers.condemn(self.ledger, number, at=self.now - 100, reason=reason)
        if is_golden:
            writers.set_golden(self.ledger, number)

    def launch(self, id="L1", generation=1, *, boot=None, ready_at=None, end="", **how):
        """Begin a launch; with `end` it has ended, at `ended_at` and as `how` has it."""
        boot = boot or boot_id()
        writers.begin_launch(self.ledger, id, generation, at=self.now - 200, boot_id=boot, snapshot="000001")
        if ready_at is not None:
            writers.set_ready(self.ledger, id, ready_at)
        if end:
            known = {"at": self.now - 100, "trigger": "", "reason": ""}
            writers.end_launch(self.ledger, id, end, **{**known, **how})

    def incident(self, id="20260101-000000-abcdef", evidence=None, *, outcome="", ended_at=None, **row):
        """Open an incident that is decided; with `outcome` it is over."""
        decided = {"decision": "rollback: last known good", "generation_to": 1}
        decided |= {name: row.pop(name) for name in tuple(row) if name in decided}
        known = {
            "at": self.now - 100,
            "trigger": "crash",
            "reason": "exit status 1 after 3.0s",
            "launch": "L1",
            "generation_from": 2,
        }
        writers.open_incident(self.ledger, id, **{**known, **row})
        writers.set_decision(self.ledger, id, **decided)
        writers.set_evidence(self.ledger, id, json.dumps(evidence or {}))
        if outcome:
            writers.end_incident(self.ledger, id, outcome, at=ended_at)

    def attempt(self, incident="20260101-000000-abcdef", number=1, **row):
        """Write down an attempt that is carried out."""
        known = {"at": self.now - 99, "rung": "last known good", "target": 1}
        known["reason"] = "exit status 1 after 3.0s; no tries left"
        writers.add_attempt(self.ledger, incident, number, is_open=True, **{**known, **row})
        writers.close_attempt(self.ledger, incident, number)

    def step(self, name, seconds=0.1, detail="", incident="20260101-000000-abcdef", attempt=1):
        began = self.now - 99
        writers.begin_step(self.ledger, incident, attempt, name, at=began)
        writers.end_step(self.ledger, incident, attempt, name, at=began + seconds, detail=detail)

    def live(self, launch_id="L1", **facts):
        """Write the live status of a runner and an agent that really are processes."""
        runner, agent = self.process("runner", self.paths.name), self.process("agent")
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
        with open(self.paths.live_status_path, "w") as file:
            json.dump({**known, **facts}, file)
        return runner, agent

    def process(self, *words):
        child = subprocess.Popen(["/bin/sh", "-c", "read _; :", *words], stdin=subprocess.PIPE)
        self.children.append(child)
        words_path = pathlib.Path(f"/proc/{child.pid}/cmdline")
        deadline.until(words_path.read_bytes, "the kernel to know the words, a moment after Popen returns")
        return child

    def tell_story(self):
        environment = {"AGENTCTL_ROOT": str(self.root), "AGENTCTL_SCOPE": "user"}
        return story.of_agent(self.paths.name, environment, str)

    def close(self):
        story.unregister(self.title)
        self.ledger.close()
        for child in self.children:
            child.kill()
            deadline.wait(child)


def agentctl(*words, **environment):
    """Run the real door in a process of its own."""
    code = "import sys; from agentctl.cli.main import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog", "TZ": "UTC", **environment}
    return deadline.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=60)
