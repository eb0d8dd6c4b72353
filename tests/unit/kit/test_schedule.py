"""Which tests have to run on one worker, and in which order what is dear begins."""

import pytest

from kit import order, schedule


@pytest.mark.parametrize(
    ("nodeid", "unit"),
    [
        ("tests/system/runtime/test_systemd.py::test_a[own]", "tests/system/runtime/test_systemd.py on own"),
        (
            "tests/system/runtime/test_systemd.py::test_b[x-debian13-y]",
            "tests/system/runtime/test_systemd.py on debian13",
        ),
        ("tests/compose/packaging/test_docker_files.py::test_a", "compose"),
        ("tests/unit/kit/test_kit.py::test_a[1]", "tests/unit/kit/test_kit.py"),
        ("tests/house/test_measures.py::test_a[1]", "tests/house/test_measures.py"),
        (
            "tests/integration/runner/test_kill_launch.py::test_a[x]",
            "tests/integration/runner/test_kill_launch.py::test_a[x]",
        ),
        (
            "tests/integration/generations/test_broken_repositories.py::test_a",
            "tests/integration/generations/test_broken_repositories.py",
        ),
    ],
)
def test_what_belongs_together(nodeid, unit):
    """A box, an engine, a module's own world; where a test makes all it needs, it is dealt out alone."""
    assert schedule.unit_of(nodeid) == unit


def test_what_is_dear_begins_first():
    ids = [f"tests/{part}/test_x.py::test" for part in ("unit", "integration", "system", "compose")]
    assert [nodeid.split("/")[1] for nodeid in sorted(ids, key=order.rank)] == list(order.HEAVY_FIRST)
