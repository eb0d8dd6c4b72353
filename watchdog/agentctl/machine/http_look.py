"""One look at an agent's own health address: GET on loopback, never waiting; any answer 2xx is a sign of life.

Driven by the session's poll loop. No library: `http.client` would cost the runner 60 ms and 5 MiB.
"""

from __future__ import annotations

import _socket as socket  # `socket` costs 10 ms of import (selectors, enum)
import errno

MOST_BYTES = 4096


class HttpLook:
    """A GET under way; calls `answered(is_well)` once."""

    def __init__(self, url: str, loop, answered) -> None:
        self.loop, self.answered = loop, answered
        host, _, self.path = url.removeprefix("http://").partition("/")
        self.host, _, port = host.rpartition(":")
        self.received = b""
        name = self.host.strip("[]").replace("localhost", "127.0.0.1")
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.setblocking(False)
        failed = self.socket.connect_ex((name, int(port)))
        if failed not in (0, errno.EINPROGRESS):
            self._end(False)
            return
        self._ask()

    @property
    def is_open(self) -> bool:
        """Tell whether an answer is still to come."""
        return self.socket.fileno() >= 0

    def _ask(self) -> None:
        """Send at once: on loopback a connection stands when `connect` returns."""
        try:
            self.socket.send(f"GET /{self.path} HTTP/1.0\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
        except OSError:
            self._end(False)
            return
        self.loop.watch(self.socket.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self.socket.recv(MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received += data
        if b"\n" in self.received or not data or len(self.received) > MOST_BYTES:
            self.loop.forget(self.socket.fileno())
            self._end(is_well(self.received))

    def give_up(self) -> None:
        """End it without an answer."""
        if self.socket.fileno() >= 0:
            self.loop.forget(self.socket.fileno())
            self._end(False)

    def _end(self, well: bool) -> None:
        self.socket.close()
        self.answered(well)


def is_well(answer: bytes) -> bool:
    """Tell whether an answer's status line says 2xx."""
    words = answer.split(b"\n", 1)[0].split()
    return len(words) > 1 and words[0].startswith(b"HTTP/") and len(words[1]) == 3 and words[1].startswith(b"2")
