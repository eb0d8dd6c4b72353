"""What is done, and when, to an agent that is busy and gets nowhere: one step after the other, mildest first. Pure.

The last two, killing it and going back, are not here: systemd's limit ends it, and the one-shot decides.
"""

from __future__ import annotations

EVIDENCE, INTERRUPT, TERMINATE = "evidence", "interrupt", "terminate"
STEPS = ((EVIDENCE, 0.5), (INTERRUPT, 0.6), (TERMINATE, 0.9))  # at these shares of heartbeat.timeout
MOST_INTERRUPTS = 3  # in one launch: an agent that is wedged again and again is not helped by a key


def next_step(taken: list[str], *, may_interrupt: bool) -> tuple[str, float]:
    """Return the next step of one silence and the share of the limit at which it is due; ('', 1.0) after the last."""
    for step, share in STEPS:
        if step not in taken and (step != INTERRUPT or may_interrupt):
            return step, share
    return "", 1.0
