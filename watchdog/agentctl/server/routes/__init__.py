"""The routes, one file per noun; the description, the documents and the tests go through this list."""

from __future__ import annotations

from . import agents, control, health, history, page, telling

ALL = [*health.ROUTES, *agents.ROUTES, *history.ROUTES, *control.ROUTES, *telling.ROUTES, *page.ROUTES]
