"""The runner's door: its answers are whole, though it waits for nobody who reads."""

import json
import socket
from types import SimpleNamespace

from agentctl.runner import api


def test_the_pane_s_longest_lines_fit_into_one_answer():
    """An agent that prints whole conversations as lines: the newest of them are shown, not nothing."""
    lines = [f"{number} " + "\u00e4" * 8000 for number in range(300)]
    session = SimpleNamespace(
        feed=SimpleNamespace(lines=lines),
        _trusted_uids=lambda: {api.os.geteuid()},
        token="",
        loop=SimpleNamespace(watch=print, forget=print, cancel=print, set_timer=print),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        door = api.Connection(SimpleNamespace(session=session, open=1), ours)
        theirs.sendall(b"GET /pane HTTP/1.1\r\n\r\n")
        door.read()
        answer = b"".join(iter(lambda: theirs.recv(65536), b""))
    shown = json.loads(answer.partition(b"\r\n\r\n")[2])["lines"]
    assert shown and shown == lines[-len(shown) :]


def test_short_lines_are_shown_as_many_as_before():
    session = SimpleNamespace(feed=SimpleNamespace(lines=[str(number) for number in range(400)]))
    assert api.route(session, "GET", "/pane", b"", 0)[1]["lines"] == [str(number) for number in range(200, 400)]
