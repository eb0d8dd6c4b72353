"""The story of `change check`: the gate (syntax, linter, tests) on what is committed on a branch or staged.

Every program has a limit and ends with all its children, also those that left its process group; none of them
sees the running agent (its state folder, its sockets, its token).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import tempfile
import time

from ..core.errors import AgentctlError, CommandFailed
from ..generations import worktree
from ..host import command, procfs
from ..ledger.models import ChangeRecord

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOST_OUTPUT_BYTES = 64 << 20
SHOWN_BYTES = 1500
BUILD_SECONDS = 900.0
MARK = "AGENTCTL_GATE"
NOT_PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE",
                 "GIT_PREFIX", "TMUX", "TMUX_PANE")  # fmt: skip


class CheckPart:
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


def prepare_environment(folder: str, tools: dict, env: dict[str, str], log: str) -> CheckPart:
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
            return CheckPart("environment", False, f"{name} could not be copied: {error.message}", "make room")
    if differing and tools["build"]:
        return _run("environment", tools["build"], folder, env, BUILD_SECONDS, log, "environment.build needs it")
    return CheckPart("environment", True, f"copied: {', '.join(missing) or 'nothing'}")


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def check_syntax(folder: str, names: list[str], python: str, env: dict[str, str]) -> CheckPart:
    """Read every changed file by its parser."""
    began = time.monotonic()
    verdict = check(folder, names, python, env)
    said = "\n".join(verdict.problems[:SHOWN])
    if not verdict.problems:
        unread = f", {verdict.unread} of no language known here" if verdict.unread else ""
        said = "; ".join([f"{verdict.read} files read{unread}", *verdict.notes])
    hint = f"correct {verdict.problems[0].partition(': ')[0]} and commit" if verdict.problems else ""
    return CheckPart("syntax", not verdict.problems, said, hint, time.monotonic() - began)


def run_lint(folder: str, argv: list[str], names: list[str], env: dict[str, str], limit: float, log: str) -> CheckPart:
    """Run the project's linter on what was changed."""
    if not argv:
        return CheckPart("lint", True, "none is configured (change.lint)")
    chosen = {"{files}": names, "{python}": [n for n in names if n.endswith((".py", ".pyi"))]}
    wanted = [word for word in argv if word in chosen]
    if wanted and not any(chosen[word] for word in wanted):
        return CheckPart("lint", True, "no changed file is for it")
    expanded = [part for word in argv for part in chosen.get(word, [word])]
    missing = f"install it where the agent's tools are, or choose another: agentctl config set change.lint '{[]}'"
    return _run("lint", expanded, folder, env, limit, log, missing)


def run_tests(folder: str, argv: list[str], env: dict[str, str], limit: float, log: str) -> CheckPart:
    """Run the repository's tests."""
    if not argv:
        return CheckPart("tests", True, "none are configured (change.tests)")
    missing = "install it where the agent's tools are, or name another command: agentctl config set change.tests"
    return _run("tests", argv, folder, env, limit, log, missing)


def _run(name: str, argv: list[str], folder: str, env: dict, limit: float, log: str, missing: str) -> CheckPart:
    """Run one program of the gate to its end or its limit; its output is in the log."""
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=env["PATH"])
    if not program or not os.path.exists(os.path.join(folder, program)):
        return CheckPart(name, False, f"'{argv[0]}' is not here (change.{name})", missing)
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
        return CheckPart(name, False, error.message, missing)
    finally:
        procfs.end_all(lambda: procfs.with_variable(MARK, mark))
        os.close(null)
        said = _tail(out)
        os.close(out)
    took = time.monotonic() - began
    if not why:
        return CheckPart(name, True, said[-300:].strip() or "passed", "", took)
    return CheckPart(name, False, f"{why}\n{said}".strip(), f"the whole output: {log}", took)


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


# -- check -----------------------------------------------------------------------------------------
# The story of `change check`: run the gate on what is committed on a branch, or on what is staged, and tell.
# The verdict counts for exactly the tree it was found on; a commit made with --no-verify has none.


SAID_IN_RECORD = 300
# Where linters look for their settings, exported with the staged files.
SETTINGS_FILES = ("pyproject.toml", "ruff.toml", ".ruff.toml", "setup.cfg", "tox.ini", ".flake8", ".pylintrc",
                  "mypy.ini")  # fmt: skip


