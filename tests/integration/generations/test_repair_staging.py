"""What power cuts were seen to leave of the scratch repository, laid by hand: empty objects, torn indexes.

tests/system/recovery/test_power_cuts.py makes the cuts; here each trace of one is met without root.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentctl.generations import repair_staging
from agentctl.ledger import writers
from agentctl.runner import launch
from integration.world import World, write
from kit import launches
from kit.manifest import manifest


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch, {"probation": {"tries": 1}}).adopt()
    yield world
    world.end()


def empty_objects(staging):
    for top, _, names in os.walk(f"{staging.path}/objects"):
        for name in names:
            os.chmod(f"{top}/{name}", 0o600)
            os.truncate(f"{top}/{name}", 0)


def empty_index(staging):
    os.truncate(staging.index, 0)


def no_config(staging):
    os.truncate(f"{staging.path}/HEAD", 0)


def nothing_left(staging):
    os.rename(staging.path, f"{staging.path}.gone")


@pytest.mark.parametrize("leave", [empty_objects, empty_index, no_config, nothing_left])
def test_a_launch_makes_its_scratch_repository_anew(world, leave):
    write(world.code, {"dirty.py": "not committed\n", "more/x": "y"})
    with world.ledger() as ledger:
        launch.identify(world.context, ledger)
        ledger.db.execute("DELETE FROM generations WHERE number=2")  # by hand: no writer removes a line
    world.context.vault.update(dict.fromkeys(world.context.vault.refs("refs/agentctl/g/2")))
    write(world.code, {"dirty.py": "changed once more\n"})
    leave(world.context.staging)
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
    assert captured(world, begun.generation) == manifest(world.code, without=(".git",))


def captured(world, generation) -> dict:
    out = world.folder / "out"
    out.mkdir()
    world.context.vault.lay_out(generation.vault_commit, str(out))
    return manifest(out)


def test_after_a_boot_an_index_that_is_not_what_was_written_is_not_believed(world):
    write(world.code, {"dirty.py": "not committed\n"})
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
        launches.stop(ledger, begun.id)
        launches.set_boot_back(ledger, begun.id)
        writers.set_tries(ledger, 2, 1)
    index = Path(world.context.staging.index)
    data = bytearray(index.read_bytes())
    at = data.index(b"dirty.py") - 22  # the object's name: git would believe it, the rest of the entry fits
    data[at : at + 20] = os.urandom(20)
    index.write_bytes(data)
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
    assert begun.generation.number == 2
    assert captured(world, begun.generation) == manifest(world.code, without=(".git",))


@pytest.mark.parametrize("what", ["fifo", "link", "folder"])
def test_something_else_in_the_index_s_place_is_no_index(store, what):
    index = store.staging.index
    {"fifo": os.mkfifo, "folder": os.mkdir, "link": lambda path: os.symlink("/dev/zero", path)}[what](index)
    repair_staging.repair_after_boot(store.staging)
    assert not os.path.lexists(index)
    assert store.capture().is_clean


def test_what_is_ignored_comes_along_though_the_index_is_torn(world):
    world.mode("crash", "a bad change")
    write(world.code, {"secret.cache": "ignored\n", "new.py": "untracked\n"})
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
        launches.fail(ledger, begun.id)
    empty_index(world.context.staging)
    assert world.rollback_once() == 0
    (incident,) = world.incidents()
    assert (world.code / "secret.cache").read_text() == "ignored\n"
    assert (world.quarantine(incident) / "tree/new.py").exists()
    assert not (world.code / "new.py").exists()
