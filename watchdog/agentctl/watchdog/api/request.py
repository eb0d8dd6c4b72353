"""One request on its way to its answer, over connections under limits."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from .auth import Refused, check_agent

BODY_SECONDS = 10.0
HEARTBEAT_BYTES, MESSAGE_BYTES, SMALL_BYTES = 4 * 1024, 1024 * 1024, 16 * 1024


class Route:
    """What is served at one place, in words that the description and the documents are made of."""

    __slots__ = ("answers", "body", "handle", "is_own", "is_page", "limit_bytes", "method", "path", "query", "scope",
                 "summary")  # fmt: skip

    def __init__(
        self,
        method: str,
        path: str,
        handle,
        *,
        scope: str,
        summary: str,
        limit_bytes: int = 0,
        body: dict | None = None,
        query: dict | None = None,
        answers: dict | None = None,
        is_page: bool = False,
        is_own: bool = False,
    ) -> None:
        self.method, self.path, self.handle, self.scope, self.summary = method, path, handle, scope, summary
        self.limit_bytes, self.body, self.query = limit_bytes, body, query or {}
        self.answers = {200: "done", **(answers or {})} if not answers or min(answers) >= 400 else answers
        self.is_page, self.is_own = is_page, is_own  # is_own: it is about the agent beside us, and no other


class Call:
    """A request, who sends it, and the server it came to."""

    __slots__ = ("peer", "request", "route", "server")

    def __init__(self, server, route: Route, request: web.Request, peer) -> None:
        self.server, self.route, self.request, self.peer = server, route, request, peer

    async def body(self) -> bytes:
        """Read the body within the route's limit and deadline; raise Refused."""
        limit = self.route.limit_bytes
        if (self.request.content_length or 0) > limit:
            raise _too_large(limit)
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while chunk := await self.request.content.readany():
                    data += chunk
                    if len(data) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise Refused(408, "too-slow", f"the body was not here within {BODY_SECONDS:g}s") from None
        except (web.RequestPayloadError, ConnectionError, OSError) as error:
            raise Refused(400, "bad-request", f"the body cannot be read: {error}") from None
        return bytes(data)

    async def json(self) -> dict:
        """Return the body, which has to be a JSON object; an empty one is empty."""
        data = await self.body()
        try:
            found = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise Refused(400, "bad-request", f"the body is not JSON: {str(error)[:100]}") from None
        if not isinstance(found, dict):
            raise Refused(400, "bad-request", "the body is not a JSON object")
        return found

    def agent(self, given: str | None) -> str:
        """Return which agent is meant; raise Refused if the peer may not speak of it."""
        name = given or self.peer.agent or self.server.name
        check_agent(self.peer, name)
        if not is_name(name):
            raise Refused(400, "bad-request", "that is no agent's name", "a-z, 0-9, _ and -, at most 32")
        return name

    def number(self, name: str, default: int, most: int) -> int:
        """Return a whole number of the query between 1 and `most`; raise Refused."""
        text = self.request.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise Refused(400, "bad-request", f"'{name}' is not a whole number from 1 to {most}")
        return int(text)

    async def blocking(self, function, *arguments):
        """Have something that blocks done in a thread."""
        return await self.server.blocking(function, *arguments)