def run(changes, row: ChangeRecord, say) -> dict:
    """Check a change, keep the verdict, and return it; `say` is told of every part as it ends."""
    facts, _ = changes.look(row)
    lacks = [lack for lack in changes.find_lacks(row, facts) if lack.verb in ("start", "commit")]
    if lacks:
        raise AgentctlError(f"cannot check '{row.name}': {lacks[0].why}", lacks[0].command)
    log = log_path(changes, row.name, "check")
    answer = changes.as_agent(check_worktree, _settings(changes), row.worktree, log, changes.main, say)
    parts = json.loads(answer)
    record = verdict(parts) | {"commit": facts.head, "tree": facts.tree}
    short = [{**part, "said": part["said"][-SAID_IN_RECORD:]} for part in parts]
    changes.ask("check", row.name, facts=record | {"parts": short})
    obstacles = [obstacle.to_dict() for obstacle in changes.find_obstacles(row)]
    return record | {"name": row.name, "parts": parts, "obstacles": obstacles}


def verdict(parts: list[dict]) -> dict:
    """Sum the parts up: ok, and what was wrong first."""
    bad = next((part for part in parts if not part["ok"]), None)
    return {"ok": bad is None, "why": f"{bad['name']}: {bad['said'].splitlines()[0]}" if bad else ""}


def log_path(changes, name: str, what: str) -> str:
    """Where the whole output of the last check or trial is kept: in the repository's own folder, with the agent."""
    return f"{changes.context.code_dir}/.git/agentctl/{name}/{what}.log"


def _settings(changes) -> dict:
    """What the gate needs of the settings, as plain values."""
    config, user = changes.context.config, changes.context.user
    return {
        "command": config.agent.command,
        "code": changes.context.code_dir,
        "paths": config.environment.paths,
        "lint": config.change.lint,
        "tests": config.change.tests,
        "limit": config.change.test_timeout,
        "home": user.home if user else os.path.expanduser("~"),
    }


def check_worktree(settings: dict, folder: str, log: str, main: str, say) -> str:
    """Run all of the gate in a worktree; return its parts."""
    names = json.loads(worktree.changed_files(folder, f"refs/heads/{main}"))
    env = environment(folder, settings["code"], settings["paths"], settings["home"])
    steps = (
        lambda: check_syntax(folder, names, choose_python(settings, folder, env), env),
        lambda: run_lint(folder, settings["lint"], names, env, settings["limit"], f"{log[:-4]}-lint.log"),
        lambda: run_tests(folder, settings["tests"], env, settings["limit"], log),
    )
    return _run_parts(steps, say)


