"""What the tests of the settings share."""

import pytest

from unit.toml_samples import MINIMAL


@pytest.fixture
def path(tmp_path):
    """The smallest agent.toml."""
    target = tmp_path / "agent.toml"
    target.write_text(MINIMAL)
    return target
