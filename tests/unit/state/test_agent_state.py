"""Damage anywhere in a long history is seen, not only at the seam between the newest copy and what came after."""

import os

import pytest

from agentctl.state import agent_state

LINE = b'{"id": "%08d", "content": "' + b"x" * 200 + b'"}\n'


@pytest.fixture
def histories(tmp_path):
    """A history of 2 MB, its copy, and 100 messages that came after the copy."""
    copy, live = tmp_path / "copy.jsonl", tmp_path / "history.jsonl"
    old = b"".join(LINE % number for number in range(9000))
    copy.write_bytes(old)
    live.write_bytes(old + b"".join(LINE % number for number in range(9000, 9100)))
    assert len(old) > agent_state.READ_WHOLE_BYTES
    return str(live), str(copy), len(old)


def test_one_that_has_only_grown(histories):
    live, copy, _ = histories
    assert agent_state._has_only_grown(live, [copy])


@pytest.mark.parametrize("at", [0, 12_345, 700_000, -1], ids=["first byte", "early", "middle", "seam"])
def test_damage_in_its_old_part(histories, at):
    live, copy, size = histories
    with open(live, "r+b") as file:
        file.seek(at % size)
        file.write(b"\0")
    assert not agent_state._has_only_grown(live, [copy])


def test_damage_in_its_new_part_and_a_shorter_one(histories):
    live, copy, size = histories
    with open(live, "ab") as file:
        file.write(b'{"torn')
    assert not agent_state._has_only_grown(live, [copy])
    os.truncate(live, size - 1)
    assert not agent_state._has_only_grown(live, [copy])
