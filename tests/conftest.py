"""For every part of the suite: the survival records of the fault families, at the end of a session."""

import os

from kit import survival


def pytest_sessionfinish():
    if survival.records and os.environ.get("AGENTCTL_SURVIVAL"):
        survival.write_records(os.environ["AGENTCTL_SURVIVAL"])


def pytest_terminal_summary(terminalreporter):
    for (family, what), points in sorted(survival.add_up(survival.records).items()):
        terminalreporter.write_line(f"survived: {family} / {what}: {points} points")
