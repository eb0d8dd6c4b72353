"""How llm is set up: its model and its one tool come from here, its conversations lie in the state folder."""

import shutil

COMMAND = ["llm"]
OPTIONS = ["-m", "stand-in", "--functions", "tools.py", "--chain-limit", "0"]


def before_start(state):
    """Put the model where llm looks for it; a chat that is not resumed is a new one."""
    (state / "llm").mkdir(exist_ok=True)
    shutil.copyfile("models.yaml", state / "llm/extra-openai-models.yaml")
