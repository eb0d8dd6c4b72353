"""Messages that are nested very deep: reading one takes more of the stack here than it took where it was taken."""

from __future__ import annotations

import json
import sys

import pytest

from agentctl.state import history
from agentctl.watchdog.api.history_routes import TOO_DEEP, as_shown
from agentctl.watchdog.store import tables


def nested(depth: int) -> bytes:
    return f'{{"id":"deep","role":"user","content":{"[" * depth}"x"{"]" * depth}}}\n'.encode()


@pytest.fixture(autouse=True)
def limit():
    """The interpreter's own limit: what ran before in this process may have moved it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("depth", [499, 500, 900, *range(960, 1000), 5000])
def test_one_message_leaves_the_others_readable(depth):
    shown = as_shown(nested(depth))
    json.loads(json.dumps({"messages": [shown]}))
    assert (shown["content"] == TOO_DEEP) == (depth > 499)
    assert tables.text_of(nested(depth)) == "" or depth < 1000


def test_brackets_in_a_text_are_no_depth():
    flat = {"id": "flat", "content": ["[" * 3000, {"{": 1}]}
    assert as_shown(history.encode(flat)) == flat
