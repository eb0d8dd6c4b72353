"""A datagram socket stands in for journald and reads the native protocol as journald does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.host.journald import LONGEST_MESSAGE, Journal, encode
from kit import deadline


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="ajr", dir="/tmp"))  # pytest's own is too long for a socket
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(folder / "j"))
        server.settimeout(60)
        yield server


@pytest.fixture
def journal(daemon):
    fields = {"AGENTCTL_LAUNCH_ID": "abc", "AGENTCTL_GENERATION": "42"}
    hand = Journal("agent", fields, socket_path=daemon.getsockname(), patience_seconds=2)
    yield hand
    hand.close()


def parsed(data: bytes) -> dict[str, str]:
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, end, rest = (
                rest[8 : 8 + length],
                rest[8 + length : 9 + length],
                rest[9 + length :],
            )
            assert end == b"\n"
        fields[name.decode()] = value.decode()
        data = rest
    return fields


def heard(daemon) -> dict[str, str]:
    return parsed(daemon.recv(1 << 20))


def test_a_line_carries_our_fields(journal, daemon):
    assert journal.line("hello é", 5, AGENTCTL_STREAM="pane")
    assert heard(daemon) == {
        "SYSLOG_IDENTIFIER": "agent",
        "AGENTCTL_LAUNCH_ID": "abc",
        "AGENTCTL_GENERATION": "42",
        "AGENTCTL_STREAM": "pane",
        "PRIORITY": "5",
        "MESSAGE": "hello é",
    }


@given(st.dictionaries(st.from_regex(r"\A[A-Z][A-Z0-9_]{0,10}\Z"), st.text(max_size=50)))
def test_every_value_survives_the_framing(fields):
    expected = {k: v.encode("utf-8", "replace").decode() for k, v in fields.items()}
    assert parsed(encode(fields)) == expected


def test_a_message_cannot_forge_a_field(journal, daemon):
    assert journal.line("x\nPRIORITY=0\n_PID=1")
    fields = heard(daemon)
    assert fields["PRIORITY"] == "6" and "_PID" not in fields


def test_a_huge_message_is_cut_and_says_so(journal, daemon):
    assert journal.line("é" * LONGEST_MESSAGE)
    message = heard(daemon)["MESSAGE"]
    assert len(message.encode()) <= LONGEST_MESSAGE + 40
    assert message.endswith(f"[cut: {2 * LONGEST_MESSAGE} bytes]")


def test_a_tiny_send_buffer_gets_a_shorter_message(journal, daemon):
    journal._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    assert journal.line("y" * 100_000)
    assert heard(daemon)["MESSAGE"].startswith("y" * 1000 + "y" * 24 + " [cut")


def fill(journal) -> int:
    """Write until the daemon's queue is full; return how many lines it took."""
    placed = 0
    while journal.line("filler"):
        placed += 1
    return placed


def test_a_stuck_journal_is_waited_for_once_and_the_loss_is_told(journal, daemon):
    began, busy = time.monotonic(), time.process_time()
    placed = fill(journal)
    assert time.monotonic() - began > 1.5
    assert time.process_time() - busy < 1  # waited, not spun
    began = time.monotonic()
    assert not any(journal.line("lost") for _ in range(50))
    assert time.monotonic() - began < 50  # not twice as long for each
    assert journal.dropped == 51
    for _ in range(placed):
        assert heard(daemon)["MESSAGE"] == "filler"
    assert journal.line("back")
    report = heard(daemon)
    assert report["MESSAGE"].startswith("51 lines lost") and report["PRIORITY"] == "4"
    assert heard(daemon)["MESSAGE"] == "back"
    assert journal.dropped == 0


def test_closing_tells_what_was_lost(journal, daemon):
    placed = fill(journal)
    for _ in range(placed):
        heard(daemon)
    journal.close()
    assert heard(daemon)["MESSAGE"].startswith("1 lines lost")


def test_a_restarted_journal_is_found_again(journal, daemon, folder, capfd):
    os.rename(folder / "j", folder / "gone")
    assert journal.line("to stdout")
    assert capfd.readouterr().out == "to stdout\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as successor:
        successor.bind(str(folder / "j"))
        assert journal.line("to the new one")
        assert heard(successor)["MESSAGE"] == "to the new one"


def test_stdout_is_used_where_asked(capfd):
    journal = Journal("agent", to_stdout=True)
    assert journal.line("plain é")
    assert capfd.readouterr().out == "plain é\n"


@contextmanager
def stdout_into(fd):
    """Inside the test, not in a fixture: pytest puts its own capture back between the two."""
    kept = os.dup(1)
    os.dup2(fd, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_reader_of_stdout_that_does_not_read_blocks_nobody(pipe):
    journal = Journal("agent", to_stdout=True, patience_seconds=1)
    began = time.monotonic()
    with stdout_into(pipe[1]):
        placed = [journal.line("z" * 5000) for _ in range(50)]
    assert placed[:5] == [True] * 5 and placed[-5:] == [False] * 5
    assert time.monotonic() - began < 20  # not a second for each of them
    assert journal.dropped == placed.count(False)


def test_a_closed_stdout_raises_nothing(pipe):
    os.close(pipe.pop(0))
    with stdout_into(pipe[0]):
        placed = Journal("agent", to_stdout=True).line("x")
    assert placed is False


WRITER = """
import sys
from agentctl.host import journald as journal
journal.LARGEST_COPY, journal.LOOK_AT_COPY = 20_000, 500
hand = journal.Journal("agent", to_stdout=True, copy_path=sys.argv[1])
for number in range(1500):
    hand.info(f"{sys.argv[2]} {number:05d} " + "x" * 20)
"""


def test_the_copy_is_rotated_while_it_is_written_by_several(folder):
    """No file becomes much larger than its limit, no line is torn, and the newest lines are there."""
    path = folder / "agent.log"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], env=env, stdout=subprocess.DEVNULL)
        for name in ("one", "two")
    ]
    assert [deadline.wait(writer, timeout=300) for writer in writers] == [0, 0]
    assert sorted(p.name for p in folder.iterdir()) == ["agent.log", "agent.log.1"]
    lines = (folder / "agent.log.1").read_text().splitlines() + path.read_text().splitlines()
    assert all(len(line) == 30 and line.endswith(" " + "x" * 20) for line in lines)
    assert any(line.endswith("01499 " + "x" * 20) for line in lines)
    assert all(os.path.getsize(folder / name) < 25_000 for name in ("agent.log", "agent.log.1"))
    for name in ("one", "two"):  # of each what is kept is without a gap
        numbers = sorted(int(line.split()[1]) for line in lines if line.startswith(name))
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
