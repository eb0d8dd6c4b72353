"""Locks of git that nobody holds any more: what a git left that was killed with its agent.

git itself never removes one, and refuses whatever needs it. They are moved aside only when it is proved that no process
works there: none that is git, none that has the lock open; what cannot be seen counts as working.
"""

from __future__ import annotations

import os
import stat

from ..core import fast_json
from ..core.errors import AgentctlError
from ..host import command, procfs
from .agent_repo import Repository
from .git_folder import entries, read_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ASIDE = "agentctl/locks"  # in `.git`; the last one of each name
ALSO = ("gc.pid", "objects/maintenance.lock")
DEEPEST = 100
SHOWN = 8


def clear(repository: Repository, say: Callable[[str], object]) -> list[str]:
    """Move locks aside that no process can hold, and `say` so; return their names. It never hinders a launch."""
    try:
        found: Any = fast_json.loads(command.call_as(repository.user, find, repository.git_dir, repository.code_dir))
        names = [name for name, _ in found["locks"]]
        if not names:
            return []
        files = {tuple(key[:2]) for _, key in found["locks"]}
        worker = find_worker(repository.git_dir, {tuple(key) for key in found["places"]}, files)
        if worker:
            say(f"agentctl: locks of git stay ({_shown(names)}): {worker} may hold them")
            return []
        moved: list[str] = command.call_as(
            repository.user, set_aside, repository.git_dir, fast_json.dumps(found["locks"])
        ).splitlines()
    except (AgentctlError, OSError, ValueError) as error:
        say(f"agentctl: locks of git could not be looked at: {error}")
        return []
    if moved:
        say(f"agentctl: moved aside what a git left that lives no more: {_shown(moved)} (now in .git/{ASIDE})")
    return moved


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# -- what is there: as the agent's user -------------------------------------------------------------


def find(git_dir: str, code_dir: str) -> str:
    """Return, as JSON, the `locks` by name with what each is, and the `places` where a git would stand that works."""
    locks = [[name, key] for name in _names(git_dir) if (key := _key_of(f"{git_dir}/{name}")) and not key[3]]
    folders = [code_dir, git_dir, *_worktrees(git_dir)] if locks else []
    places = [key[:2] for folder in folders if (key := _key_of(folder, follow=True))]
    return fast_json.dumps({"locks": locks, "places": places})


def _names(git_dir: str) -> list[str]:
    found = [name for name, _ in entries(git_dir) if name.endswith(".lock")]
    found += [name for name in ALSO if os.path.lexists(f"{git_dir}/{name}")]
    for top, folders, files in os.walk(f"{git_dir}/modules"):
        if "objects" in folders and "HEAD" in files:  # of a submodule; it has folders of its own for others below it
            folders[:] = [name for name in folders if name == "modules"]
            found += [f"{top}/{name}"[len(git_dir) + 1 :] for name in _names(top)]
    return list(dict.fromkeys(found))


def _worktrees(git_dir: str) -> list[str]:
    try:
        names = os.listdir(f"{git_dir}/worktrees")
    except OSError:
        return []
    told = [
        (read_small(f"{git_dir}/worktrees/{name}/gitdir") or b"").decode("utf-8", "surrogateescape") for name in names
    ]
    return [os.path.dirname(text.rstrip("\n")) for text in told if text.startswith("/") and "\0" not in text]


def _key_of(path: str, *, follow: bool = False) -> list[int] | None:
    """Tell one file from another that takes its name: device, inode, change time; and whether it is a folder."""
    try:
        facts = os.stat(path) if follow else os.lstat(path)
    except (OSError, ValueError):
        return None
    return [facts.st_dev, facts.st_ino, facts.st_ctime_ns, int(stat.S_ISDIR(facts.st_mode))]


def set_aside(git_dir: str, locks: str) -> str:
    """Move those of the locks that are still the same; return their names."""
    moved: list[str] = []
    wanted: Any = fast_json.loads(locks)
    os.makedirs(f"{git_dir}/{ASIDE}", exist_ok=True)
    for name, key in wanted:
        if _key_of(f"{git_dir}/{name}") == key:
            os.rename(f"{git_dir}/{name}", f"{git_dir}/{ASIDE}/{name.replace('/', '%')}")
            moved.append(name)
    return "\n".join(moved)


# -- who lives: as ourselves ------------------------------------------------------------------------


def find_worker(git_dir: str, places: set[tuple[int, ...]], files: set[tuple[int, ...]]) -> str:
    """Name a process that may hold one of the locks, '' if it is proved that none does."""
    for pid in procfs.living():
        name = procfs.program(pid)
        if is_git(name, procfs.words(pid)) and _stands_in(pid, places, git_dir):
            return f"{name} (process {pid})"
        if _has_open(pid, files):
            return f"{name} (process {pid}), which has one open,"
    return ""


def is_git(name: str, words: list[str]) -> bool:
    """Tell by name and command line whether a process is a git that may take locks; a daemon of git's takes none."""
    if name != "git" and not name.startswith("git-"):
        return False
    return not any(word.endswith("daemon") for word in (name, *words[:3]))


def _stands_in(pid: int, places: set[tuple[int, ...]], git_dir: str) -> bool:
    """Tell whether a process works in one of the places, or was told to; true where that cannot be seen."""
    said = [*procfs.words(pid), *procfs.variables(pid).values()]
    if any(word == git_dir or git_dir in word for word in said):
        return True
    path, before = f"/proc/{pid}/cwd", None
    for _ in range(DEEPEST):
        try:
            facts = os.stat(path)
        except FileNotFoundError:
            return False  # it has ended
        except OSError:
            return procfs.is_alive(pid)
        key = (facts.st_dev, facts.st_ino)
        if key in places:
            return True
        if key == before:
            return False
        path, before = f"{path}/..", key
    return True


def _has_open(pid: int, files: set[tuple[int, ...]]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False  # another user's, who is not the agent: that it is no git is known
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}").endswith((".lock", "gc.pid")):
                facts = os.stat(f"{folder}/{name}")
                if (facts.st_dev, facts.st_ino) in files:
                    return True
        except OSError:
            continue
    return False
