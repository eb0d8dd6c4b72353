"""What an agent's hook says, passed on: as an argument, on standard input of any kind, and never in its way."""

import json
import os
import socket
import sys
import tempfile

import pytest

from agentctl.cli import hook_verbs
from kit import deadline
from ledger_builder import ROOT

IDLE = json.dumps({"hook_event_name": "Stop", "session_id": "0f9d2c1e-aaaa"})


@pytest.fixture
def runner(monkeypatch):
    """Listen as the runner does; folders of pytest have too long names for a socket."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with tempfile.TemporaryDirectory(prefix="agth", dir="/tmp") as folder, door:
        door.bind(f"{folder}/notify")
        door.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        yield door


def said(runner):
    return dict(line.split("=", 1) for line in runner.recv(4096).decode().splitlines())


def test_an_event_as_an_argument_is_a_sign_of_life(runner):
    assert hook_verbs.send([IDLE]) == 0
    told = said(runner)
    assert (told["READY"], told["WATCHDOG"], told["X_AGENTCTL_PHASE"]) == ("1", "1", "idle")
    assert told["X_AGENTCTL_SESSION"] == "0f9d2c1e-aaaa"


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", '{"hook_event_name": 5}'])
def test_what_says_nothing_is_a_sign_of_life_all_the_same(runner, text):
    assert hook_verbs.send([text]) == 0
    assert said(runner) == {"READY": "1", "WATCHDOG": "1", "X_AGENTCTL_HOOK": "1"}


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "closed"])
def test_standard_input_of_any_kind(runner, tmp_path, kind):
    code = "import sys; from agentctl.cli.main import main; sys.exit(main(['hook']))"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}/watchdog", "NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"]}
    argv = [sys.executable, "-c", code]
    if kind == "pipe":
        done = deadline.run(argv, input=IDLE, env=env, capture_output=True, text=True)
    elif kind == "socket":  # as Claude Code passes it
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(IDLE.encode())
            ours.shutdown(socket.SHUT_WR)
            done = deadline.run(argv, stdin=theirs, env=env, capture_output=True, text=True)
    elif kind == "file":
        (tmp_path / "event").write_text(IDLE)
        with open(tmp_path / "event") as file:
            done = deadline.run(argv, stdin=file, env=env, capture_output=True, text=True)
    else:
        done = deadline.run(["/bin/sh", "-c", '"$@" <&-', "sh", *argv], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert said(runner).get("X_AGENTCTL_PHASE") == (None if kind == "closed" else "idle")


def test_without_a_runner_it_says_nothing_and_does_not_fail(monkeypatch, capfd):
    for address in (None, "/nowhere/at/all"):
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        if address:
            monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert hook_verbs.send([IDLE]) == 0
    assert capfd.readouterr() == ("", "")
