"""`agentctl status` in its simple shapes, without click: that alone would cost as much again.

Understands `status`, `--json` and `--name NAME` in any order and nothing else; the rest is click's.
"""

from __future__ import annotations

import sys
import time

from ..core.errors import EXIT_DONE, EXIT_NOT_WELL
from ..core.text import to_json
from .invocation import check_name, default_name


def parse(words: list[str]) -> tuple[str, bool] | None:
    """Return (name, as_json) if this is a simple `status`, else None."""
    name, as_json, verbs = default_name(), False, 0
    rest = iter(words)
    for word in rest:
        if word == "--json":
            as_json = True
        elif word == "--name":
            name = next(rest, "")
        elif word.startswith("--name="):
            name = word[7:]
        elif word == "status":
            verbs += 1
        else:
            return None
    return (name, as_json) if verbs == 1 and name else None


def show_status(name: str, as_json: bool) -> int:
    """Print the status; return 0 if the agent is well, else 3."""
    from . import status_document, status_facts, status_text

    document = status_document.compose(status_facts.gather(check_name(name), time.time()))
    text = to_json(document) if as_json else status_text.render(document, time.time())
    sys.stdout.write(text + "\n")
    return EXIT_DONE if document["well"] else EXIT_NOT_WELL
