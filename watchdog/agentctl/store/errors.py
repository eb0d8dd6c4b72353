"""What goes wrong with the store."""

from __future__ import annotations

from ..errors import AgentctlError


class StoreUnavailable(AgentctlError):
    """The store cannot take or give anything now: full, read-only, locked, damaged."""
