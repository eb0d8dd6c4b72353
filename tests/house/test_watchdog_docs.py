"""docs/watchdog.md says what is served and stored, all of it."""

import re
from pathlib import Path

from agentctl.watchdog import availability, periods
from agentctl.watchdog.api.routes import ALL
from agentctl.watchdog.store.tables import metadata

PAGE = (Path(__file__).resolve().parents[2] / "docs/watchdog.md").read_text()


def test_every_route_is_documented_and_nothing_else():
    table = PAGE.split("## Routes")[1].split("\n## ")[0]
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(GET|POST) ([^`]+)`", cells)) == {(route.method, route.path) for route in ALL}


def test_scopes_of_the_table_are_those_of_the_routes():
    table = PAGE.split("## Routes")[1]
    lines = {line.split("`")[1]: line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| `")}
    for route in ALL:
        if not route.is_page:
            told = {"restart": "the agent, admin"}.get(route.scope, route.scope)
            assert lines[f"{route.method} {route.path}"] == told


def test_every_table_state_and_period_is_documented():
    words = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert words >= set(metadata.tables) | {"messages_text"} | set(availability.STATES) | set(periods.KINDS)
