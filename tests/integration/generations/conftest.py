"""What the tests of repositories and the vault share."""

import pytest

from integration.vault_store import Store


@pytest.fixture
def store(tmp_path):
    """An agent's repository, a vault and a staging, all empty but for one commit."""
    return Store(tmp_path)
