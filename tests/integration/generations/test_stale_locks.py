"""Locks of git are moved aside when nobody can hold them, and left alone as long as somebody may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from agentctl.generations import stale_locks
from agentctl.generations.agent_repo import Repository
from integration.world import World, git, make_repository, wait_until, write
from kit import deadline

LOCKS = (
    "index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock", "refs/heads/main.lock",
    "refs/heads/feature/deep.lock", "refs/tags/v1.lock", "logs/HEAD.lock", "objects/info/commit-graphs/x.lock",
    "objects/maintenance.lock", "gc.pid", "gc.pid.lock", "worktrees/wt/index.lock", "worktrees/wt/HEAD.lock",
    "modules/lib/index.lock", "modules/lib/modules/inner/refs/heads/main.lock",
)  # fmt: skip
NO_LOCKS = ("worktrees/wt/locked", "refs/heads/clock", "index", "HEAD", "info/exclude")


@pytest.fixture
def code(tmp_path):
    code = make_repository(tmp_path / "code", {"a.txt": "1\n"})
    git(code, "worktree", "add", "-q", str(tmp_path / "wt"))
    git(code, "worktree", "lock", str(tmp_path / "wt"))
    git(code, "branch", "clock")
    for name in ("lib", "lib/modules/inner"):
        git(tmp_path, "init", "-q", "--bare", str(code / ".git/modules" / name))
    return code


def leave(code, *names: str) -> None:
    write(code / ".git", dict.fromkeys(names, "left\n"))


def clear(code) -> tuple[list[str], str]:
    said: list[str] = []
    return stale_locks.clear(Repository(str(code), None), said.append), "\n".join(said)


@pytest.fixture
def children():
    """What a test starts, ended with all that it started."""
    started: list[subprocess.Popen] = []
    yield started
    for running in started:
        os.killpg(running.pid, signal.SIGKILL)
        deadline.wait(running)


def start(children, argv, cwd, **env):
    running = subprocess.Popen(argv, cwd=cwd, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env},
                               start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    children.append(running)
    return running


def test_every_kind_of_lock_goes_and_nothing_else(code):
    leave(code, *LOCKS)
    moved, said = clear(code)
    assert sorted(moved) == sorted(LOCKS)
    assert all(not (code / ".git" / name).exists() for name in LOCKS)
    assert all((code / ".git" / name).exists() for name in NO_LOCKS)
    assert "index.lock" in said and "more" in said and ".git/agentctl/locks" in said
    assert (code / ".git/agentctl/locks/refs%heads%main.lock").read_text() == "left\n"
    write(code, {"b.txt": "2\n"})
    git(code, "add", "-A")
    git(code, "commit", "-q", "-m", "it works")
    leave(code, "index.lock")
    assert clear(code)[0] == ["index.lock"], "one of the same name takes the place of the last"
    assert clear(code) == ([], "")


def test_a_repository_that_is_gone_has_no_locks(tmp_path):
    assert clear(tmp_path / "nowhere") == ([], "")


@pytest.mark.parametrize("place", ["code", "wt"])
def test_a_commit_whose_editor_is_open_keeps_its_lock(code, tmp_path, children, place):
    """git has closed the file by then: no descriptor tells of it."""
    folder = tmp_path / place
    write(folder, {"a.txt": "changed\n"})
    lock = code / (".git/index.lock" if place == "code" else ".git/worktrees/wt/index.lock")
    sign = tmp_path / "open"
    start(children, ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-a"], folder,
          GIT_EDITOR=f"touch {sign}; sleep 600; :")  # fmt: skip
    wait_until(lambda: sign.exists() and lock.exists(), "an editor")
    leave(code, "HEAD.lock")
    moved, said = clear(code)
    assert moved == [] and lock.exists() and (code / ".git/HEAD.lock").exists()
    assert f"git (process {children[0].pid})" in said and "stay" in said
    os.killpg(children[0].pid, signal.SIGKILL)
    wait_until(lambda: children[0].poll() is not None, "its end")
    moved, _ = clear(code)
    assert "HEAD.lock" in moved and not lock.exists()


def test_a_lock_that_a_library_has_open_stays(code, tmp_path, children):
    sign = tmp_path / "open"
    program = (
        f"import time; f = open({str(code / '.git/index.lock')!r}, 'x'); open({str(sign)!r}, 'w'); time.sleep(600)"
    )
    start(children, [sys.executable, "-c", program], "/")
    wait_until(sign.exists, "a lock that is open")
    moved, said = clear(code)
    assert moved == [] and f"process {children[0].pid}" in said
    assert (code / ".git/index.lock").exists()


def test_a_git_that_is_told_of_the_repository_counts_wherever_it_stands(code, children):
    words = ["git", f"--git-dir={code}/.git", "cat-file", "--batch"]
    read_end, write_end = os.pipe()
    running = subprocess.Popen(words, cwd="/", stdin=read_end, stdout=subprocess.DEVNULL, start_new_session=True)
    children.append(running)
    leave(code, "index.lock")
    wait_until(lambda: clear(code)[1], "a look")
    assert (code / ".git/index.lock").exists()
    os.close(write_end)
    os.close(read_end)


def test_a_git_at_work_elsewhere_is_nobody_s_holder(code, tmp_path, children):
    other = make_repository(tmp_path / "code2", {"a": "1"})
    sign = tmp_path / "open"
    git(other, "commit", "-q", "--allow-empty", "-m", "x")
    start(children, ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty"], other,
          GIT_EDITOR=f"touch {sign}; sleep 600; :")  # fmt: skip
    wait_until(sign.exists, "an editor")
    leave(code, "index.lock")
    assert clear(code)[0] == ["index.lock"]


def test_a_lock_taken_meanwhile_is_another_lock(code):
    leave(code, "index.lock", "HEAD.lock")
    found = stale_locks.fast_json.loads(stale_locks.find(f"{code}/.git", str(code)))
    (code / ".git/index.lock").unlink()
    leave(code, "index.lock")
    moved = stale_locks.set_aside(f"{code}/.git", stale_locks.fast_json.dumps(found["locks"]))
    assert moved == "HEAD.lock" and (code / ".git/index.lock").exists()


def test_what_is_in_the_way_of_it_does_not_hinder_a_launch(code):
    leave(code, "index.lock", "agentctl")
    moved, said = clear(code)
    assert moved == [] and "could not be looked at" in said


@pytest.mark.parametrize(
    ("name", "words", "is_it"),
    [
        ("git", ["git", "commit"], True),
        ("git-remote-http", ["/usr/lib/git-core/git-remote-https", "origin"], True),
        ("git", ["git", "gc", "--auto"], True),
        ("git-daemon", ["git-daemon", "--export-all"], False),
        ("git", ["git", "fsmonitor--daemon", "run"], False),
        ("git", ["git", "-C", "/x", "credential-cache--daemon"], True),  # not among its first words: it counts
        ("git", ["git", "daemon"], False),
        ("gitea", ["gitea", "web"], False),
        ("python3", ["python3", "git"], False),
        ("", [""], False),
    ],
)
def test_what_a_git_is(name, words, is_it):
    assert stale_locks.is_git(name, words) == is_it


def test_a_relaunch_clears_what_a_dead_agent_left(monkeypatch):
    world = World(monkeypatch)
    try:
        world.adopt()
        world.start()
        first = world.until_beating()
        leave(world.code, "index.lock", "refs/heads/main.lock")
        os.kill(world.live()["pid"], signal.SIGKILL)
        world.until_beating(after=first["id"])
        assert not (world.code / ".git/index.lock").exists()
        assert "moved aside what a git left" in world.log and "index.lock" in world.log
        assert world.one("SELECT text FROM events WHERE kind='locks'")["text"].startswith("moved aside: ")
        world.commit({"new.txt": "x\n"})
    finally:
        world.end()
