"""The entry of a container: it starts what the runner outside has left for it, and nothing else."""

import json
import socket
import tempfile
from types import SimpleNamespace

import pytest

from agentctl.cli import main
from agentctl.core.errors import AgentctlError
from agentctl.runtime.container import entrypoint


def test_a_container_that_nobody_has_started_says_so(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("AGENTCTL_CONTAINER", str(tmp_path))
    assert main.main(["supervise"]) == 65
    assert "no launch is wanted here" in capfd.readouterr().out


@pytest.mark.parametrize("text", [None, "", "{torn", '{"launch_id": "a"'])
def test_what_cannot_be_read_is_no_launch(tmp_path, text):
    if text is not None:
        (tmp_path / "launch.json").write_text(text)
    with pytest.raises(AgentctlError, match="no launch is wanted here"):
        entrypoint.read_launch(str(tmp_path))


class Turned:
    """Stands for the loop: what is watched and when a timer is due is turned by hand."""

    def __init__(self):
        self.watched, self.timers = {}, {}

    def watch(self, fd, call):
        self.watched[fd] = call

    def forget(self, fd):
        del self.watched[fd]

    def set_timer(self, name, seconds, call):
        self.timers[name] = call

    def cancel(self, name):
        self.timers.pop(name, None)

    def turn(self):
        for call in list(self.watched.values()):
            call()

    def ring(self, name):
        self.timers.pop(name)()


@pytest.fixture
def runner():
    """Listen where a runner outside would; folders of pytest have too long names for a socket."""
    with tempfile.TemporaryDirectory(prefix="agti", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{folder}/api")
        door.listen(1)
        door.settimeout(10)
        yield door


@pytest.fixture
def teller(runner):
    launch = {"launch_id": "L", "api": runner.getsockname()}
    warnings = []
    made = entrypoint.ContainerSignals(launch, Turned(), SimpleNamespace(warning=warnings.append))
    made.warnings = warnings
    return made


def answer(runner, teller, text):
    """Take the next request, answer it and close; return what was told."""
    peer, _ = runner.accept()
    with peer:
        peer.settimeout(10)
        request = peer.recv(65536)
        peer.sendall(text)
    for _ in range(5):  # the answer, and the end of it
        teller.loop.turn()
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /health HTTP/1.1\r\n") and f"Content-Length: {len(body)}".encode() in head
    told = json.loads(body)
    assert told["launch_id"] == "L"
    return told["notify"]


def test_signs_of_life_are_told_one_after_another(runner, teller):
    teller.tell({"READY": "1"})
    teller.tell({"WATCHDOG": "1"})
    teller.tell({"WATCHDOG": "1", "STATUS": "at work"})
    assert answer(runner, teller, b"HTTP/1.1 200 OK\r\n\r\n") == {"READY": "1"}
    assert answer(runner, teller, b"HTTP/1.1 200 OK\r\n\r\n") == {"WATCHDOG": "1", "STATUS": "at work"}
    assert teller.warnings == [] and teller.loop.watched == {} and teller.loop.timers == {}


@pytest.mark.parametrize("said", [b"HTTP/1.1 500 No\r\n\r\n", b""])
def test_what_is_said_only_once_is_told_again_and_a_heartbeat_is_not(runner, teller, said):
    teller.tell({"READY": "1", "WATCHDOG": "1"})
    answer(runner, teller, said)
    assert len(teller.warnings) == 1
    teller.loop.ring("tell again")
    assert answer(runner, teller, said) == {"READY": "1"}
    assert len(teller.warnings) == 1, "the same complaint is told once"
    teller.tell({"WATCHDOG": "1"})
    assert answer(runner, teller, b"HTTP/1.1 200 OK\r\n\r\n") == {"READY": "1", "WATCHDOG": "1"}


def test_an_answer_that_does_not_come_is_not_waited_for(runner, teller):
    teller.tell({"READY": "1"})
    teller.loop.ring("tell")
    assert teller.peer is None and teller.waiting == {"READY": "1"} and "no answer" in teller.warnings[0]


def test_where_no_runner_listens_nothing_is_started(runner, teller):
    teller.check()
    runner.close()
    with pytest.raises(AgentctlError, match="no runner listens"):
        teller.check()
    teller.tell({"READY": "1"})
    assert teller.waiting == {"READY": "1"} and "tell again" in teller.loop.timers
