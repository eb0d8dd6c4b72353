"""A world for broken repositories: an adopted agent that has failed, broken at will, recovered, and looked over.

As root the agent is another user, as on a server, so that modes and owners count. Every call of ours runs in a child
with a deadline: a repository may make nothing hang.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from agentctl.changes import adopt
from agentctl.core.errors import EXIT_REFUSED, in_words
from agentctl.core.paths import SYSTEM, USER, AgentPaths
from agentctl.generations.agent_context import AgentContext
from agentctl.host import procfs
from agentctl.ledger.database import Ledger
from agentctl.recovery import process, requests
from agentctl.runner import jobs, launch
from integration.world import QUICK, merged
from kit import deadline, launches, story
from kit.broken_repositories import State, Subject
from kit.manifest import describe

DEADLINE_SECONDS = float(os.environ.get("DEADLINE", "180"))
OURS = ("data", "etc", "run")


class Hung(AssertionError):
    """Something did not end in time."""


class BrokenWorld:
    """One adopted agent, kept at two moments: before its bad version is launched, and after that has failed."""

    def __init__(self, monkeypatch) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agb", dir="/tmp"))
        self.folder.chmod(0o711)
        self.name = f"b{self.folder.name[3:].lower()}"
        self.scope = SYSTEM if os.geteuid() == 0 else USER
        self.user = "nobody" if self.scope == SYSTEM else pwd.getpwuid(os.getuid()).pw_name
        self.environment = {"AGENTCTL_ROOT": str(self.folder / "r"), "AGENTCTL_SCOPE": self.scope}
        for name, value in {**self.environment, "AGENTCTL_RUNTIME": "direct"}.items():
            monkeypatch.setenv(name, value)
        story.register(self.name, self.tell_story)
        owner = pwd.getpwnam(self.user)
        self.subject = Subject(self.folder / "home/code", owner.pw_uid, owner.pw_gid)
        self.subject.code.parent.mkdir()
        self.subject.own(self.subject.code.parent)
        self.subject.make()
        self.paths = AgentPaths(self.name, self.scope, dict(os.environ), os.getuid())
        self._adopt()
        self.context = AgentContext.open(self.name)
        self.subject.add_later()
        self.kept = {}
        self._keep("unlaunched")
        self.run(self._launch_and_fail)
        self._keep("failed")

    def _adopt(self) -> int:
        adopt.adopt(self.paths, str(self.subject.code), [sys.executable, "agent.py"],
                    state_dir=str(self.folder / "state"), user=self.user if self.scope == SYSTEM else "",
                    settings=merged(QUICK, {"probation": {"tries": 1}}))  # fmt: skip
        return 0

    def adopt_again(self) -> int:
        """Adopt what is there; return the status."""
        return self.run(self._adopt)

    def forget(self) -> None:
        """Undo the adoption: the repository and its work stay."""
        remove(self.folder / "r")
        remove(self.context.slots.folder)

    def _keep(self, moment: str) -> None:
        self.kept[moment] = f"{self.folder}.{moment}"
        deadline.run(["cp", "-a", self.folder, self.kept[moment]], check=True)

    def reset(self, moment: str) -> None:
        """Bring everything back to a moment that was kept."""
        self.subject.kept_texts = []
        remove(self.folder)
        deadline.run(["cp", "-a", self.kept[moment], self.folder], check=True)
        note = Path(self.context.slots.folder, "standby.json")
        old = note.read_text().split('"inode": ')[1].split(",")[0].rstrip("}")
        note.write_text(note.read_text().replace(old, str(os.stat(self.context.slots.standby).st_ino)))

    def end(self) -> None:
        story.unregister(self.name)
        for folder in (self.folder, *self.kept.values()):
            remove(folder)

    def tell_story(self) -> Iterator[tuple[str, str]]:
        """Yield what a report on a failing test says of this agent."""
        if self.folder.exists():
            yield from story.of_agent(self.name, self.environment, lambda: self.log)

    # -- what agentctl does ---------------------------------------------------------------------------------

    def run(self, function, *args, limit_seconds: float = DEADLINE_SECONDS) -> int:
        """Call a function in a child in its own process group; return its status, raise Hung after the limit."""
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        pid = os.fork()
        if pid == 0:
            self._child(log, function, args)
        os.close(log)
        pidfd = os.pidfd_open(pid)
        ended = select.select([pidfd], [], [], limit_seconds)[0]
        os.close(pidfd)
        if not ended:
            children = deadline.run(["ps", "-eo", "pid,ppid,etimes,args"], capture_output=True, text=True).stdout
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            procfs.end_all(self._git_processes)
            mine = [line for line in children.splitlines() if str(pid) in line or "git" in line]
            raise Hung(f"{function.__name__}: no end after {limit_seconds:g}s\n" + "\n".join(mine) + self.log)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _git_processes(self) -> list[int]:
        """List the gits that work in this world: each is in a process group of its own."""
        mine = f"GIT_DIR={self.folder}/".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and procfs.is_alive(int(name)):
                with contextlib.suppress(OSError):
                    if mine in Path(f"/proc/{name}/environ").read_bytes():
                        found.append(int(name))
        return found

    def _child(self, log: int, function, args) -> None:
        status = 70
        try:
            os.setsid()
            os.chdir("/")
            for fd in (1, 2):
                os.dup2(log, fd)
            status = function(*args) or 0
        except Exception as error:  # noqa: BLE001 - a program ends with a status, whatever it is
            os.write(2, in_words(error).encode("utf-8", "replace") + b"\n")
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
            status = getattr(error, "exit_code", 70)
        finally:
            os._exit(status)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _launch_and_fail(self) -> int:
        opened = AgentContext.open(self.name)
        with Ledger(self.paths.ledger_path) as ledger:
            begun = launch.begin(opened, ledger)
            launches.fail(ledger, begun.id)
        return 0

    def fail(self) -> None:
        """Launch what is there, which fails; where it cannot be launched, for a clear reason, ask for a rollback."""
        status = self.run(self._launch_and_fail)
        if status == 1:
            assert "Error: " in self.log, self.log
            with Ledger(self.paths.ledger_path) as ledger:
                requests.submit(ledger, "rollback", "1")
        else:
            assert status in (0, EXIT_REFUSED), self.log

    def recover(self) -> int:
        """Run the one-shot, then what the runner has done beside the relaunched agent; return their status."""
        status = self.run(process.main, self.name)
        return status or self.run(self._save_work)

    def _save_work(self) -> int:
        opened = AgentContext.open(self.name)
        with Ledger(self.paths.ledger_path) as ledger:
            return jobs.save_work(opened, ledger, ledger.open_incident().id)

    # -- what is there --------------------------------------------------------------------------------------

    @property
    def incident(self) -> str:
        with Ledger(self.paths.ledger_path) as ledger:
            return ledger.open_incident().id

    @property
    def quarantine(self) -> Path:
        return Path(self.context.slots.quarantine_path(self.incident, 1))

    def everything(self) -> dict[str, tuple]:
        """Describe the tree and all of .git, by path."""
        return listing(self.subject.code)


def listing(top) -> dict[str, tuple]:
    """Describe every entry below `top` that can be reached; where we may not read, what is known of it from outside."""
    root, found = os.fsencode(os.fspath(top)), {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            try:
                what = describe(path)
            except OSError as error:
                what = ("unreadable", error.errno)
            found[os.fsdecode(path[len(root) + 1 :])] = what
    return found


def digests(top) -> set[str]:
    """Collect the SHA-256 of every file below `top`."""
    return {what[3] for what in listing(top).values() if what[0] == "file"}


def remove(folder) -> None:
    """Remove a tree whatever its modes and depth."""
    if os.geteuid() != 0:
        deadline.run(["chmod", "-R", "u+rwX", folder], check=False, capture_output=True)
    deadline.run(["rm", "-rf", folder], check=False)
    assert not os.path.lexists(folder), folder


def sha256(text: str) -> str:
    return hashlib.sha256(b"0:" + text.encode()).hexdigest()


def disk_use(folder) -> int:
    """Return the bytes a folder occupies on disk."""
    return int(deadline.run(["du", "-s", "-B1", folder], capture_output=True, text=True).stdout.split()[0] or 0)


__all__ = ["BrokenWorld", "Hung", "State", "disk_use", "shutil"]
