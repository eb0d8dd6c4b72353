#!/usr/bin/env python3
"""Start the chat, after my habits. What I change about myself, I change in this folder."""

import os
import sys
from pathlib import Path

import habits
import setup

if __name__ == "__main__":
    state = Path(os.environ["AGENT_STATE_DIR"])
    setup.before_start(state)
    habits.before_start(state)
    command = [*setup.COMMAND, *sys.argv[1:], *setup.OPTIONS]
    os.execvp(command[0], command)
