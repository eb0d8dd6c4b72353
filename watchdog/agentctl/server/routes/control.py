"""`/restart`, `/rollback`, `/pause`, `/resume`, `/incidents`, `/generations`: what people and the agent ask for."""

from __future__ import annotations

import asyncio
import time

from ...durations import format_duration, parse_duration
from ...launching import incident
from .. import acts
from ..access import ADMIN, READ, RESTART, Refused
from ..call import MESSAGE_BYTES, SMALL_BYTES, Call, Route, field
from .history import MOST_AT_ONCE, row_of

MOST_TASK = 512 * 1024


async def restart(call: Call) -> tuple[int, dict]:
    """Keep the history and the task that were given, then restart the agent; it finds both."""
    body = await call.json()
    given, task = field(body, "history", list, []), field(body, "task", str)
    if len(given) > MOST_AT_ONCE or len(task or "") > MOST_TASK:
        raise Refused(413, "too-large", f"at most {MOST_AT_ONCE} messages and a task of {MOST_TASK} bytes")
    rows = [row_of(call.server.name, message) for message in given]
    if task is not None:
        acts.check_task(task)
    if rows:
        await asyncio.wrap_future(call.server.store.append(rows))
    launch_id = field(body, "launch_id", str, "")
    if ADMIN not in call.peer.scopes:  # or its restart would pass for a person's, which costs a trial nothing
        launch_id = call.server.lives.own.launch_id
    launch_id = await call.blocking(acts.restart, call.server.station, task, launch_id)
    call.server.note("restart", f"asked for by {call.peer.name}, with {len(rows)} messages"
                     + (" and a task" if task is not None else ""))  # fmt: skip
    return 202, {"ok": True, "launch_id": launch_id, "acknowledged": [row["id"] for row in rows]}


async def rollback(call: Call) -> tuple[int, dict]:
    """Ask the one rescue path for a rollback, or tell what one would do."""
    body = await call.json()
    target = field(body, "generation", int)
    named = "" if target is None else str(target)
    if field(body, "dry_run", bool, False):
        return 200, await call.blocking(acts.plan, call.server.station, named)
    number = await call.blocking(
        acts.ask_rollback,
        call.server.station,
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
    if not 0 < seconds <= acts.LONGEST_PAUSE_SECONDS:
        raise Refused(400, "bad-request", f"a pause is at most {format_duration(acts.LONGEST_PAUSE_SECONDS)}")
    until = time.time() + seconds
    await call.blocking(acts.pause, call.server.station, until)
    call.server.note("pause", f"by {call.peer.name}, for {text}")
    return 200, {"ok": True, "paused_until_at": until}


async def resume(call: Call) -> tuple[int, dict]:
    """End a pause."""
    await call.json()
    await call.blocking(acts.pause, call.server.station, None)
    call.server.note("resume", f"by {call.peer.name}")
    return 200, {"ok": True}


async def incidents(call: Call) -> tuple[int, dict]:
    """List what went wrong, newest first."""
    count = call.number("last", 20, 500)

    def read() -> list[dict]:
        with call.server.station.ledger(read_only=True) as ledger:
            rows = ledger.all("SELECT * FROM incidents ORDER BY at DESC, rowid DESC LIMIT ?", count)
            return [incident.as_public(ledger, row) for row in rows]

    return 200, {"incidents": await call.blocking(read)}


async def generations(call: Call) -> tuple[int, dict]:
    """List the generations and their fate, newest first."""
    count = call.number("last", 20, 500)
    return 200, {"generations": await call.blocking(acts.generations, call.server.station, count)}


ROUTES = [
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
