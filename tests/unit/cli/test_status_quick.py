"""The way of `agentctl status` that loads no more than it needs, and what it leaves to click."""

import json
import os
import sys

import pytest

from agentctl.cli import status_quick
from kit import deadline
from ledger_builder import ROOT, agentctl


def test_click_and_the_quick_way_say_the_same(home):
    home.generation(1)
    home.launch(end="stopped", at=home.now - 5)
    assert status_quick.parse(["status", "--json", "--help"]) is None
    slow = agentctl("status", "--json", "--json")
    assert slow.returncode == 3 and json.loads(slow.stdout)["phase"] == "stopped"


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        (["status"], ("agent", False)),
        (["--name", "bob", "status", "--json"], ("bob", True)),
        (["status", "-h"], None),
        (["status", "status"], None),
        (["status", "--name"], None),
        ([], None),
        (["start"], None),
    ],
)
def test_simple_shapes(words, parsed, monkeypatch):
    monkeypatch.delenv("AGENT_NAME", raising=False)
    assert status_quick.parse(words) == parsed


def test_quick_way_loads_no_click(home):
    home.generation(1)
    code = "import sys; from agentctl.cli.main import main; main(['status']); print('click' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog"}
    done = deadline.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.endswith("False\n")
