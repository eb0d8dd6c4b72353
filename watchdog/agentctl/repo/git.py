"""Run git as a command, hardened: absolute path, rebuilt environment, no hooks, no filters, no prompt, a limit.

Knows repositories, not agents. Every caller verifies what it asked for: some git failures exit 0.
"""

from __future__ import annotations

import os

from ..errors import AgentctlError
from ..machine import command
from ..machine.command import Identity, Result
from . import git_folder

OBJECT_SECONDS = 15.0  # whoever takes longer to find one object waits at what is none
SEARCH_PATH = ("/usr/bin/git", "/usr/local/bin/git", "/bin/git")

# Local configuration of a repository is the agent's; these win over it because they come from the environment.
OVERRIDES = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.pager": "cat",
    "core.editor": "false",
    "core.sshCommand": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "core.fsync": "all",
    "user.name": "agentctl",
    "user.email": "agentctl@localhost",
}


def find_git() -> str:
    """Return git's absolute path; raise AgentctlError if there is none."""
    for path in SEARCH_PATH:
        if os.access(path, os.X_OK):
            return path
    raise AgentctlError("git is not installed (looked in /usr/bin, /usr/local/bin, /bin)",
                        "apt-get install git")


class Git:
    """git on one repository, with its own index and work tree where given."""

    def __init__(
        self,
        git_dir: str,
        *,
        work_tree: str = "",
        index: str = "",
        user: Identity | None = None,
        config: dict[str, str] | None = None,
        fsync: bool = True,
    ) -> None:
        self.git_dir, self.work_tree, self.user = git_dir, work_tree, user
        self.folder = ["-C", work_tree] if work_tree else []
        settings = {**OVERRIDES, **(config or {})}
        if not fsync:
            settings["core.fsync"] = "none"
        self.env = _environment(git_dir, work_tree, index, settings, user)

    def run(self, *args: str, stdin: bytes = b"", limit_seconds: float = 300, check: bool = True) -> Result:
        """Run `git ARGS`; raise CommandFailed if `check` and it does not exit 0 within the limit."""
        return command.run([find_git(), *self.folder, *args], env=self.env, stdin=stdin,
                           user=self.user, limit_seconds=limit_seconds, check=check)

    def start(self, *args: str, **fds: int | None) -> command.Running:
        """Start `git ARGS` with the given descriptors for its streams."""
        return command.start([find_git(), *self.folder, *args], env=self.env, user=self.user, **fds)

    def has_object(self, revision: str) -> bool:
        """Tell whether the object is there (its content is not read); a git that was hindered is asked twice.

        Raise CommandFailed if git waits for it.
        """
        asked = self.run("cat-file", "-e", revision, check=False, limit_seconds=OBJECT_SECONDS)
        if asked.status not in (0, 1) and b"Not a valid object name" not in asked.stderr:
            asked = self.run("cat-file", "-e", revision, check=False, limit_seconds=OBJECT_SECONDS)
        return asked.status == 0


def pipe_pack(source: Git, wants: list[str], haves: list[str], target: Git, limit_seconds: float = 600) -> None:
    """Copy the objects of `wants` that `haves` do not reach, as one checked pack.

    `index-pack --strict` recomputes every id, so an object forged or rotten in the source cannot enter.
    Raise CommandFailed if either side fails, or would wait for ever.
    """
    waiting = command.call_as(source.user, git_folder.find_waiting_object, source.git_dir)
    if waiting:
        raise command.CommandFailed(["git", "pack-objects"], 1, b"", f"{waiting} is no file".encode())
    packing = source.start("pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset")
    os.set_inheritable(packing.stdout, False)
    indexing = target.start("index-pack", "--stdin", "--strict", "--fix-thin", stdin_fd=packing.stdout)
    os.close(packing.stdout)
    packing.stdout = -1
    revisions = "".join(f"{w}\n" for w in wants) + "".join(f"^{h}\n" for h in haves)
    packed = packing.finish(revisions.encode(), limit_seconds=limit_seconds, check=False)
    indexed = indexing.finish(limit_seconds=limit_seconds, check=False)
    for result in (packed, indexed):
        if result.status != 0:
            raise command.CommandFailed(result.argv, result.status, result.stdout, result.stderr)


def _environment(git_dir, work_tree, index, settings, user) -> dict[str, str]:
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_DIR": git_dir,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": "/nonexistent/grafts",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ADVICE": "0",
        # A missing object of a partial clone would be fetched, by a program that the settings name.
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"] = key, value
    if work_tree:
        env["GIT_WORK_TREE"] = work_tree
    if index:
        env["GIT_INDEX_FILE"] = index
    return env
