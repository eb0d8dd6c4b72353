"""What is brought in, and how: copied or linked to the copy before, never a wrong thing, never a gap unsaid."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from agentctl.state.snapshots import capture, file_copy, manifest, snapshot
from agentctl.state.snapshots.manifest import SnapshotFailed
from kit import deadline, modes
from unit.state.snapshots.state_folders import put, settle


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
