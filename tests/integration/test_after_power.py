"""What power cuts were seen to leave behind, laid by hand: lock files of nobody, empty objects, torn indexes.

tests/system/test_power_cuts.py makes the cuts; here each trace of one is met without root.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError, CommandFailed
from agentctl.generations import lifecycle, repair_staging
from agentctl.ledger import writers
from agentctl.ledger.database import Ledger
from agentctl.runner import launch
from integration.test_vault import Store
from integration.world import World, git, write
from kit import launches
from kit.manifest import manifest


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch, {"probation": {"tries": 1}}).adopt()
    yield world
    world.end()


# -- refs of the vault ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["refs/agentctl/good/1.lock", "packed-refs.lock", "packed-refs.new"])
def test_a_lock_that_nobody_holds_does_not_hinder_the_vault(store, left):
    made = store.keep()
    store.vault.update({"refs/agentctl/good/1": made})
    git(store.vault.path, "pack-refs", "--all")
    write(store.vault.path, {left: ""})
    store.vault.update({"refs/agentctl/good/1": None, "refs/agentctl/golden": made})
    found = store.vault.refs("refs/agentctl/")
    assert set(found) == {"refs/agentctl/g/1", "refs/agentctl/commit/1", "refs/agentctl/golden"}


def test_what_git_refuses_for_another_reason_is_an_error(store):
    made = store.keep()
    with pytest.raises(CommandFailed, match="update-ref"):
        store.vault.update({"refs/agentctl/g/1/below": made})


# -- the scratch repository -----------------------------------------------------------------------------------


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
        lifecycle.identify(world.context, ledger)
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
    world.context.vault.lay_out(generation["vault_commit"], str(out))
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
    assert begun.generation["number"] == 2
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


# -- an adoption ----------------------------------------------------------------------------------------------


def only_settings(paths):
    for path in (paths.ledger_path, paths.vault_path, paths.staging_path):
        os.rename(path, f"{path}.gone")


def half_a_vault(paths):
    os.rename(paths.ledger_path, f"{paths.ledger_path}.gone")
    os.rename(f"{paths.vault_path}/refs", f"{paths.vault_path}/gone")
    for name in ("HEAD", "config", "info/attributes"):
        os.truncate(f"{paths.vault_path}/{name}", 0)


def no_generation(paths):
    with Ledger(paths.ledger_path) as ledger:
        ledger.db.execute("DELETE FROM generations")  # by hand: the adoption was cut off before its first line


@pytest.mark.parametrize("leave", [only_settings, half_a_vault, no_generation])
def test_an_adoption_that_was_cut_off_is_made_again(world, leave):
    leave(world.paths)
    os.unlink(f"{world.context.slots.folder}/standby.json")  # it comes last
    settings = Path(world.paths.config_path).read_text()
    world.adopt()
    with world.ledger() as ledger:
        assert launch.begin(world.context, ledger).generation["number"] == 1
    kept = [p for p in Path(world.paths.config_dir).iterdir() if ".cut-off-" in p.name]
    assert [p.read_text() for p in kept] == [settings]


def test_an_adoption_that_lost_its_ledger_is_no_half_one(world):
    os.rename(world.paths.ledger_path, f"{world.paths.ledger_path}.gone")
    with pytest.raises(AgentctlError, match="there is an agent called"):
        world.adopt()
