"""The parts of a launch's loop that decide something: signals, who is believed, writing where there is no room."""

import os
import signal
from types import SimpleNamespace

import pytest

from agentctl.host import disk_space
from agentctl.ledger import models
from agentctl.runner import launch_loop
from agentctl.runner.launch_loop import LaunchLoop
from agentctl.runner.launch_result import LaunchResult


@pytest.fixture
def loop(monkeypatch):
    """A loop that has started nothing; timers are in `loop.timers`, what is told in `loop.said`."""
    made = LaunchLoop.__new__(LaunchLoop)
    made.timers, made.said = {}, []
    made.context = SimpleNamespace(user=None, owner=None, paths="paths")
    made.journal = SimpleNamespace(info=made.said.append, warning=made.said.append)
    made.loop = SimpleNamespace(set_timer=lambda name, seconds, call: made.timers.update({name: call}))
    made.ending = None
    return made


@pytest.mark.parametrize(
    ("numbers", "called"),
    [
        ([signal.SIGTERM], ["stop"]),
        ([signal.SIGINT], ["stop"]),
        ([signal.SIGHUP], ["stop"]),
        ([signal.SIGABRT], ["abort"]),
        ([signal.SIGABRT, signal.SIGTERM], ["abort", "stop"]),
        ([signal.SIGCHLD], []),
    ],
)
def test_what_a_signal_means(loop, monkeypatch, numbers, called):
    calls = []
    monkeypatch.setattr(loop, "stop", lambda: calls.append("stop"), raising=False)
    monkeypatch.setattr(loop, "_on_abort", lambda: calls.append("abort"), raising=False)
    loop.wakeup, write_end = os.pipe()
    os.write(write_end, bytes(numbers))
    loop._on_signal()
    os.close(loop.wakeup)
    os.close(write_end)
    assert calls == called


def test_root_we_and_the_agent_s_user_are_believed_and_nobody_else(loop):
    assert loop._trusted_uids() == {0, os.geteuid()}
    loop.context.user = SimpleNamespace(uid=1234)
    assert loop._trusted_uids() == {0, os.geteuid(), 1234}
    heard = []
    messages = [SimpleNamespace(uid=uid, fields=uid, pid=pid) for uid, pid in ((0, 7), (1234, -1), (4321, 8))]
    loop.receiver = SimpleNamespace(receive=lambda: messages)
    loop.life = SimpleNamespace(hear=lambda *what: heard.append(what))
    loop._on_notifications()
    assert heard == [(0, 7), (1234, 0)]  # with who sent it; 0 is nobody who can be known


def test_what_cannot_be_written_down_yet_is_written_later(loop, monkeypatch):
    written, is_full = [], [True]

    def with_room(_context, write, _warn):
        if is_full[0]:
            raise disk_space.NoStorage("the disk is full")
        write()

    monkeypatch.setattr(launch_loop.disk_space, "with_room", with_room)
    loop.record(lambda: written.append("recovered"))
    assert written == [] and "cannot be written down yet" in loop.said[0]
    is_full[0] = False
    (again,) = loop.timers.values()
    again()
    assert written == ["recovered"]


@pytest.mark.parametrize("by_agent", [False, True])
def test_a_restart_without_systemd_is_a_stop_that_asks_to_be_started_again(loop, monkeypatch, by_agent):
    monkeypatch.setenv("AGENTCTL_RUNTIME", "direct")

    def stop():
        loop.ending = LaunchResult(models.STOPPED, "stop", "saved")
        loop.ending.by_agent = loop.by_agent

    monkeypatch.setattr(loop, "stop", stop, raising=False)
    loop.restart(by_agent)
    assert (loop.ending.end, loop.ending.trigger, loop.ending.by_agent) == (models.ASKED, "asked", by_agent)


@pytest.mark.parametrize(("status", "number", "trigger"), [(1, None, "crash"), (None, 9, "crash"), (75, None, "asked")])
def test_how_the_agent_ended_is_judged_by_its_status(loop, status, number, trigger):
    loop.tmux = SimpleNamespace(exit_of=lambda session, meanwhile: (status, number))
    loop.feed, loop.wedge = SimpleNamespace(read=None), None
    loop.pane = SimpleNamespace(server_pid=os.getpid(), pane_pid=0)
    loop.launch, loop.life = SimpleNamespace(started_at=5.0), SimpleNamespace(ready_at=6.0)
    loop._on_agent_end()
    assert loop.ending.trigger == trigger


def test_an_agent_that_went_with_its_tmux_server_did_not_crash(loop):
    loop.tmux = SimpleNamespace(exit_of=lambda session, meanwhile: (None, None))
    loop.feed, loop.pane = SimpleNamespace(read=None), SimpleNamespace(server_pid=0, pane_pid=0)
    loop._on_agent_end()
    assert (loop.ending.end, loop.ending.trigger) == (models.FAILED, "tmux-killed")


def test_each_launch_has_a_token_of_its_own_that_only_its_user_reads(loop, tmp_path):
    path = tmp_path / "token"
    tokens = {loop._make_token(str(path)) for _ in range(2)}
    assert len(tokens) == 2 and path.read_text() in tokens and min(map(len, tokens)) == 64
    assert path.stat().st_mode & 0o777 == 0o600
