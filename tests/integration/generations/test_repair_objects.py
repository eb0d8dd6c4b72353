"""Objects that are damaged, gone or no files: found, put aside, and brought again from the vault."""

import os

import pytest

from agentctl.core.errors import CommandFailed
from agentctl.generations import repair_objects
from integration.world import git, write


def path_of(store, revision):
    oid = git(store.code, "rev-parse", revision)
    return store.code / ".git/objects" / oid[:2] / oid[2:]


def torn(path):
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:5])


def empty(path):
    path.chmod(0o644)
    path.write_bytes(b"")


def a_fifo(path):
    path.unlink()
    os.mkfifo(path)


def gone(path):
    path.unlink()


@pytest.fixture
def kept(store):
    """Have the vault hold the one commit of the repository; return what a repair may ask it for."""
    store.keep()
    return [git(store.code, "rev-parse", "HEAD")]


def mend(store, known):
    return repair_objects.repair(store.repository, store.vault.git, known, str(store.folder / "aside"))


def test_a_sound_repository_has_nothing_wrong_and_nothing_moved(store, kept):
    assert repair_objects.find(store.repository) == ""
    assert mend(store, kept) == []


@pytest.mark.parametrize("harm", [torn, empty, a_fifo, gone])
@pytest.mark.parametrize("revision", ["HEAD", "HEAD^{tree}", "HEAD:agent.py"])
def test_what_the_vault_holds_is_whole_again(store, kept, harm, revision):
    harm(path_of(store, revision))
    assert repair_objects.find(store.repository)
    moved = mend(store, kept)
    assert repair_objects.find(store.repository) == ""
    assert git(store.code, "show", "main:agent.py") == "print(1)"
    aside = os.listdir(store.folder / "aside") if moved else []
    assert (harm is gone) == (not aside), "what is damaged is kept, and what is gone is not there to be kept"


@pytest.mark.parametrize("harm", [torn, gone])
def test_work_that_only_the_repository_had_costs_its_branch_and_no_other(store, kept, harm):
    git(store.code, "switch", "-q", "-c", "idea")
    write(store.code, {"idea.py": "x = 1\n"})
    git(store.code, "add", "-A")
    git(store.code, "commit", "-q", "-m", "an idea")
    path = path_of(store, "idea^{tree}")
    git(store.code, "switch", "-q", "main")
    harm(path)
    moved = mend(store, kept)
    assert "refs/heads/idea" in moved and repair_objects.find(store.repository) == ""
    assert git(store.code, "branch", "--format=%(refname:short)") == "main"
    assert git(store.code, "log", "-g", "--format=%s", "HEAD").split("\n")[-1] == "first version"


def test_one_commit_that_the_vault_lost_does_not_keep_out_the_others(store, kept):
    gone(path_of(store, "HEAD:agent.py"))
    mend(store, ["1" * 40, *kept])
    assert repair_objects.find(store.repository) == ""
    with pytest.raises(CommandFailed):
        store.repository.git.run("cat-file", "-e", "1" * 40)
