"""Snapshots: take, verify and restore everything a state folder can hold."""

from __future__ import annotations

import errno
import os

import pytest

from agentctl.state.snapshots import file_copy, snapshot
from agentctl.state.snapshots.manifest import SnapshotFailed
from unit.state.snapshots.state_folders import look, nasty, put, ruin


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
