"""A failing test prints the story of its agent, and nothing that goes wrong with that makes it fail otherwise."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit import story
from ledger_builder import ROOT, Home

FAILING = """
import pytest
from ledger_builder import Home

@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path, monkeypatch)
    made.generation(1)
    made.generation(2, "condemned", reason="it hung")
    made.launch(generation=2, end="failed", trigger="crash", reason="exit status 1 after 3.0s", exit_status=1)
    made.incident(outcome="recovered", ended_at=made.now)
    yield made
    made.close()

@pytest.fixture
def torn(home):
    raise RuntimeError("no such thing")

def test_that_fails(home):
    assert home.now < 0

def test_whose_fixture_fails(torn):
    pass

def test_that_is_well(home):
    pass

def test_without_an_agent():
    assert False
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No agents but those of the test."""
    monkeypatch.setattr(story, "_tellers", {})


def run(folder: Path, text: str) -> str:
    """Run a file of tests in a pytest of its own; return what it says."""
    (folder / "test_it.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((f"{ROOT}/watchdog", f"{ROOT}/tests"))}
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "kit.story_plugin", "-c", os.devnull, "--rootdir", folder]
    done = subprocess.run(
        [sys.executable, *words, folder], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_a_failing_test_tells_the_story_of_its_agent(tmp_path):
    said = run(tmp_path, FAILING)
    assert "2 failed, 1 passed, 1 error" in said
    for words in ("why of agent in", "It crashed: exit status 1 after 3.0s.", "status of agent in"):
        assert said.count(words) == 2, said  # of the test that fails and of the one whose fixture fails, no other


def test_a_story_that_cannot_be_told_is_said_in_its_place():
    def tell():
        yield "why", "it \udcff broke\n"
        raise OSError("the box is off")

    story.register("a", tell)
    assert story.tell_all() == [("why of a", "it ? broke"), ("story of a", "cannot be told: OSError: the box is off")]


def test_a_story_without_an_end_is_not_waited_for():
    def tell():
        yield "why", "it broke"
        time.sleep(60)

    story.register("a", tell)
    began = time.monotonic()
    assert story.tell_all(0.3) == [("why of a", "it broke"), ("stories", "the rest took more than 0.3s")]
    assert time.monotonic() - began < 30


def test_the_newest_agents_are_told_of_and_those_that_ended_are_not():
    for name in "abcde":
        story.register(name, lambda: [("log", "\n".join(map(str, range(1000))))])
    story.unregister("d")
    story.unregister("nobody")
    told = story.tell_all()
    assert [title for title, _ in told] == ["log of e", "log of c", "log of b"]
    assert all(text.split("\n") == [str(n) for n in range(920, 1000)] for _, text in told)


def test_an_agent_that_nobody_holds_any_more_is_not_told_of(tmp_path, monkeypatch):
    home = Home(tmp_path, monkeypatch)
    assert len(story._tellers) == 1
    home.ledger.close()
    del home
    assert story.tell_all() == []
