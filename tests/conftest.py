"""For every part of the suite: the survival records of the fault families, at the end of a session."""

import os
import signal

from kit import survival

# A shell starts what it runs in the background with SIGINT ignored, and every program that a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish():
    if survival.records and os.environ.get("AGENTCTL_SURVIVAL"):
        survival.write_records(os.environ["AGENTCTL_SURVIVAL"])


def pytest_terminal_summary(terminalreporter):
    for (family, what), points in sorted(survival.add_up(survival.records).items()):
        terminalreporter.write_line(f"survived: {family} / {what}: {points} points")
