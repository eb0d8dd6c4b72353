"""The gate: syntax, linter, tests of what a change changes. To be called as the agent's user, in the worktree.

Every program has a limit and ends with all its children, also those that left its process group; none of them
sees the running agent (its state folder, its sockets, its token).
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time

from ..errors import CommandFailed
from ..machine import command, process
from . import syntax

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOST_OUTPUT_BYTES = 64 << 20
SHOWN_BYTES = 1500
BUILD_SECONDS = 900.0
MARK = "AGENTCTL_GATE"
NOT_PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE",
                 "GIT_PREFIX", "TMUX", "TMUX_PANE")  # fmt: skip


class Part:
    """One part of the gate: its name, whether it is well, what it said, a hint where it is not."""

    def __init__(self, name: str, ok: bool, said: str, hint: str = "", seconds: float = 0.0) -> None:
        self.name, self.ok, self.said, self.hint, self.seconds = name, ok, said, hint, round(seconds, 2)

    def facts(self) -> dict:
        """Return the step as plain values."""
        return dict(vars(self))


def environment(folder: str, code_dir: str, environment_paths: list[str], home: str) -> dict[str, str]:
    """Build what the gate's programs get: the agent's own tools first, and nothing that leads to the running agent."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENT_", "AGENTCTL_", "GIT_PYTHON")) and name not in NOT_PASSED_ON
    }
    tools = [f"{base}/{path}/bin" for base in (folder, code_dir) for path in environment_paths]
    found = [path for path in tools if os.path.isdir(path)]
    path = ":".join([*found, os.environ.get("PATH") or PATH, os.path.dirname(sys.executable)])
    nobody = {"AGENT_NAME": ""}  # or agentctl would find the agent above it
    return {**kept, **nobody, "PATH": path, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}


def prepare_environment(folder: str, tools: dict, env: dict[str, str], log: str) -> Part:
    """Give the worktree what belongs to the code and is not in git: a copy of the running tree's, or built anew.

    Built where a lock file differs and a build is declared; a copy elsewhere. What is there already stays.
    """
    code = tools["code"]
    missing = [p for p in tools["paths"] if not os.path.lexists(f"{folder}/{p}") and os.path.lexists(f"{code}/{p}")]
    differing = [n for n in tools["lockfiles"] if _content(f"{folder}/{n}") != _content(f"{code}/{n}")]
    for name in missing:
        os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
        argv = ["/bin/cp", "-a", "--reflink=auto", "-T", f"{code}/{name}", f"{folder}/{name}"]
        try:
            command.run(argv, env={"LC_ALL": "C"}, limit_seconds=BUILD_SECONDS)
        except CommandFailed as error:
            return Part("environment", False, f"{name} could not be copied: {error.message}", "make room")
    if differing and tools["build"]:
        return _run("environment", tools["build"], folder, env, BUILD_SECONDS, log, "environment.build needs it")
    return Part("environment", True, f"copied: {', '.join(missing) or 'nothing'}")


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def check_syntax(folder: str, names: list[str], python: str, env: dict[str, str]) -> Part:
    """Read every changed file by its parser."""
    began = time.monotonic()
    verdict = syntax.check(folder, names, python, env)
    said = "\n".join(verdict.problems[: syntax.SHOWN])
    if not verdict.problems:
        unread = f", {verdict.unread} of no language known here" if verdict.unread else ""
        said = "; ".join([f"{verdict.read} files read{unread}", *verdict.notes])
    hint = f"correct {verdict.problems[0].partition(': ')[0]} and commit" if verdict.problems else ""
    return Part("syntax", not verdict.problems, said, hint, time.monotonic() - began)


def run_lint(folder: str, argv: list[str], names: list[str], env: dict[str, str], limit: float, log: str) -> Part:
    """Run the project's linter on what was changed."""
    if not argv:
        return Part("lint", True, "none is configured (change.lint)")
    chosen = {"{files}": names, "{python}": [n for n in names if n.endswith((".py", ".pyi"))]}
    wanted = [word for word in argv if word in chosen]
    if wanted and not any(chosen[word] for word in wanted):
        return Part("lint", True, "no changed file is for it")
    expanded = [part for word in argv for part in chosen.get(word, [word])]
    missing = f"install it where the agent's tools are, or choose another: agentctl config set change.lint '{[]}'"
    return _run("lint", expanded, folder, env, limit, log, missing)


def run_tests(folder: str, argv: list[str], env: dict[str, str], limit: float, log: str) -> Part:
    """Run the repository's tests."""
    if not argv:
        return Part("tests", True, "none are configured (change.tests)")
    missing = "install it where the agent's tools are, or name another command: agentctl config set change.tests"
    return _run("tests", argv, folder, env, limit, log, missing)


def _run(name: str, argv: list[str], folder: str, env: dict, limit: float, log: str, missing: str) -> Part:
    """Run one program of the gate to its end or its limit; its output is in the log."""
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=env["PATH"])
    if not program or not os.path.exists(os.path.join(folder, program)):
        return Part(name, False, f"'{argv[0]}' is not here (change.{name})", missing)
    mark, began = os.urandom(8).hex(), time.monotonic()
    os.makedirs(os.path.dirname(log), exist_ok=True)
    out = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        running = command.start(
            [os.path.join(folder, program), *argv[1:]],
            env={**env, MARK: mark},
            cwd=folder,
            stdin_fd=null,
            stdout_fd=out,
            stderr_fd=out,
        )
        why = _wait(running, out, limit)
    except CommandFailed as error:
        return Part(name, False, error.message, missing)
    finally:
        process.end_all(lambda: process.with_variable(MARK, mark))
        os.close(null)
        said = _tail(out)
        os.close(out)
    took = time.monotonic() - began
    if not why:
        return Part(name, True, said[-300:].strip() or "passed", "", took)
    return Part(name, False, f"{why}\n{said}".strip(), f"the whole output: {log}", took)


def _wait(running: command.Running, out: int, limit: float) -> str:
    """Wait for the end; return '' or what was wrong. What takes too long or prints without end is killed."""
    deadline, ended = time.monotonic() + limit, os.pidfd_open(running.pid)
    try:
        while not select.select([ended], [], [], min(0.5, max(0.0, deadline - time.monotonic())))[0]:
            if time.monotonic() >= deadline:
                running.kill()
                return f"no end after {limit:g}s (change.test_timeout); killed with its children"
            if os.fstat(out).st_size > MOST_OUTPUT_BYTES:
                running.kill()
                return f"it printed more than {MOST_OUTPUT_BYTES >> 20} MB; killed"
    finally:
        os.close(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])
    if status == 0:
        return ""
    return f"exit status {status}" if status > 0 else f"killed by signal {-status}"


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, SHOWN_BYTES, max(0, size - SHOWN_BYTES)).decode("utf-8", "replace")
