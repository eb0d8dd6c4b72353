"""What the tests of snapshots share."""

from __future__ import annotations

import os
import tempfile

import pytest


@pytest.fixture
def places(tmp_path):
    """A state folder, and where its snapshots and what is replaced go."""
    state = tmp_path / "state"
    state.mkdir()
    return str(state), str(tmp_path / "snapshots"), str(tmp_path / "replaced")


@pytest.fixture
def open_places():
    """A folder that another user reaches, and `places` in it: pytest closes its own whenever another one begins."""
    with tempfile.TemporaryDirectory(prefix="agsn", dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        os.mkdir(f"{folder}/state")
        yield folder, f"{folder}/state", f"{folder}/snapshots"
