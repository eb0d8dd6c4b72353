"""Asking the runner at its socket: a crowd at the door is no runner that is away."""

import socket
import threading

import pytest

from agentctl.runtime import runner_client
from kit import deadline

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"phase": "x"}'


@pytest.fixture
def door(tmp_path):
    """A listener whose queue is full: the next one who comes gets EAGAIN."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        crowd = []
        while True:
            crowd.append(socket.socket(socket.AF_UNIX))
            crowd[-1].setblocking(False)
            try:
                crowd[-1].connect(str(tmp_path / "s"))
            except BlockingIOError:
                break
        yield listener, str(tmp_path / "s"), crowd
        for one in crowd:
            one.close()


def test_it_waits_its_turn(door):
    listener, path, crowd = door
    waits = threading.Event()

    def serve():
        waits.wait(20)
        for _ in crowd:  # all but the last one came in; the next is ours
            connection, _ = listener.accept()
            with connection:
                if connection.recv(65536):
                    connection.sendall(ANSWER)

    for one in crowd:
        one.close()
    server = threading.Thread(target=serve)
    server.start()
    threading.Timer(0.2, waits.set).start()
    assert runner_client.ask(path, "GET", "/health") == {"phase": "x"}
    deadline.join(server, timeout=20)


def test_it_gives_up_in_the_end(door):
    with pytest.raises(runner_client.NoAnswer, match="does not answer"):
        runner_client.ask(door[1], "GET", "/health", limit_seconds=0.1)


@pytest.mark.parametrize("is_read", [False, True], ids=["unread", "read"])
def test_who_goes_away_in_the_middle_gives_no_answer(tmp_path, is_read):
    """Told apart from a refusal: who has asked for a restart goes on waiting."""

    def leave():
        with listener.accept()[0] as connection:
            if is_read:
                connection.recv(65536)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        server = threading.Thread(target=leave)
        server.start()
        with pytest.raises(runner_client.NoAnswer):
            runner_client.ask(str(tmp_path / "s"), "GET", "/health")
        deadline.join(server, timeout=20)
