"""What the engine's client says: whether there was an engine at all."""

import pytest

from agentctl.runtime.container import docker


@pytest.mark.parametrize("said", [
    "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
    'error during connect: Get "http://x": EOF',
    "failed to connect to the docker API at unix:///x",
    "Sending build context to Docker daemon  2.048kB\n\nerror during connect: Post \"http://x/build?q=1\": EOF",
    "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\nError: failed to start: a",
    ("Traceback (most recent call last):\n  raise DockerException(\ndocker.errors.DockerException: "
     "Error while fetching server API version: ('Connection aborted.', ConnectionRefusedError(111, 'refused'))"),
])  # fmt: skip
def test_an_engine_that_is_away_is_told_from_one_that_refuses(said):
    assert docker.is_away(said)


@pytest.mark.parametrize("said", [
    "Error response from daemon: No such container: x",
    ("\x1b[91mdial tcp 10.0.0.1:443: connect: connection refused\n\x1b[0mThe command '/bin/sh -c go mod download' "
     "returned a non-zero code: 1"),
    "The command '/bin/sh -c echo Cannot connect to the Docker daemon; false' returned a non-zero code: 1",
])  # fmt: skip
def test_what_a_build_or_a_check_says_is_not_the_engines_word(said):
    assert not docker.is_away(said)
