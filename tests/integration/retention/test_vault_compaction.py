"""The vault copied and exchanged: what no ref reaches is gone, everything else is there, or nothing has changed."""

import os
from types import SimpleNamespace

import pytest

from agentctl.core.errors import AgentctlError, CommandFailed
from agentctl.retention import vault_compaction
from integration.world import git, write


def grown(store, name="big"):
    """Have the vault hold another generation with something large in it; return its commit."""
    write(store.code, {name: os.urandom(200_000)})
    made = store.keep()
    os.unlink(store.code / name)
    return made


def objects(store):
    return set(git(store.vault.path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split())


def test_what_no_ref_reaches_is_gone_and_the_rest_is_as_it_was(store):
    kept = store.vault.refs("refs/")
    unwanted = grown(store)
    store.vault.update({ref: None for ref in store.vault.refs("refs/") if ref not in kept})
    before, reached = vault_compaction.measure(store.vault, [])
    assert before > 200_000 > reached and unwanted in objects(store)
    vault_compaction.replace_by_copy(store.vault, list(kept.values()))
    assert store.vault.refs("refs/") == kept and unwanted not in objects(store)
    assert vault_compaction.measure(store.vault, [])[0] < 100_000
    assert store.vault.check(list(kept.values())) == ""
    assert [name for name in os.listdir(store.folder) if "fresh" in name] == []
    assert store.keep() in objects(store), "it takes new ones"


def test_what_would_be_free_is_known_before(store):
    grown(store)
    total, reached = vault_compaction.measure(store.vault, [])
    assert total >= reached > 200_000
    without = [ref for ref in store.vault.refs("refs/") if ref.endswith("/2")]
    assert vault_compaction.measure(store.vault, without)[1] < 100_000


def test_a_copy_that_lacks_what_it_has_to_hold_takes_nobodys_place(store):
    unwanted = grown(store)
    store.vault.update({ref: None for ref in store.vault.refs("refs/") if ref.endswith("/2")})
    inode = os.stat(store.vault.path).st_ino
    with pytest.raises(CommandFailed):
        vault_compaction.replace_by_copy(store.vault, [unwanted])
    assert os.stat(store.vault.path).st_ino == inode and unwanted in objects(store)
    assert not os.path.exists(f"{store.vault.path}.fresh")


def test_what_is_damaged_is_never_taken_over(store):
    commit = grown(store)
    for top, _, names in os.walk(f"{store.vault.path}/objects"):
        for name in names:
            path = f"{top}/{name}"
            if os.path.getsize(path) > 100_000:
                os.chmod(path, 0o600)
                with open(path, "r+b") as file:
                    file.seek(50_000)
                    file.write(b"damage")
    inode = os.stat(store.vault.path).st_ino
    with pytest.raises(AgentctlError):
        vault_compaction.replace_by_copy(store.vault, [commit])
    assert os.stat(store.vault.path).st_ino == inode


def test_without_room_nothing_is_begun(store, monkeypatch):
    monkeypatch.setattr(vault_compaction.os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    with pytest.raises(AgentctlError, match="not enough room to copy the vault"):
        vault_compaction.replace_by_copy(store.vault, [])
    assert not os.path.exists(f"{store.vault.path}.fresh")


def test_what_comes_in_meanwhile_is_taken_along(store, monkeypatch):
    copy_news, came = vault_compaction._copy_news, []

    def copy_and_grow(vault, fresh):
        copy_news(vault, fresh)
        if len(came) < 2:
            came.append(grown(store, f"late{len(came)}"))

    monkeypatch.setattr(vault_compaction, "_copy_news", copy_and_grow)
    vault_compaction.replace_by_copy(store.vault, [])
    assert set(came) <= objects(store) and len(came) == 2


def test_half_of_an_earlier_copy_is_cleared(store):
    write(f"{store.vault.path}.fresh", {"objects/x": "half"})
    vault_compaction.clear(store.vault)
    assert not os.path.exists(f"{store.vault.path}.fresh")
