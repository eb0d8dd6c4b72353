"""Writing durably into a folder that somebody else may write to, too."""

import os

import pytest

from agentctl.core import durable


def test_what_somebody_has_put_in_the_way_of_the_temporary_file_is_not_written_to(tmp_path):
    """As root into the agent's folder: its second name for another file would be emptied, and given to the agent."""
    victim = tmp_path / "victim"
    victim.write_text("not yours")
    os.link(victim, tmp_path / f".brief.{os.getpid()}.tmp")
    durable.write(str(tmp_path / "brief"), b"news")
    assert victim.read_text() == "not yours" and (tmp_path / "brief").read_text() == "news"
    assert sorted(os.listdir(tmp_path)) == [f".brief.{os.getpid()}.tmp", "brief", "victim"]


def test_it_is_all_of_the_new_with_its_mode_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_text("old and longer")
    path.chmod(0o644)
    durable.write(str(path), b"new", 0o600)
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_leaves_the_old_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(fd):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write(str(path), b"new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_reading_waits_for_nobody_and_takes_no_more_than_it_may(tmp_path):
    assert durable.read(str(tmp_path / "nothing")) is None
    assert durable.read(str(tmp_path / "nothing/below")) is None
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert durable.read(str(tmp_path / "file")) == b"x" * 100
    assert durable.read(str(tmp_path / "file"), limit=7) == b"x" * 7
    os.mkfifo(tmp_path / "fifo")
    assert durable.read(str(tmp_path / "fifo")) == b""
