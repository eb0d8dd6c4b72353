"""Copies of single files, their checksums, and how many are made durable."""

from __future__ import annotations

import os
import zlib

import pytest

from agentctl.state.snapshots import file_copy
from unit.state.snapshots.state_folders import put


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


@pytest.mark.parametrize("size", [0, 1, file_copy.BLOCK - 1, file_copy.BLOCK, 3 * file_copy.BLOCK + 7])
def test_a_copy_is_the_same_and_its_checksum_is_that_of_what_was_read(tmp_path, size):
    put(f"{tmp_path}/one", os.urandom(size))
    with open(tmp_path / "one", "rb") as source, open(tmp_path / "two", "w+b") as target:
        crc = file_copy.copy(source.fileno(), target.fileno(), os.fstat(source.fileno()))
        assert file_copy.is_same(source.fileno(), target.fileno(), size)
        assert crc == file_copy.checksum(target.fileno(), size) == zlib.crc32((tmp_path / "one").read_bytes())
    assert (tmp_path / "two").stat().st_size == size


def test_only_what_was_there_at_first_is_copied(tmp_path):
    put(f"{tmp_path}/one", b"x" * 10)
    with open(tmp_path / "one", "rb") as source, open(tmp_path / "two", "w+b") as target:
        stat = os.fstat(source.fileno())
        put(f"{tmp_path}/one", b"x" * 10 + b"later")
        file_copy.copy(source.fileno(), target.fileno(), stat)
    assert (tmp_path / "two").read_bytes() == b"x" * 10


@pytest.mark.parametrize("at", [0, 5000, file_copy.BLOCK, 3 * file_copy.BLOCK - 1])
def test_one_byte_makes_two_files_differ(tmp_path, at):
    size = 3 * file_copy.BLOCK
    with open(tmp_path / "one", "w+b") as one, open(tmp_path / "two", "w+b") as two:
        for file in (one, two):
            file.truncate(size)
        assert file_copy.is_same(one.fileno(), two.fileno(), size)
        file_copy.write_all(two.fileno(), b"x", at)
        assert not file_copy.is_same(one.fileno(), two.fileno(), size)
        assert file_copy.is_same(one.fileno(), two.fileno(), at // file_copy.BLOCK * file_copy.BLOCK)


@pytest.mark.parametrize("count", [1, file_copy.FEW, file_copy.FEW + 5])
def test_few_are_synced_one_by_one_and_many_at_once(tmp_path, monkeypatch, count):
    synced, whole = [], []
    monkeypatch.setattr(file_copy.os, "fsync", synced.append)
    monkeypatch.setattr(file_copy.durable, "sync_filesystem", whole.append)
    syncs = file_copy.Syncs()
    fds = [os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY) for number in range(count)]
    for fd in fds:
        syncs.take_over(fd)
    syncs.finish(str(tmp_path))
    is_many = count > file_copy.FEW
    assert (synced, whole) == (([], [str(tmp_path)]) if is_many else (fds, []))
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_a_leftover_is_removed_and_what_its_links_lead_to_is_not(tmp_path):
    put(f"{tmp_path}/kept/file", b"x")
    put(f"{tmp_path}/leftover/deep/er/file", b"x")
    os.symlink(tmp_path / "kept", tmp_path / "leftover/link")
    os.symlink(tmp_path / "kept", tmp_path / "itself")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for name in ("leftover", "itself", "nothing"):
            file_copy.remove_tree(folder, name)
    finally:
        os.close(folder)
    assert os.listdir(tmp_path) == ["kept"] and (tmp_path / "kept/file").exists()
