"""Make the archive of an adopted agent with a past, by the commands of one version and nothing else.

    git worktree add /tmp/old v0.1.0
    python tests/kit/old_version/make.py /tmp/old/watchdog tests/data/state-0.1.0.tar.xz

It holds two folders: `whole`, an agent that was stopped, and `cut`, the same one killed in the middle of a rollback;
beside each what that version said of it (`*.json`). Nothing here imports agentctl: it has to work with any version.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path

NAME = "old"
HERE = Path(__file__).resolve()
AGENT = HERE.parents[2] / "integration" / "breakable_agent.py"
PATIENCE_SECONDS = 120.0
PYTHON = sys._base_executable  # not one of a virtual environment, whose place would go into the agent's hook
CLI = "import sys; from agentctl.cli import main; sys.exit(main())"
SETTINGS = {"agent.stop_grace": "20s", "heartbeat.timeout": "20s", "probation.duration": "1s",
            "probation.heartbeats": "2", "probation.tries": "1", "state.restore": '["config/*"]',
            "rollback.ballast": "0", "rollback.restarts": "5", "retention.newest": "1",
            "change.lint": "[]"}  # fmt: skip
TASK = """# Current Task
Count the stars

## Conversation Context
The user wants them all

## Pending Actions
- [x] the northern half
- [ ] the southern half

## State
half way
"""
# Asked of an agent that does not run: what the answers say then is the same at any time.
ANSWERS = {
    "generations": ["generations"], "incidents": ["incidents"], "why": ["why"], "status": ["status"],
    "history": ["history", "tail", "-n", "1000"], "stored": ["history", "tail", "--stored", "-n", "1000"],
    "task": ["task", "show"], "changes": ["change", "list", "--all"], "snapshots": ["snapshot", "list"],
    "tokens": ["token", "list"], "config": ["config", "show"],
}  # fmt: skip
# The one-shot, killed at the step of that name: the trees are switched, and `.git` is not carried over yet.
CUT = """
import os, signal, sys
def trace(frame, event, _):
    if frame.f_code.co_name == "carry" and frame.f_code.co_filename.endswith("/recovery/attempt.py"):
        os.kill(os.getpid(), signal.SIGKILL)