def _run_parts(steps, say) -> str:
    """Run part after part; the tests of what does not even parse are not worth their time."""
    parts: list[CheckPart] = []
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
        env = environment(folder, settings["code"], settings["paths"], settings["home"])
        names = [n for n in names if os.path.lexists(f"{folder}/{n}")]  # not a submodule
        log = f"{folder}/.agentctl/lint.log"
        return _run_parts((
            lambda: check_syntax(folder, names, choose_python(settings, folder, env), env),
            lambda: run_lint(folder, settings["lint"], names, env, settings["limit"], log),
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


# -- syntax ----------------------------------------------------------------------------------------
# Is it the language it claims to be? Real parsers, nothing is executed: Python, shell, JSON, TOML, JavaScript.
# Python is read by the agent's own interpreter, whose grammar is the one that counts. What nobody here can read is
# left alone and counted, not guessed at.


LIMIT_SECONDS = 120
SHOWN = 20
BY_ENDING = {".py": "python", ".pyi": "python", ".sh": "sh", ".bash": "bash", ".json": "json", ".toml": "toml",
             ".js": "node", ".mjs": "node", ".cjs": "node"}  # fmt: skip
BY_INTERPRETER = {"python": "python", "sh": "sh", "dash": "sh", "bash": "bash", "zsh": "zsh", "ksh": "ksh",
                  "node": "node"}  # fmt: skip
WITH_COMMENTS = ("tsconfig", "jsconfig", "devcontainer", ".eslintrc")  # JSON that is none, by long custom
PYTHON = r"""
import sys, warnings
warnings.simplefilter("ignore")
for name in filter(None, sys.stdin.buffer.read().split(b"\0")):
    try:
        with open(name, "rb") as file:
            compile(file.read(), name, "exec", 0, True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or "?"
        said = getattr(error, "msg", None) or str(error) or type(error).__name__
        sys.stdout.buffer.write(name + (":%s: %s\n" % (line, said)).encode("utf-8", "replace"))
"""


class SyntaxVerdict:
    """What was found: `problems` as `file:line: what`, how many files were read, how many nobody could read."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.read = self.unread = 0
        self.notes: list[str] = []


def check(folder: str, names: list[str], python: str, env: dict[str, str]) -> SyntaxVerdict:
    """Read every named file of `folder` by its language's parser."""
    verdict, by_kind = SyntaxVerdict(), {}
    for name in names:
        kind = _kind(f"{folder}/{name}")
        by_kind.setdefault(kind, []).append(name)
    verdict.unread = len(by_kind.pop("", []))
    readers = {"python": lambda found: _python(folder, found, python, env), "json": lambda found: _json(folder, found),
               "toml": lambda found: _toml(folder, found)}  # fmt: skip
    for kind, found in by_kind.items():
        program = "" if kind in readers else shutil.which(kind, path=env["PATH"])
        if program is None:
            verdict.unread += len(found)
            verdict.notes.append(f"{kind} is not here: {len(found)} of its files were not read")
            continue
        reader = readers.get(kind) or (lambda found, kind=kind, program=program: _by(kind, program, folder, found, env))
        verdict.problems += reader(found)
        verdict.read += len(found)
    return verdict


def _kind(path: str) -> str:
    """Tell the language of a file, '' for none that we know; links are their target's business."""
    if os.path.islink(path) or not os.path.isfile(path):
        return ""
    ending = os.path.splitext(path)[1].lower()
    with open(path, "rb") as file:
        first = file.readline(200)
    shebang = _interpreter(first.decode("utf-8", "replace")) if first.startswith(b"#!") else ""
    if ending in (".sh", ".bash", "") and shebang:
        return BY_INTERPRETER.get(shebang.rstrip("0123456789."), "")
    if ending == ".json" and os.path.basename(path).startswith(WITH_COMMENTS):
        return ""
    return BY_ENDING.get(ending, "")


def _interpreter(line: str) -> str:
    words = line[2:].split()
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return os.path.basename(words[0]) if words else ""


def _python(folder: str, names: list[str], python: str, env: dict[str, str]) -> list[str]:
    listed = "\0".join(names).encode("utf-8", "surrogateescape")
    try:
        done = command.run(
            [python, "-I", "-S", "-c", PYTHON], env=env, cwd=folder, stdin=listed, limit_seconds=LIMIT_SECONDS
        )
    except CommandFailed as error:  # a file can bring the parser itself down
        return [f"{names[0]}{' or another of them' if len(names) > 1 else ''}: {error.message[-300:]}"]
    return done.text.splitlines()


def _by(kind: str, program: str, folder: str, names: list[str], env: dict[str, str]) -> list[str]:
    """Ask an interpreter that can only read: `sh -n`, `bash -n`, `node --check`."""
    problems = []
    for name in names:
        argv = [program, "--check" if kind == "node" else "-n", f"./{name}"]
        try:
            command.run(argv, env=env, cwd=folder, limit_seconds=LIMIT_SECONDS)
        except CommandFailed as error:
            said = error.stderr.decode("utf-8", "replace").strip().removeprefix("./").splitlines()
            problems.append(_first_telling(said, name) or f"{name}: {error.message[-200:]}")
    return problems


def _first_telling(said: list[str], name: str) -> str:
    """Choose the line that names the mistake; it begins with the file's name."""
    line = next((s for s in said if "rror" in s or "nexpected" in s), said[0] if said else "")
    line = line.removeprefix("./")
    return line if not line or line.startswith(name) else f"{name}: {line}"


def _json(folder: str, names: list[str]) -> list[str]:
    import json

    return _each(folder, names, lambda data: json.loads(data.decode("utf-8-sig")))


def _toml(folder: str, names: list[str]) -> list[str]:
    import tomllib

    return _each(folder, names, lambda data: tomllib.loads(data.decode("utf-8")))


def _each(folder: str, names: list[str], parse) -> list[str]:
    problems = []
    for name in names:
        try:
            with open(f"{folder}/{name}", "rb") as file:
                parse(file.read())
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}: {error}")
    return problems
