"""The door for people: `agentctl VERB`. It finds the verb and says how it ended.

Nothing is imported before it is needed: `status` is asked often and must cost little, so click is
loaded for the other verbs only. Refuses to know what any verb does.
"""

from __future__ import annotations

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    from .exit_codes import through, wants_json

    words = sys.argv[1:] if argv is None else list(argv)
    return through(lambda: _dispatch(words), as_json=wants_json(words))


def _dispatch(words: list[str]) -> int:
    if "AGENTCTL_CONTAINER" in os.environ:
        from .agent_verbs import run as run_contained

        if (status := run_contained(words)) is not None:
            return status
    from ..runtime.runner_client import recall

    recall(os.environ)
    if words[:1] == ["hook"] and not any(word.startswith("-") for word in words):
        from .hook_verbs import send  # at every step of an agent: it must cost little

        return send(words[1:])
    from .status_quick import parse, show_status

    simple = parse(words)
    if simple is not None:
        return show_status(*simple)
    from .group import run

    return run(words)
