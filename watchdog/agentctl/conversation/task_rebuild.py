"""Make a `current_task.md` of its last good version and the newest messages; it says that it is.

Refuses nothing: without a version or a message it says what is unknown. Opens no file.
"""

from __future__ import annotations

from .task import Task, TaskDamaged, parse_bytes

REBUILT = "> Rebuilt by agentctl at "
EARLIER = "### From the last saved version"
MOST_MESSAGES, MOST_CHARACTERS = 20, 2000  # of a rebuilt context; the history has the rest


def rebuild(last_version: bytes | None, messages: list[dict], why: str, at: str) -> str:
    """Return a task file made of the last version and the newest messages; it says that it is."""
    task, version = None, "there is no earlier version, the objective is the last message of a user"
    if last_version is not None:
        try:
            task = parse_bytes(last_version)
            version = "the last saved version gave all but this section"
        except TaskDamaged as damage:
            version = f"the last saved version is damaged ({damage.why})"
    if task is None:
        task = Task(objective=_last_wish(messages))
    newest = messages[-1].get("at", "an unknown time") if messages else None
    seen = f"the newest message is of {newest}" if messages else "there are no messages"
    note = f"{REBUILT}{at} because {why}; {version}; {seen}."
    told = [" ".join(note.split()), "\n".join(map(_told, messages[-MOST_MESSAGES:]))]
    earlier = _earlier_context(task.context)
    if earlier:
        told.append(f"{EARLIER}\n{earlier}")
    task.context = "\n\n".join(part for part in told if part)
    return task.render()


def _earlier_context(context: str) -> str:
    """Return what the agent itself wrote there: rebuilding a rebuilt file must not nest."""
    if not context.startswith(REBUILT):
        return context
    return context.partition(f"\n{EARLIER}\n")[2]


def _last_wish(messages: list[dict]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            return _content(message)
    return "Unknown: neither a saved task nor a message of a user was found. Ask before acting."


def _told(message: dict) -> str:
    text = _content(message)
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + " [... the history has the rest]"
    return f"- {message.get('role', 'unknown')}: " + text.replace("\n", "\n  ")


def _content(message: dict) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content.replace("\r\n", "\n").strip()
    import json

    return json.dumps(content, ensure_ascii=False, default=str)
