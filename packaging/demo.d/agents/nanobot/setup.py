"""How nanobot is set up: its configuration comes from here, its sessions lie in the state folder."""

import shutil

COMMAND, OPTIONS = ["nanobot"], []


def before_start(state):
    """Put the configuration where nanobot is told to read it."""
    (state / "nanobot/workspace").mkdir(parents=True, exist_ok=True)
    shutil.copyfile("config.json", state / "nanobot/config.json")
