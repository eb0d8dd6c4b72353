"""The pane's feed: clean lines in order, the last ones kept, nothing in the way hinders it."""

import os

import pytest

from agentctl.host.journald import Journal
from agentctl.host.poll_loop import Loop
from agentctl.host.terminal_output import KEPT_LINES, PaneFeed


@pytest.fixture
def fed(tmp_path, capfd):
    def make(path):
        feed = PaneFeed(str(path), None, Loop(), Journal("x", to_stdout=True))
        return feed, os.open(path, os.O_WRONLY)

    return make


def test_lines_come_out_clean_and_the_last_are_kept(fed, tmp_path, capfd):
    feed, pipe = fed(tmp_path / "pane")
    os.write(pipe, b"\033[31mred\033[0m\r\nhalf")
    feed.read()
    assert list(feed.lines) == ["red"]
    os.write(pipe, b" done\n" + b"".join(b"%d\n" % n for n in range(KEPT_LINES)) + b"prompt> ")
    os.close(pipe)
    feed.drain()
    assert feed.lines[-1] == "prompt>" and len(feed.lines) == KEPT_LINES
    assert capfd.readouterr().out.startswith("red\nhalf done\n0\n1\n")


def test_a_hung_up_pipe_is_not_watched_any_more(fed, tmp_path):
    feed, pipe = fed(tmp_path / "pane")
    os.close(pipe)
    assert feed.is_open
    feed.read()
    assert not feed.is_open


@pytest.mark.parametrize("kind", ["folder", "file", "link", "pipe"])
def test_what_stands_in_the_way_is_moved_or_replaced(fed, tmp_path, kind):
    path, other = tmp_path / "pane", tmp_path / "other"
    other.write_text("not ours")
    {
        "folder": path.mkdir,
        "file": lambda: path.write_text("x"),
        "link": lambda: path.symlink_to(other),
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    feed, pipe = fed(path)
    os.write(pipe, b"here\n")
    feed.read()
    os.close(pipe)
    assert list(feed.lines) == ["here"]
    assert other.read_text() == "not ours"
