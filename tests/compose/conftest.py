"""Fixtures of the tests with a real container engine."""

import pytest

from compose import images
from compose.compose_world import ComposeWorld


@pytest.fixture(scope="session")
def engine():
    """An engine with the base image."""
    engine = images.start_engine()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def agent_image(engine):
    """The id of the agent's image."""
    return images.build(engine, "agent", images.AGENT)


@pytest.fixture(scope="session")
def watchdog_image(engine):
    """The id of the watchdog's image."""
    return images.build(engine, "watchdog", images.WATCHDOG)


@pytest.fixture
def make(monkeypatch, engine, agent_image):
    """Make worlds with an agent in a container: `make(settings, which="v1")`."""
    worlds = []

    def build(settings=None, **more):
        worlds.append(ComposeWorld(monkeypatch, engine, settings, **more).adopt())
        return worlds[-1]

    yield build
    for world in worlds:
        world.end()
