"""The routes, one file per noun; the description, the documents and the tests go through this list."""

from __future__ import annotations

from . import agent_routes, history_routes, page_routes

ALL = [
    *agent_routes.HEALTH_ROUTES,
    *agent_routes.AGENT_ROUTES,
    *history_routes.ROUTES,
    *agent_routes.CONTROL_ROUTES,
    *agent_routes.TELLING_ROUTES,
    *page_routes.ROUTES,
]
