"""The API against its own description: whatever schemathesis makes of it, the server keeps its word."""

from __future__ import annotations

import os
import sys

import pytest

from integration.watchdogs import Watchdog, free_port
from integration.world import SOURCE, World
from kit import deadline, effort

EXAMPLES = effort.pick(12, 200)
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
NOT_HERE = (
    "/restart",
    "/rollback",
    "/pane",  # nothing runs here that could be asked: 409 and no more
    "/history/import",
)  # JSON lines, which it cannot make; test_watchdog_access has them


@pytest.fixture
def served(monkeypatch):
    port = free_port()
    world = World(monkeypatch, {"watchdog": {"listen": f"127.0.0.1:{port}"}, "offline": {"after": "1h"}}).adopt()
    watchdog = Watchdog(world, port).start()
    yield watchdog
    watchdog.kill()
    world.end()


def test_the_server_is_as_it_describes_itself(served, tmp_path):
    code = "import sys; from agentctl.cli.main import main; sys.exit(main())"
    words = ["--name", served.world.name, "token", "create", "--scope", "admin"]
    made = deadline.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True,
                        env={**os.environ, "PYTHONPATH": SOURCE})  # fmt: skip
    base = f"http://127.0.0.1:{served.port}"
    argv = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", f"{base}/openapi.json",
            "--checks", CHECKS, "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing",
            "--header", f"Authorization: Bearer {made.stdout.strip()}", "--rate-limit", "150/s", "--seed", "1",
            "--suppress-health-check", "all", "--workers", "1", "--no-color"]  # fmt: skip
    for path in NOT_HERE:
        argv += ["--exclude-path", path]
    done = deadline.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert served.ask("GET", "/health").json["bugs"] == 0