def is_name(name: object) -> bool:
    """Tell whether an agent could be called so."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 32
        and name.isascii()
        and name.replace("-", "a").replace("_", "a").isalnum()
        and name == name.lower()
    )


def field(body: dict, name: str, kind, default=None):
    """Return one field of a body; raise Refused if it is of another kind."""
    value = body.get(name, default)
    is_truth = isinstance(value, bool) and kind is not bool
    if value is not default and (is_truth or not isinstance(value, kind)):
        raise Refused(400, "bad-request", f"'{name}' is of the wrong kind")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused(400, "bad-request", f"'{name}' holds half a character") from None
    return value


def answer(status: int, document: object, masker=None) -> web.Response:
    """Make the answer of a document."""
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":")) + "\n"
    if masker is not None:
        text = masker.exact(text)
    return web.Response(status=status, body=text.encode(), content_type="application/json")


def problem(refused: Refused) -> web.Response:
    """Make the answer of a refusal."""
    made = answer(refused.status, {"code": refused.code, "message": refused.message, "hint": refused.hint})
    if refused.status == 401:
        made.headers["WWW-Authenticate"] = "Bearer"
    if refused.status == 429:
        made.headers["Retry-After"] = "1"
    if refused.status in (408, 413):
        made.force_close()
    return made


def _too_large(limit: int) -> Refused:
    return Refused(413, "too-large", f"the body is larger than {limit} bytes")


# -- connections -----------------------------------------------------------------------------------
# Connections under limits: so many, a head within so many seconds and bytes, an idle one gives way to a new one.
# aiohttp reads and answers; this closes what takes too long or too much before a request has begun. A client that
# says nothing costs a place until somebody needs it, and no longer.


MOST_CONNECTIONS = 256
HEAD_BYTES = 16 * 1024
HEAD_SECONDS = 5.0
IDLE_SECONDS = 75.0
SWEEP_SECONDS = 1.0


class Guarded(web.RequestHandler):
    """One connection: it knows since when it is idle, or how long a head is on its way."""

    def __init__(self, manager, **more) -> None:
        super().__init__(manager, **more)
        self.guard = manager.guard
        self.is_busy = False
        self.idle_since = self.guard.now()
        self.head_since: float | None = None
        self.head_end = b""  # the last bytes of a head that is not whole yet
        self.head_bytes = 0
        self.is_head_here = False
        self.has_served = False
        self.handed = b""  # what the runner had read before it handed the connection over
        self.peer = None  # who it is, once that is known

    def connection_made(self, transport) -> None:
        """Count the connection, and take what was read before it came."""
        super().connection_made(transport)
        self.guard.arrived(self)
        if self.handed:
            self.data_received(self.handed)

    def connection_lost(self, exc) -> None:
        """Count the connection no more."""
        self.guard.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless they make a head too long."""
        if not self.is_busy and not self.is_head_here:
            self.head_since = self.head_since or self.guard.now()
            end = (self.head_end + data).find(b"\r\n\r\n")
            self.is_head_here, self.head_end = end >= 0, data[-3:]
            self.head_bytes += len(data) if end < 0 else end
            if self.head_bytes > HEAD_BYTES:
                self.guard.turned_away += 1
                self.force_close()
                return
        super().data_received(data)

    def began(self) -> None:
        """A whole head is here."""
        self.is_busy, self.is_head_here, self.head_since, self.head_bytes, self.head_end = True, False, None, 0, b""

    def ended(self) -> None:
        """The answer is out."""
        self.is_busy, self.has_served, self.idle_since = False, True, self.guard.now()

    def handle_error(self, request, status=500, exc=None, message=None):
        """Answer what is no request, or a bug of ours, in the API's one form."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionError
        code = "bad-request" if status < 500 else "bug"
        told = message if status < 500 and message else "something went wrong here"
        body = json.dumps({"code": code, "message": " ".join(str(told).split())[:200], "hint": ""}) + "\n"
        answer = web.Response(status=status, text=body, content_type="application/json")
        answer.force_close()
        if exc is not None and status >= 500:
            self.guard.bugs += 1
            self.guard.report(exc)
        return answer


class Guard:
    """All connections of the server, on whatever door they came in."""

    def __init__(self, report) -> None:
        self.report = report
        self.open: dict[Guarded, None] = {}  # in the order of their arrival
        self.turned_away = self.bugs = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time

    def arrived(self, connection: Guarded) -> None:
        """Let it in; where there is no room, whoever is idle for longest leaves, else it does."""
        self.open[connection] = None
        if len(self.open) <= MOST_CONNECTIONS:
            return
        idle = [other for other in self.open if not other.is_busy and other is not connection]
        leaving = min(idle, key=lambda other: other.idle_since, default=connection)
        self.turned_away += 1
        self._end(leaving)

    def left(self, connection: Guarded) -> None:
        """Forget a connection."""
        self.open.pop(connection, None)

    async def sweep(self) -> None:
        """Close what is too slow, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.now()
            for connection in [c for c in self.open if not c.is_busy and self._is_late(c, now)]:
                self.turned_away += 1
                self._end(connection)

    @staticmethod
    def _is_late(connection: Guarded, now: float) -> bool:
        if connection.head_since is not None:
            return now - connection.head_since > HEAD_SECONDS
        limit = IDLE_SECONDS if connection.has_served else HEAD_SECONDS
        return now - connection.idle_since > limit

    def _end(self, connection: Guarded) -> None:
        self.open.pop(connection, None)
        connection.force_close()


class Listener(web.Server):
    """Makes guarded connections for a handler."""

    def __init__(self, handler, guard: Guard, **more) -> None:
        super().__init__(handler, **more)
        self.guard = guard
        self._more = {"access_log": None, "keepalive_timeout": IDLE_SECONDS, "max_line_size": 8190,
                      "max_field_size": 8190, "lingering_time": 1.0, "auto_decompress": False}  # fmt: skip

    def __call__(self) -> Guarded:
        """Make the handler of a new connection."""
        return Guarded(self, loop=asyncio.get_running_loop(), **self._more)
