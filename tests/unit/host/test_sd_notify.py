"""Real sockets, real senders, and senders that mean harm."""

from __future__ import annotations

import array
import os
import select
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from agentctl.host.sd_notify import LONGEST_MESSAGE, Notifier, NotifyReceiver, parse
from kit import deadline


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="anf", dir="/tmp"))  # pytest's own is too long for a socket
    yield path
    shutil.rmtree(path)


@pytest.fixture
def receiver(folder):
    hand = NotifyReceiver(str(folder / "n"), 0o620)
    yield hand
    hand.close()
    assert not os.path.exists(hand.path)


@pytest.fixture
def sender(receiver):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(receiver.path)
        yield client


def received(receiver, count=1, limit_seconds=60.0):
    messages, deadline = [], time.monotonic() + limit_seconds
    while len(messages) < count:
        remaining = deadline - time.monotonic()
        assert remaining > 0, f"only {len(messages)} of {count} messages"
        select.select([receiver], [], [], remaining)
        messages += receiver.receive()
    return messages


def fds_of_this_process() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_message_carries_its_fields_and_its_sender(receiver, sender):
    sender.send("READY=1\nSTATUS=café = ok\nX_AGENTCTL_PROGRESS=7\n".encode())
    (message,) = received(receiver)
    assert message.fields == {"READY": "1", "STATUS": "café = ok", "X_AGENTCTL_PROGRESS": "7"}
    assert (message.pid, message.uid) == (os.getpid(), os.getuid())


def test_nothing_to_receive_does_not_wait(receiver):
    assert receiver.receive() == []


def test_the_socket_has_the_mode_and_replaces_a_dead_one(receiver):
    assert stat.S_IMODE(os.stat(receiver.path).st_mode) == 0o620
    again = NotifyReceiver(receiver.path, 0o600)
    assert stat.S_IMODE(os.stat(receiver.path).st_mode) == 0o600
    again.close()


@pytest.mark.parametrize("count", [1, 3, 253])
def test_passed_descriptors_are_closed(receiver, sender, count):
    ours, theirs = os.pipe()
    before = fds_of_this_process()
    socket.send_fds(sender, [b"FDSTORE=1\nFDNAME=x"], [theirs] * count)
    os.close(theirs)
    assert received(receiver)[0].fields["FDSTORE"] == "1"
    assert fds_of_this_process() == before - 1
    assert os.read(ours, 1) == b""  # no write end is left anywhere
    os.close(ours)


def test_a_barrier_is_answered_by_the_close(receiver, sender):
    ours, theirs = os.pipe()
    socket.send_fds(sender, [b"BARRIER=1"], [theirs])
    os.close(theirs)
    poll = select.poll()
    poll.register(ours, 0)
    assert poll.poll(0) == []
    received(receiver)
    assert poll.poll(60_000)[0][1] & select.POLLHUP
    os.close(ours)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\n\n", b"no equals", b"=value", b"A\0=1", b"READY=1\0WATCHDOG=1", b"\xff\xfe=1"]
    + [b"x" * 65536, b"A=" + b"x" * LONGEST_MESSAGE, b"\0" * 100, b"=" * 100],
)
def test_garbage_is_dropped_and_counted(receiver, sender, garbage):
    sender.send(garbage)
    sender.send(b"WATCHDOG=1")
    assert [m.fields for m in received(receiver)] == [{"WATCHDOG": "1"}]
    assert receiver.dropped == 1


def test_one_call_is_bounded(receiver):
    for _ in range(5):  # the kernel's own queue is short: /proc/sys/net/unix/max_dgram_qlen
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"WATCHDOG=1", receiver.path)
    assert len(receiver.receive(most=2)) == 2
    assert len(receiver.receive()) == 3


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"A=1\nA=2", {"A": "1"}),
        (b"A=1\0", {"A": "1"}),
        (b"A=\nB=x=y", {"A": "", "B": "x=y"}),
        (b"junk\nA=\xff", {"A": "\ufffd"}),
    ],
)
def test_parse(data, fields):
    assert parse(data) == fields


def test_systemd_notify_itself_is_understood(receiver):
    program = shutil.which("systemd-notify")
    if program is None:
        pytest.skip("no systemd-notify here")
    env = {"NOTIFY_SOCKET": receiver.path, "PATH": os.environ["PATH"]}
    child = subprocess.Popen([program, "--ready", "--status=at work", "WATCHDOG=1"], env=env)
    seen = {}
    while "BARRIER" not in seen:  # it waits for the barrier, so it ends only if that is answered
        for message in received(receiver):
            seen |= message.fields
    assert deadline.wait(child, timeout=60) == 0
    assert {k: seen.get(k) for k in ("READY", "STATUS")} == {"READY": "1", "STATUS": "at work"}


def test_the_sdnotify_package_is_understood(receiver, monkeypatch):
    sdnotify = pytest.importorskip("sdnotify")
    monkeypatch.setenv("NOTIFY_SOCKET", receiver.path)
    client = sdnotify.SystemdNotifier(debug=True)
    client.notify("READY=1")
    assert received(receiver)[0].fields == {"READY": "1"}
    client.socket.close()


def test_the_notifier_says_what_systemd_expects(receiver):
    notifier = Notifier(receiver.path)
    assert notifier.ready("up") and notifier.keepalive() and notifier.status("x\nREADY=1")
    assert notifier.stopping() and notifier.watchdog_usec(5_000_000)
    assert [m.fields for m in received(receiver, 5)] == [
        {"READY": "1", "STATUS": "up"},
        {"WATCHDOG": "1"},
        {"STATUS": "x READY=1"},
        {"STOPPING": "1"},
        {"WATCHDOG_USEC": "5000000"},
    ]
    assert notifier.extend(7) and notifier.send(STATUS="é" * 10_000, READY=1)
    short, long = received(receiver, 2)
    assert short.fields == {"EXTEND_TIMEOUT_USEC": "7"}
    assert long.fields["READY"] == "1" and set(long.fields["STATUS"]) == {"é"}


def test_an_abstract_address_works():
    name = f"agentctl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert Notifier("@" + name).keepalive()
        assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "relative", "/nonexistent/socket", "@"])
def test_nobody_to_tell_is_no_error(address):
    assert Notifier(address).ready("x") is False


def test_a_manager_that_does_not_read_costs_a_bounded_wait(folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "m"))
        notifier = Notifier(str(folder / "m"))
        while notifier.keepalive():
            continue
        began, busy = time.monotonic(), time.process_time()
        assert notifier.keepalive() is False
        assert time.monotonic() - began < 30
        assert time.process_time() - busy < 0.25  # waited, not spun


def test_an_int_array_is_what_the_kernel_sends():
    """Guards the hand-made cast against a platform whose int is not four bytes."""
    assert array.array("i").itemsize == 4
