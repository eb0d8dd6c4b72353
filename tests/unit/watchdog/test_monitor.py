"""What the watch hears of the runner: new beats, other launches, announced silences, and clocks that jump."""

from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.host.sd_notify import Notifier
from agentctl.watchdog import actions, availability
from agentctl.watchdog.monitor import Monitor
from agentctl.watchdog.observation import Seen
from agentctl.watchdog.presence import Presences
from kit.rows import row

DAY = 86400.0
WALL = 1_800_000_000.0


@pytest.fixture
def watch():
    """A watch over nothing: what it sees is put into it."""
    config = SimpleNamespace(heartbeat=SimpleNamespace(timeout=60.0, longest_wait=900.0),
                             offline=SimpleNamespace(after=180.0, grace=60.0))  # fmt: skip
    server = SimpleNamespace(context=SimpleNamespace(config=config), store=None, lives=Presences("agent", 0.0))
    made = Monitor(server, Notifier(None))
    made.seen = Seen()
    made.seen.launch = row("launches", id="L1")
    return made


def hear(watch, now, *, wall=None, **live):
    watch.seen.live = {"launch_id": "L1", **live}
    watch.hear_runner(watch.lives.own, now, WALL + now if wall is None else wall)
    return watch.lives.own


def test_a_beat_counts_when_it_is_new(watch):
    assert hear(watch, 10.0, last_heartbeat_at=WALL + 9, heartbeats=1).beat_at == 10.0
    assert hear(watch, 20.0, last_heartbeat_at=WALL + 9, heartbeats=1).beat_at == 10.0
    assert hear(watch, 30.0, last_heartbeat_at=WALL + 29, heartbeats=2).beat_at == 30.0


def test_what_was_beaten_before_the_watch_began_counts_only_if_it_is_fresh(watch):
    assert hear(watch, 1000.0, last_heartbeat_at=WALL + 10, heartbeats=9).beat_at is None
    assert hear(watch, 1001.0, last_heartbeat_at=WALL + 1001, heartbeats=10).beat_at == 1001.0


@pytest.mark.parametrize("jump", [DAY, -DAY, 3600, -3600])
def test_a_wall_clock_that_jumps_changes_nothing(watch, jump):
    """Neither does a beat look old, nor does an announced silence last for a day."""
    hear(watch, 10.0, last_heartbeat_at=WALL + 10, heartbeats=1, silent_until_at=WALL + 110)
    own = hear(watch, 20.0, wall=WALL + jump, last_heartbeat_at=WALL + 10, heartbeats=1, silent_until_at=WALL + 110)
    assert (own.beat_at, own.silent_until_at) == (10.0, 110.0)
    own = hear(watch, 30.0, wall=WALL + jump, last_heartbeat_at=WALL + jump, heartbeats=2)
    assert own.beat_at == 30.0
    late = hear(watch, 40.0, wall=WALL, last_heartbeat_at=WALL, heartbeats=3, silent_until_at=WALL + 9 * DAY)
    assert late.silent_until_at == 40.0 + 900.0


@pytest.mark.parametrize("error", [AgentctlError("no bus"), OSError(28, "no room"), sqlite3.OperationalError("locked")])
def test_a_rescue_that_could_not_be_started_is_started_soon_after(watch, monkeypatch, error):
    """Not after the 25 minutes that one which was started may take."""
    asked, noted, troubles = [], [], [error]

    def ask_offline(context, launch, reason):
        asked.append(reason)
        if troubles:
            raise troubles.pop()

    async def blocking(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(actions, "ask_offline", ask_offline)
    watch.server.blocking, watch.server.say = blocking, noted.append
    watch.server.note = lambda kind, text: noted.append(kind)
    gone = availability.Judgement(availability.OFFLINE, "", ["no heartbeat", "its process is gone"])
    for now in (0, 2, 4, 30, 32, 60, 1000, 1400):
        asyncio.run(watch._act(gone, 10_000.0 + now))
    assert len(asked) == 2
    assert noted[1:] == ["rollback"] and str(error) in noted[0]


def test_another_launch_begins_anew(watch):
    hear(watch, 10.0, last_heartbeat_at=WALL + 10, heartbeats=50, silent_until_at=WALL + 500)
    watch.seen.launch = row("launches", id="L2")
    own = hear(watch, 20.0, last_heartbeat_at=WALL + 10, heartbeats=50)
    assert (own.launch_id, own.beat_at, own.heartbeats, own.silent_until_at) == ("L2", None, 0, 0.0)
    assert watch.lives.hear("agent", "L1", 21.0, WALL, {}) != ""
    assert watch.lives.hear("agent", "L2", 21.0, WALL, {}) == ""


def test_progress_that_stands_still_is_known_by_when_it_last_moved(watch):
    hear(watch, 10.0, last_heartbeat_at=WALL, heartbeats=1, progress=5)
    hear(watch, 20.0, last_heartbeat_at=WALL + 20, heartbeats=2, progress=5)
    assert watch.lives.own.progressed_at == 10.0
    hear(watch, 30.0, last_heartbeat_at=WALL + 30, heartbeats=3, progress=6)
    assert watch.lives.own.progressed_at == 30.0
