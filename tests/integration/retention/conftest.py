"""What the tests of what is kept share."""

import pytest

from integration.vault_store import Store


@pytest.fixture
def store(tmp_path):
    """A vault that holds one commit of a repository beside it."""
    made = Store(tmp_path)
    made.keep()
    return made
