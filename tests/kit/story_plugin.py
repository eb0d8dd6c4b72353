"""For pytest: whatever fails tells the story of its agents in its report."""

import pytest

from . import story


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the stories to the report of whatever fails: a fixture, the test, its end."""
    report = yield
    if report.failed and story.has_any():
        try:
            report.sections += story.tell_all()
        except Exception as error:  # noqa: BLE001 - a story is an extra: the report comes without it
            report.sections.append(("stories", f"cannot be told: {type(error).__name__}"))
    return report
