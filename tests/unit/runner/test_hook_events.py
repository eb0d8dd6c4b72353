"""What agents' own hooks say, read as busy, idle, alive; and never more than that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.runner.heartbeat import fields_of, is_session_id, read_event

SESSION = "8d1f6f5e-0c8e-4a06-9a4e-2b9f1d6f0a11"


@pytest.mark.parametrize(
    ("document", "phase"),
    [
        ({"hook_event_name": "SessionStart", "source": "resume"}, "idle"),
        ({"hook_event_name": "UserPromptSubmit", "prompt": "go"}, "working"),
        ({"hook_event_name": "PreToolUse", "tool_name": "Bash"}, "working"),
        ({"hook_event_name": "PostToolUse"}, "working"),
        ({"hook_event_name": "SubagentStop"}, "working"),
        ({"hook_event_name": "Stop"}, "idle"),
        ({"hook_event_name": "SessionEnd", "reason": "exit"}, "idle"),
        ({"hook_event_name": "Notification", "notification_type": "idle_prompt"}, "idle"),
        ({"hook_event_name": "Notification", "message": "needs your permission"}, ""),
        ({"hook_event_name": "BeforeAgent"}, "working"),
        ({"hook_event_name": "AfterTool"}, "working"),
        ({"hook_event_name": "AfterAgent"}, "idle"),
        ({"hook_event_name": "pre_llm_call"}, "working"),
        ({"hook_event_name": "post_llm_call"}, "idle"),
        ({"hook_event_name": "on_session_end"}, "idle"),
        ({"type": "agent-turn-complete", "thread-id": SESSION}, "idle"),
        ({"hook_event_name": "SomethingNew"}, ""),
        ({"hook_event_name": 7}, ""),
        ({}, ""),
        (None, ""),
        (["Stop"], ""),
    ],
)
def test_the_phase_of_an_event(document, phase):
    assert read_event(document)[0] == phase


@pytest.mark.parametrize("key", ["session_id", "sessionId", "thread-id"])
def test_the_session_is_told(key):
    assert read_event({"hook_event_name": "Stop", key: SESSION}) == ("idle", SESSION)


@pytest.mark.parametrize("bad", ["", "-x", "../../etc", "a b", "*", "x" * 200, ".hidden", "ü"])
def test_what_could_be_more_than_a_name_is_no_session(bad):
    assert not is_session_id(bad)
    assert read_event({"hook_event_name": "Stop", "session_id": bad}) == ("idle", "")


def test_every_event_is_a_sign_of_life():
    assert fields_of("", "") == {"READY": "1", "WATCHDOG": "1", "X_AGENTCTL_HOOK": "1"}
    assert fields_of("idle", "s")["X_AGENTCTL_PHASE"] == "idle"


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["hook_event_name", "session_id", "type", "x"]), inner)))  # fmt: skip
def test_nothing_that_a_hook_says_is_an_error(document):
    phase, session = read_event(document)
    assert phase in ("", "idle", "working")
    assert session == "" or is_session_id(session)
