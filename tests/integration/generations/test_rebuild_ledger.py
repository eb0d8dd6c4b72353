"""A lost or damaged ledger comes back from the vault, and the broken file is kept as it was."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations import lifecycle, rebuild_ledger
from agentctl.ledger import writers
from agentctl.ledger.database import Ledger, LedgerDamaged, LedgerUnavailable
from integration.world import SOURCE, World, write
from kit import deadline, effort
from kit.line_killer import killed_at
from kit.rows import row

STRIDE = effort.pick(23, 3)  # between the lines at which it is killed

UNACKNOWLEDGED_CLOSE = """
import os, signal, sys
from agentctl.ledger.database import Ledger
Ledger(sys.argv[1]).set_meta("late", "only in the wal")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def world(monkeypatch):
    """An agent with generations 1 golden, 2 good, 3 condemned, 4 on trial."""
    world = World(monkeypatch).adopt()
    context, vault = world.context, world.context.vault
    with world.ledger() as ledger:
        for number in (2, 3, 4):
            write(world.code, {"agent.py": f"print({number})\n"})
            assert lifecycle.identify(context, ledger).number == number
        lifecycle.make_good(context, ledger, 2, "passed its trial")
        of = {row.number: row.vault_commit for row in ledger.generations()}
        vault.update({"refs/agentctl/condemned/3": of[3], "refs/agentctl/golden": of[1]})
        writers.condemn(ledger, 3, at=time.time(), reason="it hung")
        writers.set_golden(ledger, 1)
    yield world
    world.end()


def facts(ledger: Ledger) -> list[tuple]:
    return [
        (
            g.number,
            g.status,
            g.is_golden,
            g.vault_commit,
            g.commit_id,
            g.tree,
            g.branch,
            g.source,
            round(g.created_at, 3),
        )
        for g in ledger.generations()
    ]


def with_wal(path: str) -> None:
    """Leave lines that are only in the write-ahead log, as a killed writer does."""
    done = deadline.run([sys.executable, "-c", UNACKNOWLEDGED_CLOSE, path], env={"PYTHONPATH": SOURCE})
    assert done.returncode == -signal.SIGKILL and os.path.getsize(f"{path}-wal") > 0


def junk(path: str) -> None:
    Path(path).write_bytes(b"no database" * 999)


def older(path: str) -> None:
    with Ledger(path) as ledger:
        ledger.set_meta("version", "0")


def torn(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 4)


@pytest.mark.parametrize("damage", [
    os.unlink, lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 100),
    lambda path: os.truncate(path, 3000), lambda path: os.truncate(path, 4096), lambda path: os.truncate(path, 20_000),
    junk, older, torn,
], ids=["missing", "empty", "header", "part of a page", "a page", "pages", "junk", "older", "torn"])  # fmt: skip
def test_what_the_vault_knows_comes_back(world, damage):
    path, said = world.paths.ledger_path, []
    with world.ledger() as ledger:
        before = facts(ledger)
        assert [row[:3] for row in before] == [(1, "good", 1), (2, "good", 0), (3, "condemned", 0), (4, "candidate", 0)]
    damage(path)
    harmed = Path(path).read_bytes() if os.path.exists(path) else None
    with rebuild_ledger.open_or_rebuild(world.context, said.append) as ledger:
        assert facts(ledger) == before
        assert ledger.check() == "" and ledger.meta("rebuilt_at")
        assert ledger.last_known_good().number == 2
        assert all(row.snapshot for row in ledger.generations() if row.status == "good")
        assert all(row.tries_left > 0 for row in ledger.generations() if row.status == "candidate")
    assert len(said) == 1 and "damaged" in said[0]
    kept = [p for p in Path(path).parent.glob("ledger.db.broken-*") if not p.name.endswith(("-wal", "-shm"))]
    assert [p.read_bytes() for p in kept] == ([] if harmed is None else [harmed])
    said.clear()
    rebuild_ledger.open_or_rebuild(world.context, said.append).close()
    assert said == []


def test_one_of_a_newer_version_is_refused_and_never_touched(world):
    path = world.paths.ledger_path
    with Ledger(path) as ledger:
        ledger.set_meta("version", "99")
    before = Path(path).read_bytes()
    with pytest.raises(LedgerUnavailable) as refused:
        rebuild_ledger.open_or_rebuild(world.context, pytest.fail)
    assert "version 99" in refused.value.message and "agentctl that wrote it" in refused.value.hint
    assert Path(path).read_bytes() == before and not list(Path(path).parent.glob("ledger.db.*broken*"))


def test_the_broken_one_stays_where_it_is_until_there_is_a_new_one(world):
    path = world.paths.ledger_path
    junk(path)
    os.mkdir(f"{path}.rebuilt.new")  # in the way of the new one
    with pytest.raises(OSError):
        rebuild_ledger.open_or_rebuild(world.context, pytest.fail)
    assert Path(path).read_bytes() == b"no database" * 999
    os.rmdir(f"{path}.rebuilt.new")
    rebuild_ledger.open_or_rebuild(world.context, lambda _: None).close()


