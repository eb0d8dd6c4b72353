"""The runner's door for the agent: HTTP on a unix socket, a few routes, no library.

Peers are known by their credentials (the agent's user, root, ourselves) or by the launch's token. It never waits:
a slow or silent client is dropped by its deadline. What is the watchdog's to answer is handed over to it, connection
and all, so that the agent has one address; with the watchdog dead that is refused and the rest goes on.
"""

from __future__ import annotations

import _socket as socket  # `socket` costs 10 ms of import (selectors, enum)
import _sqlite3 as sqlite3
import errno
import os
import struct

from ..core import fast_json

MOST_CONNECTIONS = 32
MOST_BYTES = 16 * 1024
DEADLINE_SECONDS = 5.0
PANE_LINES = 200
PANE_BYTES = 128 * 1024  # what a socket takes at once: nobody waits here for who reads slowly


class RunnerApi:
    """Listens at `path` and serves a session."""

    def __init__(self, path: str, session) -> None:
        self.session = session
        self.open = 0
        if os.path.lexists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.listener.bind(path)
        os.chmod(path, 0o600)
        self.listener.listen(64)
        self.listener.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.listener.fileno()

    def accept(self) -> None:
        """Take one new connection, or turn it away when there are too many."""
        try:
            fd, _ = self.listener._accept()
        except BlockingIOError:
            return
        os.set_inheritable(fd, False)
        peer = socket.socket(fileno=fd)
        if self.open >= MOST_CONNECTIONS:
            peer.close()
            return
        self.open += 1
        Connection(self, peer)


class Connection:
    """One request and its answer."""

    def __init__(self, server: RunnerApi, peer: socket.socket) -> None:
        self.server, self.session, self.peer = server, server.session, peer
        peer.setblocking(False)
        self.received = b""
        self.timer = f"api-{peer.fileno()}"
        self.session.loop.watch(peer.fileno(), self.read)
        self.session.loop.set_timer(self.timer, DEADLINE_SECONDS, self.close)

    def read(self) -> None:
        """Take what came; answer when it is a whole request."""
        try:
            data = self.peer.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received += data
        if data and is_for_watchdog(self.received):
            self._hand_over()
            return
        if not data or len(self.received) > MOST_BYTES:
            self.close()
            return
        request = parse(self.received)
        if request is not None:
            self._answer(*request)

    def _hand_over(self) -> None:
        """Give the connection to the watchdog with what was read of it; it asks the kernel itself who is there."""
        door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        descriptor = struct.pack("i", self.peer.fileno())
        try:
            door.sendmsg(
                [self.received],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)],
                socket.MSG_DONTWAIT,
                self.session.context.paths.handover_socket_path,
            )
        except OSError as error:
            self._send(
                503,
                problem(
                    "no-watchdog",
                    f"the watchdog does not take it: {error.strerror}",
                    "GET /health, POST /health and POST /restart work without it",
                ),
            )
        door.close()
        self.close()

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        after = None
        if not self._is_trusted(headers):
            status, answer = 403, problem("forbidden", "this socket is for the agent and root", "")
        else:
            pid, uid = self._peer()
            status, answer, after = route(self.session, method, path, body, uid, pid)
        self._send(status, answer)
        self.close()
        if after is not None:
            after()

    def _send(self, status: int, answer: dict) -> None:
        payload = fast_json.dumps(answer).encode() + b"\n"
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        try:
            self.peer.sendall(head.encode() + payload)
        except OSError:
            return

    def _peer(self) -> tuple[int, int]:
        raw = self.peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", raw)[:2]

    def _is_trusted(self, headers: dict[str, str]) -> bool:
        if self._peer()[1] in self.session._trusted_uids():
            return True
        return headers.get("authorization", "") == f"Bearer {self.session.token}"

    def close(self) -> None:
        """Let go of the connection, and of its timer."""
        self.session.loop.cancel(self.timer)
        if self.peer.fileno() >= 0:
            self.session.loop.forget(self.peer.fileno())
            self.peer.close()
            self.server.open -= 1


REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    503: "Service Unavailable",
}
OURS = ("/health", "/restart", "/pane", "/changes")
MOST_RESTART_BYTES = 1024  # a restart that brings more brings a history or a task


def is_for_watchdog(data: bytes) -> bool:
    """Tell, once the head is whole, whether a request is the watchdog's to answer."""
    head, separator, body = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if not separator or len(words) != 3 or not words[1].startswith(b"/"):
        return False
    path = words[1].partition(b"?")[0].decode("latin-1")
    if path not in OURS:
        return True
    if path != "/restart":
        return False
    brings_more = b'"history"' in body or b'"task"' in body
    return brings_more or len(body) > MOST_RESTART_BYTES or _promised(head) > MOST_RESTART_BYTES


def _promised(head: bytes) -> int:
    """Return the length of the body that a head announces; one in pieces is as long as it likes."""
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip() == b"transfer-encoding":
            return MOST_BYTES
        if name.strip() == b"content-length" and value.strip().isdigit():
            return int(value.strip()[:9])
    return 0


