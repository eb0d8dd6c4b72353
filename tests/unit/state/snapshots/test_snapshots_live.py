"""Snapshots of a state folder that is used meanwhile: real processes append, rewrite, replace, delete; odd files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from agentctl.state.snapshots import snapshot
from kit import deadline, effort
from kit.line_killer import fast_folder
from kit.survival import survived

LINE = b"0123456789abcde\n"
# No writer outlives the test, and none fills the disk.
BOUND = """
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(1, 9)
resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, 32 << 20))
"""
APPEND = """
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while True:
    os.write(file, b"0123456789abcde\\n" * int(sys.argv[2]))
"""
REWRITE = """
file, number = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 0
while True:
    number += 1
    os.pwrite(file, b"%08d" % number * 400_000, 0)
"""
REPLACE = """
number = 0
while True:
    number += 1
    with open(sys.argv[1] + ".new", "wb") as file:
        file.write(b"%08d" % number * 50_000)
    os.rename(sys.argv[1] + ".new", sys.argv[1])
"""
CHURN = """
number = 0
while True:
    number += 1
    folder = f"{sys.argv[1]}/{number % 50}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/file", "wb") as file:
        file.write(b"x" * 1000)
    os.unlink(f"{folder}/file")
    os.rmdir(folder)
"""


@pytest.fixture
def places(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    return str(state), str(tmp_path / "snapshots"), str(tmp_path / "replaced")


@pytest.fixture
def run():
    """Start a program that works on the state; all end with the test."""
    started = []

    def start(program: str, *words: str) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", BOUND + program, *words], stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for running in started:
        running.kill()
        deadline.wait(running)


def size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


@pytest.mark.parametrize("lines", [1, 1000], ids=["lines", "blocks"])
def test_what_a_process_appends_to_is_whole_up_to_a_size_it_had(places, run, lines):
    state, root, _ = places
    path = f"{state}/history.jsonl"
    run(APPEND, path, str(lines))
    deadline.until(lambda: size(path) > 1 << 20, "the writer to be at it")
    for number in range(8):
        before = size(path)
        report = snapshot.take(state, root, f"{number:06d}", previous=f"{number - 1:06d}" if number else None)
        data = snapshot.read_file(root, f"{number:06d}", "history.jsonl")
        assert before <= len(data) <= size(path) and report.skipped == []
        assert data == LINE * (len(data) // len(LINE)) and len(data) % len(LINE) == 0
        assert snapshot.verify(root, f"{number:06d}") == []
    survived("state that moves", "a file that grows while it is copied", 8)


def test_what_a_process_rewrites_in_place_is_tried_a_few_times_and_then_said(places, run):
    state, root, _ = places
    run(REWRITE, f"{state}/file")
    deadline.until(lambda: size(f"{state}/file") == 3_200_000, "the writer to be at it")
    began = time.monotonic()
    report = snapshot.take(state, root, "000001")
    assert time.monotonic() - began < 300  # bounded
    data = snapshot.read_file(root, "000001", "file")
    versions = {data[at : at + 8] for at in range(0, len(data), 8)}
    assert report.skipped or len(versions) == 1  # one state, or it says that it may not be one
    assert snapshot.verify(root, "000001") == []
    survived("state that moves", "a file that is rewritten in place", 1)


def test_what_a_process_replaces_is_one_version(places, run):
    state, root, _ = places
    run(REPLACE, f"{state}/file")
    deadline.until(lambda: size(f"{state}/file"), "the writer to be at it")
    for number in range(10):
        report = snapshot.take(state, root, f"{number:06d}")
        data = snapshot.read_file(root, f"{number:06d}", "file")
        assert data == data[:8] * 50_000
        assert [line for line in report.skipped if not line.startswith("file.new")] == []
    survived("state that moves", "a file that is replaced by rename", 10)


def test_files_and_folders_that_vanish_while_they_are_looked_at(places, run):
    state, root, _ = places
    with open(f"{state}/stays", "wb") as file:
        file.write(b"here")
    for number in range(3):
        run(CHURN, f"{state}/{number}")
    deadline.until(lambda: len(os.listdir(state)) > 1, "the writers to be at it")
    for number in range(30):
        snapshot.take(state, root, f"{number:06d}", previous=f"{number - 1:06d}" if number else None)
        assert snapshot.read_file(root, f"{number:06d}", "stays") == b"here"
        assert snapshot.verify(root, f"{number:06d}") == []
    survived("state that moves", "files and folders that come and go", 30)


ODD = ["fifo", "fifo with a writer", "fifo with a reader", "socket", "socket that listens", "device", "link to a fifo",
       "link to itself", "folder without rights", "file without rights"]  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_things_do_not_hang_it(places, kind, request):
    state, root, replaced = places
    path = f"{state}/odd"
    with open(f"{state}/plain", "wb") as file:
        file.write(b"plain")
    make_odd(kind, path, request)
    ended = []
    worker = threading.Thread(target=lambda: ended.append(snapshot.take(state, root, "000001")), daemon=True)
    worker.start()
    deadline.join(worker, timeout=300)
    assert ended, "it hangs"
    assert snapshot.read_file(root, "000001", "plain") == b"plain"
    assert snapshot.verify(root, "000001") == []
    os.unlink(f"{state}/plain")
    snapshot.restore(root, "000001", state, ["*"], replaced)
    assert os.path.lexists(path) and os.path.exists(f"{state}/plain")
    survived("odd things in the state folder", kind, 1)


def make_odd(kind: str, path: str, request) -> None:
    fifo = f"{os.path.dirname(os.path.dirname(path))}/pipe" if kind.startswith("link") else path
    if "fifo" in kind:
        os.mkfifo(fifo)
    if kind.startswith("fifo with"):
        fd = os.open(fifo, os.O_RDWR if "writer" in kind else os.O_RDONLY | os.O_NONBLOCK)
        request.addfinalizer(lambda: os.close(fd))
    elif kind == "link to a fifo":
        os.symlink(fifo, path)
    elif kind == "link to itself":
        os.symlink("odd", path)
    elif kind.startswith("socket"):
        listener = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(os.path.dirname(path))  # a long path does not fit
        listener.bind("odd")
        os.chdir(here)
        if "listens" in kind:
            listener.listen()
        request.addfinalizer(listener.close)
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root makes devices")
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: reading it would never end
    elif kind == "folder without rights":
        os.mkdir(path, 0)
        request.addfinalizer(lambda: os.chmod(path, 0o700))
    elif kind == "file without rights":
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0))


def test_a_state_folder_that_is_a_link(tmp_path):
    """A person may keep the state elsewhere and link to it; what the link means at that moment is taken."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("there")
    os.symlink("elsewhere", tmp_path / "state")
    state, root = str(tmp_path / "state"), str(tmp_path / "snapshots")
    try:
        report = snapshot.take(state, root, "000001")
    except snapshot.SnapshotFailed as error:
        assert error.hint  # refused in words: never an empty snapshot that looks like a good one
        return
    assert report.files == 1 and snapshot.read_file(root, "000001", "file") == b"there"


