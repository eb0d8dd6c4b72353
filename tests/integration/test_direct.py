"""The runtime `direct` from end to end: break a real agent in every way, watch it come back."""

from __future__ import annotations

import pytest
from integration.world import World


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(settings=None, **more):
        worlds.append(World(monkeypatch, settings, **more).adopt())
        return worlds[-1]

    yield build
    for world in worlds:
        world.end()


def test_a_healthy_agent_is_started_and_left_alone(make):
    world = make()
    world.start()
    launch = world.until_beating(1)
    assert launch["trigger"] == ""
    assert world.incidents() == []
    assert world.stop() == 0
    assert world.processes() == []
