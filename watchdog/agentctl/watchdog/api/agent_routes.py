"""Routes of the agent: heartbeats, who is up, control, and what the watchdog tells of it."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from ...core.text import format_duration, parse_duration
from ...ledger import incidents as incident_rows
from .. import actions, periods
from . import openapi
from .auth import ADMIN, BEAT, READ, RESTART, Refused
from .history_routes import MOST_AT_ONCE, row_of
from .request import HEARTBEAT_BYTES, MESSAGE_BYTES, SMALL_BYTES, Call, Route, field

DAY = 86400.0
SPANS = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY}
MOST_LISTED = 10_000


async def every(call: Call) -> tuple[int, dict]:
    """List the agents that were heard of."""
    lives = list(call.server.lives.by_name.values())
    if call.peer.agent:
        lives = [life for life in lives if life.name == call.peer.agent]
    return 200, {"agents": [as_public(life) for life in lives[:MOST_LISTED]]}


async def one(call: Call) -> tuple[int, dict]:
    """Tell of one agent, with its periods and their sums."""
    name = call.agent(call.request.path.rpartition("/")[2])
    span = call.request.query.get("span", "day")
    if span not in SPANS:
        raise Refused(400, "bad-request", f"'span' is one of {', '.join(SPANS)}")
    life = call.server.lives.by_name.get(name)
    if life is None:
        raise Refused(404, "not-found", f"nothing was heard of an agent '{name}'", "GET /agents")
    now = time.time()
    rows = await call.blocking(call.server.store.periods, name, now - SPANS[span])
    total = periods.sums(rows, now - SPANS[span], now)
    return 200, {**as_public(life), "span": span, "seconds": {kind: round(s, 3) for kind, s in total.items()},
                 "share_up": periods.share_up(total),
                 "periods": [{key: row[key] for key in ("kind", "reason", "began_at", "ended_at", "seconds")}
                             for row in rows[-1000:]],
                 **(call.server.watch.facts() if life.is_own and call.server.watch else {})}  # fmt: skip


def as_public(life) -> dict:
    """Return an agent as the API tells of it."""
    judged = life.judgement
    return {
        "name": life.name, "state": judged.state if judged else "unknown", "reason": judged.reason if judged else "",
        "evidence": judged.evidence if judged else [], "launch_id": life.launch_id or None,
        "last_heartbeat_at": life.beat_wall, "heartbeats": life.heartbeats, "phase": life.phase or None,
        "progress": life.progress, "status": life.status or None, "foreign_heartbeats": life.foreign,
        "since_at": life.period.began_at if life.period else None,
    }  # fmt: skip


AGENT_ROUTES = [
    Route("GET", "/agents", every, scope=READ, summary="The agents that were heard of, and their states"),
    Route("GET", "/agents/{name}", one, scope=READ, summary="One agent: state, evidence, periods, share of time up",
          query={"span": "one of day, week, month"}, answers={200: "the agent", 404: "nothing was heard of it"}),
]  # fmt: skip


# -- control ---------------------------------------------------------------------------------------
# `/restart`, `/rollback`, `/pause`, `/resume`, `/incidents`, `/generations`: what people and the agent ask for.


MOST_TASK = 512 * 1024


async def restart(call: Call) -> tuple[int, dict]:
    """Keep the history and the task that were given, then restart the agent; it finds both."""
    body = await call.json()
    given, task = field(body, "history", list, []), field(body, "task", str)
    if len(given) > MOST_AT_ONCE or len(task or "") > MOST_TASK:
        raise Refused(413, "too-large", f"at most {MOST_AT_ONCE} messages and a task of {MOST_TASK} bytes")
    rows = [row_of(call.server.name, message) for message in given]
    if task is not None:
        actions.check_task(task)
    if rows:
        await asyncio.wrap_future(call.server.store.append(rows))
    launch_id = field(body, "launch_id", str, "")
    if ADMIN not in call.peer.scopes:  # or its restart would pass for a person's, which costs a trial nothing
        launch_id = call.server.lives.own.launch_id
    launch_id = await call.blocking(actions.restart, call.server.context, task, launch_id)
    call.server.note("restart", f"asked for by {call.peer.name}, with {len(rows)} messages"
                     + (" and a task" if task is not None else ""))  # fmt: skip
    return 202, {"ok": True, "launch_id": launch_id, "acknowledged": [row["id"] for row in rows]}


async def rollback(call: Call) -> tuple[int, dict]:
    """Ask the recovery process for a rollback, or tell what one would do."""
    body = await call.json()
    target = field(body, "generation", int)
    named = "" if target is None else str(target)
    if field(body, "dry_run", bool, False):
        found = await call.blocking(actions.plan, call.server.context, named)
        return 200, found.to_json()
    number = await call.blocking(
        actions.ask_rollback,
        call.server.context,
        named,
        field(body, "reason", str, "") or f"asked for by {call.peer.name}",
    )
    call.server.note("rollback", f"request {number} by {call.peer.name}")
    return 202, {"ok": True, "request": number}


async def pause(call: Call) -> tuple[int, dict]:
    """Watch, but do not act, until an instant."""
    body = await call.json()
    text = field(body, "for", str, "1h")
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise Refused(400, "bad-request", f"'for': {error}", "30m, 1h, 2d") from None
    if not 0 < seconds <= actions.LONGEST_PAUSE_SECONDS:
        raise Refused(400, "bad-request", f"a pause is at most {format_duration(actions.LONGEST_PAUSE_SECONDS)}")
    until = time.time() + seconds
    await call.blocking(actions.pause, call.server.context, until)
    call.server.note("pause", f"by {call.peer.name}, for {text}")
    return 200, {"ok": True, "paused_until_at": until}


async def resume(call: Call) -> tuple[int, dict]:
    """End a pause."""
    await call.json()
    await call.blocking(actions.pause, call.server.context, None)
    call.server.note("resume", f"by {call.peer.name}")
    return 200, {"ok": True}


async def incidents(call: Call) -> tuple[int, dict]:
    """List what went wrong, newest first."""
    count = call.number("last", 20, 500)

    def read() -> list[dict]:
        with call.server.context.ledger(read_only=True) as ledger:
            rows = ledger.incidents(count)
            return [incident_rows.as_public(ledger, row) for row in rows]

    return 200, {"incidents": await call.blocking(read)}


async def generations(call: Call) -> tuple[int, dict]:
    """List the generations and their fate, newest first."""
    count = call.number("last", 20, 500)
    return 200, {"generations": await call.blocking(actions.generations, call.server.context, count)}


CONTROL_ROUTES = [
    Route("POST", "/restart", restart, scope=RESTART, is_own=True, limit_bytes=MESSAGE_BYTES,
          summary="Restart the agent; a history and a task that come with it are in the state folder when it starts",
          body={"history": "list: messages to add first", "task": "text: a whole current_task.md",
                "launch_id": "text: AGENT_LAUNCH_ID, where the agent itself asks"},
          answers={202: "asked for", 409: "the agent cannot be restarted now", 507: "the history cannot be kept"}),
    Route("POST", "/rollback", rollback, scope=ADMIN, is_own=True, limit_bytes=SMALL_BYTES,
          summary="Roll back; with dry_run only the plan",
          body={"generation": "number: to which; default: the last known good", "dry_run": "true: only tell",
                "reason": "text"},
          answers={200: "the plan", 202: "asked for", 409: "there is nothing to go back to"}),
    Route("POST", "/pause", pause, scope=ADMIN, is_own=True, limit_bytes=SMALL_BYTES,
          summary="Watch, but do not act, for a while",
          body={"for": "text: how long, such as 1h (the default); at most 30d"}),
    Route("POST", "/resume", resume, scope=ADMIN, is_own=True, limit_bytes=SMALL_BYTES, summary="End a pause", body={}),
    Route("GET", "/incidents", incidents, scope=READ, is_own=True,
          summary="What went wrong, newest first, with evidence and steps",
          query={"last": "number: how many, at most 500"}),
    Route("GET", "/generations", generations, scope=READ, is_own=True,
          summary="The generations and their fate, newest first",
          query={"last": "number: how many, at most 500"}),
]  # fmt: skip


# -- health ----------------------------------------------------------------------------------------
# `/health`: heartbeats, and whether the watchdog itself is well.


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
    return 200, {"ok": True, "deadline_seconds": server.context.config.heartbeat.timeout,
                 "pending": server.watch.pending if server.watch else []}  # fmt: skip


async def health(call: Call) -> tuple[int, dict]:
    """Tell how the watchdog is."""
    server, store = call.server, call.server.store
    return 200, {
        "ok": not store.problem, "name": server.name, "since": server.started_at, "store": store.problem or "ok",
        "set_aside": store.kept_as, "waiting_writes": store.writer.waiting(), "connections": len(server.guard.open),
        "heartbeats": server.lives.total, "bugs": server.guard.bugs,
    }  # fmt: skip


HEALTH_ROUTES = [
    Route("POST", "/health", beat, scope=BEAT, limit_bytes=HEARTBEAT_BYTES,
          summary="A heartbeat of the agent; the answer has the deadline of the next one",
          body={"launch_id": "text, required: AGENT_LAUNCH_ID", "agent": "text: whose; default: one's own",
                "progress": "number: grows with the work done", "phase": "one of working, waiting, idle",
                "status": "text: what it does now"},
          answers={200: "it counts", 409: "it is of another launch, and does not count"}),
    Route("GET", "/health", health, scope="", summary="Whether the watchdog itself and its store are well"),
]  # fmt: skip


# -- telling ---------------------------------------------------------------------------------------
# `/metrics`, `/openapi.json`, `/pane`, `/events`: what the server tells of itself and of the agent.


async def measure(call: Call) -> web.Response:
    """Return the metrics as Prometheus reads them."""
    text, kind = openapi.render(call.server, call.peer.agent)
    return web.Response(body=text, headers={"Content-Type": kind})


async def describe(call: Call) -> tuple[int, dict]:
    """Return the description of this API."""
    return 200, openapi.document(call.server.routes)


async def pane(call: Call) -> tuple[int, dict]:
    """Return the newest lines of the agent's terminal."""
    lines = await call.blocking(actions.pane, call.server.context)
    shown = call.server.masker.all("\n".join(lines))  # together: a private key is of many lines
    return 200, {"lines": shown.split("\n") if lines else []}


async def events(call: Call) -> tuple[int, dict]:
    """Return what happened, newest first."""
    name = call.agent(call.request.query.get("agent"))
    return 200, {"events": await call.blocking(call.server.store.events, name, call.number("last", 50, 1000))}


TELLING_ROUTES = [
    Route("GET", "/metrics", measure, scope=READ, summary="Metrics in the text format of Prometheus"),
    Route("GET", "/openapi.json", describe, scope="", summary="This description"),
    Route("GET", "/pane", pane, scope=READ, is_own=True, summary="The newest lines of the agent's terminal"),
    Route("GET", "/events", events, scope=READ, summary="What happened to an agent, newest first",
          query={"last": "number: how many, at most 1000", "agent": "text: whose; default: one's own"}),
]  # fmt: skip
