"""A pytest plugin: which tests this run does, and what has to stay together on one worker.

At night each module whose tests share a world, and each other test, falls into one of the nights; what is marked
`every_night` does its part in each of them. In a gate a test of both systemds runs on one of them, the seed says
which; what is marked `every_root` on both.
"""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

from kit import effort

TEMPORARY = "PYTEST_DEBUG_TEMPROOT"  # pytest's own name for where its temporary folders are made
HEAVY_FIRST = ("system", "compose", "integration", "unit")  # the last ones are small: the lanes end together


def pytest_configure(config: pytest.Config) -> None:
    """Give each run temporary folders of its own: any run that begins closes the common one to other users."""
    if TEMPORARY not in os.environ and not hasattr(config, "workerinput"):
        os.environ[TEMPORARY] = folder = tempfile.mkdtemp(prefix="agt", dir="/tmp")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_report_header() -> str:
    return f"agentctl: {effort.told()}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for this run, put the long ones first, and say what belongs together."""
    kept = [item for item in items if _is_wanted(item)]
    if dropped := [item for item in items if item not in set(kept)]:
        config.hook.pytest_deselected(items=dropped)
    kept.sort(key=_rank)  # stable: the order within a module stays
    for item in kept:
        item.add_marker(pytest.mark.xdist_group(unit_of(item)))
    items[:] = kept


def unit_of(item: pytest.Item) -> str:
    """Name what has to run on one worker, in its order: tests that share more than a session, or one test."""
    module = item.nodeid.partition("::")[0]
    if _part(item) == "unit" or item.get_closest_marker("in_order") or _shares(item):
        return f"{module}-{_root_of(item)}" if _root_of(item) else module
    return item.nodeid.replace("@", "-")


def _part(item: pytest.Item) -> str:
    return item.nodeid.split("/")[1] if item.nodeid.startswith("tests/") else ""


def _rank(item: pytest.Item) -> int:
    part = _part(item)
    return HEAVY_FIRST.index(part) if part in HEAVY_FIRST else len(HEAVY_FIRST)


def _shares(item: pytest.Item) -> bool:
    """Tell whether the test uses something that is made once for a module or a class."""
    known = item._fixtureinfo.name2fixturedefs  # pytest has no public way to ask this
    return any(found[-1].scope in ("module", "class") for found in known.values() if found)


def _root_of(item: pytest.Item) -> str:
    params = getattr(item, "callspec", None)
    return str(params.params.get("box_root", "")) if params else ""


def _is_wanted(item: pytest.Item) -> bool:
    if effort.NIGHT:
        return bool(item.get_closest_marker("every_night")) or effort.is_tonight(unit_of(item))
    root = _root_of(item)
    return not root or bool(item.get_closest_marker("every_root")) or root == _root_for(item)


def _root_for(item: pytest.Item) -> str:
    """Choose a module's root: the seed turns the one to the other."""
    from system import boxes  # only where there are tests that boot one

    roots = boxes.wanted_roots()
    module = item.nodeid.partition("::")[0]
    return effort.dice(module).choice(roots)
