"""A snapshot that was cut off is gone on with: nothing is copied twice, and nothing stale is believed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from agentctl.state.snapshots import capture, file_copy, manifest, progress, snapshot

FILES = 40


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Notes are made often, and every file counts as settled: the test does not wait for the kernel's clock."""
    monkeypatch.setattr(progress, "AT_ONCE", 5)
    monkeypatch.setattr(capture, "SETTLED_NS", -(10**15))


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "state"
    for name in ("a", "b", "c/deep"):
        (folder / name).mkdir(parents=True)
        for number in range(FILES):
            (folder / name / f"{number:03}").write_text(f"{name} {number}")
    (folder / "b/link").symlink_to("000")
    with sqlite3.connect(folder / "b/memory.db") as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    outside = tmp_path / "home"
    outside.mkdir()
    (outside / "session.json").write_text("{}")
    (outside / "other").mkdir()
    for top, _, names in os.walk(tmp_path):
        for name in names:
            if not os.path.islink(f"{top}/{name}"):
                os.utime(f"{top}/{name}", (1e9, 1e9))
    return folder


class Shelf:
    """A root of snapshots, and how often a file's bytes were copied into it."""

    def __init__(self, tmp_path, monkeypatch) -> None:
        self.root, self.state, self.copies = str(tmp_path / "snapshots"), str(tmp_path / "state"), []
        self.extra = [f"{tmp_path}/home/*"]
        monkeypatch.setattr(file_copy, "copy", self._counted(file_copy.copy))

    def _counted(self, copy):
        def counted(*words):
            self.copies.append(words)
            return copy(*words)

        return counted

    def take(self, id="000001", previous=None):
        self.copies.clear()
        return snapshot.take(self.state, self.root, id, previous, self.extra)

    def cut_off(self, after: int, id="000001", previous=None) -> None:
        """Take a snapshot in a process that is killed after so many copies."""
        pid = os.fork()
        if pid == 0:
            copy, left = file_copy.copy, [after]

            def last(*words):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), 9)
                return copy(*words)

            file_copy.copy = last
            try:
                snapshot.take(self.state, self.root, id, previous, self.extra)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
        assert snapshot.list_ids(self.root) == ([previous] if previous else [])

    def check(self, id="000001") -> None:
        """It holds exactly what is there now, and no trace of how it came to be."""
        assert snapshot.verify(self.root, id) == []
        folder = os.path.join(self.root, id)
        listed = manifest.load(folder)
        assert sorted(os.listdir(folder)) == ["extra", "manifest.json", "tree"]
        paths = [entry.path for entry in listed.entries]
        assert len(paths) == len(set(paths))
        assert _tree(f"{folder}/tree") == _tree(self.state)
        assert os.path.isfile(f"{folder}/extra{os.path.dirname(self.state)}/home/session.json")


def _tree(folder: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for top, folders, files in os.walk(folder):
        for name in folders:
            found[f"{top}/{name}"[len(folder) :]] = os.path.islink(f"{top}/{name}")
        for name in files:
            path = f"{top}/{name}"
            is_link = os.path.islink(path)
            found[path[len(folder) :]] = os.readlink(path) if is_link else Path(path).read_bytes()
    return found


@pytest.fixture
def shelf(tmp_path, state, monkeypatch):
    return Shelf(tmp_path, monkeypatch)


@pytest.mark.parametrize("after", [0, 1, 4, 7, 30, 44, 60, 85, 100, 121])
def test_it_goes_on_from_where_it_was(shelf, after):
    shelf.cut_off(after)
    shelf.take()
    assert len(shelf.copies) <= FILES * 3 + 2 - after + progress.AT_ONCE * 2 + 1
    if after > 20:
        assert len(shelf.copies) < FILES * 3
    shelf.check()


def test_it_may_be_cut_off_again_and_again(shelf):
    for after in (30, 20, 20, 15, 10):
        shelf.cut_off(after)
    shelf.take()
    assert len(shelf.copies) < 70
    shelf.check()


def test_what_changed_meanwhile_is_as_it_is_now(shelf, state):
    shelf.cut_off(100)
    (state / "a/000").write_text("A 0")  # of the same size
    (state / "a/001").unlink()
    (state / "a/002").unlink()
    (state / "a/002").mkdir()
    (state / "a/002/inside").write_text("was a file")
    shutil.rmtree(state / "b")
    (state / "b").write_text("was a folder")
    (state / "a/003").unlink()
    (state / "a/003").symlink_to("nowhere")
    (state / "a/new").write_text("new")
    os.rename(state / "a/004", state / "a/005")
    shelf.take()
    shelf.check()


def test_files_that_were_young_when_it_was_cut_off_are_copied_again(shelf, monkeypatch):
    """Their times could be the same though they changed."""
    monkeypatch.setattr(capture, "SETTLED_NS", 10**15)
    shelf.cut_off(35)
    shelf.take()
    assert len(shelf.copies) >= FILES * 3
    shelf.check()


def test_after_a_reboot_nothing_of_it_is_believed(shelf, monkeypatch):
    shelf.cut_off(100)
    monkeypatch.setattr(progress, "boot_id", lambda: "another")
    shelf.take()
    assert len(shelf.copies) > FILES * 3
    shelf.check()


@pytest.mark.parametrize("spoil", [
    lambda path: os.truncate(path, os.path.getsize(path) - 3),
    lambda path: os.truncate(path, 0),
    lambda path: Path(path).write_text("no notes at all\n"),
    lambda path: Path(path).write_text(Path(path).read_text() + '["a/000"]\n'),
    os.unlink,
])  # fmt: skip
def test_damaged_notes_cost_time_and_nothing_else(shelf, spoil):
    shelf.cut_off(100)
    spoil(f"{shelf.root}/.000001.partial/{progress.NAME}")
    shelf.take()
    shelf.check()


def test_a_copy_that_is_too_short_is_made_again(shelf):
    shelf.cut_off(100)
    os.truncate(f"{shelf.root}/.000001.partial/tree/a/000", 1)
    os.unlink(f"{shelf.root}/.000001.partial/tree/a/001")
    shelf.take()
    shelf.check()


def test_one_that_was_complete_but_for_its_name(shelf):
    shelf.cut_off(100)
    with open(f"{shelf.root}/.000001.partial/{manifest.NAME}", "w") as file:
        file.write("half")
    shelf.take()
    shelf.check()


def test_with_a_previous_one_what_is_unchanged_is_linked(shelf, state):
    shelf.take("000001")
    for name in ("a", "c/deep"):
        for number in range(FILES):
            (state / name / f"{number:03}").write_text(f"second {number}")
            os.utime(state / name / f"{number:03}", (1.1e9, 1.1e9))
    shelf.cut_off(60, "000002", "000001")
    shelf.take("000002", "000001")
    assert len(shelf.copies) <= FILES * 2
    shelf.check("000002")
    same = [os.stat(f"{shelf.root}/{id}/tree/b/000").st_ino for id in ("000001", "000002")]
    assert same[0] == same[1]


def test_a_failure_leaves_nothing(shelf, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    shelf.cut_off(60)
    monkeypatch.setattr(file_copy, "copy", full)
    with pytest.raises(manifest.SnapshotFailed):
        shelf.take()
    assert os.listdir(shelf.root) == []
