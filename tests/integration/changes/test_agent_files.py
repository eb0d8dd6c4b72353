"""What `init` leaves in the repository, and every command of the protocol, run."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from pathlib import Path

import pytest

from agentctl.changes import agent_files
from integration.changing import CTL, making
from integration.world import SOURCE, git, write
from kit import deadline

PRE_COMMIT = os.path.join(os.path.dirname(sys.executable), "pre-commit")


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def hook_up(world) -> str:
    """Install what `init` installs; the command is a script that runs this source."""
    ctl = world.folder / "agentctl"
    ctl.write_text(f"#!/bin/sh\nPYTHONPATH={SOURCE} exec {sys.executable} -c '{CTL}' \"$@\"\n")
    ctl.chmod(0o755)
    return agent_files.install(str(world.code), world.name, world.paths.config_path, str(ctl), dict(world.environment))


def commit(folder, *words, tools=""):
    env = {"PATH": f"{tools}{os.environ['PATH']}", "HOME": "/nonexistent", "LC_ALL": "C"}
    argv = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-m", "x", *words]
    return deadline.run(argv, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("tool", ["plain", "pre-commit"])
def test_the_hook_stops_what_the_gate_would(make, tool, monkeypatch):
    world = make({"change": {"lint": ["ruff", "check", "--no-cache", "{python}"]}})
    if tool == "plain":
        monkeypatch.setenv(
            "PATH", ":".join(p for p in os.environ["PATH"].split(":") if not os.path.exists(f"{p}/pre-commit"))
        )
    else:
        assert os.path.exists(PRE_COMMIT), "pre-commit is in the test requirements"
        monkeypatch.setenv("PATH", f"{os.path.dirname(PRE_COMMIT)}:{os.environ['PATH']}")
    assert ("plain git hook" if tool == "plain" else "through pre-commit") in hook_up(world)
    folder = world.begin()
    write(folder, {"new.py": "def f(:\n"})
    git(folder, "add", "-A")
    refused = commit(folder)
    assert refused.returncode and "new.py:1" in refused.stdout + refused.stderr
    write(folder, {"new.py": "import os\n"})
    git(folder, "add", "-A")
    assert "F401" in (refused := commit(folder)).stdout + refused.stderr and refused.returncode
    assert commit(folder, "--no-verify").returncode == 0
    assert "it was not checked" in world.refuses("change", "promote")
    write(folder, {"new.py": "x = 1\n"})
    git(folder, "add", "-A")
    done = commit(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(folder, "status", "--porcelain") == "" == git(world.code, "status", "--porcelain")


def test_nothing_that_is_there_is_replaced_and_the_tree_stays_clean(make):
    world = make()
    write(world.code, {".git/hooks/pre-commit": "#!/bin/sh\n# mine\n", "SELF_MODIFICATION.md": "mine\n"})
    said = hook_up(world)
    assert said.count("is there already and stays") == 2
    assert (world.code / ".git/hooks/pre-commit").read_text() == "#!/bin/sh\n# mine\n"
    os.unlink(world.code / ".git/hooks/pre-commit")
    os.unlink(world.code / "SELF_MODIFICATION.md")
    before = git(world.code, "status", "--porcelain")
    hook_up(world)
    assert (world.code / "SELF_MODIFICATION.md").read_text() == agent_files.TEXT
    assert (world.code / ".git/hooks/pre-commit").stat().st_mode & stat.S_IXUSR
    assert git(world.code, "status", "--porcelain") == before == ""
    hook_up(world)
    assert (world.code / ".git/info/exclude").read_text().count("SELF_MODIFICATION.md") == 1


def test_a_hook_without_agentctl_hinders_nobody(make):
    world = make()
    hook_up(world)
    os.unlink(world.folder / "agentctl")
    folder = world.begin(files=None)
    write(folder, {"new.py": "def f(:\n"})
    git(folder, "add", "-A")
    assert commit(folder).returncode == 0


def commands():
    """Every agentctl command of the protocol, as words, in its order."""
    blocks = re.findall(r"```sh\n(.*?)```", agent_files.TEXT, re.DOTALL)
    inline = re.findall(r"`(agentctl [^`]+)`", agent_files.TEXT)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line)[1:] for line in lines], [shlex.split(line)[1:] for line in inline]


def test_every_command_of_the_protocol_works(make):
    """The blocks from top to bottom, as an agent would follow them; then those that are named in passing."""
    world = make()
    world.start()
    world.until_beating(1)
    followed, named = commands()
    assert len(followed) >= 8 and ["confirm"] in named
    for words in ([word.replace("NAME", "faster") for word in line] for line in followed):
        if words[:2] == ["change", "abandon"]:
            continue
        done = world.ctl(*words)
        if words[:2] == ["change", "start"]:
            world.commit_in(Path(re.search(r"worktree +(\S+)", done.stdout)[1]), {"faster.txt": "yes\n"})
        if words[:2] == ["change", "promote"]:
            world.until(lambda: world.status_of(2) == "good", "the blessing")
    assert world.change("feature/faster")["state"] == "blessed"
    world.ctl("change", "start", "feature/given-up")
    world.ctl("change", "abandon", "feature/given-up", "--reason", "why")
    world.begin("feature/passing", {"passing.txt": "yes\n"})
    for words in ([word.replace("NAME", "passing") for word in line] for line in named):
        status = 1 if words == ["confirm"] else 0
        world.ctl(*words, status=status)
    for word in ("AGENT_BRIEF_FILE", "AGENT_TRIAL", "--json", "--confirm-within"):
        assert word in agent_files.TEXT
    assert world.ctl("protocol").stdout == agent_files.TEXT
    assert world.change("feature/passing")["state"] in ("promoting", "on probation", "blessed")


@pytest.mark.parametrize(
    ("script", "words"), [("restart_agent.sh", ["restart", "--no-wait"]), ("roll_back.sh", ["rollback", "--yes", "3"])]
)
def test_the_scripts_that_some_agents_expect_call_agentctl(tmp_path, script, words):
    path = Path(__file__).resolve().parents[3] / "packaging" / script
    (tmp_path / "agentctl").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "agentctl").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = deadline.run([path, words[-1]], env=env, capture_output=True, text=True)
    assert done.stdout.split() == words and done.returncode == 0
