"""git as we run it: not let wait at what is no file, however it comes to be asked."""

from __future__ import annotations

import os
import time

import pytest

from agentctl.core.errors import CommandFailed
from agentctl.generations.git import pipe_pack
from integration.vault_store import contents
from integration.world import git, write


def put_fifo(store, revision):
    """Put a FIFO in the place of a loose object."""
    oid = git(store.code, "rev-parse", revision)
    path = store.code / ".git/objects" / oid[:2] / oid[2:]
    path.unlink()
    os.mkfifo(path)


def test_git_is_not_let_wait_at_an_object_that_is_no_file(store):
    """For ten minutes, once; the tree can be had without that object."""
    put_fifo(store, "HEAD^{tree}")
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="waits at what is no file"):
        store.repository.git.has_object("HEAD^{tree}:agent.py")
    with pytest.raises(CommandFailed, match="waits at what is no file"):
        pipe_pack(store.repository.git, [git(store.code, "rev-parse", "HEAD")], [], store.vault.git)
    assert store.repository.look() == ("", "", "")
    before = time.monotonic()
    with pytest.raises(CommandFailed, match="as before"):  # it is known by now
        store.repository.git.run("cat-file", "-p", "HEAD^{tree}")
    assert time.monotonic() - before < 1
    assert contents(store.laid_out(store.keep())) == contents(store.code)
    assert time.monotonic() - begun < 30


def test_git_is_not_let_wait_where_the_copy_goes(store):
    """A commit comes in from the vault beside an object that is no file: neither side of the copy waits on."""
    commit = store.keep()
    put_fifo(store, "HEAD:agent.py")
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="waits at what is no file"):
        store.repository.fetch_from(store.vault.git, [commit])
    assert time.monotonic() - begun < 10
    assert (store.vault.git.standstills, store.repository.git.standstills) == (0, 1)  # the vault is not to blame


@pytest.mark.parametrize("name", [".gitattributes", "lib/.gitattributes", ".gitignore"])
def test_a_fifo_in_the_tree_does_not_hold_up_a_copy_of_commits(store, name):
    write(store.code, {"lib/x": "1\n"})
    git(store.code, "add", "-A")
    git(store.code, "commit", "-q", "-m", "more")
    os.mkfifo(store.code / name)
    begun = time.monotonic()
    commit = store.keep()
    store.vault.keep_branches(store.repository.git)
    assert store.vault.refs("refs/agentctl/commit/") == {"refs/agentctl/commit/1": git(store.code, "rev-parse", "HEAD")}
    assert (store.laid_out(commit) / "lib/x").read_text() == "1\n"
    assert time.monotonic() - begun < 10