@pytest.mark.parametrize("keep", [0, 31, 32, 100, 4000, 4120, 9000])
def test_a_torn_log_costs_no_line_that_was_in_the_file(world, keep):
    path = world.paths.ledger_path
    with_wal(path)
    with open(f"{path}-wal", "r+b") as file:
        file.truncate(keep)
    with rebuild_ledger.open_or_rebuild(world.context, pytest.fail) as ledger:
        assert [row.number for row in ledger.generations()] == [1, 2, 3, 4]
        ledger.set_meta("goes", "on")


@pytest.mark.parametrize(("number", "taken", "chosen"), [
    (1, [(11, "a"), (15, "b"), (25, "c")], "b"),
    (2, [(11, "a"), (15, "b"), (25, "c"), (35, "d")], "c"),
    (3, [(11, "a"), (35, "d")], "d"),
    (1, [(25, "c"), (35, "d")], "c"),  # its own were pruned: the nearest
    (1, [], ""),
])  # fmt: skip
def test_a_generation_gets_the_state_it_left_behind(number, taken, chosen):
    rows = [row("generations", number=n, created_at=10.0 * n) for n in (1, 2, 3)]
    assert rebuild_ledger.choose_snapshot(rows[number - 1], rows, taken) == chosen


def test_the_write_ahead_log_of_a_broken_ledger_is_kept_with_it(world):
    path = world.paths.ledger_path
    with_wal(path)
    wal = Path(f"{path}-wal").read_bytes()
    junk(path)
    with rebuild_ledger.open_or_rebuild(world.context, lambda _: None) as ledger:
        assert ledger.meta("late") is None
    kept = next(Path(path).parent.glob("ledger.db.broken-*-wal"))
    assert kept.read_bytes() == wal


def test_the_log_of_a_lost_ledger_does_not_get_into_the_new_one(world):
    path = world.paths.ledger_path
    with_wal(path)
    os.unlink(path)
    wal = Path(f"{path}-wal").read_bytes()
    with rebuild_ledger.open_or_rebuild(world.context, lambda _: None) as ledger:
        assert ledger.check() == "" and ledger.meta("late") is None
        assert [row.number for row in ledger.generations()] == [1, 2, 3, 4]
    kept = next(Path(path).parent.glob("ledger.db.broken-*-wal"))
    assert kept.read_bytes() == wal


def test_killed_at_any_line_it_is_simply_done_again(world):
    path = world.paths.ledger_path
    with world.ledger() as ledger:
        before = facts(ledger)
    line, was_killed = 1 + effort.dice("rebuild").randrange(STRIDE), True
    while was_killed:
        Path(path).write_bytes(b"junk" * 1000)
        was_killed = killed_at(
            line,
            lambda: rebuild_ledger.open_or_rebuild(world.context, lambda _: None),
            lambda file: file.endswith(("/rebuild_ledger.py", "/database.py")),
        )
        with rebuild_ledger.open_or_rebuild(world.context, lambda _: None) as ledger:
            assert facts(ledger) == before, f"killed before line {line}"
        line += STRIDE
    assert line > 60


def test_a_sound_ledger_is_left_alone(world):
    with_wal(world.paths.ledger_path)
    with rebuild_ledger.open_or_rebuild(world.context, pytest.fail) as ledger:
        assert ledger.meta("late") == "only in the wal"


def test_without_a_vault_nothing_is_touched(world):
    os.truncate(world.paths.ledger_path, 0)
    os.rename(world.paths.vault_path, world.paths.vault_path + ".gone")
    with pytest.raises(LedgerDamaged) as caught:
        rebuild_ledger.open_or_rebuild(world.context, pytest.fail)
    assert "backup" in caught.value.hint
    assert os.path.getsize(world.paths.ledger_path) == 0


def test_a_vault_that_knows_nothing(world):
    os.unlink(world.paths.ledger_path)
    refs = world.context.vault.refs("refs/agentctl/")
    world.context.vault.update(dict.fromkeys(refs))
    for _ in range(2):
        with pytest.raises(AgentctlError):
            rebuild_ledger.open_or_rebuild(world.context, lambda _: None)


def test_the_agent_lives_on_with_a_rebuilt_ledger(world):
    write(
        world.code,
        {
            "behaviour.py": "MODE = 'healthy'\n",
            "agent.py": Path(Path(__file__).parents[2] / "integration/breakable_agent.py").read_text(),
        },
    )
    junk(world.paths.ledger_path)
    world.start()
    row = world.until_beating()
    assert row["generation"] == 1
    assert "rebuilding it from the vault" in world.log
