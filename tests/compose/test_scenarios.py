"""The runtime `compose` from end to end: break image, engine and compose file in every way, watch the agent come back.

After each: nothing in the volumes lost, the conversation back, and the incident says truly what runs.
"""

from __future__ import annotations

import pytest

from compose.compose_world import ComposeWorld
from compose.images import COMPOSES

ONE_TRY = {"probation": {"tries": 1}}


@pytest.fixture
def make(monkeypatch, engine, agent_image):
    worlds = []

    def build(settings=None, **more):
        worlds.append(ComposeWorld(monkeypatch, engine, settings, **more).adopt())
        return worlds[-1]

    yield build
    for world in worlds:
        world.end()


def begin(world: ComposeWorld) -> dict:
    """Start the agent, wait until it works and has a conversation; return what is in its volumes."""
    world.start()
    world.until_beating(1)
    world.until(lambda: len(world.history()) > 3, "a conversation")
    assert world.stop() == 0
    return world.photograph()


def assert_back(world: ComposeWorld, before: dict, number: int = 1) -> dict:
    """The agent is well on that generation, nothing is lost, and the incident tells the truth; return it."""
    incident = world.until_outcome("recovered", 60)
    world.assert_told_truly(incident, number)
    world.assert_conversation_back()
    world.assert_nothing_lost(before)
    return incident


# --- what is well stays alone


@pytest.mark.parametrize("which", COMPOSES)
def test_a_healthy_change_with_a_new_image_is_blessed(make, which):
    world = make({"probation": {"duration": "0s", "heartbeats": 3}}, which=which)
    before = begin(world)
    world.new_image("healthy")
    world.start()
    world.until(lambda: world.status_of(2) == "good", "generation 2 to be good", 60)
    assert world.image_of(2) != world.image_of(1)
    assert world.container()["Image"] == world.image_of(2)
    assert world.engine.ask("{{.Id}}", f"agentctl-{world.name}:g1") == world.image_of(1)
    assert world.incidents() == []
    world.assert_conversation_back()
    world.assert_nothing_lost(before | {"code": {}})


def test_a_crash_of_a_good_agent_is_answered_by_a_restart_of_the_same_image(make):
    world = make()
    world.start()
    first = world.until_beating(1)
    image = world.container()["Image"]
    before = world.photograph()
    world.engine.docker("kill", world.container()["Id"])
    world.until_beating(1, after=first["id"])
    world.assert_told_truly(world.until_outcome("recovered"), 1)
    assert world.container()["Image"] == image
    assert world.rungs() == [("restart", 1)]
    world.assert_nothing_lost(before)


# --- a bad image goes back


@pytest.mark.parametrize(("mode", "more"), [
    ("crash", ""),                                      # the new image exits
    ("healthy", 'ENTRYPOINT ["false"]\n'),              # it exits before anything of ours runs
    ("healthy", 'ENTRYPOINT ["no-such-program"]\n'),    # it cannot even start
    ("again-75", ""),                                   # it loops
    ("hang", ""),                                       # it becomes healthy, then hangs
], ids=["exits", "false", "cannot-start", "loops", "hangs"])  # fmt: skip
def test_a_bad_image_goes_back(make, mode, more):
    world = make(ONE_TRY)
    begin(world)
    world.new_image(mode, more)
    before = world.photograph()
    world.start()
    assert_back(world, before)
    assert world.status_of(2) == "condemned"
    assert world.image_of(2) not in ("", world.image_of(1))
    assert world.engine.ask("{{.Id}}", world.image_of(2)), "the evidence stays: no image is removed"


def test_an_image_that_cannot_be_built_is_the_candidates_own_failure(make):
    world = make(ONE_TRY)
    begin(world)
    world.new_image("healthy", "RUN exit 3\n")
    before = world.photograph()
    world.start()
    incident = assert_back(world, before)
    assert incident["trigger"] == "build-failed"
    assert world.status_of(2) == "condemned"
