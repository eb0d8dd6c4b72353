"""`GET /`: the status page, its session, and its buttons."""

from __future__ import annotations

import asyncio
import os
import time
from urllib.parse import parse_qs

from aiohttp import web

from ...core.errors import AgentctlError
from ...ledger import incidents
from .. import actions, periods
from . import status_page
from .agent_routes import SPANS, as_public
from .auth import ADMIN, READ, SESSION_COOKIE, SESSION_SECONDS, Refused, check_agent, check_scope
from .history_routes import as_shown
from .request import SMALL_BYTES, Call, Route

STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")
KINDS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
LOGIN_SECONDS = 0.5  # that a wrong token costs
PAUSE_SECONDS = 3600.0


async def show(call: Call) -> web.Response:
    """Show the page, or ask for a token."""
    server = call.server
    if call.peer is None or READ not in call.peer.scopes:
        return _html(status_page.login(server.name, server.masker, time.time()))
    span = call.request.query.get("span", "day")
    words = call.request.query.get("q", "")[:200].encode("utf-8", "replace").decode()
    facts = await call.blocking(gather, server, span if span in SPANS else "day", words)
    facts["is_admin"] = ADMIN in call.peer.scopes
    return _html(status_page.render(facts, server.masker, time.time()))


def gather(server, span: str, words: str) -> dict:
    """Read what the page shows; what cannot be read is missing from it."""
    context, store, name, now = server.context, server.store, server.name, time.time()
    facts = {"slices": [], "incidents": [], "generations": [], "events": [], "messages": [], "words": words,
             "store_problem": store.problem, "pane": actions.pane(context)}  # fmt: skip
    rows: list[dict] = []
    try:
        rows = store.periods(name, now - SPANS[span])
        facts["events"] = store.events(name, 20)
        lines = store.search(name, words, 50) if words else store.last(name, 20)
        facts["messages"] = [as_shown(line) for line in lines][::-1]
    except AgentctlError as error:
        facts["store_problem"] = error.message
    try:
        facts["generations"] = actions.generations(context, 10)
        with context.ledger(read_only=True) as ledger:
            last = ledger.incidents(10)
            facts["incidents"] = [incidents.as_public(ledger, row) for row in last]
    except AgentctlError as error:
        facts["store_problem"] = facts["store_problem"] or error.message
    facts["slices"] = periods.slices(rows, now - SPANS[span], now)
    total = periods.sums(rows, now - SPANS[span], now)
    facts["agent"] = {**as_public(server.lives.own), **server.watch.facts(), "span": span, "seconds": total,
                      "share_up": periods.share_up(total)}  # fmt: skip
    return facts


async def enter(call: Call) -> web.Response:
    """Exchange a token for a session."""
    token = (await _form(call)).get("token", "")
    try:
        peer = await call.server.access.by_token(f"Bearer {token.strip()}", call.blocking)
        check_scope(peer, READ)
        check_agent(peer, call.server.name)
    except Refused as refused:
        await asyncio.sleep(LOGIN_SECONDS)
        return _html(status_page.login(call.server.name, call.server.masker, time.time(), refused.message), status=403)
    made, cookie = _to("/"), call.server.access.open_session(token.strip())
    made.set_cookie(SESSION_COOKIE, cookie, max_age=int(SESSION_SECONDS), path="/", httponly=True,
                    samesite="Strict")  # fmt: skip
    return made


async def leave(call: Call) -> web.Response:
    """End the session."""
    call.server.access.close_session(call.request.cookies.get(SESSION_COOKIE, ""))
    made = _to("/")
    made.del_cookie(SESSION_COOKIE, path="/")
    return made


async def plan(call: Call) -> web.Response:
    """Show what a rollback would do."""
    found = await call.blocking(actions.plan, call.server.context, "")
    return _html(status_page.plan(call.server.name, found, call.server.masker, time.time()))


async def act(call: Call) -> web.Response:
    """Do what a button says."""
    form = await _form(call)
    verb, context = form.get("verb"), call.server.context
    if verb == "restart":
        await call.blocking(actions.restart, context, None, "")
    elif verb == "rollback":
        if not form.get("generation", "").isdecimal():
            raise Refused(400, "bad-request", "which generation?")
        reason = f"asked for by {call.peer.name}, on the page"
        await call.blocking(actions.ask_rollback, context, form["generation"], reason)
    elif verb in ("pause", "resume"):
        await call.blocking(actions.pause, context, time.time() + PAUSE_SECONDS if verb == "pause" else None)
    else:
        raise Refused(400, "bad-request", "the page has no such button")
    call.server.note(verb, f"asked for by {call.peer.name}, on the page")
    return _to("/")


async def static(call: Call) -> web.Response:
    """Return a part of the page."""
    name = call.request.path[1:]
    with open(f"{STATIC}/{name}", encoding="utf-8") as file:  # noqa: ASYNC230 - a small file of ours
        return web.Response(text=file.read(), content_type=KINDS[name])


async def _form(call: Call) -> dict[str, str]:
    if call.request.content_type != "application/x-www-form-urlencoded":
        raise Refused(415, "bad-request", "this is for the page's own forms")
    raw = (await call.body()).decode("utf-8", "replace")
    try:
        return {key: values[0] for key, values in parse_qs(raw, max_num_fields=16).items()}
    except ValueError as error:
        raise Refused(400, "bad-request", str(error)[:100]) from None


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html")


def _to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


ROUTES = [
    Route("GET", "/", show, scope=READ, is_page=True, is_own=True,
          summary="The status page; asks a browser for a token",
          query={"span": "one of day, week, month", "q": "text: words to find in the conversation"}),
    Route("POST", "/session", enter, scope=READ, is_page=True, limit_bytes=SMALL_BYTES,
          summary="The page's: a token for a session cookie"),
    Route("POST", "/session/end", leave, scope=READ, is_page=True, limit_bytes=SMALL_BYTES,
          summary="The page's: end the session"),
    Route("GET", "/plan", plan, scope=ADMIN, is_page=True, is_own=True, summary="The page's: what a rollback would do"),
    Route("POST", "/act", act, scope=ADMIN, is_page=True, is_own=True, limit_bytes=SMALL_BYTES,
          summary="The page's buttons"),
    *(Route("GET", f"/{name}", static, scope="", is_page=True, summary="A part of the page") for name in KINDS),
]  # fmt: skip
