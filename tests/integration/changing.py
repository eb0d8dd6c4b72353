"""A world whose agent is changed by the command line, as an agent or a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from agentctl.generations import worktree
from agentctl.ledger import change_records
from integration.world import SOURCE, World, git, merged, write
from kit import deadline

CTL = "import sys; from agentctl.cli.main import main; sys.exit(main())"
CHANGE = {
    "change": {"lint": [], "try_for": "300ms"},
    "probation": {"duration": "0s", "heartbeats": 2, "tries": 1},
}


def making(monkeypatch):
    """What a fixture `make` yields from: a function that makes adopted worlds, all of which are ended afterwards."""
    worlds = []

    def build(settings=None):
        worlds.append(Changing(monkeypatch, merged(CHANGE, settings or {})))
        return worlds[-1].adopt()

    yield build
    for world in worlds:
        world.end()


class Changing(World):
    """A world with the verbs of `agentctl change`."""

    def ctl(self, *words: str, status: int | None = 0, env: dict | None = None, cwd=None):
        """Run agentctl; fail unless it ends with `status`."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "NOTIFY_"))}
        done = deadline.run([sys.executable, "-c", CTL, "--name", self.name, *words], capture_output=True, text=True,
                            env={**clean, "PYTHONPATH": SOURCE, **(env or {})}, cwd=cwd or "/", timeout=300,
                            stdin=subprocess.DEVNULL)  # fmt: skip
        assert status is None or done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
        assert "a bug" not in done.stderr and "Traceback" not in done.stderr, done.stderr
        return done

    def shell(self, script: str, env: dict | None = None) -> str:
        """Run what somebody was told to type; return what it says."""
        whole = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(env or {})}
        done = deadline.run(["/bin/sh", "-c", script], capture_output=True, text=True, env=whole, timeout=60)
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def ask(self, *words: str, status: int = 0):
        """Return what `agentctl WORDS --json` says."""
        done = self.ctl(*words, "--json", status=status)
        return json.loads(done.stdout if status == 0 else done.stderr)

    def begin(self, name: str = "feature/x", files: dict | None = None, about: str = "") -> Path:
        """Start a change and commit `files` on it; return its worktree."""
        folder = Path(self.ask("change", "start", name, "--about", about)["worktree"])
        if files is not None:
            self.commit_in(folder, files)
        return folder

    def commit_in(self, folder: Path, files: dict, message: str = "a change", *more: str) -> str:
        write(folder, files)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", message, *more)
        return git(folder, "rev-parse", "HEAD")

    def refuses(self, *words: str, status: int = 1) -> str:
        """Run agentctl, which has to refuse with an error and a hint; return both."""
        done = self.ctl(*words, status=status)
        assert done.stdout == "" or status == 1, done.stdout
        assert "Error: " in done.stderr and "Hint:" in done.stderr, done.stderr
        return done.stderr

    def change(self, name: str = "feature/x") -> dict:
        """Return a change as the list shows it."""
        return next(row for row in self.ask("change", "list", "--all") if row["name"] == name)

    def make_ready(self, name: str = "feature/x", files: dict | None = None, **more) -> Path:
        """Bring a change to where only its promotion is missing."""
        folder = self.begin(name, files or {"note.txt": "new\n"}, **more)
        self.pass_on(name)
        return folder

    def pass_on(self, name: str = "feature/x") -> None:
        """Record that what the branch holds now was checked, tried and reviewed, without doing it."""
        head, tree = git(self.code, "rev-parse", name, f"{name}^{{tree}}").split()
        facts = {"commit": head, "tree": tree, "ok": True, "note": "looks good"}
        with self.ledger() as ledger:
            for verb in change_records.RECORDS:
                change_records.handle(
                    self.context,
                    ledger,
                    {"verb": verb, "name": name, "facts": facts},
                    change_records.Author("a test", is_agent=False),
                )

    def wish_for(self, name: str = "feature/x") -> None:
        """Have on record that a change is to be promoted, and nothing done for it yet."""
        head, tree, main = git(self.code, "rev-parse", name, f"{name}^{{tree}}", "main").split()
        merge = worktree.merge_commit(str(self.code), head, main, f"Merge {name}")
        wish = {"commit": head, "tree": tree, "main": main, "merge": merge}
        with self.ledger() as ledger:
            change_records.handle(
                self.context,
                ledger,
                {"verb": "promote", "name": name, **wish},
                change_records.Author("somebody", is_agent=False),
            )

    def really_pass_on(self, name: str = "feature/x") -> None:
        """Check, try and review what the branch holds now, by the verbs."""
        self.ctl("change", "check", name)
        self.ctl("change", "try", name)
        self.ctl("change", "review", name, "--note", "looks good")
