"""A pytest plugin: which tests this run does, and what has to stay together on one worker.

At night each module whose tests share a world, and each other test, falls into one of the nights; what is marked
`every_night` does its part in each of them. In a gate a test of both systemds runs on one of them, the seed says
which; what is marked `every_root` on both. `some_of(name, count)` leaves that many values of a parameter.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from kit import effort

WHOLE_MODULES = ("system", "unit")  # a box, or too small to be dealt out
ROOT = re.compile(r"[\[-](own|debian13)\b")
SHARING = re.compile(r'scope="(module|class)"|^pytestmark = .*\bin_order\b', re.MULTILINE)
TESTS = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each run temporary folders of its own, with short names for sockets.

    Any run that begins closes pytest's common folder to other users.
    """
    if not config.option.basetemp and not hasattr(config, "workerinput"):
        config.option.basetemp = folder = tempfile.mkdtemp(prefix="agt", dir="/tmp")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_report_header() -> str:
    return f"agentctl: {effort.told()}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for this run."""
    values = _values_of_marked(items)
    kept = [item for item in items if _is_wanted(item) and _is_chosen(item, values)]
    wanted = set(kept)
    if dropped := [item for item in items if item not in wanted]:
        config.hook.pytest_deselected(items=dropped)
    items[:] = kept


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Hand out the units in their order, each to the next worker that is free."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return Scheduling(config, log)


def unit_of(nodeid: str) -> str:
    """Name what has to run on one worker, in its order: a module whose tests share something, or one test."""
    path = nodeid.partition("::")[0]
    if effort.part_of(nodeid) == "compose":
        return "compose"  # an engine with its images takes longer to make than most tests
    if effort.part_of(nodeid) in WHOLE_MODULES or _shares(path):
        root = ROOT.search(nodeid)
        return f"{path} on {root[1]}" if root else path
    return nodeid


@functools.cache
def _shares(path: str) -> bool:
    """Tell from a module's text, as who deals out the tests has not imported them."""
    return bool(SHARING.search((TESTS.parent / path).read_text()))


def _root_of(item: pytest.Item) -> str:
    params = getattr(item, "callspec", None)
    return str(params.params.get("box_root", "")) if params else ""


def _is_wanted(item: pytest.Item) -> bool:
    if effort.NIGHT:
        return bool(item.get_closest_marker("every_night")) or effort.is_tonight(unit_of(item.nodeid))
    root = _root_of(item)
    return not root or bool(item.get_closest_marker("every_root")) or root == _root_for(item)


def _values_of_marked(items: list[pytest.Item]) -> dict[tuple[str, str], list[str]]:
    """Collect, for each module that says `some_of(name, count)`, the values that parameter has in it."""
    found: dict[tuple[str, str], set[str]] = {}
    for item in items:
        for mark in item.iter_markers("some_of"):
            params = getattr(item, "callspec", None)
            if params and mark.args[0] in params.params:
                found.setdefault((_module(item), mark.args[0]), set()).add(str(params.params[mark.args[0]]))
    return {key: sorted(values) for key, values in found.items()}


def _is_chosen(item: pytest.Item, values: dict[tuple[str, str], list[str]]) -> bool:
    """Tell whether the parameters of a test are among those that the seed chose for its module."""
    params = getattr(item, "callspec", None)
    chosen = True
    for mark in item.iter_markers("some_of"):
        name, count = mark.args
        if params and name in params.params:
            of_gate = effort.choose(values[_module(item), name], count, _module(item), name)
            chosen &= str(params.params[name]) in of_gate
    return chosen


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _root_for(item: pytest.Item) -> str:
    """Choose a module's root: the seed turns the one to the other."""
    import boxes  # only where there are tests that boot one

    return effort.dice(_module(item)).choice(boxes.wanted_roots())
