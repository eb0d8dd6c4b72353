"""A user of the machine as whom programs are run."""

from __future__ import annotations

import os

from .errors import AgentctlError


class Identity:
    """The user an outside program runs as: numeric ids, so that nothing is looked up in a forked child."""

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], name: str, home: str) -> None:
        self.uid, self.gid, self.groups, self.name, self.home = uid, gid, groups, name, home

    @property
    def is_us(self) -> bool:
        """Tell whether this process already is that user, so that nothing has to be dropped."""
        return os.geteuid() == self.uid


def find_identity(name: str) -> Identity:
    """Look up a user; raise AgentctlError if there is none of that name."""
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise AgentctlError(
            f"agent.user: there is no user '{name}' on this machine",
            f"useradd --system --create-home {name}, or agentctl config set agent.user NAME",
        ) from None
    groups = os.getgrouplist(name, entry.pw_gid)
    return Identity(entry.pw_uid, entry.pw_gid, groups, name, entry.pw_dir)
