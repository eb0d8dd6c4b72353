"""`/health`: heartbeats, and whether the watchdog itself is well."""

from __future__ import annotations

import time

from ..access import BEAT, Refused
from ..call import HEARTBEAT_BYTES, Call, Route, field

PHASES = ("working", "waiting", "idle")


async def beat(call: Call) -> tuple[int, dict]:
    """Take a heartbeat; the same sign of life goes on to the agent's runner."""
    body = await call.json()
    launch_id = field(body, "launch_id", str, "")
    if not 0 < len(launch_id) <= 128:
        raise Refused(400, "bad-request", "a heartbeat needs its launch_id", "send AGENT_LAUNCH_ID as launch_id")
    name = call.agent(field(body, "agent", str))
    facts = {"progress": field(body, "progress", int), "phase": field(body, "phase", str),
             "status": field(body, "status", str, "")[:200]}  # fmt: skip
    if facts["phase"] not in (None, *PHASES):
        raise Refused(400, "bad-request", f"'phase' is one of {', '.join(PHASES)}")
    if facts["progress"] is not None and not 0 <= facts["progress"] < 10**18:
        raise Refused(400, "bad-request", "'progress' is a number that grows from 0")
    server = call.server
    why_not = server.lives.hear(name, launch_id, time.clock_gettime(time.CLOCK_BOOTTIME), time.time(), facts)
    if why_not:
        raise Refused(409, "other-launch", why_not, "send AGENT_LAUNCH_ID as launch_id")
    if name == server.name and server.watch is not None:
        server.watch.forward(launch_id, facts)
    return 200, {"ok": True, "deadline_seconds": server.station.config.heartbeat.timeout,
                 "pending": server.watch.pending if server.watch else []}  # fmt: skip


async def health(call: Call) -> tuple[int, dict]:
    """Tell how the watchdog is."""
    server, store = call.server, call.server.store
    return 200, {
        "ok": not store.problem, "name": server.name, "since": server.started_at, "store": store.problem or "ok",
        "set_aside": store.kept_as, "waiting_writes": store.writer.waiting(), "connections": len(server.guard.open),
        "heartbeats": server.lives.total, "bugs": server.guard.bugs,
    }  # fmt: skip


ROUTES = [
    Route("POST", "/health", beat, scope=BEAT, limit_bytes=HEARTBEAT_BYTES,
          summary="A heartbeat of the agent; the answer has the deadline of the next one",
          body={"launch_id": "text, required: AGENT_LAUNCH_ID", "agent": "text: whose; default: one's own",
                "progress": "number: grows with the work done", "phase": "one of working, waiting, idle",
                "status": "text: what it does now"},
          answers={200: "it counts", 409: "it is of another launch, and does not count"}),
    Route("GET", "/health", health, scope="", summary="Whether the watchdog itself and its store are well"),
]  # fmt: skip
