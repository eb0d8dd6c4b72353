"""What the tests of single modules share."""

import pytest

from ledger_builder import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one agent, empty but for its settings."""
    made = Home(tmp_path, monkeypatch)
    yield made
    made.close()
