"""What is compared: agentctl, a shell script behind OnFailure=, systemd's own restart, supervisord.

Each starts the same agent in a repository or folder of its own on the same disk, breaks it, and returns the
seconds from the agent's last word to its READY=1. Every round checks that the right thing came back.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOGS = Path("/run/bench")
USER = "bench"
VENV_PYTHON = "/opt/agentctl/venv/bin/python"
PATIENCE_SECONDS = 120
REST_SECONDS = 0.3  # between becoming ready and being broken: what follows a start is over
SUPERVISED_REST_SECONDS = 1.3  # supervisord counts a program as started after startsecs=1
GENEROUS = {
    "probation.tries": "1",
    "probation.duration": "10m",
    "rollback.restarts": "100",
    "rollback.attempts": "100",
    "rollback.per_day": "1000",
}


class Failed(Exception):
    """A round did not end as it has to."""


class Event:
    """One line that the agent wrote."""

    def __init__(self, line):
        self.word, at, pid, self.version, self.state = line.split()
        self.at, self.pid = int(at) / 1e9, int(pid)


class Log:
    """The file the agent of one contender writes into."""

    def __init__(self, name):
        self.path = LOGS / name

    def size(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def events(self, offset=0):
        if not self.path.exists():
            return []
        with open(self.path) as file:
            file.seek(offset)
            return [Event(line) for line in file.read().splitlines(keepends=True) if line.endswith("\n")]

    def wait(self, word, offset=0, version=None):
        """Return the first such event after `offset`; raise Failed if it does not come."""

        def found():
            events = self.events(offset)
            return [e for e in events if e.word == word and version in (None, e.version)]

        return wait_until(found, f"'{word}' of {self.path.name}")[0]

    def last(self, word):
        return [e for e in self.events() if e.word == word][-1]


class Contender:
    """An agent in a folder of its own, and how to break it."""

    def __init__(self, name, unit, code):
        self.name, self.unit, self.code, self.log = name, unit, code, Log(name)
        self.number = 0

    def start(self):
        run("systemctl", "start", self.unit)
        self.log.wait("ready")

    def stop(self):
        run("systemctl", "stop", self.unit)

    def crash(self):
        """Make the agent end with status 1; return its last word and its next READY=1."""
        return self._break(signal.SIGUSR1, "crash")

    def _break(self, number, word):
        wait_until(lambda: is_active(self.unit), f"{self.unit} to be active")
        offset = self.log.size()
        os.sync()
        time.sleep(REST_SECONDS)
        os.kill(self.log.last("ready").pid, number)
        end = self.log.wait(word, offset)
        ready = self.log.wait("ready", offset)
        expect(ready.version, "good", f"the code of {self.name}")
        return end, ready

    def release_bad(self):
        """Commit a version that spoils the state, start it, and wait until it is ready."""
        self.number += 1
        version, offset = f"bad-{self.number}", self.log.size()
        agent = Path(self.code, "agent.py")
        agent.write_text(agent.read_text().replace('VERSION = "good"', f'VERSION = "{version}"'))
        git(self.code, "commit", "-q", "-m", version, "agent.py")
        run("systemctl", "restart", self.unit)
        self.log.wait("ready", offset, version)
        return version


class Floor(Contender):
    """systemd OnFailure= -> shell script: git checkout -f and start through a minimal tmux runner."""

    def __init__(self, files):
        super().__init__("floor", "floor.service", "/srv/floor")
        make_repository(self.code, files)
        self.good = git(self.code, "rev-parse", "HEAD")

    def roll_back(self):
        git(self.code, "checkout", "-q", "-B", "main", self.good)
        self.release_bad()
        end, ready = self.crash()
        expect(git(self.code, "rev-parse", "HEAD"), self.good, "HEAD of the floor")
        return end, ready


class Plain(Contender):
    """systemd Restart=always RestartSec=0 of the same tmux agent."""

    def __init__(self):
        super().__init__("plain", "plain.service", "/srv/floor-plain")
        make_folder(self.code)


class Supervised(Contender):
    """supervisord's restart of a crashed program, all defaults."""

    def __init__(self):
        super().__init__("supervised", "supervised.service", "/srv/supervised")
        make_folder(self.code)

    def crash(self):
        time.sleep(SUPERVISED_REST_SECONDS)
        return super().crash()

    def pids(self):
        """supervisord without the agent."""
        return [pid for pid in unit_pids(self.unit) if pid != self.log.last("ready").pid]


