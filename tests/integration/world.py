"""A world to break: a real repository, a state folder, an adopted agent, a supervisor as a child process.

Everything lives in one short temporary folder (sockets have a length limit) and ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agentctl.changes import adopt
from agentctl.core.paths import SYSTEM, USER, AgentPaths
from agentctl.host import procfs
from agentctl.ledger.database import Ledger, LedgerDamaged
from agentctl.recovery import requests
from kit import deadline, rows, story

HERE = Path(__file__).resolve()
SOURCE = str(Path(adopt.__file__).resolve().parents[2])
AGENT = HERE.with_name("breakable_agent.py").read_text()
SUPERVISE = """
import sys
from agentctl.generations.agent_context import AgentContext
from agentctl.runtime.foreground import Supervisor
sys.exit(Supervisor(AgentContext.open(sys.argv[1]), sys.argv[1], print).run())
"""
ROLLBACK = """
import os, sys
from agentctl.recovery import process as rollback
os._exit(rollback.main(sys.argv[1]))
"""
PATIENCE_SECONDS = 90.0  # for what another process has to do, on a machine that is busy with something else
QUICK = {  # but a busy machine's pause of some seconds is no failure of the agent's
    "agent": {"ready_timeout": "60s", "stop_grace": "20s"},
    "heartbeat": {"from": "notify", "timeout": "20s", "longest_wait": "60s"},
    "probation": {"duration": "10m", "heartbeats": 2, "tries": 2},
    "state": {"restore": ["config/*"]},
    "rollback": {"restarts": 1, "ballast": "0"},
}
HANGS = {"heartbeat": {"timeout": "8s", "longest_wait": "20s"}}  # for an agent whose silence is waited for


def git(folder, *words: str, **more) -> str:
    """Run git as a person would, without this machine's settings; return what it says."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    argv = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "protocol.file.allow=always",
        "-c",
        "safe.directory=*",
        *words,
    ]
    done = deadline.run(argv, cwd=folder, env=env, capture_output=True, **more)
    assert done.returncode == 0, (words, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def wait_until(ask, what: str, limit_seconds: float = PATIENCE_SECONDS):
    """Poll until `ask()` is true and return it; fail with `what` after the limit."""
    is_so, answer = deadline.poll(ask, limit_seconds)
    assert is_so, f"waited {limit_seconds:g}s in vain for {what}"
    return answer


def make_repository(folder: Path, files: dict[str, str | bytes], branch: str = "main") -> Path:
    """Make a repository with one commit of `files`."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", branch)
    write(folder, files)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first version")
    return folder


def write(folder, files: dict[str, str | bytes]) -> None:
    """Write files below `folder`."""
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file, none if it is not there; what has no end yet is being written at this moment."""
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError:
        return []
    return [f"{line}\n" for line in lines[:-1]]


def merged(one: dict, other: dict) -> dict:
    """Return the settings of both, section by section; `other` wins."""
    return {section: {**one.get(section, {}), **other.get(section, {})} for section in {**one, **other}}


class World:
    """One agent, adopted and breakable."""

    def __init__(
        self, monkeypatch, settings: dict | None = None, *, branch: str = "main", parent: str = "/tmp", owner: str = ""
    ) -> None:
        """Make it in a new folder in `parent`; with `owner` the agent is another user and the scope `system`."""
        self.folder = Path(tempfile.mkdtemp(prefix="agw", dir=parent))
        scope = SYSTEM if owner else USER
        self.name = f"w{self.folder.name[3:].lower()}"
        self.environment = {"AGENTCTL_ROOT": str(self.folder / "r"), "AGENTCTL_SCOPE": scope}
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        self.code = make_repository(
            self.folder / "code",
            {
                "agent.py": AGENT,
                "behaviour.py": "MODE = 'healthy'\n",
                ".gitignore": "*.cache\n__pycache__/\n.venv/\n",
            },
            branch,
        )
        self.branch = branch
        self.paths = AgentPaths(self.name, scope, dict(os.environ), os.getuid())
        self.first = self.head()
        self.settings = merged(QUICK, settings or {})
        self.state = self.folder / "state"
        write(self.state, {"config/plan.json": "the good plan"})
        self.owner = owner
        self.give()
        self.supervisors: list[subprocess.Popen] = []
        story.register(self.name, self.tell_story)

    # -- before ---------------------------------------------------------------------------------------------

    def adopt(self) -> World:
        self.context = adopt.adopt(
            self.paths, str(self.code), [sys.executable, "agent.py"], state_dir=str(self.state), settings=self.settings
        )
        return self

    def give(self) -> None:
        """Give code and state to the agent's user, where that is somebody else."""
        if self.owner:
            self.folder.chmod(0o755)
            deadline.run(["chown", "-R", f"{self.owner}:", self.code, self.state], check=True)

    def mode(self, mode: str, message: str = "") -> str:
        """Commit another behaviour; return the commit."""
        return self.commit({"behaviour.py": f"MODE = {mode!r}\n"}, message or mode)

    def commit(self, files: dict[str, str | bytes], message: str = "change") -> str:
        write(self.code, files)
        git(self.code, "add", "-A")
        git(self.code, "commit", "-q", "-m", message)
        return self.head()

    def head(self) -> str:
        return git(self.code, "rev-parse", "HEAD")

    # -- run ------------------------------------------------------------------------------------------------

    def start(self) -> subprocess.Popen:
        """Start a supervisor; its output goes to the file `log`."""
        with open(self.folder / "log", "ab") as log:
            running = subprocess.Popen(
                # the verb, as `agentctl supervise` has it: by that word the watchdog knows a supervisor
                [sys.executable, "-c", SUPERVISE, self.name, "supervise"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": SOURCE},
            )
        self.supervisors.append(running)
        return running

    def stop(self) -> int:
        """End the supervisor the kind way; return its exit status."""
        running = self.supervisors[-1]
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
        return self.end_of(running)

    def end_of(self, running: subprocess.Popen) -> int:
        """Wait until a supervisor has ended by itself; return its exit status."""
        return deadline.wait(running, f"the supervisor of {self.name}", PATIENCE_SECONDS, self.folder / "log")

    def rollback_once(self) -> int:
        """Run the one-shot alone, as a failure of the agent starts it; return its exit status."""
        env = {**os.environ, "PYTHONPATH": SOURCE, "AGENTCTL_RUNTIME": "direct", "MONITOR_SERVICE_RESULT": "exit-code"}
        with open(self.folder / "log", "ab") as log:
            return deadline.run(
                [sys.executable, "-c", ROLLBACK, self.name], env=env, stdout=log, stderr=log, timeout=300
            ).returncode

    @property
    def log(self) -> str:
        try:
            return (self.folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # -- look -----------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        return Ledger(self.paths.ledger_path)

    def all(self, sql: str, *values: object) -> list[dict]:
        try:
            with self.ledger() as ledger:
                return rows.select(ledger, sql, *values)
        except LedgerDamaged:
            return []

    def one(self, sql: str, *values: object) -> dict | None:
        return next(iter(self.all(sql, *values)), None)

    def launches(self) -> list[dict]:
        return self.all("SELECT * FROM launches ORDER BY started_at, rowid")

    def incidents(self) -> list[dict]:
        return self.all("SELECT * FROM incidents ORDER BY at")

    def rungs(self) -> list[tuple]:
        found = self.all("SELECT rung, target FROM attempts ORDER BY at")
        return [(a["rung"], a["target"]) for a in found]

    def evidence(self, incident: dict) -> dict:
        return json.loads(incident["evidence"])

    def status_of(self, number: int) -> str:
        row = self.one("SELECT status FROM generations WHERE number=?", number)
        return row["status"] if row else ""

    def quarantine(self, incident: dict, move: int = 1) -> Path:
        return Path(self.context.slots.quarantine_path(incident["id"], move))

    def starts(self) -> list[dict]:
        """Return what the agent saw at each of its starts."""
        return [json.loads(line) for line in whole_lines(self.state / "starts")]

    def history(self) -> list[str]:
        return whole_lines(self.state / "history.jsonl")

    def live(self) -> dict:
        """Return the runner's live status."""
        return json.loads(Path(self.paths.live_status_path).read_text())

    def request(self, verb: str, target: str = "") -> int:
        """Ask the running supervisor for a rollback or an undo; return the request's number."""
        with self.ledger() as ledger:
            number = requests.submit(ledger, verb, target)
        os.kill(int(Path(self.paths.supervisor_pid_path).read_text()), signal.SIGUSR1)
        return number

    def processes(self) -> list[int]:
        """List the living processes of this agent, by their environment."""
        wanted = self.environment["AGENTCTL_ROOT"]
        return [
            pid
            for pid in procfs.with_variable("AGENT_NAME", self.name)
            if procfs.is_alive(pid) and procfs.variables(pid).get("AGENTCTL_ROOT") == wanted
        ]

    def tell_story(self) -> Iterator[tuple[str, str]]:
        """Yield what a report on a failing test says of this agent."""
        if self.folder.exists():
            yield from story.of_agent(self.name, self.environment, lambda: self.log)

    # -- wait -----------------------------------------------------------------------------------------------

    def until(self, ask, what: str, limit_seconds: float = PATIENCE_SECONDS):
        try:
            return wait_until(ask, what, limit_seconds)
        except AssertionError as error:
            launches = [{k: row[k] for k in ("generation", "end", "trigger", "reason")} for row in self.launches()]
            raise AssertionError(
                f"{error}\nlaunches: {launches}\nattempts: {self.rungs()}\nlog:\n{self.log[-3000:]}"
            ) from None

    def until_beating(
        self, generation: int | None = None, after: str = "", limit_seconds: float = PATIENCE_SECONDS
    ) -> dict:
        """Wait until the newest launch has beaten (another than `after`); return its row."""

        def ask():
            row = self.one("SELECT * FROM launches ORDER BY started_at DESC, rowid DESC LIMIT 1")
            is_it = row and row["first_beat_at"] and not row["end"] and row["id"] != after
            return row if is_it and generation in (None, row["generation"]) else None

        return self.until(ask, f"a heartbeat of generation {generation or 'any'}", limit_seconds)

    def until_outcome(self, outcome: str, limit_seconds: float = PATIENCE_SECONDS) -> dict:
        """Wait until the newest incident has this outcome; return its row."""

        def ask():
            found = self.incidents()
            return found[-1] if found and found[-1]["outcome"] == outcome else None

        return self.until(ask, f"an incident that is {outcome}", limit_seconds)

    # -- after ----------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End everything of this world and remove it."""
        story.unregister(self.name)
        for running in self.supervisors:
            if running.poll() is None:
                running.send_signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):  # it is killed then
                    deadline.wait(running, timeout=30)
        wanted = self.environment["AGENTCTL_ROOT"]
        procfs.end_all(lambda: procfs.with_variable("AGENTCTL_ROOT", wanted))
        shutil.rmtree(self.folder, ignore_errors=True)
