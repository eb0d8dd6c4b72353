"""Snapshots: take, verify and restore everything a state folder can hold."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from agentctl.state.snapshots import capture, file_copy, folders, manifest, snapshot, sqlite_copy
from agentctl.state.snapshots.manifest import SnapshotFailed
from kit import deadline, modes

is_root = os.geteuid() == 0


@pytest.fixture
def places(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    return str(state), str(tmp_path / "snapshots"), str(tmp_path / "replaced")


@pytest.fixture
def open_places():
    """A folder that another user reaches, and `places` in it: pytest closes its own whenever another one begins."""
    with tempfile.TemporaryDirectory(prefix="agsn", dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        os.mkdir(f"{folder}/state")
        yield folder, f"{folder}/state", f"{folder}/snapshots"


def put(path, data=b"", mode=0o644, age=10):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    if age:
        old = time.time() - age
        os.utime(path, (old, old))


def look(folder):
    """Everything below a folder: kind, mode, content."""
    seen = {}
    for above, below, files in os.walk(os.fsencode(folder)):
        for name in below + files:
            path = os.path.join(above, name)
            stat = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            seen[os.path.relpath(path, os.fsencode(folder))] = (stat.st_mode, content)
    return seen


def settle():
    """Let the present become older than the racy span."""
    time.sleep(capture.SETTLED_NS / 1e9 + 0.02)


def nasty(state):
    put(f"{state}/plain", b"plain")
    put(f"{state}/empty")
    put(f"{state}/config/deep/er/tool", b"#!/bin/sh\n", 0o755)
    put(f"{state}/secret", b"hush", 0o000 if is_root else 0o400)
    put(f"{state}/suid", b"s", 0o4755)
    put(f"{state}/new\nline", b"n")
    put(os.fsencode(state) + b"/bad\xff\xfename", b"b")
    put(f"{state}/" + "n" * 255, b"long")
    os.mkdir(f"{state}/empty-folder", 0o750)
    os.mkdir(f"{state}/closed", 0o500)
    os.symlink("nowhere\n", f"{state}/link")
    os.symlink("/etc", f"{state}/link-to-folder")
    os.link(f"{state}/plain", f"{state}/hard")
    os.mkfifo(f"{state}/fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{state}/socket")
    with open(f"{state}/sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"in the middle")


def ruin(state):
    for name in ("plain", "suid", "link", "secret", "new\nline", "config/deep/er/tool"):
        os.unlink(f"{state}/{name}")
    put(f"{state}/plain", b"other", 0o600)
    put(f"{state}/newcomer/x", b"mine")
    os.symlink("else", f"{state}/link")
    os.rmdir(f"{state}/empty-folder")
    put(f"{state}/empty-folder", b"a file now")
    os.chmod(f"{state}/closed", 0o755)
    os.unlink(os.fsencode(state) + b"/bad\xff\xfename")
    os.mkdir(os.fsencode(state) + b"/bad\xff\xfename")
    with open(f"{state}/sparse", "r+b") as file:
        file.write(b"start")
    for folder in ("er", "deep", ""):
        at = {"er": "config/deep/er", "deep": "config/deep", "": "config"}[folder]
        os.rmdir(f"{state}/{at}")
    os.symlink("/etc", f"{state}/config")


def test_round_trip_of_everything(places):
    state, root, replaced = places
    nasty(state)
    before = look(state)
    report = snapshot.take(state, root, "000001")
    assert (report.skipped, report.note) == ([], "")
    assert snapshot.verify(root, "000001") == []
    assert os.stat(f"{root}/000001").st_mode & 0o777 == 0o700
    assert os.stat(f"{root}/000001/tree/sparse").st_blocks * 512 < 1 << 20
    ruin(state)
    ruined = look(state)
    report = snapshot.restore(root, "000001", state, ["*"], replaced)
    assert look(state) == before
    assert "newcomer/x" in report.removed and "plain" in report.restored
    assert os.stat(f"{state}/sparse").st_blocks * 512 < 1 << 20
    saved = look(f"{replaced}/tree")
    for name, (mode, content) in ruined.items():
        if before.get(name) != (mode, content) and content is not None:
            assert saved[name][1] == content, name
    again = snapshot.restore(root, "000001", state, ["*"], replaced)
    assert (again.restored, again.removed) == ([], [])


def test_only_what_changed_is_copied_and_never_linked_to_the_live_file(places):
    state, root, _ = places
    for number in range(20):
        put(f"{state}/d/f{number}", b"x" * 1000)
    settle()
    assert snapshot.take(state, root, "1").copied_bytes == 20000
    with open(f"{state}/d/f3", "r+b") as file:
        file.write(b"y")
    settle()
    report = snapshot.take(state, root, "2", previous="1")
    assert (report.files, report.bytes, report.copied_bytes) == (20, 20000, 1000)

    def inode(path):
        return os.stat(path).st_ino

    assert inode(f"{root}/1/tree/d/f1") == inode(f"{root}/2/tree/d/f1") != inode(f"{state}/d/f1")
    assert snapshot.read_file(root, "1", "d/f3")[:1] == b"x"
    assert snapshot.read_file(root, "2", "d/f3")[:1] == b"y"
    assert snapshot.newest_copy(root, ["1", "2"], "d/f3")[0] == "2"
    assert snapshot.list_ids(root) == ["1", "2"]


def test_a_young_file_is_not_trusted_by_its_times(places, monkeypatch):
    state, root, _ = places
    put(f"{state}/f", b"one", age=0)
    snapshot.take(state, root, "1")
    stat = os.stat(f"{state}/f")
    put(f"{state}/f", b"two", age=0)
    listed = manifest.load(f"{root}/1")
    now = os.stat(f"{state}/f")
    # As a coarse clock would have it: all its times equal the recorded ones, its bytes do not.
    listed.entries[0].mtime_ns, listed.entries[0].ctime_ns = now.st_mtime_ns, now.st_ctime_ns
    assert now.st_ino == stat.st_ino
    with open(f"{root}/1/{manifest.NAME}", "wb") as file:
        file.write(manifest.encode(listed))
    snapshot.take(state, root, "2", previous="1")
    assert snapshot.read_file(root, "2", "f") == b"two"


def test_a_change_that_puts_the_old_time_back_is_seen(places):
    state, root, _ = places
    put(f"{state}/f", b"one")
    settle()
    snapshot.take(state, root, "1")
    before = os.stat(f"{state}/f")
    with open(f"{state}/f", "r+b") as file:
        file.write(b"two")
    os.utime(f"{state}/f", ns=(before.st_atime_ns, before.st_mtime_ns))
    settle()
    snapshot.take(state, root, "2", previous="1")
    assert snapshot.read_file(root, "2", "f") == b"two"


@pytest.mark.parametrize("kind", ["fifo", "link", "gone"])
def test_a_file_swapped_while_looked_at_is_not_opened(places, tmp_path, monkeypatch, kind):
    state, root, _ = places
    put(f"{tmp_path}/private", b"of somebody else")
    put(f"{state}/f", b"mine")
    look_at = capture.Spot.stat

    def swap(self):
        stat = look_at(self)
        os.unlink(f"{state}/f")
        if kind == "fifo":
            os.mkfifo(f"{state}/f")
        elif kind == "link":
            os.symlink(f"{tmp_path}/private", f"{state}/f")
        return stat

    monkeypatch.setattr(capture.Spot, "stat", swap)
    report = snapshot.take(state, root, "1")
    entries = manifest.load(f"{root}/1").entries
    assert report.files == 0 and os.listdir(f"{root}/1/tree") == []
    assert [e.type for e in entries] == {"fifo": ["fifo"], "link": ["file"], "gone": []}[kind]


def test_a_folder_that_is_a_link_is_never_opened(tmp_path):
    os.symlink("/etc", tmp_path / "link")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError):
            os.close(folders.open_below(fd, ["link"]))
    finally:
        os.close(fd)


def test_the_checksum_does_not_depend_on_where_the_holes_are(tmp_path):
    data = bytes(300_000) + b"x" * 200_000 + bytes(500_000) + b"y" + bytes(140_000)
    put(f"{tmp_path}/full", data)
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(len(data))
        for at, more in ((300_000, b"x" * 200_000), (1_000_000, b"y")):
            file.seek(at)
            file.write(more)
    sums = []
    for name in ("full", "holes"):
        with open(tmp_path / name, "rb") as file:
            sums += [file_copy.checksum(file.fileno(), len(data), is_sparse=s) for s in (0, 1)]
    assert len(set(sums)) == 1


def test_damage_is_found_and_never_restored(places):
    state, root, replaced = places
    put(f"{state}/state.db", b"good" * 100)
    put(f"{state}/gone", b"x")
    snapshot.take(state, root, "1")
    with open(f"{root}/1/tree/state.db", "r+b") as file:
        file.write(b"bad!")
    os.unlink(f"{root}/1/tree/gone")
    assert snapshot.verify(root, "1") == [
        "gone: missing (No such file or directory)",
        "state.db: fails its checksum",
    ]
    assert snapshot.read_file(root, "1", "state.db") is None
    put(f"{state}/state.db", b"mine")
    with pytest.raises(SnapshotFailed, match=r"fails its checksum \(state.db\)"):
        snapshot.restore(root, "1", state, ["state.db"], replaced)
    assert look(state)[b"state.db"][1] == b"mine"
    assert set(os.listdir(state)) == {"state.db", "gone"}


def test_a_damaged_manifest_is_refused_and_only_costs_the_next_take(places):
    state, root, _ = places
    put(f"{state}/f", b"1")
    snapshot.take(state, root, "1")
    with open(f"{root}/1/{manifest.NAME}", "r+b") as file:
        file.seek(60)
        file.write(b"@")
    assert "checksum" in snapshot.verify(root, "1")[0]
    assert snapshot.take(state, root, "2", previous="1").copied_bytes == 1
    assert snapshot.take(state, root, "3", previous="no such").copied_bytes == 1


def test_patterns_choose_and_keep_wins(places):
    state, root, replaced = places
    put(f"{state}/config/a", b"1")
    put(f"{state}/history.jsonl", b"h1")
    put(f"{state}/notes", b"n1")
    snapshot.take(state, root, "1", keep_patterns=["history.jsonl"])
    for name in ("config/a", "history.jsonl", "notes", "config/new"):
        put(f"{state}/{name}", b"later")
    report = snapshot.restore(root, "1", state, ["config/*", "history.jsonl"], replaced)
    assert (report.restored, report.removed) == (["config/a"], ["config/new"])
    assert report.kept == ["history.jsonl"]
    assert look(state)[b"notes"][1] == look(state)[b"history.jsonl"][1] == b"later"
    untouched = os.stat(f"{state}/config/a")
    snapshot.restore(root, "1", state, ["config/*", "history.jsonl"], replaced, keep=[])
    assert look(state)[b"history.jsonl"][1] == b"h1"
    assert os.stat(f"{state}/config/a").st_ctime_ns == untouched.st_ctime_ns


def test_what_was_saved_is_never_overwritten(places):
    state, root, replaced = places
    put(f"{state}/f", b"good")
    snapshot.take(state, root, "1")
    for text in (b"bad 1", b"bad 2"):
        put(f"{state}/f", text)
        os.rename(f"{state}/f", f"{state}/g")  # another inode each time
        put(f"{state}/f", text)
        os.unlink(f"{state}/g")
        snapshot.restore(root, "1", state, ["f"], replaced)
    assert look(replaced)[b"tree/f"][1] == b"bad 1"
    assert look(replaced)[b"tree.2/f"][1] == b"bad 2"


def test_extra_patterns_outside_the_folder(places, tmp_path):
    state, root, replaced = places
    home = tmp_path / "home"
    put(f"{home}/.tool/sessions/a.jsonl", b"a")
    put(f"{home}/.tool/other", b"o")
    put(f"{home}/.tool.json", b"{}")
    extra = [f"{home}/.tool/sessions/**", f"{home}/.tool.json"]
    snapshot.take(state, root, "1", extra=extra)
    settle()
    assert snapshot.take(state, root, "2", previous="1", extra=extra).copied_bytes in (0, 3)
    assert snapshot.read_file(root, "2", f"{home}/.tool.json") == b"{}"
    assert snapshot.read_file(root, "2", f"{home}/.tool/other") is None
    put(f"{home}/.tool/sessions/a.jsonl", b"changed")
    put(f"{home}/.tool/sessions/b.jsonl", b"new")
    put(f"{home}/.tool/other", b"stays")
    os.unlink(f"{home}/.tool.json")
    snapshot.restore(root, "2", state, ["*"], replaced, extra=extra)
    assert look(home)[b".tool/sessions/a.jsonl"][1] == b"a"
    assert look(home)[b".tool.json"][1] == b"{}"
    assert look(home)[b".tool/other"][1] == b"stays"
    assert b".tool/sessions/b.jsonl" not in look(home)
    assert look(replaced)[os.fsencode(f"extra{home}/.tool/sessions/b.jsonl")][1] == b"new"


@pytest.mark.skipif(not is_root, reason="needs two users")
def test_a_link_made_by_the_agent_is_not_followed_out(places, tmp_path):
    state, root, replaced = places
    put(f"{tmp_path}/private/key", b"of root")
    home = tmp_path / "home"
    home.mkdir()
    os.symlink(f"{tmp_path}/private", f"{home}/.tool")
    os.lchown(f"{home}/.tool", 12345, 12345)
    extra = [f"{home}/.tool/*"]
    report = snapshot.take(state, root, "1", extra=extra)
    assert report.skipped == [f"{home}/.tool: Not a directory"] and report.files == 0
    os.lchown(f"{home}/.tool", 0, 0)
    snapshot.take(state, root, "2", extra=extra)
    assert snapshot.read_file(root, "2", f"{home}/.tool/key") == b"of root"
    os.lchown(f"{home}/.tool", 12345, 12345)
    put(f"{tmp_path}/private/key", b"later")
    report = snapshot.restore(root, "2", state, ["*"], replaced, extra=extra)
    assert report.kept == [f"{home}/.tool"]
    assert look(f"{tmp_path}/private")[b"key"][1] == b"later"


def test_a_folder_turned_into_a_link_does_not_lead_a_restore_away(places, tmp_path):
    state, root, replaced = places
    put(f"{state}/config/a", b"good")
    snapshot.take(state, root, "1")
    os.unlink(f"{state}/config/a")
    os.rmdir(f"{state}/config")
    put(f"{tmp_path}/etc/a", b"not yours")
    os.symlink(f"{tmp_path}/etc", f"{state}/config")
    snapshot.restore(root, "1", state, ["config/*"], replaced)
    assert look(f"{tmp_path}/etc")[b"a"][1] == b"not yours"
    assert look(state)[b"config/a"][1] == b"good"
    assert os.path.islink(f"{replaced}/tree/config")


def test_no_state_folder_and_no_folder(places):
    state, root, replaced = places
    put(f"{state}/f", b"1")
    os.chmod(state, 0o750)
    snapshot.take(state, root, "1")
    os.unlink(f"{state}/f")
    os.rmdir(state)
    report = snapshot.take(state, root, "2", previous="1")
    assert report.files == 0 and "not there" in report.note
    snapshot.restore(root, "1", state, ["*"], replaced)
    assert look(state)[b"f"][1] == b"1" and os.stat(state).st_mode & 0o777 == 0o750
    put(f"{state}.file", b"")
    with pytest.raises(SnapshotFailed) as failed:
        snapshot.take(f"{state}.file", root, "3")
    assert "folder" in failed.value.hint and snapshot.list_ids(root) == ["1", "2"]


def test_no_room_leaves_no_trace(places, monkeypatch):
    state, root, replaced = places
    put(f"{state}/f", b"1")
    snapshot.take(state, root, "1")
    put(f"{state}/f", b"22")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_copy.os, "pwrite", full)
    with pytest.raises(SnapshotFailed) as failed:
        snapshot.take(state, root, "2")
    assert "prune" in failed.value.hint and os.listdir(root) == ["1"]
    with pytest.raises(SnapshotFailed):
        snapshot.restore(root, "1", state, ["*"], replaced)
    assert os.listdir(state) == ["f"] and look(state)[b"f"][1] == b"22"


def test_a_read_error_of_one_file_does_not_stop_the_rest(places, monkeypatch):
    state, root, _ = places
    put(f"{state}/a", b"a" * 600)
    put(f"{state}/bad", b"b" * 600)
    put(f"{state}/c", b"c" * 600)
    pread, bad = os.pread, os.stat(f"{state}/bad").st_ino

    def failing(fd, length, at):
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, length, at)

    monkeypatch.setattr(file_copy.os, "pread", failing)
    report = snapshot.take(state, root, "1")
    assert report.files == 2 and report.skipped == ["bad: Input/output error"]


def test_what_may_not_be_read_is_reported_and_left_alone(places):
    state, root, replaced = places
    put(f"{state}/closed/in", b"x")
    put(f"{state}/secret", b"x", 0o000)
    os.chmod(f"{state}/closed", 0o000)
    with modes.binding():
        report = snapshot.take(state, root, "1")
    assert report.skipped == ["closed: Permission denied", "secret: Permission denied"]
    os.chmod(f"{state}/closed", 0o700)
    with modes.binding():
        report = snapshot.restore(root, "1", state, ["*"], replaced)
    assert report.removed == [] and sorted(os.listdir(state)) == ["closed", "secret"]
    assert os.path.exists(f"{state}/closed/in")


def test_an_append_only_file_is_whole_up_to_what_was_there(places):
    state, root, _ = places
    line = b"0123456789abcde\n"
    put(f"{state}/history.jsonl", line * 200_000)
    stop = threading.Event()

    def write():
        with open(f"{state}/history.jsonl", "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(line)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            report = snapshot.take(state, root, str(number))
            data = snapshot.read_file(root, str(number), "history.jsonl")
            assert report.skipped == [] and data == line * (len(data) // len(line))
            assert len(data) >= 200_000 * len(line)
    finally:
        stop.set()
        deadline.join(writer)


def test_a_file_rewritten_all_the_time_is_reported_unsettled(places, monkeypatch):
    state, root, _ = places
    put(f"{state}/f", b"x" * 1000)
    copies, copy = [], file_copy.copy

    def disturbed(source, target, stat):
        copies.append(copy(source, target, stat))
        put(f"{state}/f", b"%04d" % len(copies), age=len(copies) * 10)
        return copies[-1]

    monkeypatch.setattr(file_copy, "copy", disturbed)
    assert "changed during" in snapshot.take(state, root, "1").skipped[0]
    assert len(copies) == 4 and manifest.load(f"{root}/1").entries[0].state == "unsettled"


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


def make_database(path, mode="wal"):
    base = sqlite3.connect(path, isolation_level=None)
    base.execute(f"PRAGMA journal_mode={mode}")
    base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
    return base


def leave(base, state):
    """As if the writer were killed: its journal stays behind."""
    import shutil

    shutil.copytree(state, f"{state}.then")
    base.close()
    shutil.rmtree(state)
    os.rename(f"{state}.then", state)


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


def test_a_stale_journal_beside_an_older_database_is_moved_away(places):
    state, root, replaced = places
    base = make_database(f"{state}/s.db")
    base.execute("INSERT INTO t VALUES (1, 'x')")
    base.close()  # no journal is left
    snapshot.take(state, root, "1")
    live = sqlite3.connect(f"{state}/s.db", isolation_level=None)
    live.execute("PRAGMA wal_autocheckpoint=0")
    live.execute("INSERT INTO t VALUES (2, 'only in the journal')")
    assert os.path.getsize(f"{state}/s.db-wal") > 0
    leave(live, state)
    put(f"{state}/new.db", b"SQLite format 3\0" + bytes(600))
    put(f"{state}/new.db-wal", b"its journal")
    put(f"{state}/text-wal", b"no journal at all")
    report = snapshot.restore(root, "1", state, ["*.db"], replaced)
    assert report.removed == ["new.db", "new.db-wal", "s.db-shm", "s.db-wal"]
    assert sorted(os.listdir(state)) == ["s.db", "text-wal"]
    again = sqlite3.connect(f"{state}/s.db")
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


def test_replaced_on_another_file_system(places, tmp_path):
    other = "/dev/shm"
    if not os.path.isdir(other) or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")
    import tempfile

    state, root, _ = places
    nasty(state)
    before = look(state)
    snapshot.take(state, root, "1")
    ruin(state)
    with tempfile.TemporaryDirectory(dir=other) as replaced:
        snapshot.restore(root, "1", state, ["*"], replaced)
        assert look(state) == before
        saved = look(f"{replaced}/tree")
        assert saved[b"plain"][1] == b"other" and saved[b"newcomer/x"][1] == b"mine"


def test_taking_again_answers_with_the_first(places):
    state, root, _ = places
    put(f"{state}/f", b"1")
    snapshot.take(state, root, "1")
    put(f"{state}/f", b"22")
    assert snapshot.take(state, root, "1").bytes == 1
    for bad in ("", ".x", "a/b"):
        with pytest.raises(SnapshotFailed):
            snapshot.take(state, root, bad)


def test_snapshots_inside_the_state_folder_are_left_out(places):
    state, _, _ = places
    put(f"{state}/f", b"1")
    for number in "123":
        assert snapshot.take(state, f"{state}/snapshots", number).files == 1
    put(f"{state}/f", b"2")
    put(f"{state}/new", b"n")
    for _ in range(2):
        snapshot.restore(f"{state}/snapshots", "3", state, ["*"], f"{state}/replaced")
        assert look(state)[b"f"][1] == b"1"
        assert look(state)[b"replaced/tree/new"][1] == b"n"
        assert snapshot.list_ids(f"{state}/snapshots") == ["1", "2", "3"]


def test_the_manifest_survives_any_name_and_is_json(places):
    import json

    state, root, _ = places
    nasty(state)
    snapshot.take(state, root, "1")
    with open(f"{root}/1/{manifest.NAME}") as file:
        data = json.load(file)["manifest"]
    assert any(row[0] == os.fsdecode(b"bad\xff\xfename") for row in data["entries"])
    kinds = {row[0]: row[1] for row in data["entries"]}
    assert (kinds["fifo"], kinds["socket"], kinds["link"]) == ("fifo", "socket", "link")


def test_nesting_without_end_is_refused_not_fatal(places):
    state, root, _ = places
    fd = os.open(state, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    put(f"{state}/f", b"1")
    report = snapshot.take(state, root, "1")
    assert report.files == 1 and "too deep" in report.skipped[0]
    report = snapshot.restore(root, "1", state, ["*"], f"{state}.replaced")
    assert report.removed == report.restored == []
    assert snapshot.verify(root, "1") == []


def test_what_we_lack_ourselves_makes_no_snapshot_without_it(places, monkeypatch):
    """Too many open files say nothing of the file: it would be missing from what passes for a whole snapshot."""
    state, root, _ = places
    put(f"{state}/history.jsonl", b"hello")

    def none_left(self):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(capture.Spot, "open_live", none_left)
    with pytest.raises(SnapshotFailed, match="Too many open files"):
        snapshot.take(state, root, "1")
    assert snapshot.list_ids(root) == []
