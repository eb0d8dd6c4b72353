"""A folder packed into the vault and brought back: any name and kind, nothing twice, nothing that changed meanwhile."""

import os
import time

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.retention import archive
from integration.world import write
from kit import modes
from kit.manifest import manifest

REF = "refs/agentctl/archive/a"
ODD = os.fsdecode(b'odd\xff\n"name"')


@pytest.fixture
def folder(tmp_path):
    """A replaced tree in quarantine, with what it may hold."""
    made = tmp_path / "quarantine/a"
    write(made, {"tree/agent.py": "print(1)\n", "tree/deep/er/file": b"\0\1\2" * 1000, f"tree/{ODD}": "odd\n",
                 "tree/.git/HEAD": "junk", "tree/empty": "", "note.json": "{}"})  # fmt: skip
    (made / "tree/nothing in it").mkdir()
    os.chmod(made / "tree/agent.py", 0o751)
    os.symlink("/nowhere", made / "tree/link")
    os.mkfifo(made / "tree/fifo")
    with open(made / "tree/holes", "wb") as file:
        file.truncate(4 << 20)
        file.seek(1 << 20)
        file.write(b"in the middle")
    return made


def survey(store, folder, *rebuildable):
    return archive.survey(str(folder), store.vault, str(store.code), rebuildable)


def test_all_of_it_comes_back_as_it_was(store, folder, tmp_path):
    before = manifest(folder)
    found = survey(store, folder)
    assert found.unreadable == []
    archive.pack(found, store.vault, REF)
    count = archive.bring_back(store.vault, REF, str(tmp_path / "back"))
    os.unlink(folder / "tree/agent.py")  # it equals the live file, which is where it is to be had
    del before["tree/agent.py"]
    assert manifest(tmp_path / "back") == before and count == len(before) + 1
    assert os.stat(tmp_path / "back/tree/holes").st_blocks * 512 < 1 << 20


def test_what_the_vault_or_the_live_tree_holds_is_not_taken_in_again(store, folder):
    first = survey(store, folder)
    assert "tree/agent.py" not in first.missing.values(), "the live tree has it"
    assert "tree/deep/er/file" in first.missing.values() and first.new_bytes >= 3000
    archive.pack(first, store.vault, REF)
    again = survey(store, folder)
    assert again.missing == {} and again.new_bytes == 0


def test_what_can_be_rebuilt_is_left_out_and_told(store, folder):
    write(folder, {"tree/.venv/lib/x.py": "x", "tree/__pycache__/a.pyc": "y" * 5000, "tree/b.pyc": "z"})
    found = survey(store, folder, ".venv/")
    assert found.rebuilt.keys() == {"tree/.venv", "tree/__pycache__", "tree/b.pyc"}
    assert not [entry for entry in found.entries if ".venv" in entry["path"] or "pyc" in entry["path"]]


@pytest.mark.parametrize("change", ["content", "new file", "gone"])
def test_what_changes_meanwhile_is_not_taken_for_archived(store, folder, change):
    found = survey(store, folder)
    if change == "content":
        (folder / "tree/deep/er/file").write_bytes(b"\3\1\2" * 1000)
    elif change == "new file":
        (folder / "tree/late").write_text("late")
    else:
        (folder / "note.json").unlink()
    with pytest.raises(AgentctlError) as refused:
        archive.pack(found, store.vault, REF)
    assert "nothing was removed" in refused.value.hint
    assert not [name for name in os.listdir(store.vault.path) if name.startswith("fast_import_crash")]


def test_what_may_not_be_read_is_told(store, folder):
    os.chmod(folder / "tree/deep/er/file", 0o000)
    os.chmod(folder / "tree/nothing in it", 0o000)
    with modes.binding():
        found = survey(store, folder)
    assert sorted(found.unreadable) == ["nothing in it: Permission denied", "tree/deep/er/file: Permission denied"]


def test_what_is_ours_is_opened_up_and_nothing_else(folder, monkeypatch):
    paths = [folder / "tree/deep/er", folder / "tree/empty", folder / "note.json"]
    if os.geteuid() == 0:  # root needs none of it: as the user that these two belong to
        monkeypatch.setattr(archive.os, "geteuid", lambda: 12345)
        for path in paths[:2]:
            os.chown(path, 12345, -1)
    for path in paths:
        os.chmod(path, 0o000)
    with_rights = [True, True, os.stat(folder).st_uid == archive.os.geteuid()]
    archive.open_up(str(folder))
    assert [bool(path.stat().st_mode & 0o400) for path in paths] == with_rights


def test_the_fingerprint_tells_every_change(folder):
    seen = {archive.fingerprint(str(folder))}
    for change in (lambda: os.chmod(folder / "note.json", 0o600), lambda: os.utime(folder / "note.json", (1, 1)),
                   lambda: os.mkdir(folder / "new"), lambda: os.rmdir(folder / "new")):  # fmt: skip
        time.sleep(0.02)  # the kernel stamps a change with the time of its last tick
        change()
        seen.add(archive.fingerprint(str(folder)))
    assert len(seen) == 5
