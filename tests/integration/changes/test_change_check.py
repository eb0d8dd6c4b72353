"""`agentctl change check` and the hook: what is bad does not get past it, and past promote neither."""

from __future__ import annotations

import pytest

from integration.changing import making
from integration.world import git, write


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def test_a_good_change_passes_and_the_next_verb_is_try(make):
    world = make(
        {
            "change": {
                "lint": ["ruff", "check", "--no-cache", "{python}"],
                "tests": ["python3", "-c", "import behaviour; assert behaviour.MODE == 'healthy'"],
            }
        }
    )
    folder = world.begin(files={"new.py": "x = 1\n", "tool": "#!/bin/sh\necho\n"})
    told = world.ctl("change", "check").stdout
    assert "syntax: 2 files read" in told and "ok      lint" in told and "ok      tests" in told
    assert world.change()["next"] == "try: it was not tried"
    assert git(folder, "status", "--porcelain") == ""
    found = world.ask("change", "check", "feature/x")
    assert found["ok"] and [part["name"] for part in found["parts"]] == ["syntax", "lint", "tests"]


def test_each_part_stops_it_and_says_where(make):
    world = make({"change": {"lint": ["ruff", "check", "--no-cache", "{python}"], "tests": ["sh", "-c", "test -e ok"]}})
    folder = world.begin(files={"new.py": "def f(:\n"})
    told = world.refuses("change", "check")
    assert "failed at syntax" in told and "correct new.py:1" in told
    world.commit_in(folder, {"new.py": "import os\n"})
    assert "failed at lint" in world.refuses("change", "check")
    assert world.change()["next"].startswith("check: the check failed: lint")
    world.commit_in(folder, {"new.py": "x = 1\n"})
    assert "failed at tests" in world.refuses("change", "check")
    world.commit_in(folder, {"ok": ""})
    world.ctl("change", "check")
    world.commit_in(folder, {"new.py": "x = 2\n"})
    assert world.change()["next"] == "check: it has changed since it was checked"


def test_only_what_the_change_touches_is_read(make):
    world = make()
    world.commit({"old.py": "def broken(:\n"})
    world.begin(files={"new.py": "x = 1\n"})
    world.commit({"later.py": "def broken(:\n"})
    assert "1 files read" in world.ctl("change", "check").stdout


def test_what_is_in_no_commit_is_not_checked(make):
    world = make()
    folder = world.begin()
    assert "nothing in it that main does not have" in world.refuses("change", "check")
    write(folder, {"draft.py": "x = 1\n"})
    assert "in no commit: draft.py" in world.refuses("change", "check")


def test_a_linter_that_is_not_there(make):
    world = make({"change": {"lint": ["no-such-linter", "{files}"]}})
    world.begin(files={"new.py": "x = 1\n"})
    told = world.refuses("change", "check")
    assert "failed at lint" in told and "config set change.lint" in told


def test_tests_that_hang_are_ended(make):
    world = make({"change": {"tests": ["sleep", "600"], "test_timeout": "1s"}})
    world.begin(files={"new.py": "x = 1\n"})
    done = world.ctl("change", "check", status=1)
    assert "no end after 1s" in done.stdout and "failed at tests" in done.stderr


def test_staged_content_counts_not_what_lies_in_the_tree(make):
    world = make({"change": {"lint": ["ruff", "check", "--no-cache", "{python}"]}})
    folder = world.begin()
    write(folder, {"new.py": "import os\n", "ruff.toml": "lint.ignore = ['F401']\n"})
    git(folder, "add", "-A")
    world.ctl("change", "check", "--staged", cwd=folder)  # by the project's own settings
    git(folder, "rm", "-q", "--cached", "ruff.toml")
    world.ctl("change", "check", "--staged", cwd=folder, status=1)
    write(folder, {"new.py": "x = 1\n"})
    world.ctl("change", "check", "--staged", cwd=folder, status=1)
    git(folder, "add", "new.py")
    world.ctl("change", "check", "--staged", cwd=folder)
