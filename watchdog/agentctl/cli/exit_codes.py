"""The one place that turns exceptions into words and exit codes.

An error goes to standard error, with `--json` as one object `{code, message, hint}`; standard
output then stays empty, so that nobody takes an error for an answer. Refuses to hide a bug.
"""

from __future__ import annotations

import os
import sys

from ..core.errors import (
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_LOCK_HELD,
    EXIT_NO_STORAGE,
    EXIT_NOT_WELL,
    EXIT_USAGE,
    AgentctlError,
)
from ..core.text import clean, to_json

CODES = {
    EXIT_FAILED: "failed",
    EXIT_USAGE: "usage",
    EXIT_NOT_WELL: "not-well",
    EXIT_LOCK_HELD: "lock-held",
    EXIT_BUG: "bug",
    EXIT_NO_STORAGE: "no-storage",
    EXIT_INTERRUPTED: "interrupted",
}


def through(work, *, as_json: bool) -> int:
    """Do `work()` and return its exit status, or the one of what went wrong."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except AgentctlError as error:
        return _say(error.exit_code, error.message, error.hint, as_json)
    except KeyboardInterrupt:
        return _say(EXIT_INTERRUPTED, "interrupted", "", as_json)
    except BrokenPipeError:
        _give_up_output()
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - whatever else arrives here was foreseen by nobody
        return _say(EXIT_BUG, f"a bug: {type(error).__name__}: {error}", _keep_traceback(), as_json)


def wants_json(words: list[str]) -> bool:
    """Tell whether the caller asked for JSON; what follows `--` is not ours."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _say(status: int, message: str, hint: str, as_json: bool) -> int:
    try:
        if as_json:
            problem = {"code": CODES.get(status, "failed"), "message": message, "hint": hint}
            print(to_json(problem), file=sys.stderr)
        else:
            print(f"Error: {clean(message)}", file=sys.stderr)
            if hint:
                print(f"Hint:  {clean(hint)}", file=sys.stderr)
    except OSError:  # nobody listens; the exit status still tells
        _give_up_output()
    return status


def _keep_traceback() -> str:
    """Show the traceback where asked to, else keep it in a file; return the hint that says so."""
    import traceback

    if os.environ.get("AGENTCTL_DEBUG") == "1":
        traceback.print_exc()
        return "the traceback above belongs into a report"
    import tempfile

    try:
        fd, path = tempfile.mkstemp(prefix="agentctl-bug-", suffix=".txt")
    except OSError:
        return "AGENTCTL_DEBUG=1 shows the traceback"
    with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{sys.argv}\n{traceback.format_exc()}")
    return f"the traceback is in {path}; AGENTCTL_DEBUG=1 shows it"


def _give_up_output() -> None:
    """The reader is gone: let what is still buffered go nowhere instead of failing at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
