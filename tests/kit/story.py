"""The story of each agent that a failing test has, as the agent's owner would ask for it, added to the test's report.

A world registers itself when it is made, and unregisters at its end; one that is forgotten is no longer told of. What
goes wrong here is said in the report and nowhere else, and it takes no longer than LIMIT_SECONDS: a test fails for its
own reason.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import agentctl

LIMIT_SECONDS = 10.0
CALL_SECONDS = 4.0
MOST_AGENTS = 3  # the newest; a machine full of agents has other tests of its own
MOST_LINES = 80
SOURCE = str(Path(agentctl.__file__).resolve().parents[1])
CLI = "import sys; from agentctl.cli.main import main; sys.exit(main())"
Story = Iterable[tuple[str, str]]

_tellers: dict[str, Callable[[], Callable[[], Story] | None]] = {}


def register(name: str, tell: Callable[[], Story]) -> None:
    """Have `tell()` yield titles and texts of the agent `name` when a test fails; a method does not keep its object."""
    _tellers.pop(name, None)
    _tellers[name] = weakref.WeakMethod(tell) if inspect.ismethod(tell) else lambda: tell


def unregister(name: str) -> None:
    """Tell of it no longer; what is not known is as good."""
    _tellers.pop(name, None)


def has_any() -> bool:
    """Tell whether there may be an agent to tell of."""
    return bool(_tellers)


def of_agent(name: str, environment: dict[str, str], log: Callable[[], str]) -> Iterator[tuple[str, str]]:
    """Yield what the command line says of an agent on this machine, and the end of its log."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AGENT_", "PYTHON"))}
    for verb in ("why", "status"):
        try:
            done = subprocess.run([sys.executable, "-c", CLI, "--name", name, verb], capture_output=True, cwd="/",
                                  env={**clean, "PYTHONPATH": SOURCE, **environment}, stdin=subprocess.DEVNULL,
                                  timeout=CALL_SECONDS, check=False)  # fmt: skip
            yield verb, (done.stdout + done.stderr).decode("utf-8", "replace")
        except subprocess.TimeoutExpired:  # its log may tell why
            yield verb, f"no answer within {CALL_SECONDS:g}s"
    yield "log", log()


def tell_all(limit_seconds: float = LIMIT_SECONDS) -> list[tuple[str, str]]:
    """Return sections for a report on every agent that there is, as far as they could be told in time."""
    told: list[tuple[str, str]] = []
    known = [(name, tell) for name, hold in _tellers.items() if (tell := hold()) is not None][-MOST_AGENTS:]
    thread = threading.Thread(target=_collect, args=(known[::-1], told), daemon=True)
    thread.start()
    thread.join(limit_seconds)
    found = list(told)
    return [*found, ("stories", f"the rest took more than {limit_seconds:g}s")] if thread.is_alive() else found


def _collect(known: list[tuple[str, Callable[[], Story]]], told: list[tuple[str, str]]) -> None:
    for name, tell in known:
        try:
            told.extend((f"{title} of {name}", text) for title, whole in tell() if (text := _shorten(whole)))
        except Exception as error:  # noqa: BLE001 - an agent of which nothing is left, a box that is off, anything
            told.append((f"story of {name}", _shorten(f"cannot be told: {type(error).__name__}: {error}")))


def _shorten(text: str) -> str:
    """Return the last lines, of characters that a report can carry from one process to another."""
    lines = text.encode("utf-8", "replace").decode().rstrip().splitlines()
    return "\n".join(line[:1000] for line in lines[-MOST_LINES:])
