"""`/metrics`, `/openapi.json`, `/pane`, `/events`: what the server tells of itself and of the agent."""

from __future__ import annotations

from aiohttp import web

from .. import acts, metrics, openapi
from ..access import READ
from ..call import Call, Route


async def measure(call: Call) -> web.Response:
    """Return the metrics as Prometheus reads them."""
    text, kind = metrics.render(call.server, call.peer.agent)
    return web.Response(body=text, headers={"Content-Type": kind})


async def describe(call: Call) -> tuple[int, dict]:
    """Return the description of this API."""
    return 200, openapi.document(call.server.routes)


async def pane(call: Call) -> tuple[int, dict]:
    """Return the newest lines of the agent's terminal."""
    lines = await call.blocking(acts.pane, call.server.station)
    shown = call.server.masker.all("\n".join(lines))  # together: a private key is of many lines
    return 200, {"lines": shown.split("\n") if lines else []}


async def events(call: Call) -> tuple[int, dict]:
    """Return what happened, newest first."""
    name = call.agent(call.request.query.get("agent"))
    return 200, {"events": await call.blocking(call.server.store.events, name, call.number("last", 50, 1000))}


ROUTES = [
    Route("GET", "/metrics", measure, scope=READ, summary="Metrics in the text format of Prometheus"),
    Route("GET", "/openapi.json", describe, scope="", summary="This description"),
    Route("GET", "/pane", pane, scope=READ, is_own=True, summary="The newest lines of the agent's terminal"),
    Route("GET", "/events", events, scope=READ, summary="What happened to an agent, newest first",
          query={"last": "number: how many, at most 1000", "agent": "text: whose; default: one's own"}),
]  # fmt: skip
