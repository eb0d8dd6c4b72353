"""Databases in a state folder: the copy is one committed state, whoever writes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time

import pytest

from agentctl.state.snapshots import snapshot, sqlite_copy
from kit import deadline
from unit.state.snapshots.state_folders import is_root, leave, look, make_database, put, settle

WRITER = """
import os, sqlite3, sys
count = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
if os.stat(sys.argv[1]).st_uid:
    os.setuid(os.stat(sys.argv[1]).st_uid)
live = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
while True:
    live.execute("INSERT INTO t (x) VALUES (randomblob(3000))")
    os.write(count, b".")
"""


def rows_after(path, before, writer):
    """Wait until the writer has acknowledged more rows than `before`; return how many."""

    def are_there():
        assert writer.poll() is None, "the writer has ended"
        return os.path.exists(path) and os.path.getsize(path) > before + 10

    deadline.until(are_there, "more rows")
    return os.path.getsize(path)


def rows(data, tmp_path, extra=()):
    copy = str(tmp_path / f"check-{time.monotonic_ns()}.db")
    with open(copy, "wb") as file:
        file.write(data)
    for suffix, more in extra:
        with open(copy + suffix, "wb") as file:
            file.write(more)
    base = sqlite3.connect(copy)
    try:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return base.execute("SELECT count(*), max(n) FROM t").fetchone()
    finally:
        base.close()


def look_text(root, number):
    return {os.fsdecode(name): thing for name, thing in look(f"{root}/{number}/tree").items()}


def never_still(monkeypatch):
    """Make every database look as if it was written meanwhile."""
    signature, turn = sqlite_copy.signature, iter(range(10**9))

    def moving(*args):
        also, newest = signature(*args)
        return f"{also} {next(turn)}", newest

    monkeypatch.setattr(sqlite_copy, "signature", moving)


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("is_others", [False, True])
@pytest.mark.parametrize("is_backup", [False, True])
def test_a_database_under_load_is_one_committed_state(open_places, tmp_path, mode, is_others, is_backup, monkeypatch):
    if is_backup:
        never_still(monkeypatch)
    if is_others and not is_root:
        pytest.skip("needs two users")
    folder, state, root = open_places
    base = make_database(f"{state}/s.db", mode)
    if is_others:
        os.chown(state, 12345, 12345)
        for name in os.listdir(state):
            os.chown(f"{state}/{name}", 12345, 12345)
            os.chmod(f"{state}/{name}", 0o600)
    base.close()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, f"{state}/s.db", f"{folder}/count"])
    known = 0
    try:
        for number in range(3):
            known = rows_after(f"{folder}/count", known, writer)
            report = snapshot.take(state, root, str(number), previous=str(number - 1))
            assert report.skipped == []
            taken = {name[len("s.db") :]: d for name, (_, d) in look_text(root, number).items()}
            assert not is_backup or list(taken) == [""]
            assert set(taken) <= {"", "-wal", "-journal"}
            count, newest = rows(taken.pop(""), tmp_path, taken.items())
            assert count == newest >= known
    finally:
        writer.kill()
        deadline.wait(writer)


def test_a_still_database_is_taken_with_its_journal_and_comes_back_whole(places, tmp_path):
    state, root, replaced = places
    base = make_database(f"{state}/s.db")
    base.execute("INSERT INTO t VALUES (1, 'in the wal')")
    settle()
    snapshot.take(state, root, "1")
    settle()
    assert snapshot.take(state, root, "2", previous="1").copied_bytes == 0
    tree = f"{root}/2/tree"
    assert sorted(os.listdir(tree)) == ["s.db", "s.db-wal"]
    parts = [open(f"{tree}/{name}", "rb").read() for name in ("s.db", "s.db-wal")]  # noqa: SIM115
    assert rows(parts[0], tmp_path, [("-wal", parts[1])]) == (1, 1)
    for number in range(2, 50):
        base.execute("INSERT INTO t VALUES (?, randomblob(2000))", (number,))
    leave(base, state)
    settle()
    third = snapshot.take(state, root, "3", previous="2")
    assert third.copied_bytes > 0
    report = snapshot.restore(root, "2", state, ["*.db"], replaced)
    assert report.restored in (["s.db-wal"], ["s.db", "s.db-wal"])
    assert "s.db-shm" in report.removed
    assert {b"s.db-wal", b"s.db-shm"} <= set(look(f"{replaced}/tree"))
    again = sqlite3.connect(f"{state}/s.db")
    assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert again.execute("SELECT count(*) FROM t").fetchone() == (1,)
    again.close()


def test_a_locked_database_is_copied_as_it_lies(places, monkeypatch):
    state, root, _ = places
    base = make_database(f"{state}/s.db", "delete")
    base.execute("INSERT INTO t VALUES (1, 'x')")
    never_still(monkeypatch)
    monkeypatch.setattr("agentctl.state.snapshots.sqlite_copy.backup", lambda *_: False)
    report = snapshot.take(state, root, "1")
    assert "copied as it lies" in report.skipped[0] and report.files == 1
    base.close()


def test_journals_are_found_beside_their_database():
    names = ["a.db", "a.db-wal", "a.db-shm", "b", "b-journal", "c-waltz"]
    assert sqlite_copy.companions_in(names) == {"a.db": ["a.db-wal", "a.db-shm"], "b": ["b-journal"]}


@pytest.mark.parametrize(("data", "is_one"), [(sqlite_copy.MAGIC + b"more", True), (b"SQLite format 2\0", False),
                                               (b"", False)])  # fmt: skip
def test_a_database_is_known_by_how_it_begins(tmp_path, data, is_one):
    put(f"{tmp_path}/file", data)
    with open(tmp_path / "file", "rb") as file:
        assert sqlite_copy.is_database(file.fileno()) is is_one
