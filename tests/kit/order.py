"""A pytest plugin: tests in another order, to find those that lean on the ones before them.

`--order-seed=N` (or AGENTCTL_TEST_SEED=N) shuffles the modules among each other, and the tests within them. What
shares something that is dear to make, a root to boot or a module's own world, stays together. A module whose tests go
on from one another says so, `pytestmark = pytest.mark.in_order`: it keeps its order, and where pytest-xdist is at work
it stays on one worker, whatever `--dist` says of the others.
"""

from __future__ import annotations

import functools
import os
import random
import re

import pytest

IN_ORDER = "in_order"


def pytest_addoption(parser):
    parser.addoption("--order-seed", type=int, metavar="N", default=os.environ.get("AGENTCTL_TEST_SEED") or None,
                     help="shuffle the tests; the same seed gives the same order (default: $AGENTCTL_TEST_SEED)")


def pytest_report_header(config):
    seed = config.getoption("order_seed")
    return None if seed is None else f"order: shuffled, --order-seed={seed}"


def pytest_terminal_summary(terminalreporter, config):
    if not terminalreporter.showheader and (header := pytest_report_header(config)):
        terminalreporter.write_line(header)


@pytest.hookimpl(trylast=True)  # after pytest's own sorting by fixtures
def pytest_collection_modifyitems(config, items):
    seed = config.getoption("order_seed")
    if seed is not None:
        items[:] = shuffled(items, random.Random(seed))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out the tests one by one, and modules that keep their order as a whole.

    The controller knows no marks; xdist's `loadgroup` writes them into the ids of tests, which pytest 9.2 keeps.
    """
    if config.getvalue("dist") not in ("load", "loadgroup", "worksteal"):
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return path if is_in_order(config.rootpath / path) else nodeid

    return Scheduling(config, log)


@functools.cache
def is_in_order(path) -> bool:
    """Tell whether a module says so of itself, without importing it."""
    return bool(re.search(rf"^pytestmark = .*\b{IN_ORDER}\b", path.read_text(), re.M))


def shuffled(items: list, dice: random.Random) -> list:
    """Return the tests in another order; those that share a root, a module or a module's world stay neighbours."""
    found = []
    for of_one_root in _groups(items, lambda item: _shared(item, "session"), dice):
        for module in _groups(of_one_root, lambda item: item.path, dice):
            if any(item.get_closest_marker(IN_ORDER) for item in module):
                found += module
                continue
            for of_one_world in _groups(module, lambda item: _shared(item, "module"), dice):
                dice.shuffle(of_one_world)
                found += of_one_world
    return found


def _groups(items: list, key, dice: random.Random) -> list[list]:
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    found = list(groups.values())
    dice.shuffle(found)
    return found


def _shared(item, scope: str) -> tuple[str, ...]:
    """Name the parameters of this test's fixtures that live as long as a session, or a module."""
    call = getattr(item, "callspec", None)
    if call is None:
        return ()
    return tuple(f"{name}={call.params[name]}" for name, of in sorted(call._arg2scope.items()) if of.value == scope)
