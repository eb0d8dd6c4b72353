"""What the example agent can do. It edits this file when it improves itself; see edits.py."""

import os
import time


def wait(seconds):
    """Pause between two actions."""
    time.sleep(seconds)


def count_words(agent, name):
    """Count the words of a file of the agent's own."""
    with open(os.path.join(agent.code_dir, name), encoding="utf-8") as file:
        return f"{len(file.read().split())} words"


def write_note(agent, text):
    """Add a line to the notes in the state folder."""
    with open(os.path.join(agent.state_dir, "notes.txt"), "a", encoding="utf-8") as file:
        file.write(text + "\n")
    return "noted"


def rest(agent, seconds):
    """Do nothing for a while, and stay alive meanwhile."""
    agent.sleep(float(seconds), phase="waiting")
    return "rested"


SKILLS = {
    "count words in": count_words,
    "write note": write_note,
    "rest": rest,
}
