"""What the runtime `compose` decides: images, variables, what a build begins from, exit statuses, health."""

import pytest

from agentctl.compose import beginning, choices, engine
from agentctl.compose.choices import BUILD, KNOWN_HERE, SHARED, TAGGED


def generation(number, image="", inputs="i1"):
    return {"number": number, "image": image, "image_inputs": inputs}


@pytest.mark.parametrize(("own", "others", "present", "tagged", "chosen"), [
    (generation(2, "a"), [], {"a"}, "", (KNOWN_HERE, "a")),
    (generation(2, "a"), [generation(1, "b")], {"a", "b"}, "c", (KNOWN_HERE, "a")),
    (generation(2, "gone"), [], {"a"}, "t", (TAGGED, "t")),
    (generation(2), [generation(1, "a")], {"a"}, "", (SHARED, "a")),
    (generation(3), [generation(1, "a"), generation(2, "b")], {"a", "b"}, "", (SHARED, "b")),
    (generation(3), [generation(1, "a"), generation(2, "b")], {"a"}, "", (SHARED, "a")),
    (generation(3), [generation(1, "a", "other")], {"a"}, "", (BUILD, "")),
    (generation(3), [generation(1, "a")], set(), "", (BUILD, "")),
    (generation(3), [], {"x"}, "", (BUILD, "")),
])  # fmt: skip
def test_where_an_image_comes_from(own, others, present, tagged, chosen):
    assert choices.choose_image(own, "i1", others, frozenset(present), tagged) == chosen


@pytest.mark.parametrize(("dockerfile", "arguments", "wanted"), [
    ("FROM python:3.12", {}, ["python:3.12"]),
    ("# a comment\nFROM a\nRUN x\nFROM b AS two\nFROM two\n", {}, ["a", "b"]),
    ("ARG BASE_IMAGE=slim\nFROM ${BASE_IMAGE}", {}, ["slim"]),
    ("ARG BASE_IMAGE=slim\nFROM ${BASE_IMAGE}", {"BASE_IMAGE": "mine:1"}, ["mine:1"]),
    ("ARG BASE_IMAGE='slim'\nFROM $BASE_IMAGE as x\nCOPY --from=x /a /a", {}, ["slim"]),
    ("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}", {"BASE_IMAGE": "b"}, ["b"]),
    ("FROM ${UNKNOWN}", {}, ["${UNKNOWN}"]),
    ("FROM --platform=linux/amd64 a AS b\nFROM b", {}, ["a"]),
    ("FROM \\\n  a:1 \\\n  AS one\nFROM scratch\nCOPY --from=one /x /x\nCOPY --from=0 /x /y", {}, ["a:1"]),
    ("FROM a\nCOPY --from=tools:2 /x /x", {}, ["a", "tools:2"]),
    ("FROM a\nARG LATE=b\nFROM ${LATE}", {}, ["a", "${LATE}"]),
    ("from a\n", {}, ["a"]),
    ("", {}, []),
])  # fmt: skip
def test_what_a_build_begins_from(dockerfile, arguments, wanted):
    assert choices.bases(dockerfile, arguments) == wanted


def test_paths_move_along_with_what_is_mounted_elsewhere():
    env = {"AGENT_CODE_DIR": "/srv/a", "AGENT_BRIEF_FILE": "/var/s/BRIEF.md", "OTHER": "/srv/ab", "NAME": "a"}
    moved = choices.moved_inside(env, [("/srv/a", "/code"), ("/var/s", "/state")])
    assert moved == {"AGENT_CODE_DIR": "/code", "AGENT_BRIEF_FILE": "/state/BRIEF.md", "OTHER": "/srv/ab", "NAME": "a"}
    assert choices.moved_inside(env, [("/srv/a", ""), ("/var/s", "")]) == env


@pytest.mark.parametrize(("code", "end"), [
    (0, (0, None)), (1, (1, None)), (78, (78, None)), (128, (128, None)), (137, (None, 9)), (143, (None, 15)),
    (134, (None, 6)), (192, (None, 64)), (193, (193, None)), (255, (255, None)),
])  # fmt: skip
def test_how_a_container_ended(code, end):
    assert choices.exit_of(code) == end


@pytest.mark.parametrize(("live", "launch", "is_well"), [
    ({"launch_id": "a", "last_heartbeat_at": 95.0}, {"launch_id": "a", "timeout_seconds": 10}, True),
    ({"launch_id": "a", "last_heartbeat_at": 80.0}, {"launch_id": "a", "timeout_seconds": 10}, False),
    ({"launch_id": "a", "last_heartbeat_at": 80.0, "silent_until_at": 120.0}, {"launch_id": "a", "timeout_seconds": 10},
     True),
    ({"launch_id": "a", "last_heartbeat_at": None}, {"launch_id": "a", "timeout_seconds": 10}, False),
    ({"launch_id": "b", "last_heartbeat_at": 99.0}, {"launch_id": "a", "timeout_seconds": 10}, False),
    ({}, {"launch_id": "a"}, False),
    ({}, {}, False),
])  # fmt: skip
def test_a_container_is_well_with_a_fresh_heartbeat_of_its_own_launch(live, launch, is_well):
    assert (choices.is_well(live, launch, 100.0) == "") is is_well


def test_the_shipped_file_is_filled_in_for_people():
    text = "a: ${AGENT_UID:-1000}:${AGENT_GID:-1000}\nb: ${AGENT_CODE_DIR:-/x} ${AGENT_CODE_DIR:-/y} ${OTHER:-z}\n"
    told = beginning.filled_in(text, {"AGENT_UID": "7", "AGENT_GID": "8", "AGENT_CODE_DIR": "/srv/a"})
    assert told == "a: ${AGENT_UID:-7}:${AGENT_GID:-8}\n" \
                   "b: ${AGENT_CODE_DIR:-/srv/a} ${AGENT_CODE_DIR:-/srv/a} ${OTHER:-z}\n"


@pytest.mark.parametrize("said", [
    "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
    'error during connect: Get "http://x": EOF',
    "failed to connect to the docker API at unix:///x",
])  # fmt: skip
def test_an_engine_that_is_away_is_told_from_one_that_refuses(said):
    assert engine.is_away(said)
    assert not engine.is_away("Error response from daemon: No such container: x")
