"""Fixtures of the system tests: a machine with a real systemd, once per systemd version.

AGENTCTL_TEST_ROOTS picks the versions: own (this machine's), debian13, or both (the default).
What this machine cannot give is skipped on a laptop and fails in CI (CI=true).
"""

import boxes
import pytest
from boxes import give_up, new_box

from kit import effort

collect_ignore = [] if effort.NIGHT else ["presets/test_npm_agents.py"]


@pytest.fixture(scope="session", params=boxes.wanted_roots())
def box_root(request):
    """The root tree to boot over."""
    try:
        return boxes.find_root(request.param)
    except boxes.Unavailable as error:
        return give_up(str(error))


@pytest.fixture(scope="module")
def bare_box(box_root):
    """A booted box without agentctl."""
    with boxes.bare_box(box_root, ext4={"/mnt/ext4": "64M"}) as box:
        yield box.boot()


@pytest.fixture(scope="module")
def box(box_root):
    """A booted box with agentctl installed and the checkout at /opt/agentctl-src."""
    with new_box(box_root) as box:
        yield box.boot()


@pytest.fixture
def fresh_box(box_root):
    """Make boxes with agentctl for one test: `fresh_box(ext4=...)`, not booted yet."""
    made = []

    def make(**options):
        made.append(new_box(box_root, **options))
        return made[-1]

    yield make
    for box in made:
        box.close()
