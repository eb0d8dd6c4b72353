"""What git ignores and moves into the good tree: no environment of the old code, and no byte code of it."""

from types import SimpleNamespace

import pytest

from agentctl.core.errors import CommandFailed
from agentctl.generations import slots


def asked(names, *, environment=(), keeps=None, inner=(), failing=0):
    """Stand for what is asked of a git that lists these names; `failing` times it fails first."""
    left = [failing]

    def read(_asked, _folders):
        if left[0]:
            left[0] -= 1
            raise CommandFailed(["git"], 128, b"", b"moved")
        return list(names)

    staging = SimpleNamespace(ask_ignored=lambda folder: ("asked", folder), read_ignored=read, code_dir="/code",
                              keep_ignored=keeps or (lambda found: found))  # fmt: skip
    repository = SimpleNamespace(inner_worktrees=lambda: list(inner))
    return staging, repository, "/quarantine/tree", ("asked", "ahead"), list(environment)


@pytest.mark.parametrize(
    ("names", "environment", "carried"),
    [
        ([".env", "data/", "a.log"], [], [".env", "data/", "a.log"]),
        ([".venv/", ".env"], [".venv"], [".env"]),
        ([".venv/lib/"], [".venv"], [".venv/lib/"]),
        (["a.pyc", "__pycache__/", "x/__pycache__/", "not__pycache__"], [], ["not__pycache__"]),
    ],
)
def test_what_is_carried(names, environment, carried):
    assert slots.choose_carried(*asked(names, environment=environment)) == carried


def test_the_good_tree_has_to_ignore_it_too_and_worktrees_inside_come_along():
    known = asked([".env", "tracked by the good one"], keeps=lambda names: names[:1], inner=["trees/x"])
    assert slots.choose_carried(*known) == [".env", "trees/x"]


def test_a_list_that_failed_is_asked_for_once_more():
    assert slots.choose_carried(*asked(["a"], failing=1)) == ["a"]


def test_where_git_cannot_say_it_is_found_without(monkeypatch):
    monkeypatch.setattr("agentctl.generations.repair_staging.find_ignored", lambda staging, folder: [folder])
    assert slots.choose_carried(*asked(["a"], failing=2)) == ["/quarantine/tree"]


@pytest.mark.parametrize("error", [CommandFailed(["git"], 1, b"", b""), FileNotFoundError()])
def test_a_tree_that_is_gone_is_not_asked(error):
    def fail(_folder):
        raise error

    assert slots.ask_ignored(SimpleNamespace(ask_ignored=fail), "/gone") is None
