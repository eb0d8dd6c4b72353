"""One request on its way to its answer: the route's limits, the body as JSON, the answer in the API's one form."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from .access import Refused, check_agent

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
