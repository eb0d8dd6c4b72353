"""For every part of the suite: the survival records of the fault families, at the end of a session."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from kit import story_plugin, survival

pytest_plugins = ["kit.schedule", "kit.order"]
pytest.register_assert_rewrite("kit.store_contract", "kit.store_killer")  # tests that several modules take over

# A shell starts what it runs in the background with SIGINT ignored, and every program that a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes is the machine's affair: on a busy one the default, 200 ms, is passed now and then.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_runtest_makereport = story_plugin.pytest_runtest_makereport  # whatever fails tells the story of its agents


def pytest_sessionfinish():
    """In each worker: add what held to the file of the run."""
    if survival.records and os.environ.get("AGENTCTL_SURVIVAL"):
        survival.write_records(os.environ["AGENTCTL_SURVIVAL"])


def pytest_terminal_summary(terminalreporter):
    for (family, what), points in sorted(survival.add_up(survival.collected()).items()):
        terminalreporter.write_line(f"survived: {family} / {what}: {points} points")