def parse(data: bytes) -> tuple[str, str, dict[str, str], bytes] | None:
    """Parse a whole request; None while it is incomplete; a broken one becomes a request for nothing."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = headers.get("content-length", "0")
    if len(words) != 3 or not (length.isascii() and length.isdigit()):
        return "GET", "", headers, b""
    if len(body) < min(int(length[:9]), MOST_BYTES):
        return None
    return words[0], words[1].partition("?")[0], headers, body[: int(length[:9])]


def route(session, method: str, path: str, body: bytes, uid: int, pid: int = 0):
    """Do what a request asks; return (status, answer, what to do once it was answered)."""
    if (method, path) == ("GET", "/health"):
        return 200, {"ok": True, **session.status.facts}, None
    if (method, path) == ("POST", "/health"):
        return _health(session, body, pid)
    if (method, path) == ("POST", "/restart"):
        is_agent = uid not in (0, os.geteuid()) or _comes_from_agent(session, body)
        return 202, {"ok": True, "launch_id": session.launch.id}, lambda: session.restart(by_agent=is_agent)
    if (method, path) == ("GET", "/pane"):
        return 200, {"lines": _newest(session.feed.lines)}, None
    if (method, path) == ("POST", "/changes"):
        return _changes(session, body, uid)
    known = "GET /health, POST /health, POST /restart, POST /changes"
    return 404, problem("not-found", f"no route {method} {path}", known), None


def _newest(lines) -> list[str]:
    """Return the newest lines, as many as an answer has room for."""
    found, room = [], PANE_BYTES
    for line in list(lines)[: -PANE_LINES - 1 : -1]:
        room -= len(fast_json.dumps(line)) + 2
        if room < 0:
            break
        found.append(line)
    return found[::-1]


def _health(session, body: bytes, pid: int) -> tuple[int, dict, None]:
    try:
        facts = fast_json.loads(body or b"{}")
        if not isinstance(facts, dict):
            raise ValueError("not an object")
    except ValueError as error:
        return 400, problem("bad-request", f"the body is not JSON: {error}", '{"launch_id": "..."}'), None
    if facts.get("launch_id") != session.launch.id:
        return (
            409,
            problem(
                "other-launch", "the heartbeat is not of the launch that runs", "send AGENT_LAUNCH_ID as launch_id"
            ),
            None,
        )
    told = facts.get("notify")  # from a container's entry: what the agent has said, as it said it
    fields = (
        {"WATCHDOG": "1", "READY": "1"}
        if not isinstance(told, dict)
        else {str(name): str(value) for name, value in told.items()}
    )
    for key, name in (("progress", "X_AGENTCTL_PROGRESS"), ("phase", "X_AGENTCTL_PHASE"), ("status", "STATUS")):
        if key in facts:
            fields[name] = str(facts[key])
    session.life.hear(fields, 0 if isinstance(told, dict) else pid)
    return 200, {"ok": True, "deadline_seconds": session.life.judge.timeout_seconds, "pending": []}, None


def _changes(session, body: bytes, uid: int):
    """The record of changes, for the agent's user, who may not write the ledger; the work is a job's."""
    from ..core.errors import AgentctlError
    from ..ledger import change_records

    try:
        request = fast_json.loads(body or b"{}")
        if not isinstance(request, dict):
            raise ValueError("not an object")
        user = session.context.user
        is_root_agent = (user.uid if user else os.geteuid()) == 0  # a person who is root writes the records without us
        author = change_records.Author(user.name if uid and user else f"uid {uid}", is_agent=uid != 0 or is_root_agent)
        answer = change_records.handle(session.context, session.ledger, request, author)
    except AgentctlError as error:
        return 409, problem("refused", error.message, error.hint), None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return 400, problem("bad-request", f"not a request about changes: {error}", '{"verb": "list"}'), None
    except sqlite3.Error as error:  # a full disk must not end the agent
        return 503, problem("unavailable", f"the ledger does not take it: {error}", "agentctl status; df -h"), None
    job = {"start": "change-snapshot", "promote": "promote"}.get(request["verb"])
    return 200, answer, (lambda: session.jobs.start_for_change(job, request["name"])) if job else None


def _comes_from_agent(session, body: bytes) -> bool:
    """Running as one user, only the launch id that the agent passes on tells it from a person."""
    try:
        return fast_json.loads(body or b"{}").get("launch_id") == session.launch.id
    except (ValueError, AttributeError):
        return False


def problem(code: str, message: str, hint: str) -> dict[str, str]:
    """An error in the API's one form."""
    return {"code": code, "message": message, "hint": hint}


# -- http look -------------------------------------------------------------------------------------
# One look at an agent's own health address: GET on loopback, never waiting; any answer 2xx is a sign of life.
# Driven by the launch's poll loop. No library: `http.client` would cost the runner 60 ms and 5 MiB.


MOST_OF_ANSWER = 4096


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
            data = self.socket.recv(MOST_OF_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received += data
        if b"\n" in self.received or not data or len(self.received) > MOST_OF_ANSWER:
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
