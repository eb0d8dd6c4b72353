"""How a relaunched agent goes on: the words it is told, the command it is told them in."""

import os
import shutil
import tempfile
import uuid

import pytest

from agentctl.runner import resumption
from agentctl.runner.api import is_well
from agentctl.runtime.tmux import Tmux
from kit import rows


def ended(end, trigger, reason="", **more):
    return rows.row("launches", end=end, trigger=trigger, reason=reason, **more)


def silent(reason="no heartbeat for 61.0s (limit 60s)"):
    return ended("failed", "watchdog", reason)


def moved(before, after):
    return rows.row("incidents", generation_from=before, generation_to=after)


FAILED, MOVED = silent(), moved(5, 4)


@pytest.mark.parametrize(
    ("last", "incident", "brief", "pending", "said", "unsaid"),
    [
        (None, None, "", [], [], ["restarted"]),
        (FAILED, None, "", [], ["no heartbeat for 61.0s", "Go on where you were."], ["generation", "Still to do"]),
        (
            FAILED,
            MOVED,
            "/s/BRIEF.md",
            ["a", "b"],
            ["from generation 5 to generation 4", "/s/BRIEF.md", "Still to do: a; b."],
            [],
        ),
        (FAILED, moved(4, 4), "/s/BRIEF.md", [], ["Your state went back", "/s/BRIEF.md"], ["generation 4"]),
        (FAILED, MOVED, "", [], [], ["generation"]),  # a plain restart undid nothing
        (ended("rebooted", "", "x"), None, "", [], ["the machine went down"], []),
        (ended("asked", "asked"), None, "", [], ["a restart was asked for"], []),
        (ended("stopped", "stop"), None, "", [], ["stopped and started again"], []),
        (silent("x" * 1000), None, "", list("abcdefgh"), ["a; b; c; d; e (and 3 more)"], ["x" * 301]),
    ],
)
def test_what_it_is_told(last, incident, brief, pending, said, unsaid):
    text = resumption.compose(last, incident, brief, pending)
    assert "\n" not in text
    assert all(words in text for words in said)
    assert not any(words in text for words in unsaid)


def test_a_message_is_one_line_whatever_is_pending():
    assert "\n" not in resumption.compose(silent("a\nb\r\n"), None, "", ["c\nd"])


@pytest.mark.parametrize("pending", ["torn\0\0\0", "stop\x03\x1b[A", "\x9b1m", "\u00e4" * 20_000])
def test_a_message_can_be_told_whatever_the_task_holds(pending):
    """As an argument of a command that tmux takes, and as keys that are no commands."""
    text = resumption.compose(FAILED, MOVED, "/s/BRIEF.md", [pending] * 5)
    assert text.isprintable()
    folder = tempfile.mkdtemp()
    tmux = Tmux(f"{folder}/tmux", None, dict(os.environ))
    try:
        tmux.start("agent", ["/bin/sh", "-c", "sleep 100", text], cwd="/", env=dict(os.environ))
    finally:
        tmux.kill_server()
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("argv", "session", "message", "filled"),
    [
        (["a", "--resume", "{session}", "{message}"], "s1", "why", ["a", "--resume", "s1", "why"]),
        (["a", "{message}"], "", "", ["a"]),
        (["a", "-m={message}"], "", "", ["a", "-m="]),
        (["a", "{session}"], "", "", ["a"]),
        (["a", "x{session}y"], "s", "", ["a", "xsy"]),
        (["a", "{message}"], "s", "says {session}", ["a", "says {session}"]),
    ],
)
def test_a_command_is_filled(argv, session, message, filled):
    assert resumption.fill(argv, session, message) == filled


def test_a_new_session_is_a_random_uuid():
    made = {resumption.new_session_id() for _ in range(50)}
    assert len(made) == 50
    assert {uuid.UUID(text).version for text in made} == {4}


@pytest.mark.parametrize(
    ("answer", "well"),
    [(b"HTTP/1.1 200 OK\r\n", True), (b"HTTP/1.0 204 No Content\r\n", True), (b"HTTP/1.1 503 No\r\n", False),
     (b"HTTP/1.1 2000 OK", False), (b"", False), (b"200 OK", False), (b"\xff\xff\n", False)],
)  # fmt: skip
def test_which_answer_is_a_sign_of_life(answer, well):
    assert is_well(answer) == well


def at_start(end="failed", trigger="crash-at-start", generation=3, exit_status=1):
    return ended(end, trigger, generation=generation, exit_status=exit_status)


AT_START = at_start()
GOOD = rows.row("generations", number=3, status="good")
CANDIDATE = rows.row("generations", number=3, status="candidate")


@pytest.mark.parametrize(
    ("earlier", "generation", "unresumable"),
    [
        ([AT_START, AT_START], GOOD, True),
        ([AT_START, AT_START, at_start(generation=2)], GOOD, True),
        ([AT_START], GOOD, False),
        ([], GOOD, False),
        ([AT_START, at_start(trigger="crash")], GOOD, False),
        ([AT_START, at_start(generation=4)], GOOD, False),  # another code's failure says nothing of the session
        ([AT_START, at_start(exit_status=None)], GOOD, False),  # killed
        ([AT_START, AT_START], CANDIDATE, False),  # there the code is to be blamed first
        ([at_start("stopped"), AT_START], GOOD, False),
    ],
)
def test_when_resuming_was_in_vain(earlier, generation, unresumable):
    assert resumption.is_unresumable(earlier, generation) == unresumable
