"""`/history`: the conversation. A message is acknowledged when it is on the disk, and its id says whether it is new."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from ...state import history
from ..store import tables
from .auth import ADMIN, APPEND, READ, Refused
from .request import BODY_SECONDS, MESSAGE_BYTES, Call, Route, field

MOST_AT_ONCE = 1000
BATCH = 500
DEFAULT = 20
DEEPEST = 500  # half of what Python's own reader takes
TOO_DEEP = "nested too deeply to be shown; the raw export has it"


async def append(call: Call) -> tuple[int, dict]:
    """Add messages; answer when they are durable."""
    body = await call.json()
    given = field(body, "messages", list) if "messages" in body else [body]
    name = call.agent(body.get("agent") if "messages" in body else call.request.query.get("agent"))
    if given is None or not 0 < len(given) <= MOST_AT_ONCE:
        raise Refused(400, "bad-request", f"'messages' holds 1 to {MOST_AT_ONCE} messages")
    rows = [row_of(name, message) for message in given]
    await asyncio.wrap_future(call.server.store.append(rows))
    return 200, {"acknowledged": [row["id"] for row in rows]}


def row_of(name: str, message: object) -> dict:
    """Check one message and make its row; raise Refused."""
    if not isinstance(message, dict):
        raise Refused(400, "bad-request", "a message is a JSON object")
    for key in ("id", "at", "role"):
        if not isinstance(message.get(key, ""), str) or len(message.get(key, "")) > 256:
            raise Refused(400, "bad-request", f"a message's '{key}' is a text of at most 256 characters")
    if not ({"role", "content"} & message.keys()):
        raise Refused(400, "bad-request", "a message has a role and a content", '{"role": "user", "content": "..."}')
    whole = {"id": None, "at": None, **message}
    whole["id"], whole["at"] = whole["id"] or history.new_id(), whole["at"] or history.now()
    try:
        line = history.encode(whole)
        whole["id"].encode()
        (whole["at"] + whole.get("role", "")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(400, "bad-request", f"the message cannot be kept: {type(error).__name__}") from None
    return tables.row_of(name, whole, line, is_in_file=False)


async def read(call: Call) -> tuple[int, dict]:
    """Return the newest messages, those after one, or those that hold some words."""
    query, store = call.request.query, call.server.store
    name = call.agent(query.get("agent"))
    chosen = [key for key in ("after", "q") if key in query]
    if len(chosen) > 1:
        raise Refused(400, "bad-request", "'after' and 'q' are asked for one at a time")
    count = call.number("last", DEFAULT if not chosen else MOST_AT_ONCE, MOST_AT_ONCE)
    if "q" in query:
        lines = await call.blocking(store.search, name, _text(query["q"])[:1000], count)
    elif "after" in query:
        lines = await call.blocking(store.after, name, _text(query["after"]), count)
        if lines is None:
            raise Refused(404, "not-found", "no message has that id", "GET /history?last=20")
    else:
        lines = await call.blocking(store.last, name, count)
    return 200, {"messages": [as_shown(line) for line in lines]}


def as_shown(line: bytes) -> dict:
    """Return a stored message; one that is nested deeper than we and others can read leaves the others readable."""
    try:
        message = json.loads(line)
    except RecursionError:
        return {"content": TOO_DEEP}
    if line.count(b"[") + line.count(b"{") <= DEEPEST:
        return message
    level = [message]
    for _ in range(DEEPEST):
        level = [inner for one in level if isinstance(one, dict | list)
                 for inner in (one.values() if isinstance(one, dict) else one)]  # fmt: skip
    return {**message, "content": TOO_DEEP} if level else message


async def export(call: Call) -> web.StreamResponse:
    """Stream every message as JSON lines; what looks like a secret is masked, but for an admin who wants it raw."""
    name, is_raw = call.agent(call.request.query.get("agent")), call.request.query.get("raw") == "1"
    if is_raw and ADMIN not in call.peer.scopes:
        raise Refused(403, "forbidden", "the raw export is for admins")
    stream = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await stream.prepare(call.request)
    lines = call.server.store.export(name)
    while batch := await call.blocking(_some, lines):
        await stream.write(b"".join(batch) if is_raw else call.server.masker.lines(batch).encode())
    await stream.write_eof()
    return stream


async def take(call: Call) -> tuple[int, dict]:
    """Add messages from JSON lines as they come; those whose ids are there already stay as they are."""
    name = call.agent(call.request.query.get("agent"))
    rows, count, rest = [], 0, b""
    async for chunk in _chunks(call):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MESSAGE_BYTES:
            raise Refused(413, "too-large", f"line {count + 1} is longer than {MESSAGE_BYTES} bytes")
        for line in [*lines, *([rest] if not chunk else [])]:
            if not line.strip():
                continue
            count += 1
            try:
                rows.append(row_of(name, history.parse(line)))
            except ValueError as error:
                raise Refused(
                    400,
                    "bad-request",
                    f"line {count} is no message: {error}",
                    f"{count - 1 - len(rows)} messages before it are kept",
                ) from None
        if len(rows) >= BATCH or not chunk:
            await asyncio.wrap_future(call.server.store.append(rows))
            rows = []
    return 200, {"acknowledged": count}


async def _chunks(call: Call):
    """Yield the body piece by piece, each within the deadline; then an empty piece."""
    while True:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                chunk = await call.request.content.readany()
        except TimeoutError:
            raise Refused(408, "too-slow", f"nothing came for {BODY_SECONDS:g}s") from None
        except (web.RequestPayloadError, ConnectionError, OSError) as error:
            raise Refused(400, "bad-request", f"the body cannot be read: {error}") from None
        yield chunk
        if not chunk:
            return


def _some(lines) -> list[bytes]:
    return [line for _, line in zip(range(BATCH), lines, strict=False)]  # lines last: it gives none away


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


AGENT = {"agent": "text: whose; default: one's own"}
ROUTES = [
    Route("POST", "/history", append, scope=APPEND, limit_bytes=MESSAGE_BYTES, query=AGENT,
          summary="Add one message, or up to 1000; acknowledged when durable, the same id twice is kept once",
          body={"id": "text: unlike every other; default: a new one", "at": "text: RFC 3339; default: now",
                "role": "text", "content": "text, or any JSON", "messages": "list: several messages at once",
                "agent": "text: whose, with 'messages'"},
          answers={200: "the ids that are on the disk", 507: "the store takes nothing now"}),
    Route("GET", "/history", read, scope=READ, summary="The newest messages, those after one, or a search",
          query={"last": "number: how many, at most 1000", "after": "text: an id; what came after it",
                 "q": "text: words that are all in it; a word* is a beginning", **AGENT},
          answers={200: "messages, oldest first", 404: "no message has that id"}),
    Route("GET", "/history/export", export, scope=READ, query={"raw": "1: do not mask (admins)", **AGENT},
          summary="All messages as JSON lines, streamed"),
    Route("POST", "/history/import", take, scope=APPEND, query=AGENT, summary="Add messages from JSON lines, streamed",
          body={}, answers={200: "how many are on the disk", 507: "the store takes nothing now"}),
]  # fmt: skip
