"""The list of routes: each place once, in words, and none that changes something without a right."""

import pytest

from agentctl.watchdog.api import auth
from agentctl.watchdog.api.routes import ALL

KNOWN = {"", auth.READ, auth.BEAT, auth.APPEND, auth.ADMIN, auth.RESTART}
UNSCOPED = {"/health", "/openapi.json", "/page.css", "/page.js", "/icon.svg"}


def test_each_place_is_served_once():
    places = [(route.method, route.path) for route in ALL]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("route", ALL, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_says_what_it_is_and_who_may(route):
    assert route.summary and not route.summary.endswith(".") and route.scope in KNOWN
    assert callable(route.handle) and route.answers
    if route.method == "GET":
        assert route.limit_bytes == 0 and route.body is None
    else:
        assert route.scope, "what changes something needs a right"
    assert bool(route.scope) or (route.method == "GET" and route.path in UNSCOPED)
