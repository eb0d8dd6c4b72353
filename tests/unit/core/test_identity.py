"""A user of the machine, looked up once by name."""

from __future__ import annotations

import os
import pwd

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.core.identity import find_identity


def test_a_user_is_found_with_the_groups_and_the_home_of_it() -> None:
    entry = pwd.getpwuid(os.geteuid())
    found = find_identity(entry.pw_name)
    assert (found.uid, found.gid, found.name, found.home) == (entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)
    assert entry.pw_gid in found.groups
    assert found.is_us


def test_another_user_is_not_us() -> None:
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid != os.geteuid())
    assert not find_identity(other.pw_name).is_us


def test_a_user_that_is_not_there_is_told_with_what_makes_one() -> None:
    with pytest.raises(AgentctlError, match="there is no user 'nobody-of-this-name'") as refused:
        find_identity("nobody-of-this-name")
    assert "useradd" in refused.value.hint
