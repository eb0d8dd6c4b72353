"""The hooks for who works on agentctl, run by git in a scratch clone: what they refuse, and what they let pass.

`packaging/test env` makes its environment with a Python that is a script: what would be fetched is linked.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from kit import deadline

CHECKOUT = Path(__file__).resolve().parents[3]
NEEDED = (".pre-commit-config.yaml", "pyproject.toml", "packaging/check_subject", "packaging/lib.sh", "packaging/test")
TOOLS = ("pre-commit", "ruff")
PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && ln -s {tools} "$0" "$3/bin/" && ln -s "$0" "$3/bin/python" && echo "$3" >>{made} ;;
"-m pip") ;;
*) exec {python} "$@" ;;
esac
"""


class Clone:
    """A repository with what the hooks need, and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.code, self.cache, self.made = folder / "code", folder / "cache", folder / "made"
        for name in NEEDED:
            (self.code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, self.code / name)
        python = folder / "bin/python3"
        python.parent.mkdir()
        tools = " ".join(str(Path(sys.executable).with_name(name)) for name in TOOLS)
        python.write_text(PYTHON.format(tools=tools, made=self.made, python=sys.executable))
        python.chmod(0o755)
        versions = re.findall(r'^VERSIONS="(.*?)"', (CHECKOUT / "packaging/lib.sh").read_text(), re.MULTILINE)[0]
        for version in versions.split():  # a user's newest Python is looked for in all of PATH
            python.with_name(f"python{version}").symlink_to(python)
        path = f"{python.parent}:{os.environ['PATH']}"
        self.env = {"PATH": path, "HOME": str(folder), "XDG_CACHE_HOME": str(self.cache), "LC_ALL": "C",
                    "AGENTCTL_PYTHON_PATH": str(python.parent), "GIT_CONFIG_NOSYSTEM": "1"}  # fmt: skip

    def run(self, *argv: str):
        return deadline.run(argv, cwd=self.code, env=self.env, capture_output=True, text=True)

    def commit(self, text: str, message: str) -> str:
        """Try to commit a module; return what was said where that was refused, '' where it was not."""
        (self.code / "module.py").write_text(text)
        assert self.run("git", "add", "-A").returncode == 0
        done = self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-m", message)
        return done.stdout + done.stderr if done.returncode else ""


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_the_environment_is_made_once_and_its_path_is_all_that_is_printed(clone):
    first, second = clone.run("packaging/test", "env"), clone.run("packaging/test", "env")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout == clone.made.read_text()
    assert first.stdout.startswith(f"{clone.cache}/agentctl/test-venv-")
    assert "making" in first.stderr and not second.stderr


def test_what_the_hooks_refuse_and_what_passes(clone):
    assert clone.run("git", "init", "-q").returncode == 0
    installed = clone.run("sh", "-c", "$(packaging/test env)/bin/pre-commit install")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    good, subject = '"""A module."""\n\nNAME = "x"\n', "module: it has a name"
    assert "would be reformatted" in clone.commit(good.replace('"x"', "'x'"), subject)
    assert "F401" in clone.commit(good.replace("\n\n", "\n\nimport os\n\n"), subject)
    assert "is not 'area: what changes'" in clone.commit(good, "It has a name")
    assert "has 73 characters" in clone.commit(good, f"module: {'x' * 65}")
    assert clone.commit(good, subject) == ""
    assert clone.run("git", "log", "--format=%s").stdout == f"{subject}\n"


@pytest.mark.parametrize(
    "message",
    [
        f"slots: {'x' * 65}",
        f"slots: {'ü' * 65}",
        "tests, packaging: two areas",
        "runner's door: an area of two words",
        "\n# a comment\nslots: what git makes of it\n\n" + "The body may be long. " * 10,
        f"fixup! slots: {'x' * 65}",
    ],
)
def test_subjects_that_pass(clone, tmp_path, message):
    assert said_of(clone, tmp_path, message) == ""


@pytest.mark.parametrize("message", ["", "no area", "slots:", "slots: ", "slots:no space", ": x", "fixup! no area"])
def test_subjects_without_an_area(clone, tmp_path, message):
    assert "is not 'area: what changes'" in said_of(clone, tmp_path, message)


def test_a_subject_that_is_too_long(clone, tmp_path):
    assert "has 73 characters, and 72 are allowed" in said_of(clone, tmp_path, f"slots: {'ü' * 66}")


def said_of(clone: Clone, folder: Path, message: str) -> str:
    (folder / "message").write_text(message)
    done = clone.run("packaging/check_subject", str(folder / "message"))
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr
