"""The vault: what goes in is exact, what comes out is exact, and what was in it stays."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError, CommandFailed
from integration.vault_store import contents
from integration.world import git, write


def forge(code: Path, of: str, content: bytes) -> str:
    """Put other content under the name of the object `of`."""
    oid = git(code, "rev-parse", of)
    path = code / ".git/objects" / oid[:2] / oid[2:]
    os.chmod(path, 0o644)
    path.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content))
    return oid


def test_a_forged_object_does_not_get_into_the_vault(store):
    oid = forge(store.code, "HEAD:agent.py", b"print('evil')\n")
    capture = store.capture()
    made = store.keep(capture)
    assert (store.laid_out(made) / "agent.py").read_text() == "print(1)\n"
    assert store.vault.git.run("cat-file", "blob", oid).stdout == b"print(1)\n"
    assert store.vault.check([made]) == ""
    with pytest.raises(CommandFailed):
        store.vault.git.run("cat-file", "blob", git(store.code, "hash-object", "--stdin", input=b"print('evil')\n"))


def test_a_forged_object_of_a_dirty_tree_does_not_either(store):
    forge(store.code, "HEAD:agent.py", b"print('evil')\n")
    write(store.code, {"more.txt": "dirty\n"})
    made = store.keep()
    assert contents(store.laid_out(made)) == contents(store.code)
    assert store.vault.check([made]) == ""


def test_laying_out_something_the_vault_lacks(store):
    (store.folder / "x").mkdir()
    with pytest.raises(AgentctlError):
        store.vault.lay_out("1" * 40, str(store.folder / "x"))


def test_a_vault_with_a_rotten_object_says_so(store):
    write(store.code, {"big": os.urandom(5000)})
    made = store.keep()
    assert store.vault.check([made]) == ""
    for pack in Path(store.vault.path, "objects/pack").glob("*.pack"):
        os.chmod(pack, 0o644)
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 0xFF
        pack.write_bytes(data)
    assert store.vault.check([made])


def test_branches_and_tags_are_kept_also_when_they_are_gone(store):
    git(store.code, "branch", "idea")
    git(store.code, "tag", "-a", "v1", "-m", "one")
    store.vault.keep_branches(store.repository.git)
    before = store.vault.refs("refs/agentctl/kept/")
    assert set(before) == {f"refs/agentctl/kept/{n}" for n in ("heads/main", "heads/idea", "tags/v1")}
    git(store.code, "branch", "-D", "idea")
    store.vault.keep_branches(store.repository.git)
    assert store.vault.refs("refs/agentctl/kept/") == before


def test_a_branch_that_became_a_folder_of_branches_is_kept(store):
    git(store.code, "branch", "topic", git(store.code, "commit-tree", "HEAD^{tree}", "-m", "only here"))
    only = git(store.code, "rev-parse", "topic")
    store.vault.keep_branches(store.repository.git)
    git(store.code, "branch", "-D", "topic")
    git(store.code, "branch", "topic/a")
    write(store.code, {"agent.py": "print(3)\n"})
    git(store.code, "commit", "-q", "-am", "third")
    store.vault.keep_branches(store.repository.git)
    assert store.vault.refs("refs/agentctl/kept/heads/main").popitem()[1] == git(store.code, "rev-parse", "main")
    assert only in store.vault.refs("refs/agentctl/replaced/").values()


def test_the_lock_of_a_killed_git_does_not_close_the_vault(store):
    commit = store.keep()
    for name in ("g/1", "commit/1", "good/1"):
        lock = Path(store.vault.path, "refs/agentctl", f"{name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text("")
    store.vault.update({"refs/agentctl/g/1": commit, "refs/agentctl/good/1": commit})
    assert store.vault.refs("refs/agentctl/good/") == {"refs/agentctl/good/1": commit}
    assert not list(Path(store.vault.path).rglob("*.lock"))


@pytest.mark.parametrize("left", ["refs/agentctl/good/1.lock", "packed-refs.lock", "packed-refs.new"])
def test_a_lock_that_nobody_holds_does_not_hinder_the_vault(store, left):
    made = store.keep()
    store.vault.update({"refs/agentctl/good/1": made})
    git(store.vault.path, "pack-refs", "--all")
    write(store.vault.path, {left: ""})
    store.vault.update({"refs/agentctl/good/1": None, "refs/agentctl/golden": made})
    found = store.vault.refs("refs/agentctl/")
    assert set(found) == {"refs/agentctl/g/1", "refs/agentctl/commit/1", "refs/agentctl/golden"}


def test_what_git_refuses_for_another_reason_is_an_error(store):
    made = store.keep()
    with pytest.raises(CommandFailed, match="update-ref"):
        store.vault.update({"refs/agentctl/g/1/below": made})
