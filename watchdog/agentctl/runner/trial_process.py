"""One trial, from its plan to its verdict: makes the candidate a place apart from the running agent, holds it, tells.

It runs as the agent's user in a process of its own, with a copy of the state, its own terminal, sockets and token,
below a root of its own (AGENTCTL_ROOT), so that agentctl called from inside finds no real agent. Standard output
carries one JSON object a line for who asked; what the candidate prints goes into the log.
"""

from __future__ import annotations

import fcntl
import os
import sys

from ..config.context import Context
from ..config.load import load_last_valid
from ..config.sections import Config
from ..core import fast_json
from ..core.errors import AgentctlError, in_words
from ..runtime.sandbox import bring_state, outside, seclude, take_state
from .trial_loop import Trial, TrialReport, begin, candidate, hold


def main(name: str, plan_path: str) -> int:
    """Run one trial by its plan; return 0 if the candidate held."""
    with open(plan_path, encoding="utf-8") as file:
        plan = fast_json.loads(file.read())
    teller = TrialReport(os.dup(1))
    _log_to(plan["log"])
    held = os.open(plan["folder"], os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    fcntl.flock(held, fcntl.LOCK_EX)  # so that the next trial does not take this one for a leftover
    if "image" in plan:
        from . import trial_loop

        return _verdict_of(teller, lambda: trial_loop.main(name, plan, teller))
    return _verdict_of(teller, lambda: _on_host(name, plan, teller))


def _on_host(name: str, plan: dict, teller: TrialReport) -> int:
    take_state(plan, plan["extra"])
    lacks = seclude(plan)
    if lacks:
        teller.tell(lacks=lacks)
    extra = [] if lacks else plan["extra"]
    bring_state(plan, extra)
    context = open_context(name, plan, outside(extra))
    return hold(context, plan, teller, lambda ledger: Trial(context, ledger, begin(ledger, plan), plan, teller))


def _verdict_of(teller: TrialReport, work) -> int:
    try:
        return work()
    except (AgentctlError, OSError) as error:
        teller.tell(ok=False, why=f"the trial could not be held: {in_words(error)}", lines=[])
        return 1


def open_context(name: str, plan: dict, aside: list[str]) -> Context:
    """Open the candidate with what it finds and writes in the copy of its state, and in the folders `aside`."""
    given = load_last_valid(plan["config"], plan["cache"])[0]
    copy = f"{plan['folder']}/state"
    values = _led_to(given.values, plan["state"].rstrip("/"), copy)
    sessions = {key: _own_sessions(values[key], [copy, *aside]) for key in ("resume.store", "resume.proof")}
    return candidate(name, plan, Config({**values, **sessions}, given.given))


def _led_to(value, state: str, copy: str):
    """Return settings with the copy where they name the state folder: presets have it in commands and variables."""
    if isinstance(value, str):
        whole = value.replace(f"{state}/", f"{copy}/")
        return whole[: -len(state)] + copy if whole.endswith(state) else whole
    if isinstance(value, (list, tuple)):
        return [_led_to(item, state, copy) for item in value]
    if isinstance(value, dict):
        return {key: _led_to(item, state, copy) for key, item in value.items()}
    return value


def _own_sessions(patterns: list[str], copies: list[str]) -> list[str]:
    """Return the patterns of sessions that were copied. Others are the running agent's: not to be resumed twice."""
    copied = [
        p
        for p in patterns
        if not p.startswith(("/", "~")) or any(os.path.expanduser(p).startswith(f"{copy}/") for copy in copies)
    ]
    return copied or (["no-session-was-copied"] if patterns else [])


def _log_to(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.flush()
