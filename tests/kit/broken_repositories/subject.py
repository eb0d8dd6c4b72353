"""The repository that is broken, and what has to be true of it again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kit import deadline

FILES = {
    "agent.py": "import behaviour\n", "behaviour.py": "MODE = 'healthy'\n", "lib/deep/tool.py": "TOOL = 1\n",
    "notes.txt": "one\ntwo\nthree\n", ".gitignore": "*.cache\n__pycache__/\n.venv/\nlocal/\n",
    "dos.txt": "carriage\r\nreturn\r\n",
}  # fmt: skip
BAD = "MODE = 'crash'\n"
UNCOMMITTED = {"dirty.py": "not committed\n", "notes.txt": "one\ntwo\nthree\nfour\n", "lib/new/x": "untracked\n",
               "notes.cache": "ignored\n", "local/plan": "ignored, in a folder\n"}  # fmt: skip
STATES: list[State] = []


class State:
    """One way to be broken: `break_it(subject)`; `loses` are the things no one can bring back."""

    def __init__(self, break_it, family: str, name: str, loses: frozenset[str], variant: int) -> None:
        self.break_it, self.family, self.name, self.loses = break_it, family, name, loses
        self.variant = variant  # the how-manieth of its kind: the first ones stand for the others where time is short

    def __repr__(self) -> str:
        return f"{self.family}-{self.name}"


def broken(*, loses: str = "", each: dict | None = None):
    """Register a state, or with `each` one state for every name: the function then gets the value, too."""

    def register(function):
        family, base = function.__module__.rpartition(".")[2], function.__name__.strip("_").replace("_", "-")
        lost = frozenset(loses.split())
        if each is None:
            STATES.append(State(function, family, base, lost, 0))
            return function
        for number, (name, value) in enumerate(each.items()):
            STATES.append(State(lambda s, v=value: function(s, v), family, f"{base}-{name}", lost, number))
        return function

    return register


class Subject:
    """A repository at `code`, owned by `uid`: made by `make`, completed by `add_later` after its adoption."""

    def __init__(self, code, uid: int, gid: int) -> None:
        self.code, self.uid, self.gid = Path(code), uid, gid
        self.good = self.bad = ""
        self.kept_texts: list[str] = []

    @property
    def dot_git(self) -> Path:
        return self.code / ".git"

    def git(self, *words: str, folder=None, status: int | None = 0, stdin: bytes | None = None) -> str:
        """Run git as the owner would; with `status` None any exit status will do."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_EDITOR": "true",
            "GIT_TERMINAL_PROMPT": "0",
        }
        who = {} if os.geteuid() == self.uid else {"user": self.uid, "group": self.gid, "extra_groups": []}
        argv = [
            "git",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "advice.detachedHead=false",
            *words,
        ]
        done = deadline.run(argv, cwd=folder or self.code, env=env, capture_output=True, input=stdin, timeout=60, **who)
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert status is None or done.returncode == status, (words, done.returncode, said[-3000:])
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")

    def write(self, files: dict, folder=None) -> None:
        """Write files below the code folder, as the owner's."""
        for name, content in files.items():
            path = Path(folder or self.code, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def own(self, *folders) -> None:
        """Give everything to the owner: a test that runs as root stands for an agent that does not."""
        if os.geteuid() == self.uid:
            return
        for top in folders or (self.code,):
            if os.path.lexists(top):
                os.chown(top, self.uid, self.gid, follow_symlinks=False)
            for folder, folders_in, files in os.walk(os.fsencode(top)):
                for name in (*folders_in, *files):
                    with contextlib.suppress(OSError):  # a path may be too long for any call
                        os.chown(os.path.join(folder, name), self.uid, self.gid, follow_symlinks=False)

    def make(self) -> Subject:
        """Make the repository as it is adopted."""
        self.code.mkdir(parents=True)
        self.own()
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "agent")
        self.git("config", "remote.origin.url", "https://example.invalid/agent.git")
        self.write(FILES)
        os.symlink("notes.txt", self.code / "link")
        (self.code / "agent.py").chmod(0o755)
        self.commit("the first version")
        self.write({"notes.txt": "one\ntwo\n"})
        self.good = self.commit("the good version")
        self._add_branch("idea", "an idea")
        self.git("tag", "-a", "v1", "-m", "version one")
        return self

    def add_later(self) -> Subject:
        """Add what the vault has not seen: a branch, a tag, two stashes, a bad commit, work that is not committed."""
        self._add_branch("fresh", "a fresh idea")
        self.git("tag", "v2", "fresh")
        for text in ("the first stash\n", "the second stash\n"):
            self.write({"notes.txt": text})
            self.git("stash", "-q")
        self.write({"behaviour.py": BAD})
        self.bad = self.commit("a bad change")
        self.write(UNCOMMITTED)
        self.own()
        return self

    def commit(self, message: str) -> str:
        """Commit everything; return the commit."""
        self.own()
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def _add_branch(self, name: str, message: str) -> None:
        tree = self.git("write-tree")
        self.git("branch", name, self.git("commit-tree", tree, "-p", "HEAD", "-m", message))

    def keep(self, text: str) -> None:
        """Say of a text that it has to be in some commit that a ref leads to."""
        self.kept_texts.append(text)

    def clean(self) -> None:
        """Commit what is not committed: some operations of git want a clean tree to start from."""
        self.commit("more of the bad change")

    def object_path(self, revision: str) -> Path:
        """Where the loose object of a revision is."""
        oid = self.git("rev-parse", revision)
        return self.dot_git / "objects" / oid[:2] / oid[2:]
