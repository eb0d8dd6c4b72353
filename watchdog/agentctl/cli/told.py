"""The newest incident's story for an alert, as `agentctl why` tells it, with secrets masked: it leaves the machine.

A process of its own asks for it: what sends an alert must not depend on what makes it readable.
"""

from __future__ import annotations

import os
import time

from ..conversation import mask
from ..station import Station
from . import story_text


def main(name: str) -> int:
    """Print the story; 1 if there is none."""
    from .why import choose, gather

    station = Station.open(name, lenient=True)
    with station.ledger(read_only=True) as ledger:
        row = choose(ledger, "")
        if row is None:
            return 1
        known = gather(station, ledger, row)
    masker = mask.Masker(mask.of_agent(station.config.agent, dict(os.environ)))
    print(masker.all("\n".join(story_text.render(known, time.time()))))
    return 0
