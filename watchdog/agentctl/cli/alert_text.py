"""The newest incident's story for an alert, as `agentctl why` tells it, with secrets masked: it leaves the machine.

A process of its own asks for it: what sends an alert must not depend on what makes it readable.
"""

from __future__ import annotations

import os
import time

from ..generations.agent_context import AgentContext
from ..state import mask
from . import incident_report


def main(name: str) -> int:
    """Print the story; 1 if there is none."""
    from .incident_verbs import choose, gather

    context = AgentContext.open(name, lenient=True)
    with context.ledger(read_only=True) as ledger:
        row = choose(ledger, "")
        if row is None:
            return 1
        known = gather(context, ledger, row)
    masker = mask.Masker(mask.of_agent(context.config.agent, dict(os.environ)))
    print(masker.all("\n".join(incident_report.render(known, time.time()))))
    return 0
