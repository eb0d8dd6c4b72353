"""Is it the language it claims to be? Real parsers, nothing is executed: Python, shell, JSON, TOML, JavaScript.

Python is read by the agent's own interpreter, whose grammar is the one that counts. What nobody here can read is
left alone and counted, not guessed at.
"""

from __future__ import annotations

import os
import shutil

from ..errors import CommandFailed
from ..machine import command

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


class Verdict:
    """What was found: `problems` as `file:line: what`, how many files were read, how many nobody could read."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.read = self.unread = 0
        self.notes: list[str] = []


def check(folder: str, names: list[str], python: str, env: dict[str, str]) -> Verdict:
    """Read every named file of `folder` by its language's parser."""
    verdict, by_kind = Verdict(), {}
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