class Ours(Contender):
    """agentctl with a repository of so many files."""

    def __init__(self, name, files, timeout="60s", package=None):
        super().__init__(name, f"{name}.service", f"/srv/{name}")
        self.state, self.data = f"/srv/{name}-state", f"/var/lib/agentctl/{name}"
        make_repository(self.code, files)
        make_state(self.state)
        self.good = git(self.code, "rev-parse", "HEAD")
        self.ctl("init", "--no-hooks", self.code, "--user", USER, "--state-dir", self.state, "--",
                 "/usr/bin/python3", "-I", "-S", "agent.py", str(self.log.path), self.state)  # fmt: skip
        for key, value in {**GENEROUS, "heartbeat.timeout": timeout}.items():
            self.ctl("config", "set", key, value)
        self.ctl("install", "--no-watchdog")
        if package:
            self.run_from(package)

    def run_from(self, package):
        """Let the units run another agentctl than the installed one."""
        for unit, part in ((self.unit, "runner"), (f"{self.name}-rollback.service", "rollback")):
            command = f"{VENV_PYTHON} -I -S {package}/entry.py {part} {self.name}"
            drop_in = Path(f"/etc/systemd/system/{unit}.d/60-variant.conf")
            drop_in.write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
        run("systemctl", "daemon-reload")

    def ctl(self, *words, **more):
        return run("agentctl", "--name", self.name, *words, **more)

    def start(self):
        super().start()
        self.rest()

    def roll_back(self, number=signal.SIGUSR1, word="crash"):
        """Break a candidate that has no tries left; check that code, state, branch and ledger came back."""
        version = self.release_bad()
        self.log.wait("spoilt", version=version)
        end, ready = self._break(number, word)
        expect(end.version, version, "the code that was broken")
        expect(ready.state, "good", "the state the agent found")
        expect(git(self.code, "rev-parse", "HEAD", "main").split(), [self.good] * 2, "HEAD and main")
        self.check_incident(1)
        self.rest()
        return end, ready

    def hang(self):
        return self.roll_back(signal.SIGUSR2, "hang")

    def restart(self):
        """Crash good code: the first rung only restarts it."""
        end, ready = self.crash()
        self.check_incident(1, decision="restart: restart")
        self.rest()
        return end, ready

    def check_incident(self, target, decision=None):
        def is_recovered():
            row = self.last_incident()
            return row is not None and row["outcome"] == "recovered"

        wait_until(is_recovered, f"the incident of {self.name} to be recovered")
        row = self.last_incident()
        expect(row["generation_to"], target, "the incident's target")
        if decision is not None:
            expect(row["decision"], decision, "the incident's decision")

    def last_incident(self):
        rows = self.query("SELECT * FROM incidents ORDER BY at DESC LIMIT 1")
        return rows[0] if rows else None

    def query(self, sql, *values):
        ledger = sqlite3.connect(f"file:{self.data}/ledger.db?mode=ro", uri=True, timeout=20)
        ledger.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in ledger.execute(sql, values)]
        finally:
            ledger.close()

    def rest(self):
        """Wait until the standby stands and nothing works in the background; then drop the quarantine."""
        wait_until(lambda: self.has_standby() and not self.jobs(), f"the standby of {self.name}")
        for folder in Path(f"/srv/.{self.name}.agentctl/quarantine").iterdir():
            shutil.rmtree(folder)

    def has_standby(self):
        folder = f"/srv/.{self.name}.agentctl"
        try:
            note = json.loads(Path(folder, "standby.json").read_bytes())
            return note["generation"] == 1 and note["inode"] == os.stat(f"{folder}/standby").st_ino
        except (OSError, ValueError):
            return False

    def jobs(self):
        return [pid for pid in unit_pids(self.unit) if b"\0job\0" in command_line(pid)]

    def pids(self):
        """The runner, its tmux server and the reader of the pane, without the agent."""
        return [pid for pid in unit_pids(self.unit) if pid != self.log.last("ready").pid]


# -- small parts --------------------------------------------------------------------------------------------


def make_folder(path):
    os.makedirs(path)
    shutil.copyfile(HERE / "agent.py", f"{path}/agent.py")
    run("chown", "-R", f"{USER}:{USER}", path)


def make_repository(path, files):
    """A repository of `files` small files, one of them the agent; one commit on main."""
    make_folder(path)
    for number in range(files - 1):
        folder = f"{path}/part{number // 1000:03}/{number // 50 % 20:02}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/{number:06}.txt", "w") as file:
            file.write(f"file {number}\n" * 40)
    run("chown", "-R", f"{USER}:{USER}", path)
    git(path, "init", "-q", "-b", "main")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "good")


def make_state(path):
    os.makedirs(f"{path}/config")
    Path(path, "config/mode").write_text("good\n")
    Path(path, "current_task.md").write_text(
        "# Current Task\nCount.\n\n## Conversation Context\nnone\n\n## Pending Actions\n- [ ] count on\n\n## State\n0\n"
    )
    with open(f"{path}/history.jsonl", "w") as file:
        for number in range(50):
            line = {"id": f"m{number}", "at": "2000-01-01T00:00:00Z", "role": "user", "content": "word " * 40}
            file.write(json.dumps(line) + "\n")
    run("chown", "-R", f"{USER}:{USER}", path)


def git(folder, *words):
    """Run git as the agent's user, without this machine's settings."""
    argv = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0", *words]
    env = {"PATH": os.environ["PATH"], "HOME": "/"}
    return run(*argv, cwd=folder, user=USER, group=USER, extra_groups=[], env=env).stdout.strip()


def run(*argv, check=True, **more):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)
    if check and done.returncode:
        raise Failed(f"{' '.join(map(str, argv))} ended with {done.returncode}: {done.stderr[-2000:] or done.stdout}")
    return done


def wait_until(ask, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {PATIENCE_SECONDS} s in vain for {what}")
        time.sleep(0.01)
    return answer


def expect(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: {found!r}, not {wanted!r}")


def is_active(unit):
    return run("systemctl", "is-active", unit, check=False).stdout.strip() == "active"


def unit_pids(unit):
    try:
        return [int(pid) for pid in Path(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
