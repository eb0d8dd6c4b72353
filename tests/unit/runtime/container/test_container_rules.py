"""What the runtime `compose` decides: images, variables, what a build begins from, exit statuses, health."""

import re
from types import SimpleNamespace

import pytest

from agentctl.runtime.container import container_rules
from agentctl.runtime.container.container_rules import BUILD, KNOWN_HERE, SHARED, TAGGED
from kit.rows import row


def generation(number, image="", inputs="i1"):
    return row("generations", number=number, image=image, image_inputs=inputs)


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
    assert container_rules.choose_image(own, "i1", others, frozenset(present), tagged) == chosen


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
    ("ARG A\nFROM ${A:-debian:13}\nCOPY --from=${B:+no}x:1 a b\n", {}, ["debian:13", "x:1"]),
    ("ARG A\nFROM ${A:-debian:13}\n", {"A": "ours:1"}, ["ours:1"]),
    ("ARG T=13\nARG A=debian:${T}\nFROM ${A}\nFROM $A-slim\nFROM ${odd\n", {},
     ["debian:13", "debian:13-slim", "${odd}"]),
    (("FROM a\nRUN <<EOF python3\nfrom flask import Flask\nEOF\nCOPY <<-'X' <<\"Y\" /srv/\nfrom b\n\tX\nFROM c\nY\n"
      "COPY --from=d x y\n"), {}, ["a", "d"]),
    ("FROM a\nRUN cat <<EOF\nFROM b\n", {}, ["a", "b"]),
    ("", {}, []),
])  # fmt: skip
def test_what_a_build_begins_from(dockerfile, arguments, wanted):
    assert container_rules.bases(dockerfile, arguments) == wanted


def test_paths_move_along_with_what_is_mounted_elsewhere():
    env = {"AGENT_CODE_DIR": "/srv/a", "AGENT_BRIEF_FILE": "/var/s/BRIEF.md", "OTHER": "/srv/ab", "NAME": "a"}
    moved = container_rules.moved_inside(env, [("/srv/a", "/code"), ("/var/s", "/state")])
    assert moved == {"AGENT_CODE_DIR": "/code", "AGENT_BRIEF_FILE": "/state/BRIEF.md", "OTHER": "/srv/ab", "NAME": "a"}
    assert container_rules.moved_inside(env, [("/srv/a", ""), ("/var/s", "")]) == env


@pytest.mark.parametrize(("code", "end"), [
    (0, (0, None)), (1, (1, None)), (78, (78, None)), (128, (128, None)), (137, (None, 9)), (143, (None, 15)),
    (134, (None, 6)), (192, (None, 64)), (193, (193, None)), (255, (255, None)),
])  # fmt: skip
def test_how_a_container_ended(code, end):
    assert container_rules.exit_of(code) == end


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
    assert (container_rules.is_well(live, launch, 100.0) == "") is is_well


@pytest.mark.parametrize(("name", "image"), [
    ("bot", "agentctl-bot"), ("my_bot-2", "agentctl-my_bot-2"), ("a__b", "agentctl-a__b"), ("a--b", "agentctl-a--b"),
    ("bot_", "agentctl-x626f745f"), ("_bot", "agentctl-x5f626f74"), ("b_-c", "agentctl-x625f2d63"),
    ("a___b", "agentctl-x615f5f5f62"), ("a-", "agentctl-x612d"),
])  # fmt: skip
def test_every_agent_has_an_image_name_of_its_own_that_docker_takes(name, image):
    assert container_rules.image_of(SimpleNamespace(image=""), name) == image
    assert re.fullmatch(r"[a-z0-9]+((_|__|-+)[a-z0-9]+)*", image), "Docker's own rule"


def test_the_image_name_of_the_settings_counts():
    assert container_rules.image_of(SimpleNamespace(image="registry:5000/mine"), "bot_") == "registry:5000/mine"
