"""What goes wrong with the store."""

from __future__ import annotations

from ..errors import AgentctlError, TooNew


class StoreUnavailable(AgentctlError):
    """The store cannot take or give anything now: full, read-only, locked, damaged."""


class StoreTooNew(TooNew, StoreUnavailable):
    """A newer agentctl has written it."""
