"""What root does in the agent's folders leads nowhere else, whatever the agent puts there meanwhile."""

import os
import subprocess
import sys

import pytest

from integration.changing import CTL
from integration.world import SOURCE, World
from kit import deadline


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_history_that_becomes_a_link_while_it_is_imported(monkeypatch, tmp_path):
    """The file is given to the agent's user in the end; what a link in its place leads to is not."""
    world = World(monkeypatch, owner="nobody")
    try:
        world.adopt()
        victim = tmp_path / "root's own"
        victim.write_text("secret")
        history = world.state / "history.jsonl"
        run = subprocess.Popen([sys.executable, "-c", CTL, "--name", world.name, "history", "import", "-"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "PYTHONPATH": SOURCE})  # fmt: skip
        run.stdin.write('{"id": "1", "role": "user", "content": "hello"}\n')
        run.stdin.flush()
        try:
            world.until(lambda: history.exists() and "hello" in history.read_text(), "the message")
            history.unlink()
            history.symlink_to(victim)
        finally:
            said, _ = deadline.communicate(run)
        assert "1 messages added" in said, said
        assert os.stat(victim).st_uid == 0
    finally:
        world.end()
