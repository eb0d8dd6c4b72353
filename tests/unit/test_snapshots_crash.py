"""SIGKILL at every so many lines of take and restore, then again: the same end, nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys

import pytest

from agentctl import snapshots
from line_killer import killed_at

OURS = (
    "capture.py", "filecopy.py", "places.py", "restoreplan.py", "restoring.py", "saving.py",
    "__init__.py", "spot.py", "sqlitecopy.py", "syncs.py",
)  # fmt: skip


def among(names: tuple[str, ...]):
    """Choose files of the snapshots package by name."""
    return lambda file: os.path.basename(file) in names and os.path.basename(os.path.dirname(file)) == "snapshots"


def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def look(folder):
    seen = {}
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(above, name)
            stat = os.lstat(path)
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isdir(path):
                content = None
            else:
                with open(path, "rb") as file:
                    content = file.read()
            seen[os.path.relpath(path, folder)] = (stat.st_mode, content)
    return seen


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


def lines(files, act) -> int:
    """Count the executed lines of a whole run."""
    counted = [0]

    def trace(frame, event, _):
        if os.path.basename(frame.f_code.co_filename) not in files:
            return None
        counted[0] += event == "line"
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
    return counted[0]


@pytest.fixture
def spoilt(tmp_path):
    """A snapshot, the state it was taken of, and what became of it."""
    original = str(tmp_path / "original")
    root = str(tmp_path / "snapshots")
    make(original)
    snapshots.take(original, root, "1", keep_patterns=["kept"])
    good = look(original)
    spoil(original)
    bad = look(original)
    good["kept"] = bad["kept"]
    return original, root, good, bad


def check_nothing_lost(state, replaced, good, bad):
    """Every spoilt thing with content is where it was, or saved; also half-way."""
    saved = {}
    for top in sorted(os.listdir(replaced)) if os.path.isdir(replaced) else ():
        for name, thing in look(f"{replaced}/{top}").items():
            saved.setdefault(name, []).append(thing[1])
    now = look(state)
    for name, (_, content) in bad.items():
        if content is not None and good.get(name, (0, None))[1] != content:
            alive = now.get(name, (0, None))[1]
            assert content == alive or content in saved.get(name, ()), name


@pytest.mark.parametrize(
    ("files", "points"), [(OURS, 60), (("restoring.py", "saving.py", "syncs.py"), 150)]
)
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_restore(spoilt, tmp_path, files, points, is_elsewhere):
    original, root, good, bad = spoilt
    aside = str(tmp_path)
    if is_elsewhere:
        aside = f"/dev/shm/agentctl-test-{os.getpid()}"
        if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("needs a second file system")
    try:
        state, replaced = str(tmp_path / "state"), f"{aside}/replaced"

        def restore():
            snapshots.restore(root, "1", state, ["*"], replaced)

        shutil.copytree(original, state, symlinks=True)
        total = lines(files, restore)
        line, stride = 1, max(1, total // points)
        while True:
            shutil.rmtree(state)
            shutil.rmtree(replaced, ignore_errors=True)
            shutil.copytree(original, state, symlinks=True)
            was_killed = killed_at(line, restore, among(files))
            check_nothing_lost(state, replaced, good, bad)
            killed_at(line + stride // 2, restore, among(files))  # and once more, on the way back
            check_nothing_lost(state, replaced, good, bad)
            restore()
            assert look(state) == good, line
            check_nothing_lost(state, replaced, good, bad)
            if not was_killed:
                break
            line += stride
        assert line > total // 2
    finally:
        if is_elsewhere:
            shutil.rmtree(aside, ignore_errors=True)


def test_take(tmp_path):
    state, root = str(tmp_path / "state"), str(tmp_path / "snapshots")
    make(state)

    def take():
        snapshots.take(state, root, "1")

    total = lines(OURS, take)
    good = look(state)
    line, stride = 1, max(1, total // 150)
    while True:
        shutil.rmtree(root)
        was_killed = killed_at(line, take, among(OURS))
        assert snapshots.list_ids(root) in ([], ["1"])
        assert not snapshots.list_ids(root) or snapshots.verify(root, "1") == []
        take()
        assert snapshots.verify(root, "1") == []
        assert [name for name in os.listdir(root) if name != "1"] == []
        assert look(state) == good
        if not was_killed:
            break
        line += stride
    assert line > total // 2
