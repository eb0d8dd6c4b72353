"""The engine's disk fills up in a build: nobody's code is blamed for it, and the agent goes on with what was good."""

from __future__ import annotations

import os

import pytest

from compose import images
from compose.compose_world import DOCKERFILE, ComposeWorld, assert_back, begin
from integration.world import git
from kit import mounts

SIZE_MIB, LEFT_MIB, WANTED_MIB = 900, 8, 40
SETTINGS = {"probation": {"tries": 1}, "agent": {"ready_timeout": "1m"}}


@pytest.fixture
def tight(monkeypatch):
    """A world on an engine whose own disk is small, and a file on that disk which can be made to fill it."""
    mounts.need_mounts()
    engine = images.start_engine(disk=f"{SIZE_MIB}m")
    world = None
    try:
        images.build(engine, "agent", images.AGENT)
        world = ComposeWorld(monkeypatch, engine, SETTINGS).adopt()
        yield world, engine.folder / "data/filler"
    finally:
        if world:
            world.end()
        engine.close()


def fill(filler) -> None:
    facts = os.statvfs(filler.parent)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize - LEFT_MIB * 2**20)


def test_a_disk_that_is_full_in_a_build_condemns_nobody(tight):
    """What was good runs on its own image meanwhile; with room again the same version may be started."""
    world, filler = tight
    begin(world)
    files = {"Dockerfile": f"{DOCKERFILE}COPY big /opt/big\n", "big": os.urandom(WANTED_MIB * 2**20)}
    head, before = world.commit(files, "big"), world.photograph()
    fill(filler)
    world.start()
    incident = assert_back(world, before)
    assert incident["trigger"] == "no-room-for-image"
    assert (world.status_of(2), world.generation(2)["tries_left"]) == ("candidate", 1)
    filler.unlink()
    assert world.stop() == 0
    git(world.code, "reset", "--hard", head)
    world.give()
    world.start()
    world.until_beating(2)
    world.assert_runs(2)
    world.assert_conversation_back()