from agentctl.recovery import rollback
sys.settrace(trace)
os._exit(rollback.main(sys.argv[1]))
"""


class Old:
    """One agent, handled by the version whose source is in the folder `source`."""

    def __init__(self, source: str, folder: Path) -> None:
        self.folder, self.code, self.state = folder, folder / "code", folder / "state"
        self.data = folder / "r" / "data" / NAME
        packages = os.pathsep.join([source, sysconfig.get_path("purelib")])
        self.env = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
            "PYTHONPATH": packages,
            "AGENTCTL_ROOT": str(folder / "r"),
            "AGENTCTL_SCOPE": "user",
            "AGENTCTL_RUNTIME": "direct",
        }
        self.running: list[subprocess.Popen] = []

    def ctl(self, *words: str, statuses: tuple = (0,)) -> str:
        done = subprocess.run(
            [PYTHON, "-c", CLI, "--name", NAME, *words],
            env=self.env,
            cwd="/",
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode in statuses, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def start(self, verb: str) -> None:
        with open(self.folder / f"{verb}.out", "ab") as out:
            self.running.append(
                subprocess.Popen(
                    [PYTHON, "-c", CLI, "--name", NAME, verb],
                    env=self.env,
                    cwd="/",
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                )
            )

    def stop(self) -> None:
        for running in self.running:
            running.send_signal(signal.SIGTERM)
        for running in self.running:
            running.wait(PATIENCE_SECONDS)
        self.running.clear()

    def kill(self) -> None:
        """End everything at one instant, as a power cut does."""
        for running in self.running:
            running.kill()
            running.wait(PATIENCE_SECONDS)
        self.running.clear()
        mark = f"AGENTCTL_ROOT={self.env['AGENTCTL_ROOT']}".encode()
        while left := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _has(pid, mark)]:
            for pid in left:
                os.kill(int(pid), signal.SIGKILL)

    def status(self) -> dict:
        return json.loads(self.ctl("status", "--json", statuses=(0, 3)))

    def until(self, is_true, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_true(self.status()):
            assert time.monotonic() < deadline, (what, self.status(), (self.folder / "supervise.out").read_text())
            time.sleep(0.2)

    def until_runs(self, generation: int, *phases: str) -> None:
        self.until(
            lambda s: s["generation"] == generation and s["phase"] in phases and s["last_heartbeat_at"],
            f"generation {generation} in {phases}",
        )

    def git(self, *words: str, folder: Path | None = None) -> None:
        env = {"PATH": self.env["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words],
            cwd=folder or self.code,
            env=env,
            check=True,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )

    def commit(self, files: dict[str, str], message: str, folder: Path | None = None) -> None:
        for name, text in files.items():
            Path(folder or self.code, name).write_text(text)
        self.git("add", "-A", folder=folder)
        self.git("commit", "-q", "--no-verify", "-m", message, folder=folder)

    def say(self, text: str) -> None:
        """Give the watchdog a message that the agent's own file does not have."""
        connection = http.client.HTTPConnection("agentctl", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.folder / "r" / "run" / NAME / "watchdog.sock"))
        body = json.dumps({"id": text, "at": "2026-01-01T00:00:00Z", "role": "user", "content": text})
        connection.request("POST", "/history", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status in (200, 201), (answer.status, answer.read())
        connection.close()

    # -- the past -----------------------------------------------------------------------------------------------

    def live_through_it(self) -> None:
        """Adopt; a generation that is good, one that is condemned, a change under way, a candidate on probation."""
        self.begin()
        self.commit({"behaviour.py": "MODE = 'healthy'\n\n# better\n"}, "better")
        self.ctl("restart")
        self.until_runs(2, "steady")
        self.say("from the watchdog alone")
        self.ctl("snapshot", "take")
        self.commit({"behaviour.py": "MODE = 'crash'\n"}, "worse")
        (self.state / "config" / "plan.json").write_text("the worse plan")
        self.ctl("restart", statuses=(0, 1))
        self.until(lambda s: (s["last_incident"] or {}).get("outcome") == "recovered", "the recovery")
        self.until_runs(2, "steady")
        self.ctl("change", "start", "feature/colour", "--about", "paint the stars")
        worktree = json.loads(self.ctl("change", "list", "--json"))[0]["worktree"]
        self.commit({"colour.txt": "blue\n"}, "blue", Path(worktree))
        self.ctl("change", "check", "feature/colour")
        self.ctl("config", "set", "probation.duration", "10m")
        self.commit({"behaviour.py": "MODE = 'healthy'\n\n# even better\n"}, "even better")
        self.ctl("restart")
        self.until_runs(4, "probation")
        self.stop()

    def begin(self) -> None:
        self.code.mkdir()
        self.git("init", "-q", "--template=", "-b", "main")
        (self.code / "agent.py").write_bytes(AGENT.read_bytes())
        self.commit({"behaviour.py": "MODE = 'healthy'\n", ".gitignore": "*.cache\n__pycache__/\n"}, "first version")
        (self.code / "ignored.cache").write_text("what git ignores\n")
        (self.state / "config").mkdir(parents=True)
        (self.state / "config" / "plan.json").write_text("the good plan")
        (self.state / "current_task.md").write_text(TASK)
        with sqlite3.connect(self.state / "memory.db") as memory:
            memory.execute("CREATE TABLE facts (text)")
            memory.execute("INSERT INTO facts VALUES ('there are many')")
        self.ctl("init", str(self.code), "--state-dir", str(self.state), "--", "python3", "agent.py")
        for key, value in SETTINGS.items():
            self.ctl("config", "set", key, value)
        self.ctl("pin", "1")
        self.start("watchdog")
        self.start("supervise")
        self.until_runs(1, "steady")
        self.ctl("token", "create", "--label", "reader", "--out", str(self.folder / "token"))

    def be_cut_off(self) -> None:
        """Run again, lose the power, and be killed in the middle of the rollback that follows."""
        self.start("watchdog")
        self.start("supervise")
        self.until_runs(4, "probation")
        self.kill()
        done = subprocess.run(
            [PYTHON, "-c", CUT, NAME],
            env={**self.env, "MONITOR_SERVICE_RESULT": "signal"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, (done.returncode, done.stdout, done.stderr)
        self.kill()
        assert not (self.code / ".git").exists()

    def keep(self, target: Path) -> None:
        """Copy everything as it lies, but what a boot takes away; then let the version say what it sees."""
        shutil.copytree(self.folder, target, symlinks=True, ignore=lambda top, names: [
            name for name in names if Path(top, name) in (self.folder / "r" / "run", self.folder / "kept")
            or name == "__pycache__" or name.endswith(".out")])  # fmt: skip
        folders = [self.code, *self.folder.glob(".code.agentctl/standby"),
                   *self.folder.glob(".code.agentctl/quarantine/*/tree")]  # fmt: skip
        about = {"folder": str(self.folder), "inodes": {
            str(path.relative_to(self.folder)): path.stat().st_ino for path in folders}}  # fmt: skip
        (target / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        (target / "said").mkdir()
        for answer, words in ANSWERS.items():
            if answer == "changes" and not (self.code / ".git").exists():
                continue  # in the middle of a switch there is no repository to ask
            said = self.ctl(*words, "--json", statuses=(0, 3)) if answer != "config" else self.ctl("--json", *words)
            (target / "said" / f"{answer}.json").write_text(said)


def _has(pid: str, mark: bytes) -> bool:
    try:
        return int(pid) != os.getpid() and mark in Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def pack(folder: Path, output: str) -> None:
    """Write the same bytes for the same files: in order, and without who made it."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(output, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


def main(source: str, output: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="agw", dir="/tmp"))
    kept = Path(tempfile.mkdtemp(prefix="agk", dir="/tmp"))
    old = Old(os.path.abspath(source), folder)
    try:
        old.live_through_it()
        old.keep(kept / "whole")
        old.be_cut_off()
        old.keep(kept / "cut")
        pack(kept, output)
    finally:
        old.kill()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(kept, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
