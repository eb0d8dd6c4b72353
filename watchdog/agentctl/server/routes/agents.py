"""`/agents`: who is up, since when, and what share of the time."""

from __future__ import annotations

import time

from ...decisions import periods
from ..access import READ, Refused
from ..call import Call, Route

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


ROUTES = [
    Route("GET", "/agents", every, scope=READ, summary="The agents that were heard of, and their states"),
    Route("GET", "/agents/{name}", one, scope=READ, summary="One agent: state, evidence, periods, share of time up",
          query={"span": "one of day, week, month"}, answers={200: "the agent", 404: "nothing was heard of it"}),
]  # fmt: skip
