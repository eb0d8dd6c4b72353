"""Whatever happens to the ledger, the agent comes back; what is broken is kept, what is too new is not touched."""

import os
import sys
from pathlib import Path

import pytest

from agentctl.ledger.database import Ledger
from agentctl.recovery.process import EXIT_RELAUNCH
from integration.world import World, wait_until, write
from kit import deadline, effort
from kit.survival import survived

LIMIT_SECONDS = 90
HISTORY = "".join(f'{{"id": "{n}", "role": "user", "content": "message {n}"}}\n' for n in range(20))


@pytest.fixture
def world(monkeypatch):
    made = World(monkeypatch)
    write(made.state, {"history.jsonl": HISTORY})
    made.adopt().start()
    made.until_beating(limit_seconds=LIMIT_SECONDS)
    made.stop()
    yield made
    made.end()


def cut(size):
    return lambda path: os.truncate(path, size)


def junk(path):
    Path(path).write_bytes(b"no database" * 999)


def a_folder(path):
    os.unlink(path)
    os.mkdir(path)


def torn(path):
    with open(path, "r+b") as file:
        for page in (1, 3, 5):
            file.seek(4096 * page)
            file.write(os.urandom(4096))


DAMAGES = {"missing": os.unlink, "junk": junk, "torn": torn, "a folder": a_folder}
if effort.NIGHT:
    DAMAGES |= {f"{size} bytes": cut(size) for size in (0, 1, 50, 100, 4096, 8192, 20_000, 30_000)}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_at_a_launch_and_at_a_rollback(world, damage):
    path = world.paths.ledger_path
    damage(path)
    world.start()
    world.until_beating(generation=1, limit_seconds=LIMIT_SECONDS)
    assert "rebuilding it from the vault" in world.log and "Traceback" not in world.log
    if damage is not os.unlink:
        assert list(Path(path).parent.glob("ledger.db.broken-*"))
    world.stop()
    world.mode("crash", "a bad change")
    damage(path)
    world.start()
    wait_until(lambda: world.log.count("rebuilding it from the vault") >= 2, "the second rebuilding", LIMIT_SECONDS)
    world.until_outcome("recovered", LIMIT_SECONDS)
    world.until_beating(generation=1, limit_seconds=LIMIT_SECONDS)
    assert "".join(world.history()[:20]) == HISTORY
    survived("a broken ledger", "launch and rollback", 2)


def test_one_of_a_newer_agentctl_is_refused_and_the_agent_started_beside_it(world):
    path = Path(world.paths.ledger_path)
    with Ledger(str(path)) as ledger:
        ledger.set_meta("version", "99")
    before, starts = path.read_bytes(), len(world.starts())
    assert world.rollback_once() == EXIT_RELAUNCH
    assert "is of version 99" in world.log and "use the agentctl that wrote it" in world.log
    assert path.read_bytes() == before
    world.start()
    wait_until(lambda: len(world.starts()) > starts, "the agent, without its ledger", LIMIT_SECONDS)
    world.stop()
    assert path.read_bytes() == before and not list(path.parent.glob("ledger.db.*broken*"))
    assert "launching what is there" in world.log
    with open(path, "rb") as file:
        assert file.read(15) == b"SQLite format 3"
    fixed = deadline.run([sys.executable, "-c", FIX, str(path)], check=False)
    assert fixed.returncode == 0
    world.start()
    world.until_beating(limit_seconds=LIMIT_SECONDS)
    survived("a broken ledger", "launch and rollback", 1)


FIX = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
    "db.execute(\"UPDATE meta SET value='1' WHERE key='version'\"); db.commit()"
)
