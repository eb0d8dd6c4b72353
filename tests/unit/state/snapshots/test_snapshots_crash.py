"""SIGKILL at every so many lines of take and restore (nightly at every one), then again: the same end, nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile

import pytest

from agentctl.state.snapshots import snapshot
from kit.exploration import explore_and_record
from kit.line_killer import fast_folder
from kit.manifest import manifest, missing


def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def make(state):
    put(f"{state}/same", "same")
    put(f"{state}/changed", "good")
    put(f"{state}/gone", "gone")
    put(f"{state}/kept", "old")
    put(f"{state}/a/b/file", "deep")
    put(f"{state}/was-file", "file")
    put(f"{state}/was-folder/x", "x")
    os.chmod(f"{state}/a", 0o750)
    os.symlink("there", f"{state}/link")
    base = sqlite3.connect(f"{state}/s.db")
    base.execute("PRAGMA journal_mode=wal")
    base.execute("CREATE TABLE t (n)")
    base.commit()
    base.close()


def spoil(state):
    put(f"{state}/changed", "bad!")
    put(f"{state}/kept", "newer")
    put(f"{state}/newcomer/y/z", "mine")
    os.unlink(f"{state}/gone")
    os.chmod(f"{state}/a", 0o700)
    os.unlink(f"{state}/a/b/file")
    os.rmdir(f"{state}/a/b")
    os.symlink("/etc", f"{state}/a/b")
    os.unlink(f"{state}/was-file")
    put(f"{state}/was-file/inside", "i")
    shutil.rmtree(f"{state}/was-folder")
    put(f"{state}/was-folder", "now a file")
    os.unlink(f"{state}/link")
    os.symlink("elsewhere", f"{state}/link")
    put(f"{state}/s.db-wal", "stale journal")
    put(f"{state}/s.db-shm", "stale index")


class Crash:
    """A folder for one family of points."""

    def __init__(self, parent):
        self.folder = tempfile.mkdtemp(prefix="snap", dir=parent)
        self.state, self.root = f"{self.folder}/state", f"{self.folder}/snapshots"

    def recover(self):
        self.act()

    def end(self):
        shutil.rmtree(self.folder)


class Take(Crash):
    """A snapshot; with `previous` the second one, of which most is linked to the first."""

    def __init__(self, parent, previous=None):
        super().__init__(parent)
        make(self.state)
        self.previous, self.number = previous, "2" if previous else "1"
        if previous:
            snapshot.take(self.state, self.root, previous)
            spoil(self.state)
        self.good = manifest(self.state)
        self.first = manifest(f"{self.root}/{previous}") if previous else {}

    def reset(self):
        for name in os.listdir(self.root) if os.path.isdir(self.root) else ():
            if name != self.previous:
                shutil.rmtree(f"{self.root}/{name}")

    def act(self):
        snapshot.take(self.state, self.root, self.number, previous=self.previous)

    def at_the_kill(self, run):
        assert all(snapshot.verify(self.root, number) == [] for number in snapshot.list_ids(self.root))
        assert set(snapshot.list_ids(self.root)) <= {self.previous, self.number}
        assert manifest(self.state) == self.good
        assert not self.previous or manifest(f"{self.root}/{self.previous}") == self.first

    def afterwards(self, run):
        self.at_the_kill(run)
        assert sorted(os.listdir(self.root)) == [n for n in (self.previous, self.number) if n]


class Restore(Crash):
    """A restore of everything; what is replaced is kept, on the same file system or on another."""

    def __init__(self, parent, aside):
        super().__init__(parent)
        make(self.state)
        snapshot.take(self.state, self.root, "1", keep_patterns=["kept"])
        self.good = manifest(self.state)
        spoil(self.state)
        self.bad = manifest(self.state)
        self.good["kept"] = self.bad["kept"]
        os.rename(self.state, f"{self.folder}/spoilt")
        self.aside = tempfile.mkdtemp(prefix="snap", dir=aside)
        self.replaced = f"{self.aside}/replaced"

    def reset(self):
        for folder in (self.state, self.replaced):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(f"{self.folder}/spoilt", self.state, symlinks=True)

    def act(self):
        snapshot.restore(self.root, "1", self.state, ["*"], self.replaced)

    def at_the_kill(self, run):
        """Every spoilt thing with content is where it was, or saved."""
        assert snapshot.verify(self.root, "1") == []
        tops = sorted(os.listdir(self.replaced)) if os.path.isdir(self.replaced) else ()
        saved = [manifest(f"{self.replaced}/{top}") for top in tops]
        with_content = {n: what for n, what in self.bad.items() if what[0] != "folder" and self.good.get(n) != what}
        assert not missing(with_content, manifest(self.state), *saved)

    def afterwards(self, run):
        self.at_the_kill(run)
        assert manifest(self.state) == self.good

    def end(self):
        super().end()
        shutil.rmtree(self.aside)


@pytest.mark.every_night
@pytest.mark.parametrize("previous", [None, "1"])
def test_take(previous):
    explore_and_record("snapshot", lambda: Take(fast_folder(), previous), 16, 2)


@pytest.mark.every_night
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_restore(tmp_path, is_elsewhere):
    if is_elsewhere and os.stat(fast_folder()).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")
    aside = tmp_path if is_elsewhere else fast_folder()
    explore_and_record("restore", lambda: Restore(fast_folder(), aside), 20, 4)
