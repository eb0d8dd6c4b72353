"""Which route a request goes to, and what is said where there is none."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from agentctl.watchdog.api import routes
from agentctl.watchdog.api.app import WatchdogApi, _unix_socket
from agentctl.watchdog.api.auth import Refused


@pytest.fixture
def find(tmp_path):
    """Find a route of a server that does not listen."""
    paths = SimpleNamespace(name="robin", token_path=str(tmp_path / "none"))

    async def ask(method, path):
        server = WatchdogApi(SimpleNamespace(user=None, paths=paths), None, None, None, print)
        try:
            return server.find(method, path)
        finally:
            for task in server._tasks:
                task.cancel()
            server.threads.shutdown()

    return lambda method, path: asyncio.run(ask(method, path))


@pytest.mark.parametrize("route", routes.ALL, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_is_found(find, route):
    assert find(route.method, route.path.replace("{name}", "robin")) is route


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/agents/", 404),
        ("GET", "/agents/robin/more", 404),
        ("GET", "/health/", 404),
        ("PUT", "/health", 405),
        ("GET", "/restart", 405),
        ("\x1b[2J" * 50, "/health", 405),
        ("HEAD", "/nothing", 404),
    ],
)
def test_where_there_is_none_it_is_said_what_is_wrong(find, method, path, status):
    with pytest.raises(Refused) as refused:
        find(method, path)
    assert refused.value.status == status and "openapi.json" in refused.value.hint
    assert refused.value.message.isprintable() and len(refused.value.message) < 100


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_door_is_for_us_alone_and_takes_the_place_of_an_old_one(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # folders of pytest have too long names for a socket
    for _ in range(2):
        with _unix_socket("door", kind, None) as made:
            assert (tmp_path / "door").stat().st_mode & 0o777 == 0o600 and not made.getblocking()
