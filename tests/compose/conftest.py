"""Fixtures of the tests with a real container engine."""

import pytest

from compose import images


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
