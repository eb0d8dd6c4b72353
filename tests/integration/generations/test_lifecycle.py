"""What a generation goes through: found or captured, blessed, laid out beside the running tree."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations import lifecycle
from agentctl.ledger import writers
from integration.world import World, write


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch)
    world.adopt()
    yield world
    world.end()


def identified(world: World):
    with world.ledger() as ledger:
        return lifecycle.identify(world.context, ledger)


def test_the_same_tree_is_the_same_generation(world):
    assert [identified(world).number for _ in range(2)] == [1, 1]


def test_another_tree_is_a_new_candidate_whether_it_is_committed_or_not(world):
    write(world.code, {"new.py": "x = 1\n"})
    dirty = identified(world)
    assert (dirty.number, dirty.status, dirty.tries_left) == (2, "candidate", world.context.config.probation.tries)
    world.commit({"newer.py": "x = 2\n"})
    assert [identified(world).number for _ in range(2)] == [3, 3]


def test_a_condemned_tree_is_known_again(world):
    world.commit({"new.py": "x = 1\n"})
    bad = identified(world)
    with world.ledger() as ledger:
        writers.condemn(ledger, bad.number, at=5.0, reason="it crashed")
    world.commit({"new.py": "x = 2\n"})
    assert identified(world).number == 3
    world.commit({"new.py": "x = 1\n"})
    assert (identified(world).number, identified(world).status) == (2, "condemned")


def test_what_is_blessed_is_good_and_is_laid_out_as_the_standby(world):
    world.commit({"new.py": "x = 1\n"})
    number, marked = identified(world).number, []
    with world.ledger() as ledger:
        lifecycle.make_good(world.context, ledger, number, "it held", mark_image=lambda: marked.append(number))
        good = ledger.last_known_good()
        assert good is not None and (good.number, good.reason, marked) == (number, "it held", [number])
        assert good.snapshot in os.listdir(world.paths.snapshots_dir)
        assert f"refs/agentctl/good/{number}" in world.context.vault.refs("refs/agentctl/good/")
        lifecycle.prepare_standby(world.context, ledger, number)
    slots = world.context.slots
    assert slots.standby_note()["generation"] == number and os.path.exists(f"{slots.standby}/new.py")


def test_what_the_vault_does_not_hold_is_not_blessed(world):
    world.commit({"new.py": "x = 1\n"})
    number = identified(world).number
    with world.ledger() as ledger:
        writers.let_go(ledger, number)
        with pytest.raises(AgentctlError, match=f"cannot bless generation {number}: it was pruned"):
            lifecycle.make_good(world.context, ledger, number, "it held")
        assert ledger.generation(number).status == "candidate"


def test_a_candidate_has_a_slot_beside_the_standby_and_inside_the_code_the_one_there_is(world):
    candidate = lifecycle.candidate_slot(world.context)
    assert candidate.standby != world.context.slots.standby and candidate.folder == world.context.slots.folder
    inside = SimpleNamespace(is_inside=True)
    assert lifecycle.candidate_slot(SimpleNamespace(slots=inside)) is inside
