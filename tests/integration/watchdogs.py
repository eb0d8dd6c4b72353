"""A watchdog as a process beside a `World`, and a client for its doors."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

from agentctl.runtime import runner_client
from integration.world import SOURCE, wait_until
from kit import deadline

PATIENCE_SECONDS = 60.0
RUN = "import sys; from agentctl.watchdog.daemon import main; sys.exit(main(sys.argv[1]))"


class Answer:
    """A status, headers, and a body that may be JSON."""

    def __init__(self, status: int, headers: dict, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("agentctl", timeout=PATIENCE_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = runner_client.connect(self.path, PATIENCE_SECONDS)


def ask(door, method: str, route: str, body=None, **headers) -> Answer:
    """Ask once at a door: a unix socket's path, or a port of this machine."""
    connection = (
        UnixConnection(door)
        if isinstance(door, str)
        else http.client.HTTPConnection("127.0.0.1", door, timeout=PATIENCE_SECONDS)
    )
    data = body if isinstance(body, bytes | str | None) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, route, data, named)
        found = connection.getresponse()
        return Answer(found.status, dict(found.getheaders()), found.read())
    finally:
        connection.close()


_claims: list[socket.socket] = []  # of this process, to its end


def free_port() -> int:
    """Find a port that nobody uses, and that no test beside us was given.

    The kernel gives it to nobody who asks for any: it is taken a while later.
    """
    given_away_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, given_away_from if given_away_from > 11_000 else 60_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            claim = socket.socket(socket.AF_UNIX)
            claim.bind(f"\0agentctl-test-port-{port}")
            _claims.append(claim)
            return port


class Watchdog:
    """`agentctl watchdog` for one world."""

    def __init__(self, world, port: int = 0) -> None:
        self.world, self.port = world, port
        self.paths = world.paths
        self.log_path = world.folder / "watchdog-log"
        self.process: subprocess.Popen | None = None

    def start(self, *, is_ready: bool = True) -> Watchdog:
        """Start it, and wait until it answers."""
        Path(self.paths.watchdog_status_path).unlink(missing_ok=True)
        env = {**os.environ, "PYTHONPATH": SOURCE, "AGENTCTL_RUNTIME": "direct"}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", RUN, self.world.name], env=env, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL)  # fmt: skip
        if is_ready:
            self.until(self.status, "the watchdog's first look")
        return self

    def ask(self, method: str, route: str, body=None, **headers) -> Answer:
        return ask(self.paths.watchdog_socket_path, method, route, body, **headers)

    def through_runner(self, method: str, route: str, body=None, **headers) -> Answer:
        """Ask as the agent does: at its one address."""
        return ask(self.paths.api_socket_path, method, route, body, **headers)

    def status(self) -> dict:
        """Return what it leaves for `agentctl status`."""
        try:
            return json.loads(Path(self.paths.watchdog_status_path).read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def agent(self) -> dict:
        return self.ask("GET", f"/agents/{self.world.name}").json

    def events(self) -> list[str]:
        return [event["kind"] for event in self.ask("GET", "/events?last=200").json["events"]][::-1]

    def ids(self) -> list[str]:
        lines = self.ask("GET", "/history/export?raw=1").body.splitlines()
        return [json.loads(line).get("id") for line in lines]

    def until(self, is_true, what: str):
        def look():
            assert self.process.poll() is None, f"the watchdog ended:\n{self.log}"
            return is_true()

        try:
            return wait_until(look, what, PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status()}\n{self.log[-3000:]}\n{self.world.log[-1500:]}") from None

    def until_state(self, *states: str) -> dict:
        return self.until(lambda: (seen := self.status()).get("state") in states and seen, f"state {states}")

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it; return its exit status."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            if number != signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
        if self.process is None:
            return 0
        return deadline.wait(self.process, "the watchdog", PATIENCE_SECONDS, self.log_path)
