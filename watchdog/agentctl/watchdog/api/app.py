"""The server: its doors (unix socket, loopback TCP, connections handed over by the runner) and one way through.

Every request goes the same way: who is it, may they, not too often, then the route. Refuses to listen anywhere
but on this machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from ...core.errors import AgentctlError, StoreUnavailable
from . import routes
from .auth import READ, SESSION_COOKIE, Access, Refused, check_agent, check_host, check_scope
from .request import Call, Guard, Listener, Route, answer, problem

HANDED_BYTES = 64 * 1024
WHAT_THERE_IS = "GET /openapi.json tells what there is"
SECURE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
                               "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser says Origin: null in its own forms
}  # fmt: skip


class WatchdogApi:
    """Everything that answers; the watch and the shipper work beside it."""

    def __init__(self, context, store, lives, masker, say) -> None:
        self.context, self.store, self.lives, self.masker, self.say = context, store, lives, masker, say
        self.name = context.paths.name
        self.access = Access(context, store)
        self.started_at = time.time()
        self.watch = None
        self.counts: dict[tuple[str, int], int] = {}
        self.threads = ThreadPoolExecutor(4, thread_name_prefix="blocking")
        self.guard = Guard(lambda error: say(f"a bug: {type(error).__name__}: {error}"))
        self.routes, self._routes = routes.ALL, {}
        self._prefixes: list[tuple[str, str, Route]] = []
        for route in self.routes:
            if route.path.endswith("/{name}"):
                self._prefixes.append((route.method, route.path.removesuffix("{name}"), route))
            else:
                self._routes[route.method, route.path] = route
        self.listener = Listener(self.serve, self.guard)
        self.listen_host = "127.0.0.1"
        self._doors: list = []
        self._tasks = [asyncio.create_task(self.guard.sweep())]

    # -- doors --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen; raise OSError where that cannot be."""
        paths, loop = self.context.paths, asyncio.get_running_loop()
        owner = self.context.owner
        self._doors.append(
            await loop.create_unix_server(
                self.listener, sock=_unix_socket(paths.watchdog_socket_path, socket.SOCK_STREAM, owner), backlog=512
            )
        )
        self._handover = _unix_socket(paths.handover_socket_path, socket.SOCK_DGRAM, None)
        loop.add_reader(self._handover, self._take_over)
        listen = self.context.config.watchdog.listen
        if listen != "unix":
            host, _, port = listen.rpartition(":")
            self.listen_host = host
            self._doors.append(await loop.create_server(self.listener, host.strip("[]"), int(port), backlog=512))

    async def close(self) -> None:
        """Stop listening, end what is under way."""
        asyncio.get_running_loop().remove_reader(self._handover)
        self._handover.close()
        for door in self._doors:
            door.close()
        for task in self._tasks:
            task.cancel()
        await self.listener.shutdown(2.0)
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _take_over(self) -> None:
        """Take connections that the runner hands over: what it had read of the request, and the descriptor."""
        for _ in range(32):
            try:
                data, fds, _, _ = socket.recv_fds(self._handover, HANDED_BYTES, 4)
            except (BlockingIOError, InterruptedError):
                return
            for number, fd in enumerate(fds):
                peer = socket.socket(fileno=fd)
                if number or peer.family != socket.AF_UNIX or peer.type != socket.SOCK_STREAM:
                    peer.close()
                    continue
                peer.setblocking(False)
                self._keep(asyncio.create_task(self._adopt(peer, data)))

    async def _adopt(self, peer: socket.socket, data: bytes) -> None:
        def make():
            connection = self.listener()
            connection.handed = data
            return connection

        await asyncio.get_running_loop().connect_accepted_socket(make, peer)

    def _keep(self, task: asyncio.Task) -> None:
        self._tasks.append(task)
        task.add_done_callback(lambda done: self._tasks.remove(done) if done in self._tasks else None)

    # -- the way through ----------------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        connection = request.protocol
        connection.began()
        path = "?"
        try:
            route = self.find(request.method, request.path)
            path = route.path
            made = await self._through(route, request, connection)
        except Refused as refused:
            made = problem(refused)
        except StoreUnavailable as error:
            made = problem(Refused(507, "store-unavailable", error.message, error.hint))
        except AgentctlError as error:
            made = problem(Refused(409, "failed", error.message, error.hint))
        finally:
            connection.ended()
        if not made.prepared:
            for name, value in SECURE.items():
                made.headers.setdefault(name, value)
        key = (f"{request.method} {path}", made.status)
        self.counts[key] = self.counts.get(key, 0) + 1
        return made

    def find(self, method: str, path: str) -> Route:
        """Find the route; raise Refused where there is none."""
        route = self._routes.get((method, path))
        if route is not None:
            return route
        for verb, prefix, route in self._prefixes:
            if verb == method and path.startswith(prefix) and "/" not in path[len(prefix) :] and path != prefix:
                return route
        if any(known == path for _, known in self._routes):
            raise Refused(405, "wrong-method", f"{path} has no {ascii(method)[:20]}", WHAT_THERE_IS)
        raise Refused(404, "not-found", "there is no such route", WHAT_THERE_IS)

    async def _through(self, route: Route, request: web.BaseRequest, connection) -> web.StreamResponse:
        sock = request.transport.get_extra_info("socket") if request.transport else None
        check_host(request.headers, sock is not None and sock.family != socket.AF_UNIX, self.listen_host)
        peer = await self._who(request, connection)
        if not (route.is_page and route.scope == READ):  # those show or make the way in
            check_scope(peer, route.scope)
        if route.is_own and peer is not None:
            check_agent(peer, self.name)
        if peer is not None and not peer.spend():
            raise Refused(429, "too-often", f"{peer.name} asks too often", "200 requests a second are allowed")
        call = Call(self, route, request, peer)
        if route.method == "POST" and "Content-Encoding" in request.headers:
            raise Refused(415, "bad-request", "bodies are taken as they are, not encoded")
        made = await route.handle(call)
        return made if isinstance(made, web.StreamResponse) else answer(*made, self.masker)

    async def _who(self, request: web.BaseRequest, connection):
        header = request.headers.get("Authorization")
        if header is not None:
            return await self.access.by_token(header, self.blocking)
        if connection.peer is None:
            connection.peer = self.access.by_socket(request.transport) or False
        if connection.peer:
            return connection.peer
        cookie = request.cookies.get(SESSION_COOKIE)
        peer = await self.access.by_session(cookie, self.blocking) if cookie else None
        if peer is not None and request.method == "POST" and "Origin" not in request.headers:
            raise Refused(403, "foreign-origin", "a browser's request has to say where it comes from")
        return peer

    async def blocking(self, function, *arguments):
        """Have something that blocks done in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)


def _unix_socket(path: str, kind: int, owner: tuple[int, int] | None) -> socket.socket:
    """Make a listening socket for us and, where that is another, the agent's user."""
    if os.path.lexists(path):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        made.bind(path)
    finally:
        os.umask(before)
    if owner is not None and kind == socket.SOCK_STREAM:
        os.chown(path, *owner)
    made.setblocking(False)
    return made
