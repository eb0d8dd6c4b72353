"""The runtime `compose` from end to end: break image, engine and compose file in every way, watch the agent come back.

After each: nothing in the volumes lost, the conversation back, and the incident says truly what runs.
"""

from __future__ import annotations

import pytest

from compose.compose_world import assert_back, begin
from compose.images import COMPOSES
from kit import effort

pytestmark = pytest.mark.some_of("which", 1)  # of the versions of Compose

ONE_TRY = {"probation": {"tries": 1}}


# --- what is well stays alone


@pytest.mark.parametrize("which", COMPOSES)
def test_a_healthy_change_with_a_new_image_is_blessed(make, which):
    world = make({"probation": {"duration": "0s", "heartbeats": 3}}, which=which)
    before = begin(world)
    world.new_image("healthy")
    world.start()
    world.until(lambda: world.status_of(2) == "good", "generation 2 to be good")
    assert world.image_of(2) != world.image_of(1)
    assert world.container()["Image"] == world.image_of(2)
    world.until(lambda: world.engine.ask("{{.Id}}", f"{world.image_name}:lkg") == world.image_of(2), "the tag lkg")
    assert world.engine.ask("{{.Id}}", f"{world.image_name}:g1") == world.image_of(1)
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


BAD_IMAGES = {
    "exits": ("crash", ""),
    "cannot-start": ("healthy", 'ENTRYPOINT ["no-such-program"]\n'),
    "never-healthy": ("never-ready", ""),
    "hangs": ("hang", ""),  # it becomes healthy first
}
BAD_AT_NIGHT = {
    "exits-before-ours": ("healthy", 'ENTRYPOINT ["false"]\n'),
    "loops": ("again-75", ""),
    "sleeps": ("healthy", 'ENTRYPOINT ["sleep", "1000"]\n'),  # it runs, and nobody of ours is in there
}
if effort.NIGHT:
    BAD_IMAGES |= BAD_AT_NIGHT


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_goes_back(make, kind):
    world = make(ONE_TRY)
    begin(world)
    world.new_image(*BAD_IMAGES[kind])
    before = world.photograph()
    world.start()
    assert_back(world, before)
    assert world.status_of(2) == "condemned"
    assert world.image_of(2) not in ("", world.image_of(1))
    assert world.engine.ask("{{.Id}}", world.image_of(2)), "the evidence stays: no image is removed"


def test_an_image_that_cannot_be_built_is_the_candidates_own_failure(make):
    world = make(ONE_TRY)
    begin(world)
    world.new_image("healthy", "RUN echo 'dial tcp 10.0.0.1:443: connect: connection refused' >&2; exit 3\n")
    before = world.photograph()
    world.start()
    incident = assert_back(world, before)
    assert incident["trigger"] == "build-failed"
    assert world.status_of(2) == "condemned"
