"""Read what an agent's own hooks say: busy, idle, or just alive. Pure.

Codex, Claude Code, Gemini CLI and Hermes run a command at points of their work and put similar JSON on its standard
input. An event that nobody here knows is a sign of life and no more.
"""

from __future__ import annotations

IDLE, BUSY = "idle", "working"
# The turn is over, or none has begun: the agent waits for its person.
_IDLE = {
    "sessionstart", "stop", "sessionend", "afteragent", "agentturncomplete", "onsessionstart", "onsessionend",
    "postllmcall", "onsessionfinalize", "idleprompt",
}  # fmt: skip
_BUSY = {
    "userpromptsubmit", "pretooluse", "posttooluse", "posttoolusefailure", "subagentstart", "subagentstop",
    "precompact", "postcompact", "beforeagent", "beforemodel", "aftermodel", "beforetoolselection", "beforetool",
    "aftertool", "prellmcall", "pretoolcall", "posttoolcall", "preapirequest", "postapirequest",
}  # fmt: skip
NAME_KEYS = ("hook_event_name", "hookEventName", "event", "type")
SESSION_KEYS = ("session_id", "sessionId", "conversation_id", "thread-id", "thread_id")
LONGEST_SESSION = 128


def read_event(document: object) -> tuple[str, str]:
    """Return (phase, session id) of one hook's document; '' for what it does not tell."""
    if not isinstance(document, dict):
        return "", ""
    name = next((document[k] for k in NAME_KEYS if isinstance(document.get(k), str)), "")
    kind = document.get("notification_type") or document.get("notificationType")
    if _plain(name) == "notification" and isinstance(kind, str):
        name = kind
    session = next((document[k] for k in SESSION_KEYS if isinstance(document.get(k), str)), "")
    return _phase_of(_plain(name)), session if is_session_id(session) else ""


def fields_of(phase: str, session: str) -> dict[str, str]:
    """Return the notification that a hook's event means: alive, ready, and what it told."""
    fields = {"READY": "1", "WATCHDOG": "1"}
    if phase:
        fields["X_AGENTCTL_PHASE"] = phase
    if session:
        fields["X_AGENTCTL_SESSION"] = session
    return fields


def is_session_id(text: str) -> bool:
    """Tell whether a text may be a session's id: it becomes an argument and part of file names."""
    return (
        0 < len(text) <= LONGEST_SESSION
        and text[0] not in "-."
        and text.isascii()
        and all(c.isalnum() or c in "-_.:" for c in text)
    )


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _phase_of(name: str) -> str:
    if name in _IDLE:
        return IDLE
    return BUSY if name in _BUSY else ""
