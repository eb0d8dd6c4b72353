"""The story of `change check`: run the gate on what is committed on a branch, or on what is staged, and tell.

The verdict counts for exactly the tree it was found on; a commit made with --no-verify has none.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile

from ..decisions import change
from ..errors import AgentctlError
from ..machine import command
from ..repo import worktree
from . import gate

SAID_IN_RECORD = 300
# Where linters look for their settings, exported with the staged files.
SETTINGS_FILES = ("pyproject.toml", "ruff.toml", ".ruff.toml", "setup.cfg", "tox.ini", ".flake8", ".pylintrc",
                  "mypy.ini")  # fmt: skip


def run(changes, row: dict, say) -> dict:
    """Check a change, keep the verdict, and return it; `say` is told of every part as it ends."""
    facts, _ = changes.look(row)
    lacks = [
        lack
        for lack in change.find_lacks(row, facts, review="none", condemned=None, main=changes.main)
        if lack.verb in ("start", "commit")
    ]
    if lacks:
        raise AgentctlError(f"cannot check '{row['name']}': {lacks[0].why}", lacks[0].command)
    log = log_path(changes, row["name"], "check")
    answer = changes.as_agent(check_worktree, _settings(changes), row["worktree"], log, changes.main, say)
    parts = json.loads(answer)
    record = verdict(parts) | {"commit": facts.head, "tree": facts.tree}
    short = [{**part, "said": part["said"][-SAID_IN_RECORD:]} for part in parts]
    changes.ask("check", row["name"], facts=record | {"parts": short})
    return record | {"name": row["name"], "parts": parts}


def verdict(parts: list[dict]) -> dict:
    """Sum the parts up: ok, and what was wrong first."""
    bad = next((part for part in parts if not part["ok"]), None)
    return {"ok": bad is None, "why": f"{bad['name']}: {bad['said'].splitlines()[0]}" if bad else ""}


def log_path(changes, name: str, what: str) -> str:
    """Where the whole output of the last check or trial is kept: in the repository's own folder, with the agent."""
    return f"{changes.station.code_dir}/.git/agentctl/{name}/{what}.log"


def _settings(changes) -> dict:
    """What the gate needs of the settings, as plain values."""
    config, user = changes.station.config, changes.station.user
    return {
        "command": config.agent.command,
        "code": changes.station.code_dir,
        "paths": config.environment.paths,
        "lint": config.change.lint,
        "tests": config.change.tests,
        "limit": config.change.test_timeout,
        "home": user.home if user else os.path.expanduser("~"),
    }


def check_worktree(settings: dict, folder: str, log: str, main: str, say) -> str:
    """Run all of the gate in a worktree; return its parts."""
    names = json.loads(worktree.changed_files(folder, f"refs/heads/{main}"))
    env = gate.environment(folder, settings["code"], settings["paths"], settings["home"])
    steps = (
        lambda: gate.check_syntax(folder, names, choose_python(settings, folder, env), env),
        lambda: gate.run_lint(folder, settings["lint"], names, env, settings["limit"], f"{log[:-4]}-lint.log"),
        lambda: gate.run_tests(folder, settings["tests"], env, settings["limit"], log),
    )
    return _run_parts(steps, say)


def _run_parts(steps, say) -> str:
    """Run part after part; the tests of what does not even parse are not worth their time."""
    parts: list[gate.Part] = []
    for step in steps:
        if any(part.name == "syntax" and not part.ok for part in parts):
            break
        parts.append(step())
        say(parts[-1])
    return json.dumps([part.facts() for part in parts])


def check_staged(changes, say) -> dict:
    """Check what is about to be committed where the caller stands: syntax and lint, of the staged content."""
    parts = json.loads(changes.as_agent(_check_staged, _settings(changes), say))
    return verdict(parts) | {"parts": parts}


def _check_staged(settings: dict, say) -> str:
    listed = _git("diff", "--cached", "--name-only", "-z", "--diff-filter=d", "--no-renames")
    names = [name for name in listed.split("\0") if name]
    with tempfile.TemporaryDirectory(prefix="agentctl-staged-") as folder:
        known = [n for n in SETTINGS_FILES if _git("ls-files", "--cached", "-z", "--", n)]
        listed = "\0".join(dict.fromkeys([*names, *known]))
        _git("checkout-index", "--force", "-z", "--stdin", f"--prefix={folder}/", stdin=listed)
        env = gate.environment(folder, settings["code"], settings["paths"], settings["home"])
        names = [n for n in names if os.path.lexists(f"{folder}/{n}")]  # not a submodule
        log = f"{folder}/.agentctl/lint.log"
        return _run_parts((
            lambda: gate.check_syntax(folder, names, choose_python(settings, folder, env), env),
            lambda: gate.run_lint(folder, settings["lint"], names, env, settings["limit"], log),
        ), say)  # fmt: skip


def _git(*words: str, stdin: str = "") -> str:
    """Run git where we stand, with the index that the hook was given."""
    argv = ["/usr/bin/env", "--", "git", *words]
    done = command.run(argv, env=dict(os.environ), cwd=os.getcwd(), stdin=stdin.encode("utf-8", "surrogateescape"))
    return done.stdout.decode("utf-8", "surrogateescape")


def choose_python(settings: dict, folder: str, env: dict) -> str:
    """Find the interpreter that runs the agent: the one of its command, as it is in this tree or in the running one."""
    word = next((w for w in settings["command"] if os.path.basename(w).startswith("python")), "")
    places = [os.path.join(base, word) for base in (folder, settings["code"])] if "/" in word else []
    found = next((path for path in places if os.access(path, os.X_OK)), None)
    return found or (shutil.which(word, path=env["PATH"]) if word and "/" not in word else None) or sys.executable
