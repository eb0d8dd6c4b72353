"""The description of the API (OpenAPI 3.1) and the metrics, made from what the server knows anyway."""

from __future__ import annotations

import time

from .. import availability

PROBLEMS = {400: "the request cannot be meant", 401: "a token is needed", 403: "the token has not that scope",
            409: "it cannot be done now", 415: "the body is encoded", 421: "the Host is another", 429: "too often",
            507: "the store takes nothing now"}  # fmt: skip
WITH_BODY = {408: "the body came too slowly", 413: "the body is too large"}
PROBLEM = {"type": "object", "required": ["code", "message", "hint"],
           "properties": {name: {"type": "string"} for name in ("code", "message", "hint")}}  # fmt: skip
KINDS = {"text": {"type": "string"}, "number": {"type": "integer", "minimum": 0}, "true": {"type": "boolean"},
         "list": {"type": "array", "items": {"type": "object"}}}  # fmt: skip


def document(routes: list) -> dict:
    """Return the whole description."""
    paths: dict[str, dict] = {}
    for route in routes:
        if not route.is_page:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0", "info": {"title": "agentctl watchdog", "version": "1"}, "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM},
                       "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }  # fmt: skip


def _operation(route) -> dict:
    made: dict = {"summary": route.summary, "responses": {}, "security": [{"token": []}] if route.scope else []}
    problems = {**PROBLEMS, **(WITH_BODY if route.body is not None else {})}
    for status, text in sorted({**problems, **route.answers}.items()):
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}} if status >= 400 else {}
        made["responses"][str(status)] = {"description": text, **({"content": content} if content else {})}
    parameters = [{"name": name, "in": "query", "required": False, "description": text, "schema": _kind(text)}
                  for name, text in route.query.items()]  # fmt: skip
    if "{name}" in route.path:
        parameters.append({"name": "name", "in": "path", "required": True,
                           "schema": {"type": "string", "pattern": "^[a-z0-9_-]{1,32}$"}})  # fmt: skip
        made["responses"].setdefault("404", {"description": "there is none"})
    if parameters:
        made["parameters"] = parameters
    if route.body:
        made["requestBody"] = {"content": {"application/json": {"schema": _body(route.body)}}}
    elif route.body is not None and route.limit_bytes == 0:
        made["requestBody"] = {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
    return made


def _body(fields: dict[str, str]) -> dict:
    required = [name for name, text in fields.items() if "required" in text]
    made = {"type": "object", "properties": {name: {**_kind(text), "description": text}
                                             for name, text in fields.items()}}  # fmt: skip
    return {**made, **({"required": required} if required else {})}


def _kind(text: str) -> dict:
    if text.startswith("one of "):
        return {"type": "string", "enum": text.removeprefix("one of ").split(", ")}
    if text.startswith("1:"):
        return {"type": "string", "enum": ["1"]}
    word = text.replace(":", " ").replace(",", " ").split()[0]
    return {} if "any JSON" in text else dict(KINDS[word])


# -- metrics ---------------------------------------------------------------------------------------
# The metrics, made when they are asked for, from what the server knows anyway.


def render(server, agent: str = "") -> tuple[bytes, str]:
    """Return the metrics and their content type; of one agent only, where it is named."""
    from prometheus_client import CollectorRegistry  # 4 MiB that nobody may ever ask for
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    registry = CollectorRegistry()
    registry.register(Collector(server, agent))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class Collector:
    """Tells of the agents and of the server itself."""

    def __init__(self, server, agent: str) -> None:
        self.server, self.agent = server, agent

    def collect(self):
        """Yield every metric."""
        yield from self._of_agents()
        yield from self._of_server()

    def _of_agents(self):
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = GaugeMetricFamily("agentctl_agent_state", "1 for the state an agent is in", labels=["agent", "state"])
        silence = GaugeMetricFamily("agentctl_agent_silence_seconds", "Time since the last heartbeat", labels=["agent"])
        beats = CounterMetricFamily("agentctl_agent_heartbeats", "Heartbeats of the present launch", labels=["agent"])
        foreign = CounterMetricFamily("agentctl_agent_foreign_heartbeats", "Heartbeats of other launches",
                                      labels=["agent"])  # fmt: skip
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for life in list(self.server.lives.by_name.values()):
            if self.agent not in ("", life.name):
                continue
            found = life.judgement.state if life.judgement else availability.UNKNOWN
            for one in availability.STATES if life.is_own else (found,):
                state.add_metric([life.name, one], float(one == found))
            if life.beat_at is not None:
                silence.add_metric([life.name], now - life.beat_at)
            beats.add_metric([life.name], life.heartbeats)
            foreign.add_metric([life.name], life.foreign)
        yield from (state, silence, beats, foreign)

    def _of_server(self):
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        server = self.server
        asked = CounterMetricFamily("agentctl_requests", "Requests by route and status", labels=["route", "status"])
        for (route, status), count in sorted(server.counts.items()):
            asked.add_metric([route, str(status)], count)
        yield asked
        numbers = (
            ("agentctl_connections", "Open connections", len(server.guard.open)),
            ("agentctl_store_waiting_writes", "Writes that wait for the disk", server.store.writer.waiting()),
            ("agentctl_store_broken", "1 while the store takes nothing", int(bool(server.store.problem))),
            ("agentctl_store_set_aside", "Broken store files that were set aside", len(server.store.kept_as)),
            ("agentctl_started_seconds", "When the watchdog was started", server.started_at),
        )
        for name, text, value in numbers:
            yield GaugeMetricFamily(name, text, value=value)
        yield CounterMetricFamily("agentctl_heartbeats", "Heartbeats that counted", value=server.lives.total)
        yield CounterMetricFamily("agentctl_turned_away", "Connections that were closed for their slowness or number",
                                  value=server.guard.turned_away)  # fmt: skip
