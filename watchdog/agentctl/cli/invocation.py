"""What every verb gets as `ctx.obj`: which agent is meant, is JSON wanted, the agent opened.

Opens only when asked. Refuses a name that could not be an agent's (it becomes part of paths).
"""

from __future__ import annotations

import os

from ..core.errors import UsageError


class Invocation:
    """The global options of one call."""

    def __init__(self, name: str = "", *, as_json: bool = False) -> None:
        self.name, self.as_json = name or default_name(), as_json

    @property
    def config_path(self) -> str:
        """Where the agent's agent.toml is."""
        from ..config.context import find_paths

        return find_paths(check_name(self.name)).config_path

    def context(self, *, lenient: bool = False):
        """Open the agent; raise AgentctlError if there is none of that name."""
        from ..generations.agent_context import AgentContext

        return AgentContext.open(check_name(self.name), lenient=lenient)


def default_name() -> str:
    """Return the agent that is meant where no name is given."""
    return os.environ.get("AGENT_NAME") or "agent"


def check_name(name: str) -> str:
    """Return the name; raise UsageError if no agent can be called so."""
    from ..config.schema import BY_KEY
    from ..config.value_kinds import Unfit

    kind = BY_KEY["agent.name"].kind
    try:
        kind.check(name)
    except Unfit:
        raise UsageError(f"--name {name!r} cannot be an agent's name", f"use {kind.allowed}") from None
    return name
