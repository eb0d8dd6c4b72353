"""What is wrong between settings that are each right. Pure: reads no file, no clock and no environment."""

from __future__ import annotations

from ..durations import format_duration
from ..mistake import Mistake


def find(values: dict):
    """Yield what is wrong between settings that are each right."""
    timeout, wait = values.get("heartbeat.timeout"), values.get("heartbeat.longest_wait")
    if timeout is not None and wait is not None and timeout >= wait:
        rule = f"must be less than heartbeat.longest_wait ({format_duration(wait)})"
        yield Mistake("heartbeat.timeout", format_duration(timeout), rule)
    source = values.get("heartbeat.from")
    for needed in ("file", "command"):
        if source == needed and values.get(f"heartbeat.{needed}") in ("", []):
            rule = f'is required by heartbeat.from = "{needed}"'
            yield Mistake(f"heartbeat.{needed}", values[f"heartbeat.{needed}"], rule)
    if source in ("file", "command", "output", "hook", "process") and values.get("heartbeat.progress") == "required":
        rule = f'cannot be seen with heartbeat.from = "{source}"; no heartbeat would ever count'
        yield Mistake("heartbeat.progress", "required", rule)
    if source == "process" and values.get("agent.ready") == "notify":
        yield Mistake(
            "agent.ready", "notify", 'must be a time or a command with heartbeat.from = "process", such as "5s"'
        )
    if values.get("resume.message") == "argument" and not any(
        "{message}" in word for word in values.get("agent.resume_command", ())
    ):
        yield Mistake(
            "agent.resume_command",
            values.get("agent.resume_command"),
            'has no {message}, which resume.message = "argument" needs',
        )
    if values.get("agent.runtime") == "compose":
        yield from _unreachable(values)
    code, state = values.get("agent.code"), values.get("state.dir")
    if code and state and (code + "/").startswith(state + "/"):
        yield Mistake("state.dir", state, f"must not be agent.code ({code}) or hold it")
    for pattern in values.get("state.restore", ()):
        if pattern in values.get("state.keep", ()):
            yield Mistake("state.restore", pattern, "is also in state.keep; choose one of them")


def _unreachable(values: dict):
    """Yield what cannot work from outside a container."""
    if values.get("heartbeat.url"):
        yield Mistake(
            "heartbeat.url",
            values["heartbeat.url"],
            'is inside the container, where agent.runtime = "compose" cannot ask; use heartbeat.from = "command"',
        )
