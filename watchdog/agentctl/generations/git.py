"""Run git as a command, hardened: absolute path, rebuilt environment, no hooks, no filters, no prompt, a limit.

Knows repositories, not agents. Every caller verifies what it asked for: some git failures exit 0. A git that works may
take its time; one that waits at what is no file is ended after two seconds.
"""

from __future__ import annotations

import os

from ..core import durable
from ..core.errors import AgentctlError
from ..core.identity import Identity
from ..host import command
from ..host.command import Result, Standstill
from . import git_folder

OBJECT_SECONDS = 15.0  # for one object, on a disk that hardly answers
MOST_STANDSTILLS = 3  # then a repository is broken, and every other question would wait, too
NOWHERE = "/nonexistent"
SEARCH_PATH = ("/usr/bin/git", "/usr/local/bin/git", "/bin/git")

# Local configuration of a repository is the agent's; these win over it because they come from the environment.
OVERRIDES = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.quotePath": "false",
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
    raise AgentctlError("git is not installed (looked in /usr/bin, /usr/local/bin, /bin)", "apt-get install git")


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
        is_agents: bool = False,
    ) -> None:
        self.git_dir, self.work_tree, self.user = git_dir, work_tree, user
        self.folder = ["-C", work_tree] if work_tree else []
        settings = {**OVERRIDES, **(config or {})}
        if not fsync:
            settings["core.fsync"] = "none"
        self.env = _environment(git_dir, work_tree, index, settings)
        self.is_agents, self.standstills = is_agents, 0  # counted where the agent can put what makes git wait

    def run(self, *args: str, stdin: bytes = b"", limit_seconds: float = 300, check: bool = True) -> Result:
        """Run `git ARGS`; raise CommandFailed if `check` and it does not exit 0 within the limit, or if it waits."""
        return self.finish(self.start(*args), stdin, limit_seconds=limit_seconds, check=check)

    def start(self, *args: str, in_tree: bool = True, **fds: int | None) -> command.Running:
        """Start `git ARGS` with the given descriptors for its streams; without `in_tree` no file of a tree is read.

        Raise CommandFailed at once if this repository, the agent's, has made git wait again and again.
        """
        argv = [find_git(), *(self.folder if in_tree else ()), *args]
        if self.standstills >= MOST_STANDSTILLS:
            raise command.CommandFailed(argv, 1, b"", b"", "not started: it would wait at what is no file, as before")
        env = self.env if in_tree or not self.work_tree else {**self.env, "GIT_WORK_TREE": NOWHERE}
        return command.start(argv, env=env, user=self.user, **fds)

    def finish(self, running: command.Running, stdin: bytes = b"", *, limit_seconds: float = 300, check: bool = True,
               together: tuple[Git, command.Running] | None = None, let_go=None) -> Result:  # fmt: skip
        """Finish what was started; raise CommandFailed as `run` does, after two seconds if it waits at what is no file.

        It may wait for one that works `together` with it. `let_go` is called while it is silent; true is the end.
        """
        watch = Standstill([running.pid, *([together[1].pid] if together else [])])
        try:
            return running.finish(
                stdin,
                limit_seconds=limit_seconds,
                check=check,
                on_idle=lambda: (let_go is not None and let_go()) or watch(),
            )
        finally:
            to_blame = together[0] if together and not self.is_agents else self
            to_blame.standstills += bool(watch.why and to_blame.is_agents)

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
    Raise CommandFailed if either side fails, or waits at what is no file.
    """
    packing = source.start("pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset",
                           in_tree=False)  # the attributes there could make it wait  # fmt: skip
    os.set_inheritable(packing.stdout, False)
    try:
        indexing = target.start("index-pack", "--stdin", "--strict", "--fix-thin", stdin_fd=packing.stdout)
    except command.CommandFailed:
        packing.kill()
        raise
    finally:
        os.close(packing.stdout)
        packing.stdout = -1
    revisions = "".join(f"{w}\n" for w in wants) + "".join(f"^{h}\n" for h in haves)
    try:
        packed = source.finish(
            packing, revisions.encode(), limit_seconds=limit_seconds, check=False, together=(target, indexing)
        )
    except command.CommandFailed:
        _end(indexing)
        raise
    indexed = target.finish(indexing, limit_seconds=limit_seconds, check=False)
    for result in (packed, indexed):
        if result.status != 0:
            raise command.CommandFailed(result.argv, result.status, result.stdout, result.stderr)


def share_boundary(source: Git, target: Git) -> None:
    """Tell `target` where the history of a shallow `source` ends, before objects of it come in: or it misses them.

    A commit that is there already keeps its history.
    """
    named = command.call_as(source.user, _read_boundary, source.git_dir).split()
    if not named:
        return
    known = command.call_as(target.user, _read_boundary, target.git_dir).split()
    new = [oid for oid in named if oid not in known and not target.has_object(oid)]
    if new:
        text = "".join(f"{oid}\n" for oid in (*known, *new))
        command.call_as(target.user, durable.write, f"{target.git_dir}/shallow", text.encode())


def _read_boundary(git_dir: str) -> str:
    lines = (git_folder.read_small(f"{git_dir}/shallow") or b"").decode("utf-8", "replace").split()
    return "\n".join(line for line in lines if git_folder.is_oid(line))


def _end(running: command.Running) -> None:
    """End what gets no input any more."""
    try:
        running.finish(limit_seconds=0)
    except command.CommandFailed:
        return


def _environment(git_dir, work_tree, index, settings) -> dict[str, str]:
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
