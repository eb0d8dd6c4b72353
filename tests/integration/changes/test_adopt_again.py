"""An adoption that a power cut broke off is made again; one that only lost its ledger is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.ledger.database import Ledger
from agentctl.runner import launch
from integration.world import World


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch, {"probation": {"tries": 1}}).adopt()
    yield world
    world.end()


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
        assert launch.begin(world.context, ledger).generation.number == 1
    kept = [p for p in Path(world.paths.config_dir).iterdir() if ".cut-off-" in p.name]
    assert [p.read_text() for p in kept] == [settings]


def test_an_adoption_that_lost_its_ledger_is_no_half_one(world):
    os.rename(world.paths.ledger_path, f"{world.paths.ledger_path}.gone")
    with pytest.raises(AgentctlError, match="there is an agent called"):
        world.adopt()