def test_a_hundred_thousand_files_do_not_hold_up_a_launch():
    """The second snapshot of many files that did not change: its work is a look at each, and no copy."""
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="agsn", dir=fast_folder())
    try:
        count = effort.pick(5_000, 100_000)
        for number in range(count):
            if number % 500 == 0:
                os.makedirs(f"{folder}/state/{number // 500}")
            with open(f"{folder}/state/{number // 500}/{number}", "wb") as file:
                file.write(b"%d" % number)
        time.sleep(0.1)
        snapshot.take(f"{folder}/state", f"{folder}/root", "000001")
        second = snapshot.take(f"{folder}/state", f"{folder}/root", "000002", previous="000001")
        assert (second.files, second.copied_bytes) == (count, 0)
        with open(f"{folder}/root/000002/manifest.json") as file:
            assert len(json.load(file)["manifest"]["entries"]) == count + count // 500
    finally:
        shutil.rmtree(folder)


def test_a_writer_that_is_stopped_in_mid_write_hinders_nothing(places, run):
    state, root, _ = places
    writer = run(APPEND, f"{state}/log", "1000")
    deadline.until(lambda: size(f"{state}/log") > 1 << 20, "the writer to be at it")
    writer.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    report = snapshot.take(state, root, "000001")
    assert report.skipped == [] and len(snapshot.read_file(root, "000001", "log")) == size(f"{state}/log")
