"""Preparing a launch is our time: it costs the agent none of its own, and one that is not ready then is still seen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from agentctl.config.context import Lock
from agentctl.generations.agent_context import AgentContext
from agentctl.host import procfs
from agentctl.host.sd_notify import Notifier, NotifyReceiver
from agentctl.runner.preparation import PATIENCE_SECONDS, Preparation
from agentctl.watchdog import observation
from integration.world import World, wait_until


@pytest.fixture
def manager(tmp_path):
    receiver = NotifyReceiver(str(tmp_path / "notify"))
    yield receiver
    receiver.close()


def test_a_short_preparation_says_nothing(manager):
    notifier = Notifier(manager.path)
    with Preparation(notifier, 90.0):
        pass
    assert manager.receive() == [] and not notifier.has_lent


def test_a_long_one_asks_for_time_until_it_is_over(manager):
    """Also while it waits for a child, and in whatever else a signal interrupts."""
    notifier = Notifier(manager.path)
    seen = []
    with Preparation(notifier, 0.4):
        assert os.spawnv(os.P_WAIT, "/bin/sleep", ["sleep", "0.5"]) == 0
        wait_until(lambda: seen.extend(manager.receive()) or len(seen) >= 3, "three requests")
    assert {m.fields["EXTEND_TIMEOUT_USEC"] for m in seen} == {str(int(PATIENCE_SECONDS * 1e6))}
    assert all(m.pid == os.getpid() and m.fields["STATUS"].startswith("preparing the launch") for m in seen)
    assert notifier.has_lent and notifier.patient_until == 0.0
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_asked_for_the_agent_is_counted():
    notifier = Notifier(None)
    notifier.extend(5_000_000)
    until = notifier.patient_until
    assert 4.0 < until - time.monotonic() <= 5.0
    notifier.extend(1_000_000)
    assert notifier.patient_until == until, "the manager only ever puts it off"


@pytest.fixture
def world(monkeypatch):
    made = []

    def build(settings):
        made.append(World(monkeypatch, settings))
        made[-1].adopt()
        return made[-1]

    yield build
    for world in made:
        world.end()


def held_up(world) -> Lock:
    """Make every launch wait for a snapshot that somebody else takes."""
    return Lock(f"{world.paths.data_dir}/snapshots.lock", "a test").take()


def test_a_preparation_that_takes_longer_than_the_agent_may_is_no_failure(world):
    world = world({"agent": {"ready_timeout": "4s"}})
    lock = held_up(world)
    world.start()
    wait_until(lambda: Path(world.paths.launching_path).exists(), "a launch that is begun")
    before = time.monotonic()
    wait_until(lambda: time.monotonic() - before > 8.0, "twice its time")
    assert world.launches() == [] and world.incidents() == []
    lock.release()
    row = world.until_beating()
    assert len(world.launches()) == 1 and world.incidents() == [] and row["ready_at"]


def test_an_agent_that_is_not_ready_after_a_long_preparation_is_seen_in_its_own_time(world):
    world = world({"agent": {"ready_timeout": "4s"}})
    world.mode("never-ready")
    lock = held_up(world)
    world.start()
    wait_until(lambda: Path(world.paths.launching_path).exists(), "a launch that is begun")
    before = time.monotonic()
    wait_until(lambda: time.monotonic() - before > 3.0, "that more time was asked for")
    lock.release()
    began = world.until(lambda: world.one("SELECT * FROM launches ORDER BY rowid"), "a launch")
    ended = world.until(lambda: world.one("SELECT * FROM launches WHERE end<>'' ORDER BY rowid"), "its end")
    assert (ended["id"], ended["trigger"]) == (began["id"], "not-ready")
    assert 3.5 < ended["ended_at"] - ended["started_at"] < PATIENCE_SECONDS / 2


def test_the_watchdog_knows_that_a_launch_is_being_prepared(world):
    world = world({})
    world.start()
    first = world.until_beating()
    lock = held_up(world)
    os.kill(world.live()["pid"], signal.SIGKILL)
    context = AgentContext.open(world.name)

    def seen():
        found = observation.look(context)
        return found if found.launch and found.launch.end and found.is_preparing else None

    found = world.until(seen, "a launch that is prepared after a crash")
    assert found.launch_id == first["id"] and not found.is_rolling_back
    assert observation.why_not_expected(context, found) == (True, "its launch is being prepared")
    lock.release()
    world.until_beating(after=first["id"])
    assert procfs.is_alive(world.live()["pid"])
    assert not observation.look(context).is_preparing
