"""An agent opened with its hands: where they reach follows from the settings and from nothing else."""

import pytest

from agentctl.core.paths import SLOTS_INSIDE
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger.database import LedgerDamaged


@pytest.fixture
def opened(home):
    def build(slots="beside"):
        with open(home.paths.config_path, "a") as file:
            file.write(f'slots = "{slots}"\n')
        return AgentContext.open("agent")

    return build


def test_beside_the_code_nothing_of_it_is_hidden(home, opened):
    context = opened()
    assert context.slots.folder.startswith(str(home.root)) and not context.slots.is_inside
    assert context.staging.hidden == "" and context.vault.path == home.paths.vault_path


@pytest.mark.parametrize("where", ["inside", "mounted"])
def test_inside_it_git_is_shown_nothing_of_the_slots(opened, where):
    context = opened(where)
    assert context.slots.is_inside and context.staging.hidden == SLOTS_INSIDE


def test_its_ledger_is_the_one_at_its_path(home, opened):
    home.ledger.set_meta("told", "yes")
    with opened().ledger(read_only=True) as ledger:
        assert ledger.meta("told") == "yes"
    home.ledger.close()
    with open(home.paths.ledger_path, "w"):
        pass
    with pytest.raises(LedgerDamaged, match="is empty"):
        AgentContext.open("agent").ledger()
