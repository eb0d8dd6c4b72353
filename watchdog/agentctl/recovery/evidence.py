"""Evidence of one failure: what the runner left, what the repository says, read out for people and the brief.

It never stands in the way: what cannot be read is missing from the evidence, no more.
"""

from __future__ import annotations

import os

from ..core import durable, fast_json
from ..core.errors import AgentctlError, is_full_disk
from ..generations.agent_context import AgentContext
from ..ledger import writers
from ..ledger.database import Ledger
from ..ledger.models import Launch
from .execution import Execution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHOWN_LINES = 40
STACK_LINES = 60
STACK_STARTS = ("Traceback (most recent call last)", "Fatal Python error:", "Current thread ", "Thread 0x",
                "panicked at", "Stack trace:", "goroutine ")  # fmt: skip


def gather(attempt: Execution) -> dict[str, str]:
    """Collect the evidence into the incident; return the facts later steps need."""
    merged, head, branch = collect(attempt.context, attempt.ledger, attempt.incident, attempt.number)
    text = fast_json.dumps(merged)
    attempt.write_with_end(lambda: writers.set_evidence(attempt.ledger, attempt.incident, text))
    return {"head": head, "branch": branch}


def collect(context: AgentContext, ledger: Ledger, incident: str, number: int) -> tuple[dict[str, Any], str, str]:
    """Return what is known of the failure together with what was known before, and (commit, branch) of HEAD."""
    last = ledger.last_launch()
    facts = _of_launch(context, last) if last else {}
    head, branch, refs = _of_repository(context)
    folder = context.incident_dir(incident)
    left_out = _keep_refs(folder, f"refs-{number}.txt", refs)
    known = ledger.evidence(incident)
    failures = [f for f in known.get("failures", []) if f["launch"] != facts.get("launch")] + ([facts] if facts else [])
    merged = {**known, **facts, "failures": failures[-8:], "head": head, "branch": branch, "folder": folder}
    if left_out:
        merged["left_out"] = list(dict.fromkeys([*merged.get("left_out", []), left_out]))
    if context.is_contained:
        from ..runtime.container.compose_project import strays

        merged["strays"] = strays(context)
    uncaptured = ledger.meta("left_out")
    if uncaptured:
        merged["uncaptured"] = uncaptured
    return merged, head, branch


def _keep_refs(folder: str, name: str, refs: str) -> str:
    """Write the list of refs down; return what had to be left out for want of room."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if refs:
            durable.write(f"{folder}/{name}", refs.encode("utf-8", "surrogateescape"), 0o600)
    except OSError as error:
        if not is_full_disk(error):
            raise
        return "the list of all refs"
    return ""


def _of_launch(context: AgentContext, launch: Launch) -> dict[str, Any]:
    """Read what the runner left of a launch."""
    folder = context.launch_dir(launch.id)
    left = _json(f"{folder}/evidence.json")
    pane = (durable.read(f"{folder}/pane.txt") or b"").decode("utf-8", "replace").rstrip("\n").split("\n")
    lines = [line for line in pane if line]
    container: dict[str, Any] = {}
    if context.is_contained:
        from ..runtime.container.compose_project import of_container

        container, told = of_container(context, wants_lines=not lines)
        lines = lines or told
    lived = (launch.ended_at or launch.started_at) - launch.started_at
    return {
        "launch": launch.id, "trigger": launch.trigger, "reason": launch.reason,
        "exit_status": launch.exit_status, "exit_signal": launch.exit_signal,
        "exit_class": classify(lines, launch), "lived_seconds": round(lived, 3),
        "ready": launch.ready_at is not None, "last_heartbeat_at": left.get("last_beat_at"),
        "heartbeats": left.get("beats"), "agent_phase": left.get("phase"), "progress": left.get("progress"),
        "notes": left.get("notes", []), "processes": left.get("processes", []),
        "last_lines": lines[-SHOWN_LINES:], "stack": find_stack(lines),
        "pane": f"{folder}/pane.txt" if os.path.exists(f"{folder}/pane.txt") else None,
        **({"container": container} if container else {}),
    }  # fmt: skip


def _of_repository(context: AgentContext) -> tuple[str, str, str]:
    for _ in range(2):  # what it says of HEAD is what the rescue branch is made of
        try:
            return context.repository.survey()
        except (AgentctlError, OSError):
            continue
    return "", "", ""


def find_stack(lines: list[str]) -> list[str]:
    """Find the last stack in the agent's output, from its first line on."""
    for number in range(len(lines) - 1, -1, -1):
        if any(start in lines[number] for start in STACK_STARTS[:2]):
            return _shorten(lines[number:])
    for number, line in enumerate(lines):
        if any(start in line for start in STACK_STARTS):
            return _shorten(lines[number:])
    return []


def _shorten(stack: list[str]) -> list[str]:
    """Leave out the middle of a long stack: some name the culprit first, some last."""
    if len(stack) <= STACK_LINES:
        return stack
    half = STACK_LINES // 2
    left_out = f"[... {len(stack) - 2 * half} lines ...]"
    return [*stack[:half], left_out, *stack[-half:]]


SILENT = ("watchdog", "wedged", "offline", "not-ready", "less-life")
ENDED = ("tmux-killed", "runner-killed", "check-failed", "refused")


def classify(lines: list[str], launch: Launch) -> str:
    """Name the end in a few words: the exception's line, the signal, the status."""
    if launch.trigger in (*SILENT, *ENDED):
        return launch.trigger
    for line in reversed(lines[-30:]):
        name, colon, _ = line.partition(":")
        if (
            line
            and not line[0].isspace()
            and name.replace(".", "").isidentifier()
            and name.endswith(("Error", "Exception", "Interrupt", "Exit"))
        ):
            return line[:200] if colon else name
    if launch.exit_signal:
        return f"signal {launch.exit_signal}"
    return f"exit status {launch.exit_status}" if launch.exit_status is not None else launch.trigger


def _json(path: str) -> dict[str, Any]:
    try:
        found = fast_json.loads(durable.read(path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
