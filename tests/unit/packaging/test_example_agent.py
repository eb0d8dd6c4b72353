"""The example agent as a real process; the test is its runner, and once its rollback."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

import agentctl
from agentctl.state.task import parse
from kit import deadline

SOURCE = os.path.dirname(os.path.dirname(agentctl.__file__))
EXAMPLE = os.path.join(os.path.dirname(SOURCE), "packaging", "example_agent")
SILENCE_SECONDS, PATIENCE_SECONDS = 2.0, 120  # silence in its own CPU time: a busy machine holds up both

pytestmark = pytest.mark.skipif(shutil.which("git") is None and not os.environ.get("CI"), reason="git is not installed")


class World:
    """One example agent, its folders, and what its runner hears."""

    def __init__(self, folder):
        self.code, self.state = str(folder / "code"), str(folder / "state")
        self.brief = str(folder / "brief.md")
        deadline.run([f"{EXAMPLE}/create", self.code, self.state], check=True)
        self.notify = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.notify)
        self.launches, self.heard, self.process = 0, [], None

    def launch(self):
        """Run the agent until it ends, is silent or idle; return its status, "silent" or "idle"."""
        self.launches += 1
        self.heard = []
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PYTHONPATH": SOURCE,
            "EXAMPLE_TICK": "0.02",
            "NOTIFY_SOCKET": self.notify,
            "WATCHDOG_USEC": "400000",
            "AGENT_GENERATION": str(self.launches),
            "AGENT_CODE_DIR": self.code,
            "AGENT_STATE_DIR": self.state,
            "AGENT_TASK_FILE": f"{self.state}/current_task.md",
            "AGENT_HISTORY_FILE": f"{self.state}/history.jsonl",
            "AGENT_RESUMED": "1" if os.path.exists(f"{self.state}/history.jsonl") else "0",
        }
        if os.path.exists(self.brief):
            env["AGENT_BRIEF_FILE"] = self.brief
        self.process = subprocess.Popen([sys.executable, "agent.py"], env=env, cwd=self.code)
        try:
            return self._watch()
        finally:
            self.process.kill()
            deadline.wait(self.process)

    def _watch(self):
        over = time.monotonic() + PATIENCE_SECONDS
        last_heard_at = None
        self.socket.settimeout(0.05)
        while time.monotonic() < over:
            try:
                self.heard.append(self.socket.recv(4096).decode())
                last_heard_at = self._cpu_seconds()
                if "PHASE=idle" in self.heard[-1]:
                    return self._asked_to_stop()
            except TimeoutError:
                if self.process.poll() is not None:
                    return self.process.returncode
                if last_heard_at is not None and self._cpu_seconds() - last_heard_at > SILENCE_SECONDS:
                    return "silent"
        raise AssertionError(f"nothing happened in {PATIENCE_SECONDS} s: {self.heard}")

    def _cpu_seconds(self):
        """Return how long the agent has worked: what hangs in it goes on working."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _asked_to_stop(self):
        self.process.terminate()
        return "idle" if deadline.wait(self.process, timeout=60) == 0 else self.process.returncode

    def git(self, *words):
        argv = ["git", "-C", self.code, *words]
        return deadline.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def roll_back(self, to):
        self.git("reset", "--quiet", "--hard", to)
        with open(self.brief, "w") as file:
            file.write("## You were rolled back\nno heartbeat for 1s")

    def task(self):
        with open(f"{self.state}/current_task.md", newline="") as file:
            return parse(file.read())

    def history(self):
        with open(f"{self.state}/history.jsonl") as file:
            return [json.loads(line) for line in file]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.socket.close()


def actions(task):
    assert all(done for done, _ in task.pending)
    return [text for _, text in task.pending]


def test_improves_itself_hangs_is_rolled_back_and_finishes(world):
    first = world.git("rev-parse", "HEAD")
    assert world.launch() == 75
    assert world.heard[0] == "READY=1"
    assert "X_AGENTCTL_PROGRESS=0" in world.heard[1]
    improved = world.git("rev-parse", "HEAD")
    assert improved != first and world.git("branch", "--show-current") == "main"

    assert world.launch() == 75
    assert world.git("log", "-1", "--format=%s") == "speed up"

    assert world.launch() == "silent"
    world.roll_back(improved)
    assert world.launch() == "idle"
    assert not os.path.exists(world.brief)

    done = actions(world.task())
    assert [text.partition(" (")[0] for text in done] == [
        "count words in README.md",
        "write note I can read",
        "improve myself",
        "count lines in skills.py",
        "speed up",
        "count lines in agent.py",
        "write note I am still here",
    ]
    assert done[4] == "speed up (undone by rollback)"
    assert done[3].endswith(" lines)") and done[0].endswith(" words)")
    said = [message["content"] for message in world.history()]
    assert any("The brief says:\n## You were rolled back\nno heartbeat" in text for text in said)
    assert len({message["id"] for message in world.history()}) == len(said)
    with open(f"{world.state}/notes.txt") as file:
        assert file.read() == "I can read\nI am still here\n"
    assert world.git("status", "--porcelain") == ""
    assert world.launch() == "idle", "a second launch finds nothing to do and no brief"


@pytest.mark.parametrize("is_state_old_too", [False, True])
def test_an_innocent_change_that_went_with_the_harmful_one_is_redone(world, is_state_old_too):
    first = world.git("rev-parse", "HEAD")
    with open(f"{world.state}/current_task.md", "rb") as file:
        first_task = file.read()
    assert [world.launch(), world.launch(), world.launch()] == [75, 75, "silent"]
    world.roll_back(first)
    if is_state_old_too:
        with open(f"{world.state}/current_task.md", "wb") as file:
            file.write(first_task)
    assert world.launch() == 75, "improves itself once more"
    assert world.launch() == "idle"
    done = actions(world.task())
    assert "improve myself (changed my source)" in done
    assert "speed up (undone by rollback)" in done
    assert world.git("log", "--format=%s").split("\n")[0] == "improve myself"


def test_an_action_without_a_skill_does_not_stop_the_others(world):
    with open(f"{world.state}/current_task.md", "w") as file:
        file.write(
            "# T\n## Pending Actions\n- [ ] fly (high)\n- [ ] count words in none.md\n"
            "- [ ] rest 0.1\n- [ ] write note a\n- [ ] write note a\n"
        )
    assert world.launch() == "idle"
    done = actions(world.task())
    assert done[0] == "fly (high) (I have no skill for that)"
    assert "failed: " in done[1]
    assert done[2:] == ["rest 0.1 (rested)", "write note a (noted)", "write note a (noted)"]


def test_create_refuses_to_overwrite(world):
    again = deadline.run([f"{EXAMPLE}/create", world.code, world.state], capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: ") and "\nHint: " in again.stderr
