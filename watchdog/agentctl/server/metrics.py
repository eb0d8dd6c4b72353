"""The metrics, made when they are asked for, from what the server knows anyway."""

from __future__ import annotations

import time

from ..decisions import offline


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
            found = life.judgement.state if life.judgement else offline.UNKNOWN
            for one in offline.STATES if life.is_own else (found,):
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
