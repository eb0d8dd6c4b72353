"""Which processes belong to a launch: found by the environment they were started with."""

from __future__ import annotations

import os
import subprocess

import pytest

from agentctl.host import procfs
from kit.deadline import until, wait

LOOKS = 300


@pytest.fixture
def started():
    """Start programs; end them."""
    running = []

    def start(*argv: str, **variables: str) -> int:
        running.append(subprocess.Popen(argv, env=variables))
        return running[-1].pid

    yield start
    for child in running:
        child.kill()
        wait(child)


def test_a_process_is_found_while_it_is_given_another_program(started, tmp_path):
    """In the midst of an exec its environment reads empty: a sweep that saw nothing there let the process live."""
    script = tmp_path / "again"
    script.write_text('#!/bin/sh\nexec "$0"\n')
    script.chmod(0o755)
    pid = started(str(script), AGENT_LAUNCH_ID="one")
    missed = [look for look in range(LOOKS) if pid not in procfs.with_variable("AGENT_LAUNCH_ID", "one")]
    assert not missed
    assert procfs.variables(pid).get("AGENT_LAUNCH_ID") == "one"


@pytest.fixture
def no_waiting(monkeypatch):
    """Let a look that waits fail."""

    def fail(seconds: float) -> None:
        raise AssertionError(f"it waits {seconds} s")

    return lambda: monkeypatch.setattr(procfs.time, "sleep", fail)


def test_an_empty_environment_is_not_waited_for(started, no_waiting):
    pid = started("/bin/sleep", "1000")
    until(lambda: procfs.words(pid)[0] == "/bin/sleep", "the end of the exec")
    no_waiting()
    assert procfs.variables(pid) == {}


def test_the_dead_and_the_kernel_s_have_none(started, no_waiting):
    pid = started("/bin/true")
    no_waiting()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert procfs.variables(pid) == {}
    assert procfs.variables(2) == {}


def test_a_stranger_with_the_runners_number_is_no_runner(home):
    stranger = home.process("something", "else")
    assert not procfs.is_runner(stranger.pid, "agent")
    assert not procfs.is_runner(0, "agent")
    assert procfs.is_runner(home.process("runner", "agent").pid, "agent")
