"""What is known of one agent of this machine: its paths, settings and user; and the locks on it.

It reads the settings and nothing else. What works on the agent's parts is in `generations.agent_context`.
"""

from __future__ import annotations

import fcntl
import os
import time

from ..core.errors import AgentctlError, LockHeld
from ..core.identity import find_identity
from ..core.paths import BESIDE, MOUNTED, SLOTS_INSIDE, SYSTEM, USER, AgentPaths, slots_dir_of
from .load import load_compiled, load_last_valid
from .sections import Config

TYPE_CHECKING = False  # as in `typing`, which is too much for the recovery path
if TYPE_CHECKING:
    from typing import Self

BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"


class Context:
    """One agent of this machine: where its things are, its settings, its user."""

    def __init__(self, paths: AgentPaths, config: Config, complaint: str = "") -> None:
        self.paths, self.config = paths, config
        self.complaint = complaint  # what is wrong with agent.toml now, when the last valid one is used
        self.user = find_identity(config.agent.user) if paths.scope == SYSTEM else None
        self.code_dir = config.agent.code.rstrip("/")
        self.state_dir = config.state.dir.rstrip("/")
        where = config.agent.slots
        self.slots_dir = slots_dir_of(self.code_dir, where)
        self.hidden = "" if where == BESIDE else SLOTS_INSIDE  # our entry in the agent's code
        self.is_mounted = where == MOUNTED

    @classmethod
    def open(cls, name: str, *, lenient: bool = False) -> Self:
        """Open the agent called `name`; `lenient` takes the last valid settings where agent.toml is broken."""
        paths = find_paths(name)
        if not os.path.exists(paths.config_path):
            raise AgentctlError(
                f"there is no agent called '{name}' here ({paths.config_path} is missing)",
                "agentctl init PATH -- COMMAND adopts one",
            )
        files = (paths.config_path, paths.config_cache_path)
        if lenient:
            config, complaint = load_last_valid(*files)
            return cls(paths, config, complaint or "")
        return cls(paths, load_compiled(*files))

    @property
    def is_contained(self) -> bool:
        """Tell whether the agent runs in a container (runtime `compose`)."""
        return self.config.agent.runtime == "compose"

    @property
    def extra_state(self) -> list[str]:
        """The patterns of state outside the folder, `~/` as the home of who the agent runs as."""
        return [f"{self.home}{p[1:]}" if p.startswith("~/") else p for p in self.config.state.extra]

    @property
    def home(self) -> str:
        """The home folder of who the agent runs as."""
        return self.user.home if self.user else os.path.expanduser("~")

    @property
    def task_path(self) -> str:
        """The file of the current task."""
        return f"{self.state_dir}/current_task.md"

    @property
    def history_path(self) -> str:
        """The file of the conversation."""
        return f"{self.state_dir}/history.jsonl"

    @property
    def brief_path(self) -> str:
        """The file that tells the agent what happened."""
        return f"{self.state_dir}/BRIEF.md"

    @property
    def owner(self) -> tuple[int, int] | None:
        """Who state files belong to, where that is not us."""
        return (self.user.uid, self.user.gid) if self.user and not self.user.is_us else None

    def incident_dir(self, incident: str) -> str:
        """Return the folder of an incident's evidence."""
        return f"{self.paths.incidents_dir}/{incident}"

    def launch_dir(self, launch_id: str) -> str:
        """Return the folder of what a launch leaves."""
        return f"{self.paths.incidents_dir}/launches/{launch_id}"


class Lock:
    """An advisory lock on a file, held until `release` or the end of the process; children do not inherit it."""

    def __init__(self, path: str, what: str) -> None:
        self.path, self.what = path, what
        self._fd = -1

    def take(self, wait_seconds: float = 0.0) -> Lock:
        """Take the lock; raise LockHeld if somebody has it for longer than `wait_seconds`."""
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AgentctlError(f"cannot take the lock {self.path}: {error.strerror}") from error
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                    os.close(self._fd)
                    raise LockHeld(
                        f"{self.what} is at work already (process {holder or 'unknown'})",
                        "'agentctl status' shows what runs",
                    ) from None
                time.sleep(0.01)
                continue
            self._leave_name()
            return self

    def _leave_name(self) -> None:
        """Write who holds it, for people; in place, for on a full disk a file that was cut cannot grow again."""
        try:
            os.pwrite(self._fd, f"{os.getpid():<11}\n".encode(), 0)
        except OSError:
            return

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def find_paths(name: str) -> AgentPaths:
    """Find where the agent's things are for whoever calls: root means the system, others themselves."""
    scope = SYSTEM if os.geteuid() == 0 else USER
    scope = os.environ.get("AGENTCTL_SCOPE", scope)
    return AgentPaths(name, scope, dict(os.environ), os.getuid())


def boot_id() -> str:
    """Return the id of this boot of the machine (in a container: of its host)."""
    with open(BOOT_ID_PATH) as file:
        return file.read().strip()


def new_id() -> str:
    """Return a fresh id that sorts by time: UTC to the second and some randomness."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + os.urandom(3).hex()
