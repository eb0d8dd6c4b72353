"""A pytest plugin: the order of the tests, another for each seed, to find those that lean on the ones before them.

With AGENTCTL_SEED set the modules are shuffled among each other, and the tests within them. What shares something
that is dear to make, a root to boot or a module's own world, stays together. A module whose tests go on from one
another says so, `pytestmark = pytest.mark.in_order`, and keeps its order. What takes long comes first in any case.
"""

from __future__ import annotations

import os
import random

import pytest

from kit import effort

IN_ORDER = "in_order"
HEAVY_FIRST = ("system", "compose", "integration", "unit")  # the last ones are small: the lanes end together


@pytest.hookimpl(trylast=True)  # after pytest's own sorting by fixtures
def pytest_collection_modifyitems(items):
    if os.environ.get("AGENTCTL_SEED"):
        items[:] = shuffled(items, effort.dice("order"))
    items.sort(key=lambda item: rank(item.nodeid))  # stable


def rank(nodeid: str) -> int:
    """Say how early a test's part begins."""
    part = effort.part_of(nodeid)
    return HEAVY_FIRST.index(part) if part in HEAVY_FIRST else len(HEAVY_FIRST)


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
