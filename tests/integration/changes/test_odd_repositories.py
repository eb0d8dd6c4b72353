"""Repositories of another kind: shallow, partial, of sha256, with odd names, are adopted or refused with a way out."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from agentctl.changes import adopt, agent_files
from agentctl.core.errors import AgentctlError
from agentctl.core.paths import USER, AgentPaths
from agentctl.generations import lifecycle
from agentctl.generations.agent_repo import Repository
from agentctl.generations.vault import Vault
from agentctl.retention import vault_compaction
from integration.world import git, make_repository, write
from kit import deadline

ODD_NAMES = ("o'hara", 'q"x', "a b$(touch x)", "back\\slash", "new\nline", "ünï", "-dash", "%25 ?#")


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTCTL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("AGENTCTL_SCOPE", USER)
    return AgentPaths("agent", USER, {"AGENTCTL_ROOT": str(tmp_path / "root")}, os.getuid())


@pytest.fixture
def origin(tmp_path):
    code = make_repository(tmp_path / "origin", {"run.sh": "sleep 1\n", "n": "0\n"})
    git(code, "config", "uploadpack.allowFilter", "true")
    for number in (1, 2, 3):
        write(code, {"n": f"{number}\n"})
        git(code, "commit", "-q", "-a", "-m", str(number))
    return code


def take(paths, code):
    return adopt.adopt(paths, str(code), ["/bin/sh", "run.sh"])


def clone(origin: Path, *words: str) -> Path:
    code = origin.parent / "code"
    git(origin.parent, "clone", "-q", *words, f"file://{origin}", str(code))
    return code


def next_generation(context, code: Path, content: str):
    write(code, {"n": content})
    git(code, "add", "-A")
    git(code, "commit", "-q", "-m", content)
    with context.ledger() as ledger:
        return lifecycle.identify(context, ledger)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_clone_is_an_agent_like_any_other(paths, origin, depth):
    code = clone(origin, "--depth", str(depth))
    context = take(paths, code)
    first = git(code, "rev-parse", "HEAD")
    made = next_generation(context, code, "more")
    vault = context.vault
    assert vault.own_commit(made) == git(code, "rev-parse", "HEAD")
    assert vault.check([made.vault_commit]) == ""
    vault_compaction.replace_by_copy(vault, [made.vault_commit])
    assert vault.check([made.vault_commit]) == ""
    shutil.rmtree(code / ".git")
    context.repository.remake("main", vault.git, [first])
    context.repository.put_on("main", first, {})
    assert (
        git(code, "log", "--format=%H", "main").split() == git(origin, "log", "-n", str(depth), "--format=%H").split()
    )
    git(code, "fsck", "--strict")


def test_what_is_fetched_later_stays_whole(paths, origin):
    code = clone(origin, "--depth", "1")
    context = take(paths, code)
    git(code, "fetch", "-q", "--unshallow")
    made = next_generation(context, code, "more")
    assert context.vault.own_commit(made) == git(code, "rev-parse", "HEAD")
    assert context.vault.check([made.vault_commit]) == ""
    context.repository.fetch_from(context.vault.git, [made.commit_id])
    assert git(code, "rev-list", "--count", "HEAD") == "5", "its history is not cut where the vault's is"


def test_a_clone_that_is_made_shallow_later(paths, origin):
    code = clone(origin)
    context = take(paths, code)
    write(origin, {"n": "4\n"})
    git(origin, "commit", "-q", "-a", "-m", "4")
    git(code, "fetch", "-q", "--depth", "1", "origin")
    git(code, "reset", "-q", "--hard", "origin/main")
    made = next_generation(context, code, "more")
    assert context.vault.own_commit(made) == git(code, "rev-parse", "HEAD")
    assert context.vault.check([made.vault_commit]) == ""


def test_a_partial_clone_is_refused_with_the_command_that_helps(paths, origin):
    code = clone(origin, "--filter=blob:none")
    with pytest.raises(AgentctlError) as caught:
        take(paths, code)
    assert "partial clone" in caught.value.message
    assert not Path(paths.data_dir).exists()
    help_ = caught.value.hint.partition("   ")[0]
    assert help_.startswith(f"git -C {code} fetch ")
    deadline.run(shlex.split(help_), check=True, capture_output=True)
    context = take(paths, code)
    with context.ledger() as ledger:
        assert context.vault.own_commit(ledger.generation(1)) == git(code, "rev-parse", "HEAD")


def test_a_partial_clone_that_lacks_nothing_is_adopted(paths, origin):
    take(paths, clone(origin, "--filter=blob:limit=1m"))


def test_sha256_is_refused_with_the_commands_that_help(paths, origin, tmp_path):
    code = tmp_path / "sha256"
    git(tmp_path, "init", "-q", "-b", "trunk", "--object-format=sha256", str(code))
    write(code, {"run.sh": "sleep 1\n"})
    git(code, "add", "-A")
    git(code, "commit", "-q", "-m", "one")
    with pytest.raises(AgentctlError) as caught:
        take(paths, code)
    assert "sha256" in caught.value.message
    help_ = caught.value.hint.partition(": ")[2]
    deadline.run(["sh", "-ec", help_], cwd=tmp_path, check=True, capture_output=True)
    context = take(paths, tmp_path / "COPY")
    assert context.config.agent.branch == "trunk"


def test_a_missing_object_is_told_as_such(paths, origin):
    code = clone(origin)
    oid = git(code, "rev-parse", "HEAD~2:n")
    pack = next((code / ".git/objects/pack").glob("*.pack"))
    aside = pack.rename(code / "aside.pack")
    for left in (code / ".git/objects/pack").iterdir():
        left.unlink()
    with open(aside, "rb") as file:
        deadline.run(["git", "-C", str(code), "unpack-objects", "-q"], stdin=file, check=True, capture_output=True)
    aside.unlink()
    (code / ".git/objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(AgentctlError) as caught:
        take(paths, code)
    assert "not whole" in caught.value.message and "fsck" in caught.value.hint


@pytest.mark.parametrize("tool", ["plain", "pre-commit"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_hook_works_at_an_odd_path(tmp_path, name, tool, monkeypatch):
    """The gate is a program at an odd path, too; it notes how it was called."""
    code = make_repository(tmp_path / name / "code", {"run.sh": "sleep 1\n"})
    gate = tmp_path / name / "agentctl"
    gate.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {shlex.quote(str(tmp_path / "called"))}\n')
    gate.chmod(0o755)
    config = tmp_path / name / "agent.toml"
    config.write_text("")
    tools = os.path.dirname(sys.executable)
    path = ":".join(p for p in os.environ["PATH"].split(":") if not os.path.exists(f"{p}/pre-commit"))
    monkeypatch.setenv("PATH", f"{tools}:{path}" if tool == "pre-commit" else path)
    agent_files.install(str(code), "w1", str(config), str(gate), {"AGENTCTL_ROOT": str(tmp_path / name)})
    write(code, {f"{name} file": "x"})
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C"}
    argv = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    deadline.run([*argv, "add", "-A"], cwd=code, env=env, check=True)
    done = deadline.run([*argv, "commit", "-q", "-m", "x"], cwd=code, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "called").read_text().split() == ["--name", "w1", "change", "check", "--staged"]
    assert not (code / "x").exists(), "nothing of a name is run"


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if name.isprintable()])
def test_an_odd_path_is_adopted_and_captured(paths, tmp_path, name):
    code = make_repository(tmp_path / name, {"run.sh": "sleep 1\n", f"{name} file": "x\n"})
    context = take(paths, code)
    made = next_generation(context, code, "more")
    assert context.vault.own_commit(made) == git(code, "rev-parse", "HEAD")
    assert Vault(context.vault.path).check([made.vault_commit]) == ""


def test_a_path_of_two_lines_is_refused_in_words(paths, tmp_path):
    code = make_repository(tmp_path / "new\nline", {"run.sh": "sleep 1\n"})
    with pytest.raises(AgentctlError) as caught:
        take(paths, code)
    assert "line break" in caught.value.message and "\n" not in caught.value.message
    assert "rename" in caught.value.hint


# What core.hooksPath says, what lies there, what init has to say, and whether a commit is gated then.
ELSEWHERE = {
    "a folder of the repository": (".husky", {}, "not gated", "make {code}/.husky/pre-commit an executable", False),
    "a hook of its own": (".husky", {".husky/pre-commit": "#!/bin/sh\n"}, "not gated",
                          "add to {code}/.husky/pre-commit", False),
    "husky since 9": (".husky/_", {".husky/_/pre-commit": "#!/bin/sh\n", ".husky/pre-commit": "true\n"}, "not gated",
                      "add to {code}/.husky/pre-commit", False),
    "gated by hand": (".husky", {".husky/pre-commit": "#!/bin/sh\nexec GATE --name w1 change check --staged\n"},
                      "are gated by {code}/.husky/pre-commit", "", True),
    "nowhere": ("/dev/null", {}, "not gated", "/dev/null", False),
    "another folder of git's": (".git/other", {}, "are gated as a plain git hook", "", True),
    "the usual one by its name": (".git/hooks", {}, "are gated as a plain git hook", "", True),
}  # fmt: skip


@pytest.mark.parametrize("case", ELSEWHERE)
@pytest.mark.parametrize("scope", ["--local", "--global"])
def test_hooks_elsewhere(tmp_path, case, scope, monkeypatch):
    setting, files, said, told, is_gated = ELSEWHERE[case]
    code = make_repository(tmp_path / "code", {"run.sh": "sleep 1\n"})
    gate = tmp_path / "agentctl"
    gate.write_text("#!/bin/sh\necho the gate says no\nexit 1\n")
    gate.chmod(0o755)
    (tmp_path / "agent.toml").write_text("")
    for name, content in files.items():
        write(code, {name: content.replace("GATE", str(gate))})
        (code / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    env = {"PATH": ":".join(p for p in os.environ["PATH"].split(":") if not os.path.exists(f"{p}/pre-commit")),
           "HOME": str(home), "LC_ALL": "C"}  # fmt: skip
    deadline.run(["git", "config", scope, "core.hooksPath", setting], cwd=code, env=env, check=True)
    before = sorted(str(p) for p in code.rglob("*") if ".git/" not in str(p))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    lines = agent_files.install(str(code), "w1", str(tmp_path / "agent.toml"), str(gate), {})
    assert said.format(code=code) in lines and told.format(code=code) in lines
    assert ("core.hooksPath" in lines) == (setting not in (".git/other", ".git/hooks"))
    after = sorted(str(p) for p in code.rglob("*") if ".git/" not in str(p))
    assert after == sorted([*before, f"{code}/SELF_MODIFICATION.md"]), "nothing is written into the code"
    argv = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty", "-m", "x"]
    done = deadline.run(argv, cwd=code, env=env, capture_output=True, text=True)
    assert ("the gate says no" in done.stdout + done.stderr) == is_gated == (done.returncode != 0)


def test_a_repository_that_does_not_say_has_its_hooks_in_the_usual_place(tmp_path):
    code = make_repository(tmp_path / "code", {"run.sh": "x\n"})
    (code / ".git/HEAD").write_text("broken")
    assert agent_files._find_hooks(str(code)) == f"{code}/.git/hooks"
    assert Repository(str(code), None).current_branch() == ""
