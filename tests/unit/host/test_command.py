"""A program that waits at a FIFO for ever is told from one that takes its time, whatever that is for."""

import contextlib
import os
import signal
import time

import pytest

from agentctl.core.errors import CommandFailed
from agentctl.host import command, procfs
from agentctl.host.command import Standstill

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(command, "IDLE_SECONDS", 0.15)


def start(script, **fds):
    return command.start(["/bin/sh", "-c", script], env=ENV, **fds)


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return str(tmp_path / "fifo")


def test_who_opens_a_fifo_that_nobody_writes_is_ended_and_told_why(fifo):
    begun = time.monotonic()
    waiting = start(f"cat {fifo}; :")  # the shell waits for its child, which counts as well
    watch = Standstill([waiting.pid])
    with pytest.raises(CommandFailed, match="it waits at what is no file"):
        waiting.finish(on_idle=watch)
    assert watch.why
    assert time.monotonic() - begun < 5


def test_who_reads_a_fifo_that_somebody_holds_and_never_writes_is_ended(fifo):
    holder = os.open(fifo, os.O_RDWR)
    try:
        waiting = start(f"exec cat {fifo}")
        with pytest.raises(CommandFailed, match="no file"):
            waiting.finish(on_idle=Standstill([waiting.pid]))
    finally:
        os.close(holder)


COMPUTING = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"


@pytest.mark.parametrize("script", ["sleep 0.8", "sleep 0.8 | cat", COMPUTING],
                         ids=["sleeps", "reads from one that sleeps", "computes"])  # fmt: skip
def test_who_takes_long_is_left_alone(script):
    running = start(script)
    assert running.finish(on_idle=Standstill([running.pid])).status == 0


def test_who_is_stopped_is_left_alone(fifo):
    running = start(f"exec cat {fifo}")
    os.kill(running.pid, signal.SIGSTOP)
    while procfs.state(running.pid) != "T":
        time.sleep(0.01)
    watch = Standstill([running.pid])
    assert (watch(), watch(), watch()) == ("", "", "")
    running.kill()


def test_who_is_let_go_again_and_again_gets_on(fifo):
    running = start(f"for n in 1 2 3 4; do cat {fifo}; done")
    watch = Standstill([running.pid])

    def look():
        with contextlib.suppress(OSError):  # it is between two of them
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return watch()

    assert running.finish(on_idle=look).status == 0


def test_two_that_work_together_wait_only_if_both_do(fifo):
    """One that has nothing to read yet waits for the other, and that one sleeps."""
    first = start("sleep 0.8; echo done")
    os.set_inheritable(first.stdout, False)
    second = start("exec cat", stdin_fd=first.stdout)
    os.close(first.stdout)
    first.stdout = -1
    watch = Standstill([second.pid, first.pid])
    assert second.finish(on_idle=watch).text == "done"
    assert first.finish().status == 0


def test_where_the_kernel_does_not_say_what_it_waits_for_the_time_has_to_do(fifo, monkeypatch):
    monkeypatch.setattr(procfs, "waits_in", lambda thread: "")
    running = start(f"exec cat {fifo}")
    with pytest.raises(CommandFailed, match="no file"):
        running.finish(on_idle=Standstill([running.pid]))
