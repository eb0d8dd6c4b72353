"""Signs of life from inside a container to the runner outside: HTTP, one request at a time, never waiting.

A heartbeat that could not be told is replaced by the next one. READY and what else is said only once is told until it
was heard.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
from select import POLLOUT, poll

from .. import lean_json as json
from ..errors import AgentctlError

DEADLINE_SECONDS = 5.0
AGAIN_SECONDS = 0.2
OFTEN = ("WATCHDOG", "X_AGENTCTL_PROGRESS", "X_AGENTCTL_PHASE", "STATUS")  # the newest counts
MOST_ANSWER = 65536


class Teller:
    """Tells one launch's notifications at the runner's address."""

    def __init__(self, launch: dict, loop, journal) -> None:
        self.launch, self.loop, self.journal = launch, loop, journal
        self.waiting: dict[str, str] = {}
        self.under_way: dict[str, str] = {}
        self.peer = None
        self.answer = b""
        self.complaint = ""

    def check(self) -> None:
        """Raise AgentctlError where nobody listens: then nobody has started us."""
        try:
            self._connect().close()
        except OSError as error:
            raise AgentctlError(
                f"no runner listens at {self.launch['api']}: {os.strerror(error.errno)}",
                "the runner outside starts this container: agentctl start",
            ) from error

    def tell(self, fields: dict[str, str]) -> None:
        """Have these fields told as soon as may be."""
        self.waiting.update(fields)
        self._send()

    def finish(self) -> None:
        """The agent has ended: what it said last is still on its way, and is not waited for."""
        if self.waiting:
            self._send()

    def _send(self) -> None:
        if self.peer is not None or not self.waiting:
            return
        self.under_way, self.waiting, self.answer = self.waiting, {}, b""
        body = json.dumps({"launch_id": self.launch["launch_id"], "notify": self.under_way}).encode()
        head = (
            f"POST /health HTTP/1.1\r\nHost: agentctl\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            self.peer = self._connect()
            self.peer.send(head.encode() + body)
        except OSError as error:
            self._failed(os.strerror(error.errno or errno.EIO))
            return
        self.loop.watch(self.peer.fileno(), self._read)
        self.loop.set_timer("tell", DEADLINE_SECONDS, lambda: self._failed("no answer"))

    def _connect(self):
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        peer = socket.socket(socket.AF_UNIX, kind)
        try:
            peer.connect(self.launch["api"])
        except OSError:
            peer.close()
            raise
        if not _is_writable(peer):
            peer.close()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return peer

    def _read(self) -> None:
        try:
            data = self.peer.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.answer += data
        if data and len(self.answer) < MOST_ANSWER:
            return
        status = self.answer.split(b" ", 2)[1:2]
        if status == [b"200"]:
            self._let_go()
            self.complaint = ""
            self._send()
        else:
            self._failed(f"answered {status[0].decode('ascii', 'replace') if status else 'nothing'}")

    def _failed(self, why: str) -> None:
        """Keep what is said only once for another time."""
        kept = {name: value for name, value in self.under_way.items() if name not in OFTEN}
        self.waiting = {**kept, **self.waiting}
        self._let_go()
        if why != self.complaint:
            self.complaint = why
            self.journal.warning(f"agentctl: the runner outside was not told of a sign of life: {why}")
        if self.waiting:
            self.loop.set_timer("tell again", AGAIN_SECONDS, self._send)

    def _let_go(self) -> None:
        self.loop.cancel("tell")
        self.under_way = {}
        if self.peer is not None:
            self.loop.forget(self.peer.fileno())
            self.peer.close()
            self.peer = None


def _is_writable(peer) -> bool:
    asked = poll()
    asked.register(peer.fileno(), POLLOUT)
    return bool(asked.poll(0))
